//! What a caller asks of a model: the request in text and its checks.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tsserve_engine::{MAX_LOGPROBS, TokenId};

use crate::constraint::ConstraintRequest;
use crate::error::CoreError;
use crate::sampling::SamplingOptions;

/// Most stop strings of a request, and most bytes of one.
pub const MAX_STOP_STRINGS: usize = 16;
pub const MAX_STOP_BYTES: usize = 1024;
/// Most stop tokens of a request.
pub const MAX_STOP_TOKENS: usize = 256;

/// What a caller asks of a loaded model.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    /// `None`: the rest of the context.
    pub max_tokens: Option<usize>,
    pub stop: Vec<String>,
    /// Tokens that end the answer as the model's own end tokens do.
    pub stop_token_ids: Vec<TokenId>,
    /// The model's own end tokens do not end the answer.
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
pub(crate) fn check(request: &GenerateRequest, vocab_size: usize) -> Result<(), CoreError> {
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
    if request.stop_token_ids.len() > MAX_STOP_TOKENS {
        return Err(invalid("stopTokenIds", &format!("at most {MAX_STOP_TOKENS} stop tokens are possible")));
    }
    if let Some(id) = request.stop_token_ids.iter().find(|&&id| id as usize >= vocab_size) {
        let message = format!("token id {id} is not in the vocabulary of {vocab_size} tokens");
        return Err(invalid("stopTokenIds", &message));
    }
    Ok(())
}

/// What ends an answer: the model's own end tokens, unless they are ignored, and the request's.
pub(crate) fn end_tokens(request: &GenerateRequest, own: &Arc<[TokenId]>) -> Arc<[TokenId]> {
    match (request.ignore_eos, request.stop_token_ids.as_slice()) {
        (false, []) => Arc::clone(own),
        (true, stops) => stops.into(),
        (false, stops) => own.iter().chain(stops).copied().collect(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(stop_token_ids: &[TokenId], ignore_eos: bool) -> GenerateRequest {
        GenerateRequest {
            prompt: Prompt::Ids(vec![1]),
            max_tokens: None,
            stop: Vec::new(),
            stop_token_ids: stop_token_ids.to_vec(),
            ignore_eos,
            sampling: SamplingOptions::default(),
            constraint: None,
            logprobs: None,
            prompt_logprobs: None,
            cache_salt: None,
            credit: u32::MAX,
        }
    }

    #[test]
    fn stop_tokens_end_an_answer_beside_the_models_own_or_instead() {
        let own: Arc<[TokenId]> = [7, 8].into();
        let ends = |stops: &[TokenId], ignore| end_tokens(&request(stops, ignore), &own).to_vec();
        assert_eq!(ends(&[], false), [7, 8]);
        assert_eq!(ends(&[3], false), [7, 8, 3]);
        assert_eq!(ends(&[3], true), [3]);
        assert!(ends(&[], true).is_empty());
    }

    #[test]
    fn stop_tokens_are_of_the_vocabulary_and_not_too_many() {
        assert!(check(&request(&[0, 9], false), 10).is_ok());
        for stops in [vec![10], vec![0; MAX_STOP_TOKENS + 1]] {
            let error = check(&request(&stops, false), 10).unwrap_err();
            assert!(matches!(error, CoreError::Invalid { param: Some("stopTokenIds"), .. }), "{error}");
        }
    }
}
