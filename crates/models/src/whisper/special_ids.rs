//! Tokens of a Whisper checkpoint that have a meaning of their own, as its files give them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::config::{WhisperConfig, invalid};
use super::published::{self, MULTILINGUAL};
use crate::checkpoint::texts;
use crate::config::ConfigError;

/// Tokens with a meaning, and what else generation needs to know. All ids are below the vocabulary's size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhisperSpecialIds {
    pub end_of_text: u32,
    pub start_of_transcript: u32,
    pub start_of_previous: u32,
    pub start_of_lm: Option<u32>,
    pub no_speech: u32,
    pub no_timestamps: u32,
    /// `<|0.00|>`; those that follow are 0.02 s later each.
    pub first_timestamp: u32,
    /// `None` for English-only models.
    pub transcribe: Option<u32>,
    pub translate: Option<u32>,
    /// ISO code ("en") and token, in the order of tokens; empty for English-only models.
    pub languages: Vec<(String, u32)>,
    /// Never chosen by default.
    pub suppressed: Vec<u32>,
    /// Not chosen as the first token of a window, by default.
    pub begin_suppressed: Vec<u32>,
    /// (layer, head) whose cross-attention follows the words; empty where the files do not say.
    pub alignment_heads: Vec<(usize, usize)>,
}

/// Names of special tokens and their ids.
pub(super) type Names = BTreeMap<String, u32>;

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// The special tokens of a folder's tokenizer.json, or of the vocabulary that CTranslate2 keeps. Empty if there is
/// none.
///
/// # Errors
/// A file that cannot be read or understood.
pub(super) fn names_of(folder: &Path) -> Result<Names, ConfigError> {
    let json = |file: &str, source| ConfigError::Json { file: file.to_owned(), source };
    if let Some(text) = texts::read_text(&folder.join("tokenizer.json"))? {
        let tokenizer: TokenizerJson = serde_json::from_str(&text).map_err(|error| json("tokenizer.json", error))?;
        return Ok(tokenizer.added_tokens.into_iter().map(|token| (token.content, token.id)).collect());
    }
    let tokens: Vec<String> = if let Some(text) = texts::read_text(&folder.join("vocabulary.json"))? {
        serde_json::from_str(&text).map_err(|error| json("vocabulary.json", error))?
    } else if let Some(text) = texts::read_text(&folder.join("vocabulary.txt"))? {
        text.lines().map(str::to_owned).collect()
    } else {
        return Ok(Names::new());
    };
    let special = |name: &str| name.starts_with("<|") && name.ends_with("|>");
    Ok(tokens.into_iter().zip(0..).filter(|(name, _)| special(name)).collect())
}

/// What the files of one kind say, before gaps are filled with names.
#[derive(Debug, Default)]
struct Said {
    end_of_text: Option<u32>,
    start_of_transcript: Option<u32>,
    start_of_previous: Option<u32>,
    no_timestamps: Option<u32>,
    transcribe: Option<u32>,
    translate: Option<u32>,
    /// `None`: nothing is said of languages.
    languages: Option<Vec<(String, u32)>>,
    suppressed: Vec<u32>,
    begin_suppressed: Vec<u32>,
    alignment_heads: Vec<(usize, usize)>,
}

