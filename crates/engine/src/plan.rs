//! The step plan: what the scheduler asks of a runner, as plain printable values.

use std::sync::Arc;

use crate::{BlockId, SequenceId, TokenId};

/// One engine step: the rows of every sequence that runs in it, prefill and decode mixed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepPlan {
    /// At most one entry per sequence; order is the order of `StepResults::rows`.
    pub sequences: Vec<SequencePlan>,
}

impl StepPlan {
    /// Number of tokens the step computes, over all sequences.
    pub fn n_tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.tokens.len()).sum()
    }
}

/// The tokens of one sequence in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct SequencePlan {
    pub sequence: SequenceId,
    /// What all of its tokens are.
    pub role: RowRole,
    /// Token ids to compute, never empty. Token `i` sits at position `start + i`.
    pub tokens: Vec<TokenId>,
    /// Position of `tokens[0]`; the keys and values of all earlier positions are in the cache
    /// (for a window group: those the window can still see).
    pub start: usize,
    /// One block table per cache group of the runner, in the group order of `RunnerSpec`.
    /// Entry `b` holds positions `b * block_size ..`; covers `start + tokens.len()` positions.
    pub block_tables: Vec<Arc<[BlockId]>>,
    /// What is wanted of which token, by increasing `index`. Empty while a prompt is half done; several where a draft is
    /// verified.
    pub outputs: Vec<OutputRow>,
}

/// What a token is to its sequence. The runner may choose finer or faster arithmetic by it, and by nothing else that the
/// engine could change: a position has the same role whenever it is computed, whoever else runs, also when it is
/// computed again after a preemption. So its bits repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowRole {
    /// A token of the prompt: usually one of many in a step.
    Prompt,
    /// A generated token, or one drafted or forced to be: usually one of few.
    Decode,
}

/// A token whose logits are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRow {
    /// Index into `SequencePlan::tokens`.
    pub index: usize,
    pub want: RowWant,
}

/// What a row asks for. No step hands out full logits unless a row says so.
#[derive(Debug, Clone, PartialEq)]
pub enum RowWant {
    /// The best token. `log_sum_exp` is computed only if asked for.
    ArgMax,
    /// The `k` best tokens (`k >= 1`), the logits of `chosen` ids, and the log-sum-exp of the row.
    TopK { k: usize, chosen: Vec<TokenId> },
    /// Logits of these ids only, in their order (a grammar's allowed set).
    Allowed(Arc<[TokenId]>),
    /// All logits, `vocab_size` of them.
    Full,
}

/// The answer to a plan: one `RowResult` per `OutputRow`, flattened in plan order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepResults {
    pub rows: Vec<RowResult>,
}

/// The answer to one `OutputRow`. Logits are raw: before temperature and penalties, after the
/// architecture's own soft cap or logit scale.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowResult {
    /// `ArgMax`: one entry. `TopK`: `min(k, vocab)` entries, logits descending, ties by lower id
    /// first. Empty otherwise.
    pub candidates: Vec<(TokenId, f32)>,
    /// `TopK`: natural log of the sum of exponentials over the whole row, in f32 or better.
    /// NaN where not asked for.
    pub log_sum_exp: f32,
    /// `TopK`: logits of `chosen`; `Allowed`: logits of the allowed ids; in the asked order.
    pub chosen: Vec<f32>,
    /// `Full`: the row of logits, by token id. Empty otherwise.
    pub logits: Vec<f32>,
}
