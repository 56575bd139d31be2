//! What a caller asks of the engine: ids and numbers, no text.

use std::sync::Arc;

use crate::{Constraint, SequenceId, TokenId};

/// One generation request. `Engine::add` checks it against the runner (see `AddError`).
#[derive(Debug, Clone)]
pub struct Request {
    pub id: SequenceId,
    /// Prompt tokens, at least one, each below the vocabulary size.
    pub prompt: Arc<[TokenId]>,
    /// Tokens to generate at most; 0 computes the prompt only (for prompt log-probabilities).
    pub max_new_tokens: usize,
    /// Generation ends after one of these, which is reported.
    pub end_tokens: Arc<[TokenId]>,
    pub sampling: SamplingParams,
    /// What the answer must match. Such an answer also ends, with `FinishReason::Stop`, where nothing can follow it.
    pub constraint: Option<Box<dyn Constraint>>,
    /// `Some(n)`: report the chosen token's log-probability and the `n` best (0..=20).
    pub logprobs: Option<usize>,
    /// `Some(n)`: report log-probabilities of the prompt's own tokens from position 1 on, with the
    /// `n` best of each (0..=20). Such a request never reuses cached prefixes.
    pub prompt_logprobs: Option<usize>,
    /// Prefix blocks are shared only between requests of equal salt.
    pub cache_salt: u64,
    /// Tokens that may be generated before the caller grants more; `u32::MAX` is no limit.
    pub credit: u32,
}

/// How a token is chosen from the logits of a row. The fields stand in the order in which they are applied, which is
/// transformers'; those from `temperature` on only if it is above 0.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Added to the logit of a run's last token where the tokens before it are the run's others; runs of one token
    /// always. Runs are not empty, values finite.
    pub sequence_bias: Arc<[(Box<[TokenId]>, f32)]>,
    /// Divides the logits above 0 of tokens seen in prompt or answer, multiplies those below; 1 is none. Above 0.
    pub repetition_penalty: f32,
    /// Taken from the logit of each token that the answer holds. Finite, as the next.
    pub presence_penalty: f32,
    /// Taken from the logit of a token once for each time that the answer holds it.
    pub frequency_penalty: f32,
    /// No run of this many tokens comes twice in prompt and answer; 0 is no limit.
    pub no_repeat_ngram_size: usize,
    /// Runs that must not come. A single end token is not among them, whatever is asked.
    pub bad_words: Arc<[Box<[TokenId]>]>,
    /// Tokens of the answer before an end token may come.
    pub min_new_tokens: usize,
    /// Never chosen.
    pub suppress_tokens: Arc<[TokenId]>,
    /// Never chosen as the answer's first token.
    pub begin_suppress_tokens: Arc<[TokenId]>,
    /// 0 is greedy (first maximum). Range 0..=100.
    pub temperature: f32,
    /// Keep the k best (ties with the k-th stay); 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches this, after top-k; (0, 1].
    pub top_p: f32,
    /// Keep tokens of at least this share of the best one's probability; 0..=1.
    pub min_p: f32,
    /// Keep the tokens whose surprise is nearest to the expected one until their probability reaches this; (0, 1].
    pub typical_p: f32,
    /// Keep tokens of at least this probability; 0 keeps all. Below 1.
    pub epsilon_cutoff: f32,
    /// As `epsilon_cutoff`, but lower where the distribution is flat; 0 keeps all. Below 1.
    pub eta_cutoff: f32,
    /// Seed of the sequence's own generator.
    pub seed: u64,
}

impl Default for SamplingParams {
    /// Greedy, and nothing applied.
    fn default() -> Self {
        Self {
            sequence_bias: Arc::from([]),
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            no_repeat_ngram_size: 0,
            bad_words: Arc::from([]),
            min_new_tokens: 0,
            suppress_tokens: Arc::from([]),
            begin_suppress_tokens: Arc::from([]),
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            seed: 0,
        }
    }
}
