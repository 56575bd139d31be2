//! Weights on disk: which files a model is made of, what tensors they hold, and the tensors as candle tensors.

mod dequant;
mod error;
mod files;
mod gguf;
mod load;
mod types;

use std::collections::{BTreeMap, btree_map::Entry as MapEntry};
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use safetensors::{SafeTensorError, SafeTensors};

pub(crate) use dequant::dequantize;
pub use error::WeightsError;
pub use files::ModelFiles;
pub use gguf::{GgufArray, GgufMetadata, GgufValue};
pub use types::WeightType;

use gguf::GgufError;

/// What a tensor is like on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Row-major, outermost first. No dimension is 0.
    pub shape: Vec<usize>,
    pub dtype: WeightType,
    /// Size on disk; 0 if the type is unknown.
    pub bytes: u64,
}

/// Weights opened for reading: headers are read, tensor data is not. The files stay mapped into memory as long as this
/// lives; they must not be changed meanwhile (a file that shrinks under a mapping ends the process).
pub struct Weights {
    sources: Vec<Source>,
    tensors: BTreeMap<String, Stored>,
    metadata: Option<GgufMetadata>,
}

struct Source {
    path: PathBuf,
    map: Mmap,
}

struct Stored {
    info: TensorInfo,
    /// Index into `sources`, and the offset in that file.
    source: usize,
    start: usize,
}

impl Weights {
    /// Maps the files and reads their headers.
    ///
    /// # Errors
    /// A file that is missing, truncated or otherwise broken, or of a kind that is not supported.
    pub fn open(files: &ModelFiles) -> Result<Self, WeightsError> {
        let mut weights = Self { sources: Vec::new(), tensors: BTreeMap::new(), metadata: None };
        match files {
            ModelFiles::Gguf { file } => weights.add_gguf(file)?,
            ModelFiles::Safetensors { files, .. } => {
                for file in files {
                    weights.add_safetensors(file)?;
                }
            }
        }
        Ok(weights)
    }

