//! The engine of tsserve in ids and integers: requests, sequences, KV blocks, the scheduler, sampling, and the
//! thread that steps a model. No tensors, no text, no JavaScript.

mod event;
mod plan;
mod request;
mod runner;

pub use event::{EventKind, EventSink, FinishReason, SequenceEvent, Timings, TokenOutput};
pub use plan::{OutputRow, RowResult, RowWant, SequencePlan, StepPlan, StepResults};
pub use request::{Request, SamplingParams};
pub use runner::{CacheGroup, CacheKind, ModelRunner, RunnerError, RunnerSpec};

/// A token's index in the vocabulary.
pub type TokenId = u32;

/// A KV block's index within its cache group.
pub type BlockId = u32;

/// Names one request for its whole life; chosen by the caller, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);
