//! What a caller may set about an engine, and why it may refuse a request.

use std::time::Duration;

use crate::{Request, RunnerSpec, SamplingParams, TokenId};

/// Limits of one engine. All are bounds on memory or time; none changes an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences computed together, at least 1.
    pub max_num_seqs: usize,
    /// Tokens computed in one step, over all sequences. Raised to `max_num_seqs` and one block where it is less, so
    /// that answers and a prompt always fit together.
    pub max_batch_tokens: usize,
    /// Requests that may wait beside `max_num_seqs` accepted ones; more are refused with `AddError::QueueFull`.
    pub max_queue: usize,
    /// Whether blocks of equal content are reused between requests.
    pub prefix_cache: bool,
    /// How long a step that writes answers should take, by the runner's cost table. It says how much of a prompt is
    /// computed beside them: at least one block, and, where answers alone take much of it, as much as makes the step five
    /// times as long as they are. `None`, or no table: whole chunks. See [`EngineConfig::INTER_TOKEN_TARGET`].
    pub inter_token_target: Option<Duration>,
    /// Whether and how tokens are drafted; needs a cost table. An answer is the same with and without.
    pub speculation: Option<Speculation>,
    /// How long a sequence may wait for credit before it fails with code `client_stalled`.
    pub park_timeout: Duration,
}

/// How drafts are looked up in prompt and answer, and how many are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speculation {
    /// Tokens that must agree for what followed them to be a draft, at least 1.
    pub min_ngram: usize,
    /// Tokens that are compared at most: where more agree, the draft is better.
    pub max_ngram: usize,
    /// Rows of a step with drafts in it. Beyond about 8 rows a step is bound by arithmetic and drafts cost as much as they
    /// save.
    pub max_rows: usize,
    /// With so many answers being written the weights are used well without drafts, and nothing is drafted.
    pub max_sequences: usize,
}

impl Default for Speculation {
    fn default() -> Self {
        Self { min_ngram: 2, max_ngram: 3, max_rows: 8, max_sequences: 4 }
    }
}

impl EngineConfig {
    /// 50 ms between tokens, which Sarathi-Serve (arXiv 2403.02310) would call a strict promise: 20 tokens a second are
    /// more than anybody reads, and answers alone take 3 to 20 ms with the models that a CPU serves well. A smaller
    /// target would be paid for by prompts: below some 64 rows the fixed cost of a step weighs.
    pub const INTER_TOKEN_TARGET: Duration = Duration::from_millis(50);
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_num_seqs: 16,
            max_batch_tokens: 528,
            max_queue: 64,
            prefix_cache: true,
            inter_token_target: Some(Self::INTER_TOKEN_TARGET),
            speculation: Some(Speculation::default()),
            park_timeout: Duration::from_secs(60),
        }
    }
}

/// Most alternatives that log-probabilities may list.
pub const MAX_LOGPROBS: usize = 20;

/// Why `Engine::add` refused a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("token {token} is outside the vocabulary of {vocab_size}")]
    TokenOutOfVocab { token: TokenId, vocab_size: usize },
    /// The prompt leaves no room for one more token, or (with `max_new_tokens` 0) does not fit itself.
    #[error("the prompt has {prompt_tokens} tokens, the context holds {max_context} with the answer")]
    ContextLength { prompt_tokens: usize, max_context: usize },
    #[error("{param} must be {expected}")]
    InvalidParameter { param: &'static str, expected: &'static str },
    /// `retry_after` is an estimate of when a place becomes free, from how long requests took lately; 1 to 60 s.
    #[error("{waiting} requests are waiting already")]
    QueueFull { waiting: usize, retry_after: Duration },
    #[error("the engine is closed")]
    Closed,
}

impl AddError {
    /// Stable code for matching.
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyPrompt => "empty_prompt",
            Self::TokenOutOfVocab { .. } => "token_out_of_vocab",
            Self::ContextLength { .. } => "context_length_exceeded",
            Self::InvalidParameter { .. } => "invalid_parameter",
            Self::QueueFull { .. } => "queue_full",
            Self::Closed => "closed",
        }
    }
}

/// Checks what can be checked of a request without the queue. `max_context` is what fits the runner's memory.
pub(crate) fn check_request(request: &Request, spec: &RunnerSpec, max_context: usize) -> Result<(), AddError> {
    if request.prompt.is_empty() {
        return Err(AddError::EmptyPrompt);
    }
    if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= spec.vocab_size) {
        return Err(AddError::TokenOutOfVocab { token, vocab_size: spec.vocab_size });
    }
    let prompt_tokens = request.prompt.len();
    if prompt_tokens + usize::from(request.max_new_tokens > 0) > max_context {
        return Err(AddError::ContextLength { prompt_tokens, max_context });
    }
    check_tokens(&request.sampling, spec.vocab_size)?;
    let SamplingParams { temperature, top_p, min_p, typical_p, .. } = request.sampling;
    let SamplingParams { repetition_penalty, presence_penalty, frequency_penalty, .. } = request.sampling;
    let SamplingParams { epsilon_cutoff, eta_cutoff, .. } = request.sampling;
    let at_most_20 = |n: Option<usize>| n.is_none_or(|n| n <= MAX_LOGPROBS);
    let share = "greater than 0 and at most 1";
    let cutoff = "at least 0 and below 1";
    let checks = [
        ("repetition_penalty", repetition_penalty > 0.0 && repetition_penalty.is_finite(), "greater than 0"),
        ("presence_penalty", presence_penalty.is_finite(), "a finite number"),
        ("frequency_penalty", frequency_penalty.is_finite(), "a finite number"),
        ("temperature", (0.0..=100.0).contains(&temperature), "between 0 and 100"),
        ("top_p", top_p > 0.0 && top_p <= 1.0, share),
        ("min_p", (0.0..=1.0).contains(&min_p), "between 0 and 1"),
        ("typical_p", typical_p > 0.0 && typical_p <= 1.0, share),
        ("epsilon_cutoff", (0.0..1.0).contains(&epsilon_cutoff), cutoff),
        ("eta_cutoff", (0.0..1.0).contains(&eta_cutoff), cutoff),
        ("logprobs", at_most_20(request.logprobs), "at most 20"),
        ("prompt_logprobs", at_most_20(request.prompt_logprobs), "at most 20"),
    ];
    match checks.into_iter().find(|(_, holds, _)| !holds) {
        Some((param, _, expected)) => Err(AddError::InvalidParameter { param, expected }),
        None => Ok(()),
    }
}

/// Runs of tokens that are empty, tokens that do not exist, biases that are no numbers.
fn check_tokens(sampling: &SamplingParams, vocab_size: usize) -> Result<(), AddError> {
    let SamplingParams { sequence_bias, bad_words, suppress_tokens, begin_suppress_tokens, .. } = sampling;
    let invalid = |param, expected| Err(AddError::InvalidParameter { param, expected });
    if sequence_bias.iter().any(|(run, bias)| run.is_empty() || !bias.is_finite()) {
        return invalid("sequence_bias", "runs of at least one token with finite numbers");
    }
    if bad_words.iter().any(|run| run.is_empty()) {
        return invalid("bad_words", "runs of at least one token");
    }
    let runs = sequence_bias.iter().map(|(run, _)| run).chain(bad_words.iter());
    let mut tokens = runs.flat_map(|run| run.iter()).chain(suppress_tokens.iter()).chain(begin_suppress_tokens.iter());
    match tokens.find(|&&token| token as usize >= vocab_size) {
        Some(&token) => Err(AddError::TokenOutOfVocab { token, vocab_size }),
        None => Ok(()),
    }
}
