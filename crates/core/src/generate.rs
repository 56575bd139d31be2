//! What a caller asks of a model: the request in text, its checks, and where unset fields come from.

use std::hash::{DefaultHasher, Hash, Hasher};

use tsserve_engine::{MAX_LOGPROBS, SamplingParams, TokenId};

use crate::error::CoreError;

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

/// Unset fields come from the model's generation_config.json; what that leaves unset is greedy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingOptions {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub seed: Option<u64>,
}

/// The sampling part of generation_config.json.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SamplingDefaults {
    pub do_sample: bool,
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
}

impl SamplingDefaults {
    /// Reads the fields that are there and sane; an odd value is as if it were not there.
    pub(crate) fn from_generation_config(config: &serde_json::Value) -> Self {
        let number = |key: &str| config.get(key).and_then(serde_json::Value::as_f64).map(|v| v as f32);
        Self {
            do_sample: config.get("do_sample").and_then(serde_json::Value::as_bool).unwrap_or(false),
            temperature: number("temperature").filter(|t| (0.0..=100.0).contains(t)),
            top_k: config.get("top_k").and_then(serde_json::Value::as_u64).map(|k| k as usize),
            top_p: number("top_p").filter(|p| *p > 0.0 && *p <= 1.0),
            min_p: number("min_p").filter(|p| (0.0..=1.0).contains(p)),
        }
    }

    /// Request, then checkpoint, then greedy. A temperature above 0 in the request turns sampling on; a checkpoint that
    /// does not sample keeps its other fields to itself unless the request samples.
    pub(crate) fn resolve(&self, request: &SamplingOptions, default_seed: Option<u64>) -> SamplingParams {
        let temperature = match request.temperature {
            Some(temperature) => temperature,
            None if self.do_sample => self.temperature.unwrap_or(1.0),
            None => 0.0,
        };
        SamplingParams {
            temperature,
            top_k: request.top_k.or(self.top_k).unwrap_or(0),
            top_p: request.top_p.or(self.top_p).unwrap_or(1.0),
            min_p: request.min_p.or(self.min_p).unwrap_or(0.0),
            seed: request.seed.or(default_seed).unwrap_or_else(fresh_seed),
        }
    }
}

/// Refuses what no model could answer.
pub(crate) fn check(request: &GenerateRequest) -> Result<(), CoreError> {
    let sampling = &request.sampling;
    if sampling.temperature.is_some_and(|t| !(0.0..=100.0).contains(&t)) {
        return Err(invalid("temperature", "temperature must be between 0 and 100"));
    }
    if sampling.top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
        return Err(invalid("topP", "top_p must be above 0 and at most 1"));
    }
    if sampling.min_p.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
        return Err(invalid("minP", "min_p must be between 0 and 1"));
    }
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

/// A seed that no other request has: the standard library's hasher keys come from the system's generator.
fn fresh_seed() -> u64 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(std::time::SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(json: &str) -> SamplingDefaults {
        SamplingDefaults::from_generation_config(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn request_then_checkpoint_then_greedy() {
        let none = defaults("{}").resolve(&SamplingOptions::default(), Some(7));
        assert_eq!(none, SamplingParams { seed: 7, ..SamplingParams::default() });

        let checkpoint = defaults(r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95}"#);
        let plain = checkpoint.resolve(&SamplingOptions::default(), Some(7));
        assert_eq!((plain.temperature, plain.top_k, plain.top_p), (0.6, 20, 0.95));
        let asked = SamplingOptions { temperature: Some(0.0), top_k: Some(0), ..SamplingOptions::default() };
        let greedy = checkpoint.resolve(&asked, Some(7));
        assert_eq!((greedy.temperature, greedy.top_k, greedy.top_p), (0.0, 0, 0.95));
    }

    #[test]
    fn a_checkpoint_that_does_not_sample_is_greedy_until_the_request_samples() {
        let checkpoint = defaults(r#"{"temperature": 0.6, "top_k": 20}"#);
        assert_eq!(checkpoint.resolve(&SamplingOptions::default(), None).temperature, 0.0);
        let asked = SamplingOptions { temperature: Some(0.9), ..SamplingOptions::default() };
        let sampled = checkpoint.resolve(&asked, None);
        assert_eq!((sampled.temperature, sampled.top_k), (0.9, 20));
    }

    #[test]
    fn odd_values_of_a_checkpoint_are_ignored() {
        let odd = defaults(r#"{"do_sample": "yes", "temperature": -1, "top_p": 7, "top_k": -3, "min_p": "x"}"#);
        assert_eq!(odd, SamplingDefaults::default());
    }

    #[test]
    fn requests_without_a_seed_get_different_ones() {
        let options = SamplingOptions::default();
        let seeds: std::collections::HashSet<u64> =
            (0..100).map(|_| SamplingDefaults::default().resolve(&options, None).seed).collect();
        assert_eq!(seeds.len(), 100);
    }
}