impl WhisperSpecialIds {
    /// From generation_config.json, and where that is silent config.json, and the names in the tokenizer.
    ///
    /// # Errors
    /// Values of another type, heads that the decoder has not, or tokens that nothing names.
    pub(super) fn from_transformers(
        generation: Option<&Value>,
        config: &Value,
        names: &Names,
        sizes: &WhisperConfig,
    ) -> Result<Self, ConfigError> {
        let find = |key: &str| {
            let sources = [generation, Some(config)].into_iter().flatten();
            sources.filter_map(|source| source.get(key)).find(|value| !value.is_null())
        };
        let id = |key: &str| find(key).map_or(Ok(None), |value| ids(key, value).map(|ids| ids.first().copied()));
        let list = |key: &str| find(key).map_or(Ok(Vec::new()), |value| ids(key, value));
        let map = |key: &str| find(key).map_or(Ok(None), |value| id_map(key, value).map(Some));
        let tasks = map("task_to_id")?.unwrap_or_default();
        let language = |(name, id): (String, u32)| {
            let code = name.strip_prefix("<|").and_then(|name| name.strip_suffix("|>")).unwrap_or(&name);
            (code.to_owned(), id)
        };
        let mut languages = map("lang_to_id")?.map(|map| map.into_iter().map(language).collect::<Vec<_>>());
        if find("is_multilingual").and_then(Value::as_bool) == Some(false) {
            languages = Some(Vec::new());
        }
        Said {
            end_of_text: id("eos_token_id")?,
            start_of_transcript: id("decoder_start_token_id")?,
            start_of_previous: id("prev_sot_token_id")?,
            no_timestamps: id("no_timestamps_token_id")?,
            transcribe: tasks.get("transcribe").copied(),
            translate: tasks.get("translate").copied(),
            languages,
            suppressed: list("suppress_tokens")?,
            begin_suppressed: list("begin_suppress_tokens")?,
            alignment_heads: find("alignment_heads").map_or(Ok(Vec::new()), heads)?,
        }
        .complete(names, sizes)
    }

    /// By the size of the vocabulary: whisper.cpp's files say nothing of them. Which tokens are suppressed is left
    /// open.
    ///
    /// # Errors
    /// Heads that the decoder has not.
    pub(super) fn from_ggml(sizes: &WhisperConfig) -> Result<Self, ConfigError> {
        let names = published::special_tokens(sizes.vocab_size).into_iter().map(|(id, name)| (name, id)).collect();
        Said { alignment_heads: published::alignment_heads(sizes), ..Said::default() }.complete(&names, sizes)
    }

    /// From CTranslate2's config.json and the names in the tokenizer.
    ///
    /// # Errors
    /// As [`Self::from_transformers`].
    pub(super) fn from_ct2(config: &Value, names: &Names, sizes: &WhisperConfig) -> Result<Self, ConfigError> {
        let list =
            |key: &str| config.get(key).filter(|value| !value.is_null()).map(|value| ids(key, value)).transpose();
        let by_id: BTreeMap<u32, &String> = names.iter().map(|(name, &id)| (id, name)).collect();
        let language = |id: u32| Some((code(by_id.get(&id)?)?.to_owned(), id));
        Said {
            languages: list("lang_ids")?.map(|ids| ids.into_iter().filter_map(language).collect()),
            suppressed: list("suppress_ids")?.unwrap_or_default(),
            begin_suppressed: list("suppress_ids_begin")?.unwrap_or_default(),
            alignment_heads: config.get("alignment_heads").filter(|v| !v.is_null()).map_or(Ok(Vec::new()), heads)?,
            ..Said::default()
        }
        .complete(names, sizes)
    }
}

