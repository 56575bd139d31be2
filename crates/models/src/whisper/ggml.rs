//! Reader of whisper.cpp's `ggml-*.bin`: sizes, mel filters and words of the vocabulary, then tensors until the file
//! ends. Everything a file says is checked before it is believed.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::config::WhisperConfig;
use super::published::WORDS;
use super::reader::{Reader, Refusal, broken};
use super::tensors::{Element, Stored, missing};
use crate::error::ModelError;
use crate::weights::{WeightType, WeightsError, map};

/// "ggml" in little endian. Text models have had it too, before GGUF.
const MAGIC: u32 = 0x6767_6d6c;
/// The type of a file is the kind of its matrices and a thousand times the version of quantisation.
const VERSIONS: u32 = 1000;
const QUANTIZATION: u32 = 2;
/// Kinds of matrices up to this one are floats.
const F16: u32 = 1;
/// Whisper's vocabularies: English only, with 99 languages, with 100.
const VOCABULARIES: RangeInclusive<usize> = 51_864..=51_866;
const MAX_DIMS: usize = 4;
const MAX_NAME_BYTES: usize = 256;
/// Many times those of the largest model that can be.
const MAX_TENSORS: usize = 1 << 16;
/// Width of the MLPs, as a multiple of the streams'.
const INNER: usize = 4;
/// Frequencies of the mel filters.
const BINS: usize = 201;

/// A ggml file, opened.
pub(super) struct Ggml {
    path: PathBuf,
    map: Mmap,
    content: Content,
}

/// What is where in a file.
#[derive(Debug, PartialEq)]
struct Content {
    config: WhisperConfig,
    filters: Range<usize>,
    words: Vec<Range<usize>>,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Debug, PartialEq)]
struct Tensor {
    /// Outermost first.
    shape: Vec<usize>,
    kind: WeightType,
    data: Range<usize>,
}

/// A file whose words are those of Whisper, of which there are so many in each.
fn whole(content: Content) -> Result<Content, Refusal> {
    match content.words.len() {
        n if n < WORDS => broken(format!("its vocabulary has {n} words, expected at least {WORDS}")),
        _ => Ok(content),
    }
}

/// Does a file begin as ggml's do?
pub(super) fn is_ggml(start: &[u8]) -> bool {
    start.starts_with(&MAGIC.to_le_bytes())
}

impl Ggml {
    /// # Errors
    /// A file that is broken, or not Whisper's.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let map = map(path)?;
        let content = parse(&map).and_then(whole).map_err(|refusal| refusal.of(path))?;
        Ok(Self { path: path.to_owned(), map, content })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn config(&self) -> &WhisperConfig {
        &self.content.config
    }

    /// The mel filters, `[n_mels][201]`.
    pub(super) fn filters(&self) -> Vec<f32> {
        let (values, _) = self.map[self.content.filters.clone()].as_chunks::<4>();
        values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    /// Bytes of each word, in order of id.
    pub(super) fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.content.words.iter().map(|word| &self.map[word.clone()])
    }

    /// The type of the largest matrix.
    pub(super) fn matrix_type(&self) -> String {
        let largest = self.content.tensors.values().max_by_key(|tensor| tensor.data.len());
        largest.map_or_else(|| "?".to_owned(), |tensor| tensor.kind.to_string())
    }

