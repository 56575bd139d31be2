//! The engine of tsserve in ids and integers: requests, sequences, KV blocks, the scheduler, sampling, and the
//! thread that steps a model. No tensors, no text, no JavaScript.

mod compute_pool;
mod config;
mod constraint;
mod costs;
mod draft;
mod event;
mod handle;
mod held;
mod kv_blocks;
mod pace;
mod plan;
mod request;
mod rng;
mod runner;
mod sampling;
mod scheduler;
mod sequence;
mod step;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use compute_pool::{ComputePool, Lease};
pub use config::{AddError, EngineConfig, MAX_LOGPROBS, Speculation};
pub use constraint::{Constraint, ConstraintError, Next, TokenSet};
pub use costs::StepCosts;
pub use event::{EventKind, EventSink, FinishReason, SequenceEvent, Timings, TokenOutput};
pub use handle::{Engine, EngineStats};
pub use kv_blocks::OUT_OF_SIGHT;
pub use plan::{OutputRow, RowResult, RowRole, RowWant, SequencePlan, StepPlan, StepResults};
pub use request::{Request, SamplingParams};
pub use runner::{CacheGroup, CacheKind, ModelRunner, RunnerError, RunnerSpec};

/// A token's index in the vocabulary.
pub type TokenId = u32;

/// A KV block's index within its cache group.
pub type BlockId = u32;

/// Names one request for its whole life; chosen by the caller, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);
