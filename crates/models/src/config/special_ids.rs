//! Token ids with a meaning of their own.

use serde_json::Value;

use super::ConfigError;
use super::blueprint::invalid;

/// Token ids with a meaning of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Any of them ends an answer; without duplicates, the main one first. Empty if the files name none.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
}

/// From generation_config.json, and where that is silent from config.json (transformers' order).
///
/// # Errors
/// An id that is no number.
pub fn special_ids_from_json(generation_config: Option<&Value>, config: &Value) -> Result<SpecialIds, ConfigError> {
    let ids = |key: &str| -> Result<Vec<u32>, ConfigError> {
        let sources = [generation_config, Some(config)].into_iter().flatten();
        match sources.filter_map(|source| source.get(key)).find(|value| !value.is_null()) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().filter_map(|value| id(key, value).transpose()).collect(),
            Some(value) => Ok(id(key, value)?.into_iter().collect()),
        }
    };
    let mut eos_token_ids = ids("eos_token_id")?;
    let mut seen = std::collections::BTreeSet::new();
    eos_token_ids.retain(|id| seen.insert(*id));
    let first = |key| Ok::<_, ConfigError>(ids(key)?.first().copied());
    Ok(SpecialIds { eos_token_ids, bos_token_id: first("bos_token_id")?, pad_token_id: first("pad_token_id")? })
}

/// A negative id, which some configurations hold, means that there is none.
fn id(key: &str, value: &Value) -> Result<Option<u32>, ConfigError> {
    if value.as_i64().is_some_and(|id| id < 0) {
        return Ok(None);
    }
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    id.map(Some).ok_or_else(|| invalid(key, value, "a token id or a list of them"))
}
