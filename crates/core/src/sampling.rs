//! How tokens are chosen: what a request asks for, what the checkpoint wants, and what comes of both.

use std::sync::Arc;

use serde_json::Value;
use tsserve_engine::{SamplingParams, TokenId};

use crate::error::CoreError;

/// Most entries of `logit_bias` and of `bad_words`, most tokens of one bad word, most suppressed tokens.
pub const MAX_LOGIT_BIASES: usize = 1024;
pub const MAX_BAD_WORDS: usize = 1024;
pub const MAX_BAD_WORD_TOKENS: usize = 64;
pub const MAX_SUPPRESSED_TOKENS: usize = 65_536;

/// Largest penalty and bias, either way.
const MAX_BIAS: f32 = 1000.0;

/// Unset fields come from the model's generation_config.json; what that leaves unset is greedy, and nothing applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingOptions {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub typical_p: Option<f32>,
    pub epsilon_cutoff: Option<f32>,
    pub eta_cutoff: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    /// Replaces the checkpoint's `sequence_bias`.
    pub logit_bias: Option<Vec<(TokenId, f32)>>,
    pub no_repeat_ngram_size: Option<usize>,
    pub bad_words: Option<Vec<Vec<TokenId>>>,
    pub suppress_tokens: Option<Vec<TokenId>>,
    pub begin_suppress_tokens: Option<Vec<TokenId>>,
    /// Tokens of the answer before it may end.
    pub min_tokens: Option<usize>,
    pub seed: Option<u64>,
}

impl SamplingOptions {
    /// Checks the ranges, and that the tokens exist.
    ///
    /// # Errors
    /// `Invalid`, with the field's name.
    pub(crate) fn check(&self, vocab_size: usize) -> Result<(), CoreError> {
        let ranges = [
            ("temperature", self.temperature.is_none_or(|t| (0.0..=100.0).contains(&t)), "between 0 and 100"),
            ("topP", self.top_p.is_none_or(is_share), "above 0 and at most 1"),
            ("minP", self.min_p.is_none_or(|p| (0.0..=1.0).contains(&p)), "between 0 and 1"),
            ("typicalP", self.typical_p.is_none_or(is_share), "above 0 and at most 1"),
            ("epsilonCutoff", self.epsilon_cutoff.is_none_or(is_cutoff), "at least 0 and below 1"),
            ("etaCutoff", self.eta_cutoff.is_none_or(is_cutoff), "at least 0 and below 1"),
            ("repetitionPenalty", self.repetition_penalty.is_none_or(is_factor), "above 0 and at most 1000"),
            ("presencePenalty", self.presence_penalty.is_none_or(is_bias), "between -1000 and 1000"),
            ("frequencyPenalty", self.frequency_penalty.is_none_or(is_bias), "between -1000 and 1000"),
        ];
        if let Some((param, _, expected)) = ranges.into_iter().find(|(_, holds, _)| !holds) {
            return Err(invalid(param, format!("{} must be {expected}", snake_case(param))));
        }
        let bias = self.logit_bias.as_deref().unwrap_or_default();
        if bias.len() > MAX_LOGIT_BIASES {
            return Err(invalid("logitBias", format!("at most {MAX_LOGIT_BIASES} biases are possible")));
        }
        if bias.iter().any(|&(_, bias)| !is_bias(bias)) {
            return Err(invalid("logitBias", "a bias must be between -1000 and 1000".to_owned()));
        }
        let words = self.bad_words.as_deref().unwrap_or_default();
        if words.len() > MAX_BAD_WORDS || words.iter().any(|word| !(1..=MAX_BAD_WORD_TOKENS).contains(&word.len())) {
            let limits = format!("at most {MAX_BAD_WORDS} bad words of 1 to {MAX_BAD_WORD_TOKENS} tokens are possible");
            return Err(invalid("badWords", limits));
        }
        let lists = [
            ("logitBias", bias.iter().map(|&(token, _)| token).collect::<Vec<_>>()),
            ("badWords", words.concat()),
            ("suppressTokens", self.suppress_tokens.clone().unwrap_or_default()),
            ("beginSuppressTokens", self.begin_suppress_tokens.clone().unwrap_or_default()),
        ];
        for (param, tokens) in lists {
            if tokens.len() > MAX_SUPPRESSED_TOKENS {
                return Err(invalid(param, format!("at most {MAX_SUPPRESSED_TOKENS} tokens are possible")));
            }
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
                let message = format!("token id {token} is not in the vocabulary of {vocab_size} tokens");
                return Err(invalid(param, message));
            }
        }
        Ok(())
    }
}

