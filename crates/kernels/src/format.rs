//! How weights are stored, on disk and packed.

use std::fmt;

/// Output rows of one packed tile: the lanes of one 512-bit register of 32-bit sums.
pub const ROW_GROUP: usize = 16;

/// Inputs of one packed tile; the number of a matrix's inputs is a multiple of it.
pub const TILE: usize = 32;

/// The storage of a weight matrix. Block formats are GGUF's, with GGUF's block layout as the source of packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names by which these formats are known")]
pub enum Format {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
    MXFP4,
    IQ4_NL,
    BF16,
    F16,
    F32,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 13] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::MXFP4,
        Self::IQ4_NL,
        Self::BF16,
        Self::F16,
        Self::F32,
    ];

    /// Values of one block as stored in a file, and its bytes.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::Q4_0 | Self::IQ4_NL => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
            Self::MXFP4 => (32, 17),
            Self::BF16 | Self::F16 => (1, 2),
            Self::F32 => (1, 4),
        }
    }

    /// Are the weights integers with scales, multiplied with quantised activations? The others are multiplied in f32.
    pub fn is_quantized(self) -> bool {
        !matches!(self, Self::BF16 | Self::F16 | Self::F32)
    }

    /// Can its matrices be multiplied in tiles of bf16 ([`multiply_tiles`](crate::multiply_tiles))? F16 and F32 would
    /// lose digits of their weights.
    pub fn has_tiles(self) -> bool {
        !matches!(self, Self::F16 | Self::F32)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
