//! The tokenizer that a GGUF file carries, as plain data.

use crate::weights::{GgufMetadata, GgufValue};

/// The tokenizer that a GGUF file carries. Lists are by token id; `scores` and `token_types` are empty or as long as
/// `tokens`.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTokenizer {
    /// "gpt2" (byte-level BPE), "llama" (SentencePiece), ...
    pub model: String,
    /// Pre-tokenizer: "qwen2", "smollm", ...; "default" if the file names none.
    pub pre: String,
    pub tokens: Vec<String>,
    pub scores: Vec<f32>,
    /// 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// "left right", best first. Empty for SentencePiece, whose merges follow from the scores.
    pub merges: Vec<String>,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<u32>,
    pub unk_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
}

impl GgufTokenizer {
    /// `None` if the file carries no tokenizer, or one whose lists do not agree in length.
    pub(super) fn from_metadata(metadata: &GgufMetadata) -> Option<Self> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let id = |name: &str| metadata.u32(&key(name));
        let bool = |name: &str| metadata.bool(&key(name));
        let tokens = metadata.strings(&key("tokens"))?.to_vec();
        let scores = metadata.get(&key("scores")).and_then(GgufValue::as_f32s).unwrap_or_default().to_vec();
        let token_types = metadata.get(&key("token_type")).and_then(GgufValue::as_i32s).unwrap_or_default().to_vec();
        let agrees = |len: usize| len == 0 || len == tokens.len();
        if !agrees(scores.len()) || !agrees(token_types.len()) {
            return None;
        }
        Some(Self {
            model: metadata.str(&key("model"))?.to_owned(),
            pre: metadata.str(&key("pre")).unwrap_or("default").to_owned(),
            merges: metadata.strings(&key("merges")).unwrap_or_default().to_vec(),
            tokens,
            scores,
            token_types,
            bos_token_id: id("bos_token_id"),
            eos_token_id: id("eos_token_id"),
            unk_token_id: id("unknown_token_id"),
            pad_token_id: id("padding_token_id"),
            add_bos: bool("add_bos_token"),
            add_eos: bool("add_eos_token"),
            add_space_prefix: bool("add_space_prefix"),
        })
    }
}
