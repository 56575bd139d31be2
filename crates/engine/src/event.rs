//! What the engine reports: one batch per step, the events of all sequences in it.

use crate::{SequenceId, TokenId};

/// Receives the events of each step, on the engine thread: hand them on, never block.
pub trait EventSink: Send {
    fn emit(&mut self, events: Vec<SequenceEvent>);
}

/// One thing that happened to one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceEvent {
    pub sequence: SequenceId,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// First scheduled: prompt length and how much of it came from the prefix cache, in tokens.
    /// Sent once, also when the sequence is preempted and computed again later.
    Started { prompt_tokens: usize, cached_tokens: usize },
    /// A chunk of the prompt was computed; `computed` of `prompt_tokens` so far.
    Prefill { computed: usize },
    /// Log-probabilities of prompt tokens, in order, the first entry standing for position 1.
    /// May come in several events.
    Prompt { tokens: Vec<TokenOutput> },
    /// Generated tokens: one that was chosen, and behind it those that a constraint forced; more where a draft of them was
    /// right.
    Tokens { tokens: Vec<TokenOutput> },
    /// The last event of a sequence that ended by itself.
    Finished { reason: FinishReason, timings: Timings },
    /// The last event of a sequence that failed.
    Failed { code: &'static str, message: String },
}

/// A token with what was asked about it.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenOutput {
    pub token: TokenId,
    /// Natural log-probability under the raw distribution (temperature 1; no penalty, no constraint, no filter).
    pub logprob: Option<f32>,
    /// The best alternatives, log-probabilities descending.
    pub top: Vec<(TokenId, f32)>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token, or a constraint that nothing can follow (or, above the engine, a stop string).
    Stop,
    /// `max_new_tokens` or the context's end.
    Length,
    /// Aborted by the caller; the engine frees everything before it says so.
    Aborted,
}

/// Durations in seconds since `Engine::add`, and step counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Waiting for the first step.
    pub queued: f64,
    /// From the first step to the first token (or to the prompt's end).
    pub prefill: f64,
    /// From the first token to the last.
    pub decode: f64,
}
