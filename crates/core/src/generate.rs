//! What a caller asks of a model: the request in text and its checks.

use std::hash::{DefaultHasher, Hash, Hasher};

use tsserve_engine::{MAX_LOGPROBS, TokenId};

use crate::constraint::ConstraintRequest;
use crate::error::CoreError;
use crate::sampling::SamplingOptions;

/// Most stop strings of a request, and most bytes of one.
pub const MAX_STOP_STRINGS: usize = 16;
pub const MAX_STOP_BYTES: usize = 1024;

/// What a caller asks of a loaded model.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    /// `None`: the rest of the context.
    pub max_tokens: Option<usize>,
    pub stop: Vec<String>,
    pub ignore_eos: bool,
    pub sampling: SamplingOptions,
    pub constraint: Option<ConstraintRequest>,
    /// Alternatives per generated token, 0..=20; `None`: no log-probabilities.
    pub logprobs: Option<usize>,
    /// The same for the prompt's tokens.
    pub prompt_logprobs: Option<usize>,
    /// Prefix blocks are shared only between requests of equal salt.
    pub cache_salt: Option<String>,
    /// Tokens that may be generated before `grant`.
    pub credit: u32,
}

#[derive(Debug, Clone)]
pub enum Prompt {
    Text { text: String, add_special_tokens: bool },
    Ids(Vec<TokenId>),
}

/// Refuses what no model could answer.
pub(crate) fn check(request: &GenerateRequest) -> Result<(), CoreError> {
    if request.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
        return Err(invalid("logprobs", &format!("at most {MAX_LOGPROBS} alternatives per token can be reported")));
    }
    if request.prompt_logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
        return Err(invalid(
            "promptLogprobs",
            &format!("at most {MAX_LOGPROBS} alternatives per token can be reported"),
        ));
    }
    if request.stop.len() > MAX_STOP_STRINGS {
        return Err(invalid("stop", &format!("at most {MAX_STOP_STRINGS} stop strings are possible")));
    }
    if request.stop.iter().any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
        return Err(invalid("stop", &format!("a stop string must have 1 to {MAX_STOP_BYTES} bytes")));
    }
    Ok(())
}

pub(crate) fn invalid(param: &'static str, message: &str) -> CoreError {
    CoreError::Invalid { message: message.to_owned(), param: Some(param) }
}

/// The engine's form of a salt; 0 is none.
pub(crate) fn hash_salt(salt: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    salt.hash(&mut hasher);
    hasher.finish() | 1
}