fn is_share(p: f32) -> bool {
    p > 0.0 && p <= 1.0
}

fn is_cutoff(p: f32) -> bool {
    (0.0..1.0).contains(&p)
}

fn is_factor(penalty: f32) -> bool {
    penalty > 0.0 && penalty <= MAX_BIAS
}

fn is_bias(bias: f32) -> bool {
    bias.abs() <= MAX_BIAS
}

fn invalid(param: &'static str, message: String) -> CoreError {
    CoreError::Invalid { message, param: Some(param) }
}

fn snake_case(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_uppercase() { format!("_{}", c.to_ascii_lowercase()) } else { c.into() })
        .collect()
}

type Run = Box<[TokenId]>;

/// The sampling part of generation_config.json.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SamplingDefaults {
    pub do_sample: bool,
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    typical_p: Option<f32>,
    epsilon_cutoff: Option<f32>,
    eta_cutoff: Option<f32>,
    repetition_penalty: Option<f32>,
    sequence_bias: Arc<[(Run, f32)]>,
    no_repeat_ngram_size: Option<usize>,
    bad_words: Arc<[Run]>,
    suppress_tokens: Arc<[TokenId]>,
    begin_suppress_tokens: Arc<[TokenId]>,
    /// Counts the prompt, too.
    min_length: usize,
    min_new_tokens: usize,
}

impl SamplingDefaults {
    /// Reads the fields that are there and sane; an odd value is as if it were not there, and so is a token that the
    /// vocabulary does not have.
    pub(crate) fn from_generation_config(config: &Value, vocab_size: usize) -> Self {
        let number = |key: &str| config.get(key).and_then(Value::as_f64).map(|v| v as f32);
        let count = |key: &str| config.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let token = |value: &Value| value.as_u64().filter(|&id| id < vocab_size as u64).map(|id| id as TokenId);
        let run =
            |value: &Value| value.as_array()?.iter().map(token).collect::<Option<Run>>().filter(|r| !r.is_empty());
        let list = |key: &str| config.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let bias = |value: &Value| match value.as_array()?.as_slice() {
            [tokens, bias] => Some((run(tokens)?, bias.as_f64().map(|b| b as f32).filter(|&b| is_bias(b))?)),
            _ => None,
        };
        Self {
            do_sample: config.get("do_sample").and_then(Value::as_bool).unwrap_or(false),
            temperature: number("temperature").filter(|t| (0.0..=100.0).contains(t)),
            top_k: count("top_k"),
            top_p: number("top_p").filter(|&p| is_share(p)),
            min_p: number("min_p").filter(|p| (0.0..=1.0).contains(p)),
            typical_p: number("typical_p").filter(|&p| is_share(p)),
            epsilon_cutoff: number("epsilon_cutoff").filter(|&p| is_cutoff(p)),
            eta_cutoff: number("eta_cutoff").filter(|&p| is_cutoff(p)),
            repetition_penalty: number("repetition_penalty").filter(|&p| is_factor(p)),
            sequence_bias: list("sequence_bias").iter().filter_map(bias).collect(),
            no_repeat_ngram_size: count("no_repeat_ngram_size"),
            bad_words: list("bad_words_ids").iter().filter_map(run).collect(),
            suppress_tokens: list("suppress_tokens").iter().filter_map(token).collect(),
            begin_suppress_tokens: list("begin_suppress_tokens").iter().filter_map(token).collect(),
            min_length: count("min_length").unwrap_or(0),
            min_new_tokens: count("min_new_tokens").unwrap_or(0),
        }
    }

