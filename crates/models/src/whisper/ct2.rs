//! Reader of CTranslate2's `model.bin` (version 6): a list of variables with their data, then a list of other names for
//! some of them. Everything a file says is checked before it is believed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::config::WhisperConfig;
use super::reader::{Reader, Refusal, broken};
use super::tensors::{Element, Stored, missing};
use crate::config::ConfigError;
use crate::error::ModelError;
use crate::weights::{WeightType, WeightsError, map};

const VERSION: u32 = 6;
/// The revision of the layout of Whisper models.
const REVISION: u32 = 3;
/// Fewest bytes of a variable: the length of its name, rank, type and size.
const MIN_VARIABLE_BYTES: usize = 8;
const MAX_RANK: usize = 8;
/// CTranslate2's number of the activation GELU.
const GELU: i64 = 3;

/// A CTranslate2 model, opened.
pub(super) struct Ct2 {
    path: PathBuf,
    map: Mmap,
    variables: BTreeMap<String, Variable>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    shape: Vec<usize>,
    kind: Kind,
    /// Where its data are in the file, in bytes.
    start: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    I8,
    I16,
    I32,
    F16,
    Bf16,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        [Self::F32, Self::I8, Self::I16, Self::I32, Self::F16, Self::Bf16].get(usize::from(number)).copied()
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
        }
    }
}

/// Does a file begin as CTranslate2's do?
pub(super) fn is_ct2(start: &[u8]) -> bool {
    let mut reader = Reader::new(start);
    reader.u32().is_ok_and(|version| (1..=64).contains(&version))
        && reader.name().is_ok_and(|name| name.ends_with("Spec"))
}

