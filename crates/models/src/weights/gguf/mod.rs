//! GGUF reader (versions 2 and 3, little endian). Everything a file says is checked before it is believed: a broken
//! file is an error in words, never a panic or an allocation larger than the file justifies.

mod value;

use std::collections::{BTreeMap, btree_map::Entry};

pub use value::{GgufArray, GgufMetadata, GgufValue};

use super::types::WeightType;

/// Most dimensions a tensor can have (ggml's own limit).
const MAX_DIMS: u32 = 4;
/// Arrays of arrays deeper than this are refused.
const MAX_ARRAY_DEPTH: u32 = 4;
/// Longest tensor or metadata name, in bytes.
const MAX_NAME_BYTES: u64 = 65_535;
/// Largest alignment that a file may ask for, in bytes.
const MAX_ALIGNMENT: u64 = 1 << 20;
const DEFAULT_ALIGNMENT: u64 = 32;
/// Fewest bytes of a metadata entry (name length, type, one byte) and of a tensor entry (name length, number of
/// dimensions, type, offset): with these a count is checked against the bytes that are left.
const MIN_ENTRY_BYTES: u64 = 13;
const MIN_TENSOR_BYTES: u64 = 24;

/// What a GGUF file holds.
#[derive(Debug)]
pub(super) struct Gguf {
    pub metadata: GgufMetadata,
    pub tensors: BTreeMap<String, GgufTensor>,
}

/// Where a tensor lies.
#[derive(Debug)]
pub(super) struct GgufTensor {
    /// Row-major, outermost first (GGUF itself lists the innermost first).
    pub shape: Vec<usize>,
    pub dtype: WeightType,
    /// Offset from the start of the file, and length, in bytes; inside the file. Length 0 if the type is unknown.
    pub start: usize,
    pub len: usize,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq)]
pub(super) enum GgufError {
    Broken(String),
    Unsupported(String),
}

fn broken<T>(reason: impl Into<String>) -> Result<T, GgufError> {
    Err(GgufError::Broken(reason.into()))
}

/// Reads everything but tensor data.
pub(super) fn parse(file: &[u8]) -> Result<Gguf, GgufError> {
    let mut reader = Reader { file, position: 0 };
    if reader.take(4)? != b"GGUF" {
        return broken("it does not start as a GGUF file does");
    }
    match reader.u32()? {
        2 | 3 => {}
        1 => return Err(GgufError::Unsupported("GGUF version 1 is not supported, convert it to version 3".to_owned())),
        version if (1..=3).contains(&version.swap_bytes()) => {
            return Err(GgufError::Unsupported("big-endian GGUF files are not supported".to_owned()));
        }
        version => return Err(GgufError::Unsupported(format!("GGUF version {version} is not known"))),
    }
    let n_tensors = reader.u64()?;
    let n_entries = reader.u64()?;
    if n_entries > reader.left() / MIN_ENTRY_BYTES || n_tensors > reader.left() / MIN_TENSOR_BYTES {
        return broken(format!(
            "it announces {n_entries} metadata entries and {n_tensors} tensors, more than fit in it"
        ));
    }

    let mut values = BTreeMap::new();
    for _ in 0..n_entries {
        let key = reader.name()?;
        let kind = reader.u32()?;
        let value = reader.value(kind, &key)?;
        if values.insert(key.clone(), value).is_some() {
            return broken(format!("metadata key {key} occurs twice"));
        }
    }
    let metadata = GgufMetadata { values };
    if let Some(parts) = metadata.u64("split.count")
        && parts > 1
    {
        return Err(GgufError::Unsupported(format!(
            "it is one of {parts} parts of a split model, which must be merged into one file first"
        )));
    }
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(value) => match value.as_u64() {
            Some(bytes) if bytes.is_power_of_two() && bytes <= MAX_ALIGNMENT => bytes,
            _ => return broken(format!("general.alignment is {}, expected a power of two", value.describe())),
        },
    };

    let mut entries = Vec::new();
    for _ in 0..n_tensors {
        entries.push(reader.tensor_entry()?);
    }
    let data_start = (reader.position as u64).next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for entry in entries {
        let name = entry.name.clone();
        let tensor = entry.locate(data_start, alignment, file.len() as u64)?;
        match tensors.entry(name) {
            Entry::Vacant(slot) => _ = slot.insert(tensor),
            Entry::Occupied(slot) => return broken(format!("tensor {} occurs twice", slot.key())),
        }
    }
    Ok(Gguf { metadata, tensors })
}

struct TensorEntry {
    name: String,
    /// Innermost first.
    dims: Vec<u64>,
    kind: u32,
    /// From the start of the data section.
    offset: u64,
}

impl TensorEntry {
    fn locate(self, data_start: u64, alignment: u64, file_len: u64) -> Result<GgufTensor, GgufError> {
        let Self { name, dims, kind, offset } = self;
        let dtype = WeightType::from_ggml(kind);
        let elements = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        let Some(elements) = elements.filter(|&n| n > 0) else {
            return broken(format!("tensor {name} has impossible dimensions {dims:?}"));
        };
        let bytes = match dtype.block() {
            Some((block_len, block_bytes)) => {
                let inner = dims.first().copied().unwrap_or(1);
                if !inner.is_multiple_of(block_len as u64) {
                    return broken(format!("rows of tensor {name} ({inner} values) do not fill blocks of {dtype}"));
                }
                (elements / block_len as u64).checked_mul(block_bytes as u64)
            }
            None => Some(0),
        };
        if !offset.is_multiple_of(alignment) {
            return broken(format!("tensor {name} starts at {offset}, which is not a multiple of {alignment}"));
        }
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes?));
        let (Some(start), Some(bytes), Some(end)) = (start, bytes, end) else {
            return broken(format!("tensor {name} lies outside any file"));
        };
        if end > file_len {
            return broken(format!("it is truncated: tensor {name} ends at byte {end}, the file at byte {file_len}"));
        }
        // Both fit: they are within the file, which is mapped into memory.
        let shape = dims.iter().rev().map(|&dim| dim as usize).collect();
        Ok(GgufTensor { shape, dtype, start: start as usize, len: bytes as usize })
    }
}

