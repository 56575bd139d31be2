//! What a caller asks of the engine: ids and numbers, no text.

use std::sync::Arc;

use crate::{SequenceId, TokenId};

/// One generation request. `Engine::add` checks it against the runner (see `AddError`).
#[derive(Debug, Clone)]
pub struct Request {
    pub id: SequenceId,
    /// Prompt tokens, at least one, each below the vocabulary size.
    pub prompt: Arc<[TokenId]>,
    /// Tokens to generate at most; 0 computes the prompt only (for prompt log-probabilities).
    pub max_new_tokens: usize,
    /// Generation ends after one of these, unless `ignore_eos`. The end token is reported.
    pub end_tokens: Arc<[TokenId]>,
    pub ignore_eos: bool,
    pub sampling: SamplingParams,
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

/// How a token is chosen from the logits of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy (first maximum). Range 0..=100.
    pub temperature: f32,
    /// Keep the k best (ties with the k-th stay); 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches this, after top-k; (0, 1].
    pub top_p: f32,
    /// Keep tokens of at least this share of the best one's probability; 0..=1.
    pub min_p: f32,
    /// Seed of the sequence's own generator.
    pub seed: u64,
}

impl Default for SamplingParams {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}