impl Said {
    fn complete(self, names: &Names, sizes: &WhisperConfig) -> Result<WhisperSpecialIds, ConfigError> {
        let named = |name: &str| names.get(&format!("<|{name}|>")).copied();
        let found = |said: Option<u32>, name: &str| {
            said.or_else(|| named(name)).ok_or_else(|| ConfigError::Missing { key: format!("token <|{name}|>") })
        };
        let no_timestamps = found(self.no_timestamps, "notimestamps")?;
        // Names of languages stand in English-only vocabularies too, where they mean nothing.
        let mut languages = self.languages.unwrap_or_else(|| {
            let all = names.iter().filter_map(|(name, &id)| Some((code(name)?.to_owned(), id)));
            if sizes.vocab_size >= MULTILINGUAL { all.collect() } else { Vec::new() }
        });
        languages.sort_by_key(|(_, id)| *id);
        let multilingual = !languages.is_empty();
        let task = |said: Option<u32>, name| if multilingual { said.or_else(|| named(name)) } else { None };
        let within = |ids: Vec<u32>| ids.into_iter().filter(|&id| (id as usize) < sizes.vocab_size).collect();
        let ids = WhisperSpecialIds {
            end_of_text: found(self.end_of_text, "endoftext")?,
            start_of_transcript: found(self.start_of_transcript, "startoftranscript")?,
            start_of_previous: found(self.start_of_previous, "startofprev")?,
            start_of_lm: named("startoflm"),
            // It has had two names, and has always been the token before <|notimestamps|>.
            no_speech: named("nospeech").or_else(|| named("nocaptions")).unwrap_or(no_timestamps.saturating_sub(1)),
            no_timestamps,
            first_timestamp: no_timestamps + 1,
            transcribe: task(self.transcribe, "transcribe"),
            translate: task(self.translate, "translate"),
            languages,
            suppressed: within(self.suppressed),
            begin_suppressed: within(self.begin_suppressed),
            alignment_heads: self.alignment_heads,
        };
        let WhisperSpecialIds { transcribe, translate, start_of_lm, .. } = ids;
        let single = [
            ids.end_of_text,
            ids.start_of_transcript,
            ids.start_of_previous,
            ids.no_speech,
            ids.no_timestamps,
            ids.first_timestamp,
        ];
        let optional = [transcribe, translate, start_of_lm].into_iter().flatten();
        let all = single.into_iter().chain(optional).chain(ids.languages.iter().map(|(_, id)| *id));
        if let Some(id) = all.into_iter().find(|&id| id as usize >= sizes.vocab_size) {
            let expected = format!("ids below the vocabulary's size, {}", sizes.vocab_size);
            return Err(invalid("a special token", &id.to_string(), &expected));
        }
        let unknown = |(layer, head): &&(usize, usize)| *layer >= sizes.decoder_layers || *head >= sizes.decoder_heads;
        if let Some((layer, head)) = ids.alignment_heads.iter().find(unknown) {
            let expected = format!("heads of {} layers of {}", sizes.decoder_layers, sizes.decoder_heads);
            return Err(invalid("alignment_heads", &format!("[{layer}, {head}]"), &expected));
        }
        Ok(ids)
    }
}

/// The language of a token such as `<|en|>` or `<|haw|>`.
fn code(name: &str) -> Option<&str> {
    let code = name.strip_prefix("<|")?.strip_suffix("|>")?;
    ((2..=3).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(code)
}

/// An id or a list of them; negative ones mean that there is none.
fn ids(key: &str, value: &Value) -> Result<Vec<u32>, ConfigError> {
    let one = |value: &Value| match value.as_i64() {
        Some(id) if id < 0 => Ok(None),
        Some(id) if id <= i64::from(u32::MAX) => Ok(Some(id as u32)),
        _ => Err(invalid(key, &value.to_string(), "a token id or a list of them")),
    };
    match value {
        Value::Array(values) => values.iter().filter_map(|value| one(value).transpose()).collect(),
        value => Ok(one(value)?.into_iter().collect()),
    }
}

fn id_map(key: &str, value: &Value) -> Result<BTreeMap<String, u32>, ConfigError> {
    let wrong = || invalid(key, &value.to_string(), "a map from names to token ids");
    let entries = value.as_object().ok_or_else(wrong)?.iter();
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    entries.map(|(name, value)| Ok((name.clone(), id(value).ok_or_else(wrong)?))).collect()
}

fn heads(value: &Value) -> Result<Vec<(usize, usize)>, ConfigError> {
    let wrong = || invalid("alignment_heads", &value.to_string(), "a list of pairs of layer and head");
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong);
    let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([layer, head]) => Ok((number(layer)?, number(head)?)),
        _ => Err(wrong()),
    };
    value.as_array().ok_or_else(wrong)?.iter().map(pair).collect()
}

#[cfg(test)]
mod tests;
