//! Tokenizers from GGUF metadata.

mod byte_level;
mod pre_tokenizer;
mod sentencepiece;

use std::collections::HashSet;

use tokenizers::AddedToken;
use tokenizers::models::bpe::Vocab;

use crate::TextError;

/// The `tokenizer.ggml.*` keys of a GGUF file, as plain data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufTokenizer {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE), `llama` (SentencePiece BPE), ...
    pub model: String,
    /// `tokenizer.ggml.pre`, empty if the file has none.
    pub pre: String,
    /// Token texts by id.
    pub tokens: Vec<String>,
    /// One score per token, or empty.
    pub scores: Vec<f32>,
    /// One type per token (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte), or empty.
    pub token_types: Vec<i32>,
    /// `left right` in order of rank, or empty.
    pub merges: Vec<String>,
    pub bos_id: Option<u32>,
    pub eos_id: Option<u32>,
    pub unk_id: Option<u32>,
    pub pad_id: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
}

/// What a token of a GGUF vocabulary is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Normal,
    /// The unknown token: special, as in transformers.
    Unknown,
    /// A special token.
    Control,
    /// Found in text as a whole, but not special.
    UserDefined,
    /// Padding of the vocabulary: never produced, decodes to nothing.
    Unused,
    /// `<0xNN>`.
    Byte,
}

impl TokenKind {
    pub(crate) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// A tokenizer built from metadata.
pub(crate) struct Built {
    pub(crate) inner: tokenizers::Tokenizer,
    pub(crate) kinds: Vec<TokenKind>,
    /// Put before / after the ids when special tokens are asked for.
    pub(crate) prefix: Option<u32>,
    pub(crate) suffix: Option<u32>,
    pub(crate) warnings: Vec<String>,
}

/// # Errors
/// Lists of unlike length, an unknown pre-tokenizer, a kind of tokenizer that is not supported.
pub(crate) fn build(gguf: &GgufTokenizer) -> Result<Built, TextError> {
    let mut warnings = Vec::new();
    let kinds = kinds(gguf, &mut warnings)?;
    let built = match gguf.model.as_str() {
        "gpt2" => byte_level::build(gguf, &kinds, &mut warnings)?,
        "llama" | "gemma4" => sentencepiece::build(gguf, &kinds, &mut warnings)?,
        other => {
            let name = match other {
                "t5" => "unigram (t5)",
                "bert" => "WordPiece (bert)",
                "" => "no tokenizer.ggml.model",
                other => other,
            };
            return Err(TextError::Unsupported(name.to_owned()));
        }
    };
    let (inner, add_bos_by_default) = built;
    let mut ask = |wanted: bool, id: Option<u32>, name: &str| match (wanted, id) {
        (true, Some(id)) => Some(id),
        (true, None) => {
            warnings.push(format!("the tokenizer asks for a {name} token but names none"));
            None
        }
        (false, _) => None,
    };
    let prefix = ask(gguf.add_bos.unwrap_or(add_bos_by_default), gguf.bos_id, "beginning-of-sequence");
    let suffix = ask(gguf.add_eos.unwrap_or(false), gguf.eos_id, "end-of-sequence");
    Ok(Built { inner, kinds, prefix, suffix, warnings })
}

fn kinds(gguf: &GgufTokenizer, warnings: &mut Vec<String>) -> Result<Vec<TokenKind>, TextError> {
    let count = gguf.tokens.len();
    if count == 0 {
        return Err(TextError::Invalid("the vocabulary (tokenizer.ggml.tokens) is missing or empty".to_owned()));
    }
    for (name, len) in [("token_type", gguf.token_types.len()), ("scores", gguf.scores.len())] {
        if len != 0 && len != count {
            return Err(TextError::Invalid(format!("tokenizer.ggml.{name} has {len} entries for {count} tokens")));
        }
    }
    for (name, id) in [("bos", gguf.bos_id), ("eos", gguf.eos_id), ("unknown", gguf.unk_id), ("padding", gguf.pad_id)] {
        if let Some(id) = id.filter(|&id| id as usize >= count) {
            return Err(TextError::Invalid(format!("the {name} token {id} is outside the vocabulary of {count}")));
        }
    }
    let mut kinds: Vec<TokenKind> = if gguf.token_types.is_empty() {
        warnings.push("the file does not say which tokens are special; only its bos, eos, pad are taken so".to_owned());
        vec![TokenKind::Normal; count]
    } else {
        let kind = |kind: &i32| match kind {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        };
        gguf.token_types.iter().map(kind).collect()
    };
    for id in [gguf.bos_id, gguf.eos_id, gguf.pad_id].into_iter().flatten() {
        let kind = &mut kinds[id as usize];
        if !kind.is_special() {
            let text = &gguf.tokens[id as usize];
            warnings.push(format!("token {id} `{text}` begins, ends or pads sequences but is not marked special"));
            *kind = TokenKind::Control;
        }
    }
    if let Some(id) = gguf.unk_id
        && kinds[id as usize] == TokenKind::Normal
    {
        kinds[id as usize] = TokenKind::Unknown;
    }
    Ok(kinds)
}

/// Text → id of all tokens that text can become. Of two equal texts the first counts.
fn vocabulary(gguf: &GgufTokenizer, kinds: &[TokenKind], warnings: &mut Vec<String>) -> Vocab {
    let mut vocab = Vocab::default();
    vocab.reserve(gguf.tokens.len());
    let mut duplicates = 0_usize;
    for ((id, text), kind) in (0_u32..).zip(&gguf.tokens).zip(kinds) {
        if *kind == TokenKind::Unused {
            continue;
        }
        if vocab.contains_key(text.as_str()) {
            duplicates += 1;
        } else {
            vocab.insert(text.clone(), id);
        }
    }
    if duplicates > 0 {
        warnings.push(format!("{duplicates} tokens repeat the text of another; text becomes the first of them"));
    }
    vocab
}

/// The tokens that are found in text as a whole, before anything else happens to it.
fn added_tokens(gguf: &GgufTokenizer, kinds: &[TokenKind], keep: impl Fn(usize) -> bool) -> Vec<AddedToken> {
    let mut seen = HashSet::new();
    let wanted = |kind: TokenKind| kind.is_special() || kind == TokenKind::UserDefined;
    gguf.tokens
        .iter()
        .zip(kinds)
        .enumerate()
        .filter(|(id, (text, kind))| wanted(**kind) && !text.is_empty() && keep(*id) && seen.insert(text.as_str()))
        .map(|(_, (text, kind))| AddedToken::from(text.clone(), kind.is_special()).normalized(false))
        .collect()
}

fn invalid(error: impl std::fmt::Display) -> TextError {
    TextError::Invalid(error.to_string())
}