impl Ct2 {
    /// # Errors
    /// A file that is broken, of another version, or of another kind of model.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let map = map(path)?;
        let variables = parse(&map).map_err(|refusal| refusal.of(path))?;
        Ok(Self { path: path.to_owned(), map, variables })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The type of the largest matrix.
    pub(super) fn matrix_type(&self) -> &'static str {
        let matrices = self.variables.values().filter(|variable| variable.shape.len() >= 2);
        matrices.max_by_key(|variable| variable.len).map_or("?", |variable| variable.kind.name())
    }

    /// Number of values in all variables, each counted once whatever its names.
    pub(super) fn n_parameters(&self) -> u64 {
        let values = |variable: &Variable| variable.shape.iter().map(|&n| n as u64).product::<u64>();
        let by_place: BTreeMap<usize, u64> =
            self.variables.values().map(|variable| (variable.start, values(variable))).collect();
        by_place.values().sum()
    }

    /// The sizes that the variables' shapes tell.
    ///
    /// # Errors
    /// Variables are missing or have another rank, or are such as no Whisper model has.
    pub(super) fn config(&self) -> Result<WhisperConfig, ModelError> {
        let dims =
            |name: &str| self.variables.get(name).map(|variable| &variable.shape[..]).ok_or_else(|| missing(name));
        let matrix = |name: &str| match dims(name)? {
            &[rows, columns] => Ok((rows, columns)),
            shape => Err(ModelError::Shape { name: name.to_owned(), expected: vec![0; 2], found: shape.to_vec() }),
        };
        let (audio_context, width) = matrix("encoder/position_encodings/encodings")?;
        let n_mels = match dims("encoder/conv1/weight")? {
            &[_, n_mels, _] => n_mels,
            shape => {
                let name = "encoder/conv1/weight".to_owned();
                return Err(ModelError::Shape { name, expected: vec![width, 0, 3], found: shape.to_vec() });
            }
        };
        let layers =
            |part: &str| (0..).take_while(|n| self.has(&format!("{part}/layer_{n}/ffn/linear_0/weight"))).count();
        let config = WhisperConfig {
            n_mels,
            width,
            audio_context,
            encoder_layers: layers("encoder"),
            encoder_heads: self.count("encoder/num_heads")?,
            encoder_inner: matrix("encoder/layer_0/ffn/linear_0/weight")?.0,
            text_context: matrix("decoder/position_encodings/encodings")?.0,
            decoder_layers: layers("decoder"),
            decoder_heads: self.count("decoder/num_heads")?,
            decoder_inner: matrix("decoder/layer_0/ffn/linear_0/weight")?.0,
            vocab_size: matrix("decoder/embeddings/weight")?.0,
        };
        for (name, expected) in [
            ("decoder/activation", GELU),
            ("decoder/pre_norm", 1),
            ("decoder/alibi", 0),
            ("decoder/scale_embeddings", 0),
            ("decoder/start_from_zero_embedding", 0),
        ] {
            if self.variables.get(name).is_some_and(|variable| self.scalar(variable) != Some(expected)) {
                let what = format!("a Whisper model whose {name} is not {expected}");
                return Err(ConfigError::Unsupported { what }.into());
            }
        }
        Ok(config.check()?)
    }

    fn has(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    fn count(&self, name: &str) -> Result<usize, ModelError> {
        let variable = self.variables.get(name).ok_or_else(|| missing(name))?;
        self.scalar(variable).and_then(|n| usize::try_from(n).ok()).ok_or_else(|| missing(name))
    }

    fn scalar(&self, variable: &Variable) -> Option<i64> {
        let bytes = self.data(variable);
        match variable.kind {
            Kind::I8 => bytes.first_chunk().map(|&bytes| i8::from_le_bytes(bytes).into()),
            Kind::I16 => bytes.first_chunk().map(|&bytes| i16::from_le_bytes(bytes).into()),
            Kind::I32 => bytes.first_chunk().map(|&bytes| i32::from_le_bytes(bytes).into()),
            _ => None,
        }
    }

    fn data(&self, variable: &Variable) -> &[u8] {
        &self.map[variable.start..variable.start + variable.len]
    }

    /// The tensor that transformers calls `model.{name}`, if it is `shape`.
    ///
    /// # Errors
    /// It is missing or has another shape or type.
    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>, ModelError> {
        let Place { name: own, part, parts } = place(name).ok_or_else(|| missing(name))?;
        let variable = self.variables.get(&own).ok_or_else(|| missing(&own))?;
        let mut expected = shape.to_vec();
        if let Some(outer) = expected.first_mut() {
            *outer *= parts;
        }
        if variable.shape != expected {
            return Err(ModelError::Shape { name: own, expected, found: variable.shape.clone() });
        }
        let element = match variable.kind {
            Kind::F32 => Element::Type(WeightType::F32),
            Kind::F16 => Element::Type(WeightType::F16),
            Kind::Bf16 => Element::Type(WeightType::BF16),
            Kind::I8 | Kind::I16 => self.scaled(&own, variable, part, parts)?,
            Kind::I32 => return Err(WeightsError::UnsupportedType { name: own, kind: "I32".to_owned() }.into()),
        };
        let (n_cols, outer) = shape.split_last().unwrap_or((&1, &[]));
        let bytes = self.data(variable);
        let len = bytes.len() / parts;
        Ok(Stored {
            element,
            n_rows: outer.iter().product(),
            n_cols: *n_cols,
            bytes: &bytes[part * len..(part + 1) * len],
        })
    }

    /// Integers are weights times a scale: one for each row, or one for all.
    fn scaled(&self, name: &str, variable: &Variable, part: usize, parts: usize) -> Result<Element<'_>, ModelError> {
        let scales = format!("{name}_scale");
        let found = self.variables.get(&scales).ok_or_else(|| missing(&scales))?;
        let rows = variable.shape.first().copied().unwrap_or(1);
        let n: usize = found.shape.iter().product();
        if found.kind != Kind::F32 || n != rows && n != 1 {
            return Err(ModelError::Shape { name: scales, expected: vec![rows], found: found.shape.clone() });
        }
        let bytes = self.data(found);
        let per_part = if n == rows { bytes.len() / parts } else { 0 };
        let scales = if n == rows { &bytes[part * per_part..(part + 1) * per_part] } else { bytes };
        Ok(if variable.kind == Kind::I8 { Element::Int8 { scales } } else { Element::Int16 { scales } })
    }
}

/// A variable, and which of how many equal ranges of rows.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    name: String,
    part: usize,
    parts: usize,
}