struct Reader<'a> {
    file: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> u64 {
        (self.file.len() - self.position) as u64
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], GgufError> {
        if n > self.left() {
            return broken(format!("it is truncated: {n} bytes expected at {}, {} left", self.position, self.left()));
        }
        // `n` is at most the length of a slice.
        let bytes = &self.file[self.position..self.position + n as usize];
        self.position += n as usize;
        Ok(bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Result<String, GgufError> {
        let len = self.u64()?;
        // GGUF strings are UTF-8; a stray byte in some description should not make a model unusable.
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn name(&mut self) -> Result<String, GgufError> {
        let len = self.u64()?;
        if len == 0 || len > MAX_NAME_BYTES {
            return broken(format!("a name has {len} bytes"));
        }
        match std::str::from_utf8(self.take(len)?) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => broken("a name is not UTF-8"),
        }
    }

    fn bool(&mut self) -> Result<bool, GgufError> {
        match self.bytes::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => broken(format!("a boolean is {other}")),
        }
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<GgufValue, GgufError> {
        Ok(match kind {
            0 => GgufValue::U8(self.bytes().map(u8::from_le_bytes)?),
            1 => GgufValue::I8(self.bytes().map(i8::from_le_bytes)?),
            2 => GgufValue::U16(self.bytes().map(u16::from_le_bytes)?),
            3 => GgufValue::I16(self.bytes().map(i16::from_le_bytes)?),
            4 => GgufValue::U32(self.u32()?),
            5 => GgufValue::I32(self.bytes().map(i32::from_le_bytes)?),
            6 => GgufValue::F32(self.bytes().map(f32::from_le_bytes)?),
            7 => GgufValue::Bool(self.bool()?),
            8 => GgufValue::String(self.string()?),
            9 => GgufValue::Array(self.array(key, 1)?),
            10 => GgufValue::U64(self.u64()?),
            11 => GgufValue::I64(self.bytes().map(i64::from_le_bytes)?),
            12 => GgufValue::F64(self.bytes().map(f64::from_le_bytes)?),
            other => return broken(format!("metadata key {key} has a value of unknown type {other}")),
        })
    }

    fn array(&mut self, key: &str, depth: u32) -> Result<GgufArray, GgufError> {
        let kind = self.u32()?;
        let n = self.u64()?;
        if depth > MAX_ARRAY_DEPTH {
            return broken(format!("metadata key {key} nests arrays too deeply"));
        }
        Ok(match kind {
            0 => GgufArray::U8(self.numbers(n, u8::from_le_bytes)?),
            1 => GgufArray::I8(self.numbers(n, i8::from_le_bytes)?),
            2 => GgufArray::U16(self.numbers(n, u16::from_le_bytes)?),
            3 => GgufArray::I16(self.numbers(n, i16::from_le_bytes)?),
            4 => GgufArray::U32(self.numbers(n, u32::from_le_bytes)?),
            5 => GgufArray::I32(self.numbers(n, i32::from_le_bytes)?),
            6 => GgufArray::F32(self.numbers(n, f32::from_le_bytes)?),
            7 => GgufArray::Bool(self.list(n, 1, Self::bool)?),
            8 => GgufArray::String(self.list(n, 8, Self::string)?),
            9 => GgufArray::Array(self.list(n, 12, |reader| reader.array(key, depth + 1))?),
            10 => GgufArray::U64(self.numbers(n, u64::from_le_bytes)?),
            11 => GgufArray::I64(self.numbers(n, i64::from_le_bytes)?),
            12 => GgufArray::F64(self.numbers(n, f64::from_le_bytes)?),
            other => return broken(format!("metadata key {key} has an array of unknown type {other}")),
        })
    }

    fn numbers<T, const N: usize>(&mut self, n: u64, read: fn([u8; N]) -> T) -> Result<Vec<T>, GgufError> {
        let Some(len) = n.checked_mul(N as u64) else {
            return broken(format!("an array announces {n} elements"));
        };
        let (elements, _) = self.take(len)?.as_chunks::<N>();
        Ok(elements.iter().map(|&bytes| read(bytes)).collect())
    }

    /// `min_bytes`: fewest bytes an element takes.
    fn list<T>(
        &mut self,
        n: u64,
        min_bytes: u64,
        mut read: impl FnMut(&mut Self) -> Result<T, GgufError>,
    ) -> Result<Vec<T>, GgufError> {
        if n > self.left() / min_bytes {
            return broken(format!("it is truncated: an array announces {n} elements, {} bytes are left", self.left()));
        }
        let mut elements = Vec::new();
        for _ in 0..n {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    fn tensor_entry(&mut self) -> Result<TensorEntry, GgufError> {
        let name = self.name()?;
        let n_dims = self.u32()?;
        if n_dims > MAX_DIMS {
            return broken(format!("tensor {name} has {n_dims} dimensions, at most {MAX_DIMS} are possible"));
        }
        let mut dims = Vec::new();
        for _ in 0..n_dims {
            dims.push(self.u64()?);
        }
        Ok(TensorEntry { name, dims, kind: self.u32()?, offset: self.u64()? })
    }
}
