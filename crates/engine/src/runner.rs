//! The seam between the engine and a model: integers in, plain slices out.

use crate::{StepCosts, StepPlan, StepResults};

/// What the engine must know of a runner. Constant for the runner's life.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerSpec {
    pub vocab_size: usize,
    /// Positions per KV block; the runner's constant (16 for the candle runner).
    pub block_size: usize,
    /// Longest sequence (prompt and answer) the runner computes, in tokens.
    pub max_context: usize,
    /// Cache groups, in the order in which plans carry block tables.
    pub groups: Vec<CacheGroup>,
}

/// Layers whose cache is managed together.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheGroup {
    pub kind: CacheKind,
    /// Number of blocks the runner has allocated for the group; block ids are `0..n_blocks`.
    pub n_blocks: usize,
}

/// How long a cache group keeps what it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// Every position stays.
    Full,
    /// Token `q` sees keys `k` with `k > q - w` (that is `w` positions, itself included);
    /// blocks that no later token can see are freed while the sequence runs.
    Window(usize),
    /// A recurrent state: one block per sequence, no position dimension.
    State,
}

/// Computes steps. Owned by one engine thread; holds all tensors.
pub trait ModelRunner: Send {
    /// Constant facts of the runner.
    fn spec(&self) -> &RunnerSpec;

    /// How long its steps take on this machine, measured when it was loaded. `None`: the engine computes prompts in whole
    /// chunks and does not speculate.
    fn step_costs(&self) -> Option<StepCosts> {
        None
    }

    /// Whether a token's keys and values depend on its role. Then cached blocks are reused only where their tokens have
    /// the role they were computed in, so that an answer does not depend on what is cached.
    fn roles_differ(&self) -> bool {
        false
    }

    /// Computes every token of the plan, writes keys and values into the blocks that the plan
    /// names, and answers its output rows.
    ///
    /// # Errors
    /// The whole step fails; cache contents of the blocks written by it are undefined.
    fn run(&mut self, plan: &StepPlan) -> Result<StepResults, RunnerError>;
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    #[error("the plan does not fit the runner: {0}")]
    Plan(String),
    #[error("the device failed: {0}")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RunnerError {
    /// Stable code for matching.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plan(_) => "runner_plan",
            Self::Device(_) => "runner_device",
        }
    }
}