    /// All tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|stored| &stored.info)
    }

    /// Metadata of a GGUF file; `None` for safetensors.
    pub fn gguf_metadata(&self) -> Option<&GgufMetadata> {
        self.metadata.as_ref()
    }

    /// The stored bytes of a tensor, little endian, not aligned: for runners that keep weights packed.
    ///
    /// # Errors
    /// No such tensor.
    pub fn raw(&self, name: &str) -> Result<&[u8], WeightsError> {
        let stored = self.stored(name)?;
        let unknown = || WeightsError::UnknownTensor { name: name.to_owned() };
        let len = usize::try_from(stored.info.bytes).map_err(|_| unknown())?;
        self.sources[stored.source].map.get(stored.start..stored.start + len).ok_or_else(unknown)
    }

    /// All values of a tensor, dequantised, row-major.
    ///
    /// # Errors
    /// No such tensor, or its type is not supported.
    pub fn tensor_f32(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let info = &self.readable(name)?.info;
        Ok(load::values::<f32>(info.dtype, self.raw(name)?, info.shape.iter().product(), 1, None))
    }

    /// The tensor on `device`, dequantised, as `dtype` (F32, F16 or BF16).
    ///
    /// # Errors
    /// No such tensor, its type is not supported, or the device refuses it.
    pub fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor, WeightsError> {
        self.load_rows(name, None, dtype, device)
    }

    /// As `load`; row `i` of the result is row `row_of(i)` of the file.
    pub(crate) fn load_rows(
        &self,
        name: &str,
        row_of: Option<&(dyn Fn(usize) -> usize + Sync)>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, WeightsError> {
        let info = &self.readable(name)?.info;
        load::tensor(info.dtype, self.raw(name)?, &info.shape, row_of, dtype, device)
            .map_err(|source| WeightsError::Device { name: name.to_owned(), source: Box::new(source) })
    }

    /// How matrices are stored, most frequent type first: "Q4_1 x210 + Q8_0 (GGUF)", "BF16 (safetensors)".
    pub fn format_summary(&self) -> String {
        let mut counts = BTreeMap::<WeightType, usize>::new();
        for stored in self.tensors.values().filter(|stored| stored.info.shape.len() >= 2) {
            *counts.entry(stored.info.dtype).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let with_counts = counts.len() > 1;
        let types: Vec<_> = counts
            .iter()
            .map(
                |(dtype, count)| {
                    if with_counts && *count > 1 { format!("{dtype} x{count}") } else { dtype.to_string() }
                },
            )
            .collect();
        let container = if self.metadata.is_some() { "GGUF" } else { "safetensors" };
        format!("{} ({container})", types.join(" + "))
    }

    /// Number of values in all tensors.
    pub fn n_parameters(&self) -> u64 {
        self.tensors.values().fold(0, |sum, stored| elements(&stored.info).saturating_add(sum))
    }

    /// Size of the files together.
    pub fn file_bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.map.len() as u64).sum()
    }

    /// Memory that all tensors take as f32.
    pub fn f32_bytes(&self) -> u64 {
        self.n_parameters().saturating_mul(4)
    }

    /// The files that are open.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(|source| source.path.as_path())
    }

    fn stored(&self, name: &str) -> Result<&Stored, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::UnknownTensor { name: name.to_owned() })
    }

    fn readable(&self, name: &str) -> Result<&Stored, WeightsError> {
        let stored = self.stored(name)?;
        if stored.info.dtype.is_readable() {
            return Ok(stored);
        }
        Err(WeightsError::UnsupportedType { name: name.to_owned(), kind: stored.info.dtype.to_string() })
    }

    fn add_gguf(&mut self, path: &Path) -> Result<(), WeightsError> {
        let map = map(path)?;
        let parsed = gguf::parse(&map).map_err(|error| match error {
            GgufError::Broken(reason) => WeightsError::Broken { file: path.to_owned(), reason },
            GgufError::Unsupported(reason) => WeightsError::Unsupported { file: path.to_owned(), reason },
        })?;
        let source = self.sources.len();
        self.tensors.extend(parsed.tensors.into_iter().map(|(name, tensor)| {
            let info = TensorInfo { shape: tensor.shape, dtype: tensor.dtype, bytes: tensor.len as u64 };
            (name, Stored { info, source, start: tensor.start })
        }));
        self.metadata = Some(parsed.metadata);
        self.sources.push(Source { path: path.to_owned(), map });
        Ok(())
    }

    fn add_safetensors(&mut self, path: &Path) -> Result<(), WeightsError> {
        let map = map(path)?;
        let broken = |reason: String| WeightsError::Broken { file: path.to_owned(), reason };
        let (header_len, metadata) = SafeTensors::read_metadata(&map).map_err(|error| match error {
            SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength => {
                broken("its size is not what its header says, it is probably truncated".to_owned())
            }
            error => broken(error.to_string()),
        })?;
        let source = self.sources.len();
        for (name, tensor) in metadata.tensors() {
            // The crate has checked that offsets lie within the file and agree with shape and type.
            let (from, to) = tensor.data_offsets;
            let info = TensorInfo {
                shape: tensor.shape.clone(),
                dtype: WeightType::from_safetensors(tensor.dtype),
                bytes: (to - from) as u64,
            };
            if info.shape.contains(&0) {
                return Err(broken(format!("tensor {name} has no values")));
            }
            let stored = Stored { info, source, start: size_of::<u64>() + header_len + from };
            match self.tensors.entry(name) {
                MapEntry::Vacant(slot) => _ = slot.insert(stored),
                MapEntry::Occupied(slot) => {
                    return Err(broken(format!("tensor {} is also in another file", slot.key())));
                }
            }
        }
        self.sources.push(Source { path: path.to_owned(), map });
        Ok(())
    }
}

/// Saturating: dimensions of a type whose size is not known are not bounded by the file.
fn elements(info: &TensorInfo) -> u64 {
    info.shape.iter().fold(1, |product, &dim| (dim as u64).saturating_mul(product))
}

pub(crate) fn map(path: &Path) -> Result<Mmap, WeightsError> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => WeightsError::NotFound { path: path.to_owned() },
        _ => WeightsError::Io { path: path.to_owned(), source },
    };
    let broken = |reason: &str| WeightsError::Broken { file: path.to_owned(), reason: reason.to_owned() };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() == 0 {
        return Err(broken("it is empty"));
    }
    // SAFETY: a mapping is sound as long as nobody truncates or writes the file while it is mapped. Model files are
    // written once, and moved into place when complete; the type's documentation says what happens otherwise.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    if map.starts_with(b"version https://git-lfs") {
        return Err(broken("it is a Git LFS pointer, the file itself has not been fetched"));
    }
    Ok(map)
}