    pub(super) fn n_parameters(&self) -> u64 {
        self.content.tensors.values().map(|tensor| tensor.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }

    /// The tensor that transformers calls `model.{name}`, if it is `shape`.
    ///
    /// # Errors
    /// It is missing or has another shape.
    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>, ModelError> {
        let own = own_name(name).ok_or_else(|| missing(name))?;
        let tensor = self.content.tensors.get(&own).ok_or_else(|| missing(&own))?;
        // The biases of convolutions are columns.
        let found = tensor.shape.strip_suffix(&[1]).filter(|found| found.len() == shape.len()).unwrap_or(&tensor.shape);
        if found != shape {
            return Err(ModelError::Shape { name: own, expected: shape.to_vec(), found: tensor.shape.clone() });
        }
        let (n_cols, outer) = shape.split_last().unwrap_or((&1, &[]));
        Ok(Stored {
            element: Element::Type(tensor.kind),
            n_rows: outer.iter().product(),
            n_cols: *n_cols,
            bytes: &self.map[tensor.data.clone()],
        })
    }
}

/// What whisper.cpp calls transformers' `model.{name}`.
fn own_name(name: &str) -> Option<String> {
    let (path, value) = name.rsplit_once('.')?;
    let (side, path) = path.split_once('.')?;
    let own = match path {
        "conv1" | "conv2" => path,
        "embed_positions" => return Some(format!("{side}.positional_embedding")),
        "embed_tokens" => "token_embedding",
        "layer_norm" if side == "encoder" => "ln_post",
        "layer_norm" => "ln",
        _ => {
            let (index, part) = path.strip_prefix("layers.")?.split_once('.')?;
            let part = match part {
                "self_attn_layer_norm" => "attn_ln",
                "encoder_attn_layer_norm" => "cross_attn_ln",
                "final_layer_norm" => "mlp_ln",
                "fc1" => "mlp.0",
                "fc2" => "mlp.2",
                _ => {
                    let (attention, part) = part.split_once('.')?;
                    let attention = if attention == "self_attn" { "attn" } else { "cross_attn" };
                    let part = match part {
                        "q_proj" => "query",
                        "k_proj" => "key",
                        "v_proj" => "value",
                        "out_proj" => "out",
                        _ => return None,
                    };
                    return Some(format!("{side}.blocks.{index}.{attention}.{part}.{value}"));
                }
            };
            return Some(format!("{side}.blocks.{index}.{part}.{value}"));
        }
    };
    Some(format!("{side}.{own}.{value}"))
}

/// Reads everything but data.
fn parse(file: &[u8]) -> Result<Content, Refusal> {
    let mut reader = Reader::new(file);
    if reader.u32()? != MAGIC {
        return broken("it does not start as whisper.cpp's files do");
    }
    let config = config(&mut reader)?;
    let (n_mels, n_bins) = (reader.size()?, reader.size()?);
    if (n_mels, n_bins) != (config.n_mels, BINS) {
        return broken(format!("it has {n_mels} mel filters of {n_bins} bins, expected {} of {BINS}", config.n_mels));
    }
    let filters = reader.range(4 * n_mels * n_bins)?;
    let n_words = reader.size()?;
    if n_words > config.vocab_size {
        return broken(format!("it has {n_words} words in a vocabulary of {}", config.vocab_size));
    }
    let words = (0..n_words).map(|_| {
        let len = reader.size()?;
        reader.range(len)
    });
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let mut tensors = BTreeMap::new();
    while reader.left() > 0 {
        let (name, tensor) = tensor(&mut reader)?;
        if tensors.len() == MAX_TENSORS {
            return broken(format!("it has more than {MAX_TENSORS} tensors"));
        }
        if tensors.insert(name.clone(), tensor).is_some() {
            return broken(format!("tensor {name} occurs twice"));
        }
    }
    Ok(Content { config, filters, words, tensors })
}

fn config(reader: &mut Reader<'_>) -> Result<WhisperConfig, Refusal> {
    let mut next = || reader.size();
    let vocab_size = next()?;
    let (audio_context, width, encoder_heads, encoder_layers) = (next()?, next()?, next()?, next()?);
    let (text_context, text_width, decoder_heads, decoder_layers) = (next()?, next()?, next()?, next()?);
    let n_mels = next()?;
    let kind = reader.u32()?;
    if !VOCABULARIES.contains(&vocab_size) {
        let (least, most) = VOCABULARIES.into_inner();
        let what = format!("it has a vocabulary of {vocab_size} tokens, and Whisper's have {least} to {most}");
        return Err(Refusal::Unsupported(what));
    }
    if text_width != width {
        let what = format!("its encoder is {width} wide and its decoder {text_width}");
        return Err(Refusal::Unsupported(what));
    }
    let (version, matrices) = (kind / VERSIONS, kind % VERSIONS);
    if matrices > F16 && version != QUANTIZATION {
        let what =
            format!("its weights are quantised by version {version}, and only version {QUANTIZATION} is supported");
        return Err(Refusal::Unsupported(what));
    }
    let config = WhisperConfig {
        n_mels,
        width,
        audio_context,
        encoder_layers,
        encoder_heads,
        encoder_inner: width.saturating_mul(INNER),
        text_context,
        decoder_layers,
        decoder_heads,
        decoder_inner: width.saturating_mul(INNER),
        vocab_size,
    };
    config.check().map_err(|error| Refusal::Broken(error.to_string()))
}

fn tensor(reader: &mut Reader<'_>) -> Result<(String, Tensor), Refusal> {
    let start = reader.position();
    let (n_dims, name_len, kind) = (reader.size()?, reader.size()?, reader.u32()?);
    if !(1..=MAX_DIMS).contains(&n_dims) || name_len > MAX_NAME_BYTES {
        return broken(format!("there is no tensor at {start}"));
    }
    // Innermost first.
    let mut shape = (0..n_dims).map(|_| reader.size()).collect::<Result<Vec<_>, _>>()?;
    let name = match std::str::from_utf8(reader.take(name_len)?) {
        Ok(name) => name.to_owned(),
        Err(_) => return broken(format!("the name of the tensor at {start} is not UTF-8")),
    };
    let kind = WeightType::from_ggml(kind);
    let Some((values, bytes)) = kind.block().filter(|_| kind.is_readable()) else {
        return Err(Refusal::Unsupported(format!("tensor {name} has type {kind}, which is not supported")));
    };
    let len = shape.iter().try_fold(bytes, |len, &dim| len.checked_mul(dim)).filter(|&len| len > 0);
    let Some(len) = len.filter(|_| shape[0].is_multiple_of(values)) else {
        return broken(format!("tensor {name} of type {kind} has dimensions {shape:?}"));
    };
    let data = reader.range(len / values)?;
    shape.reverse();
    Ok((name, Tensor { shape, kind, data }))
}

#[cfg(test)]
mod tests;