    /// Request, then checkpoint, then greedy. A temperature above 0 in the request turns sampling on; a checkpoint that
    /// does not sample keeps its filters to itself unless the request samples.
    pub(crate) fn resolve(
        &self,
        request: &SamplingOptions,
        prompt_tokens: usize,
        default_seed: Option<u64>,
    ) -> SamplingParams {
        let temperature = match request.temperature {
            Some(temperature) => temperature,
            None if self.do_sample => self.temperature.unwrap_or(1.0),
            None => 0.0,
        };
        let single = |biases: &Vec<(TokenId, f32)>| biases.iter().map(|&(id, bias)| (Run::from([id]), bias)).collect();
        let runs = |words: &Vec<Vec<TokenId>>| words.iter().map(|word| Run::from(word.as_slice())).collect();
        let tokens = |asked: &Option<Vec<TokenId>>, own: &Arc<[TokenId]>| match asked {
            Some(asked) => asked.as_slice().into(),
            None => Arc::clone(own),
        };
        let own_least = self.min_new_tokens.max(self.min_length.saturating_sub(prompt_tokens));
        SamplingParams {
            sequence_bias: request.logit_bias.as_ref().map_or_else(|| Arc::clone(&self.sequence_bias), single),
            repetition_penalty: request.repetition_penalty.or(self.repetition_penalty).unwrap_or(1.0),
            presence_penalty: request.presence_penalty.unwrap_or(0.0),
            frequency_penalty: request.frequency_penalty.unwrap_or(0.0),
            no_repeat_ngram_size: request.no_repeat_ngram_size.or(self.no_repeat_ngram_size).unwrap_or(0),
            bad_words: request.bad_words.as_ref().map_or_else(|| Arc::clone(&self.bad_words), runs),
            min_new_tokens: request.min_tokens.unwrap_or(own_least),
            suppress_tokens: tokens(&request.suppress_tokens, &self.suppress_tokens),
            begin_suppress_tokens: tokens(&request.begin_suppress_tokens, &self.begin_suppress_tokens),
            temperature,
            top_k: request.top_k.or(self.top_k).unwrap_or(0),
            top_p: request.top_p.or(self.top_p).unwrap_or(1.0),
            min_p: request.min_p.or(self.min_p).unwrap_or(0.0),
            typical_p: request.typical_p.or(self.typical_p).unwrap_or(1.0),
            epsilon_cutoff: request.epsilon_cutoff.or(self.epsilon_cutoff).unwrap_or(0.0),
            eta_cutoff: request.eta_cutoff.or(self.eta_cutoff).unwrap_or(0.0),
            seed: request.seed.or(default_seed).unwrap_or_else(fresh_seed),
        }
    }
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
        SamplingDefaults::from_generation_config(&serde_json::from_str(json).unwrap(), 100)
    }

    fn resolve(defaults: &SamplingDefaults, request: &SamplingOptions) -> SamplingParams {
        defaults.resolve(request, 10, Some(7))
    }

    #[test]
    fn request_then_checkpoint_then_greedy() {
        let none = resolve(&defaults("{}"), &SamplingOptions::default());
        assert_eq!(none, SamplingParams { seed: 7, ..SamplingParams::default() });

        let checkpoint = defaults(r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95}"#);
        let plain = resolve(&checkpoint, &SamplingOptions::default());
        assert_eq!((plain.temperature, plain.top_k, plain.top_p), (0.6, 20, 0.95));
        let asked = SamplingOptions { temperature: Some(0.0), top_k: Some(0), ..SamplingOptions::default() };
        let greedy = resolve(&checkpoint, &asked);
        assert_eq!((greedy.temperature, greedy.top_k, greedy.top_p), (0.0, 0, 0.95));
    }

    #[test]
    fn processors_of_a_checkpoint_apply_until_the_request_says_otherwise() {
        let checkpoint = defaults(
            r#"{"repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "bad_words_ids": [[4], [5, 6], [], [1000]],
                "suppress_tokens": [1, 2, -1, 100], "begin_suppress_tokens": [3], "min_length": 30, "typical_p": 0.9,
                "sequence_bias": [[[7], 1.5], [[8, 9], -2.0], "x"], "epsilon_cutoff": 0.1, "eta_cutoff": 0.2}"#,
        );
        let run = |tokens: &[TokenId]| Run::from(tokens);
        let expected = SamplingParams {
            sequence_bias: [(run(&[7]), 1.5), (run(&[8, 9]), -2.0)].into(),
            repetition_penalty: 1.1,
            no_repeat_ngram_size: 3,
            bad_words: [run(&[4]), run(&[5, 6])].into(),
            suppress_tokens: [1, 2].into(),
            begin_suppress_tokens: [3].into(),
            min_new_tokens: 20,
            typical_p: 0.9,
            epsilon_cutoff: 0.1,
            eta_cutoff: 0.2,
            seed: 7,
            ..SamplingParams::default()
        };
        assert_eq!(resolve(&checkpoint, &SamplingOptions::default()), expected);
        let asked = SamplingOptions {
            repetition_penalty: Some(1.0),
            presence_penalty: Some(0.5),
            frequency_penalty: Some(-0.5),
            logit_bias: Some(vec![(3, -100.0)]),
            no_repeat_ngram_size: Some(0),
            bad_words: Some(vec![]),
            suppress_tokens: Some(vec![]),
            begin_suppress_tokens: Some(vec![9]),
            min_tokens: Some(1),
            typical_p: Some(1.0),
            epsilon_cutoff: Some(0.0),
            eta_cutoff: Some(0.0),
            ..SamplingOptions::default()
        };
        let expected = SamplingParams {
            sequence_bias: [(run(&[3]), -100.0)].into(),
            presence_penalty: 0.5,
            frequency_penalty: -0.5,
            begin_suppress_tokens: [9].into(),
            min_new_tokens: 1,
            seed: 7,
            ..SamplingParams::default()
        };
        assert_eq!(resolve(&checkpoint, &asked), expected);
    }

    #[test]
    fn a_checkpoint_that_does_not_sample_is_greedy_until_the_request_samples() {
        let checkpoint = defaults(r#"{"temperature": 0.6, "top_k": 20}"#);
        assert_eq!(resolve(&checkpoint, &SamplingOptions::default()).temperature, 0.0);
        let asked = SamplingOptions { temperature: Some(0.9), ..SamplingOptions::default() };
        let sampled = resolve(&checkpoint, &asked);
        assert_eq!((sampled.temperature, sampled.top_k), (0.9, 20));
    }

    #[test]
    fn odd_values_of_a_checkpoint_are_ignored() {
        let odd = defaults(
            r#"{"do_sample": "yes", "temperature": -1, "top_p": 7, "top_k": -3, "min_p": "x", "typical_p": 0,
                "repetition_penalty": 0, "bad_words_ids": [7], "sequence_bias": {"x": 1}, "suppress_tokens": 5,
                "epsilon_cutoff": 1, "min_length": -4}"#,
        );
        assert_eq!(odd, SamplingDefaults::default());
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        type Change = fn(&mut SamplingOptions);
        let cases: [(&str, Change); 14] = [
            ("temperature", |o| o.temperature = Some(f32::NAN)),
            ("topP", |o| o.top_p = Some(0.0)),
            ("minP", |o| o.min_p = Some(1.5)),
            ("typicalP", |o| o.typical_p = Some(0.0)),
            ("epsilonCutoff", |o| o.epsilon_cutoff = Some(1.0)),
            ("etaCutoff", |o| o.eta_cutoff = Some(-0.1)),
            ("repetitionPenalty", |o| o.repetition_penalty = Some(0.0)),
            ("presencePenalty", |o| o.presence_penalty = Some(f32::INFINITY)),
            ("frequencyPenalty", |o| o.frequency_penalty = Some(f32::NAN)),
            ("logitBias", |o| o.logit_bias = Some(vec![(100, 1.0)])),
            ("logitBias", |o| o.logit_bias = Some(vec![(0, f32::NEG_INFINITY)])),
            ("badWords", |o| o.bad_words = Some(vec![vec![]])),
            ("suppressTokens", |o| o.suppress_tokens = Some(vec![100])),
            ("beginSuppressTokens", |o| o.begin_suppress_tokens = Some(vec![0; MAX_SUPPRESSED_TOKENS + 1])),
        ];
        for (param, change) in cases {
            let mut options = SamplingOptions::default();
            change(&mut options);
            assert_eq!(options.check(100).unwrap_err().param(), Some(param));
        }
        assert!(SamplingOptions::default().check(100).is_ok());
    }

    #[test]
    fn requests_without_a_seed_get_different_ones() {
        let options = SamplingOptions::default();
        let seeds: std::collections::HashSet<u64> =
            (0..100).map(|_| SamplingDefaults::default().resolve(&options, 1, None).seed).collect();
        assert_eq!(seeds.len(), 100);
    }
}
