//! How tensors are stored: element and block types, with their ids in GGUF.

use std::fmt;

/// How a tensor is stored. GGUF's block types hold `block_len` values in `block_bytes` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(non_camel_case_types, reason = "the names by which these types are known")]
pub enum WeightType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    /// A type that can be named but not read. The name is GGUF's or safetensors'.
    Unreadable(&'static str),
    /// A GGUF type number that is not known here.
    Unknown(u32),
}

/// GGUF type number, type, values per block, bytes per block. Sizes of unreadable types are here so that the extent of
/// a file can be checked and summed.
const GGML_TYPES: &[(u32, WeightType, usize, usize)] = &[
    (0, WeightType::F32, 1, 4),
    (1, WeightType::F16, 1, 2),
    (2, WeightType::Q4_0, 32, 18),
    (3, WeightType::Q4_1, 32, 20),
    (6, WeightType::Q5_0, 32, 22),
    (7, WeightType::Q5_1, 32, 24),
    (8, WeightType::Q8_0, 32, 34),
    (9, WeightType::Q8_1, 32, 36),
    (10, WeightType::Q2_K, 256, 84),
    (11, WeightType::Q3_K, 256, 110),
    (12, WeightType::Q4_K, 256, 144),
    (13, WeightType::Q5_K, 256, 176),
    (14, WeightType::Q6_K, 256, 210),
    (15, WeightType::Q8_K, 256, 292),
    (16, WeightType::Unreadable("IQ2_XXS"), 256, 66),
    (17, WeightType::Unreadable("IQ2_XS"), 256, 74),
    (18, WeightType::Unreadable("IQ3_XXS"), 256, 98),
    (19, WeightType::Unreadable("IQ1_S"), 256, 50),
    (20, WeightType::IQ4_NL, 32, 18),
    (21, WeightType::Unreadable("IQ3_S"), 256, 110),
    (22, WeightType::Unreadable("IQ2_S"), 256, 82),
    (23, WeightType::IQ4_XS, 256, 136),
    (24, WeightType::Unreadable("I8"), 1, 1),
    (25, WeightType::Unreadable("I16"), 1, 2),
    (26, WeightType::Unreadable("I32"), 1, 4),
    (27, WeightType::Unreadable("I64"), 1, 8),
    (28, WeightType::Unreadable("F64"), 1, 8),
    (29, WeightType::Unreadable("IQ1_M"), 256, 56),
    (30, WeightType::BF16, 1, 2),
    (34, WeightType::Unreadable("TQ1_0"), 256, 54),
    (35, WeightType::Unreadable("TQ2_0"), 256, 66),
    (39, WeightType::MXFP4, 32, 17),
    (40, WeightType::Unreadable("NVFP4"), 64, 36),
];

impl WeightType {
    /// The type with this number in GGUF.
    pub(crate) fn from_ggml(id: u32) -> Self {
        GGML_TYPES.iter().find(|row| row.0 == id).map_or(Self::Unknown(id), |row| row.1)
    }

    /// The type of a safetensors tensor.
    pub(crate) fn from_safetensors(dtype: safetensors::Dtype) -> Self {
        use safetensors::Dtype;
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::F64 => Self::Unreadable("F64"),
            Dtype::F8_E4M3 => Self::Unreadable("F8_E4M3"),
            Dtype::F8_E5M2 => Self::Unreadable("F8_E5M2"),
            Dtype::U8 => Self::Unreadable("U8"),
            Dtype::I8 => Self::Unreadable("I8"),
            Dtype::I32 => Self::Unreadable("I32"),
            Dtype::I64 => Self::Unreadable("I64"),
            Dtype::BOOL => Self::Unreadable("BOOL"),
            _ => Self::Unreadable("an unusual safetensors type"),
        }
    }

    /// Values and bytes per block; `None` if the type is not known.
    pub fn block(self) -> Option<(usize, usize)> {
        GGML_TYPES.iter().find(|row| row.1 == self).map(|row| (row.2, row.3))
    }

    /// Can tensors of this type be loaded?
    pub fn is_readable(self) -> bool {
        !matches!(self, Self::Unreadable(_) | Self::Unknown(_))
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(name) => f.write_str(name),
            Self::Unknown(id) => write!(f, "number {id}"),
            known => write!(f, "{known:?}"),
        }
    }
}