/// Where CTranslate2 keeps what transformers calls `model.{name}`.
fn place(name: &str) -> Option<Place> {
    let (path, value) = name.rsplit_once('.')?;
    let (side, path) = path.split_once('.')?;
    let whole = |name: String| Some(Place { name, part: 0, parts: 1 });
    let norm = |path: &str| {
        let value = if value == "weight" { "gamma" } else { "beta" };
        whole(format!("{side}/{path}layer_norm/{value}"))
    };
    match path {
        "conv1" | "conv2" => return whole(format!("{side}/{path}/{value}")),
        "embed_positions" => return whole(format!("{side}/position_encodings/encodings")),
        "embed_tokens" => return whole(format!("{side}/embeddings/{value}")),
        "layer_norm" => return norm(""),
        _ => {}
    }
    let (index, inner) = path.strip_prefix("layers.")?.split_once('.')?;
    let (block, linear, part, parts) = match inner {
        "self_attn_layer_norm" => return norm(&format!("layer_{index}/self_attention/")),
        "encoder_attn_layer_norm" => return norm(&format!("layer_{index}/attention/")),
        "final_layer_norm" => return norm(&format!("layer_{index}/ffn/")),
        "self_attn.q_proj" => ("self_attention", 0, 0, 3),
        "self_attn.k_proj" => ("self_attention", 0, 1, 3),
        "self_attn.v_proj" => ("self_attention", 0, 2, 3),
        "self_attn.out_proj" => ("self_attention", 1, 0, 1),
        "encoder_attn.q_proj" => ("attention", 0, 0, 1),
        "encoder_attn.k_proj" => ("attention", 1, 0, 2),
        "encoder_attn.v_proj" => ("attention", 1, 1, 2),
        "encoder_attn.out_proj" => ("attention", 2, 0, 1),
        "fc1" => ("ffn", 0, 0, 1),
        "fc2" => ("ffn", 1, 0, 1),
        _ => return None,
    };
    Some(Place { name: format!("{side}/layer_{index}/{block}/linear_{linear}/{value}"), part, parts })
}

/// Reads everything but data.
fn parse(file: &[u8]) -> Result<BTreeMap<String, Variable>, Refusal> {
    let mut reader = Reader::new(file);
    let version = reader.u32()?;
    let spec = reader.name()?;
    if version != VERSION {
        let what = format!("it is CTranslate2's version {version}, and only version {VERSION} is supported");
        return Err(Refusal::Unsupported(what));
    }
    let revision = reader.u32()?;
    if spec != "WhisperSpec" || revision != REVISION {
        let what = format!("it is a {spec} of revision {revision}, expected a WhisperSpec of revision {REVISION}");
        return Err(Refusal::Unsupported(what));
    }
    let n = reader.size()?;
    if n > reader.left() / MIN_VARIABLE_BYTES {
        return broken(format!("it announces {n} variables, more than fit in it"));
    }
    let mut variables = BTreeMap::new();
    for _ in 0..n {
        let name = reader.name()?;
        let variable = reader.variable(&name)?;
        if variables.insert(name.clone(), variable).is_some() {
            return broken(format!("variable {name} occurs twice"));
        }
    }
    let n = reader.size()?;
    for _ in 0..n {
        let (alias, name) = (reader.name()?, reader.name()?);
        let Some(variable) = variables.get(&name).cloned() else {
            return broken(format!("{alias} is said to be {name}, which is not there"));
        };
        variables.entry(alias).or_insert(variable);
    }
    if reader.left() > 0 {
        return broken(format!("{} bytes follow its end", reader.left()));
    }
    Ok(variables)
}

impl Reader<'_> {
    /// A length that counts the zero at the end.
    fn name(&mut self) -> Result<String, Refusal> {
        let len = usize::from(self.bytes().map(u16::from_le_bytes)?);
        let position = self.position();
        match self.take(len)?.split_last() {
            Some((0, name)) if !name.is_empty() && !name.contains(&0) => match std::str::from_utf8(name) {
                Ok(name) => Ok(name.to_owned()),
                Err(_) => broken(format!("the name at {position} is not UTF-8")),
            },
            _ => broken(format!("there is no name at {position}")),
        }
    }

    fn variable(&mut self, name: &str) -> Result<Variable, Refusal> {
        let [rank] = self.bytes()?;
        if usize::from(rank) > MAX_RANK {
            return broken(format!("variable {name} has {rank} dimensions"));
        }
        let shape = (0..rank).map(|_| self.size()).collect::<Result<Vec<_>, _>>()?;
        let [kind] = self.bytes()?;
        let Some(kind) = Kind::of(kind) else { return broken(format!("variable {name} is of unknown type {kind}")) };
        let len = self.size()?;
        let expected = shape.iter().try_fold(kind.size(), |bytes, &dim| bytes.checked_mul(dim));
        if expected != Some(len) || len == 0 {
            return broken(format!("variable {name} has {len} bytes for dimensions {shape:?}"));
        }
        let start = self.position();
        self.take(len)?;
        Ok(Variable { shape, kind, start, len })
    }
}

#[cfg(test)]
mod tests;
