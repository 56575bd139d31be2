//! One engine step.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::scheduler::{Scheduler, StepFailure};
use crate::{ModelRunner, StepPlan, StepResults};

/// Plans, computes, takes in. A runner that fails or panics fails the sequences of this step and no others. False if
/// there was nothing to compute. `planned` may look at the queues before the runner computes.
pub fn step(
    scheduler: &mut Scheduler,
    runner: &mut dyn ModelRunner,
    now: impl Fn() -> Instant,
    planned: impl FnOnce(&Scheduler),
) -> bool {
    let plan = scheduler.schedule(now());
    planned(scheduler);
    if plan.sequences.is_empty() {
        return false;
    }
    match run(runner, &plan) {
        Ok(results) => scheduler.update(&plan, &results, now()),
        Err(failure) => scheduler.fail_step(&plan, &failure),
    }
    true
}

fn run(runner: &mut dyn ModelRunner, plan: &StepPlan) -> Result<StepResults, StepFailure> {
    // The runner may be left in the middle of a step; its blocks are not reused, and the next plan names all it reads.
    match catch_unwind(AssertUnwindSafe(|| runner.run(plan))) {
        Ok(Ok(results)) => Ok(results),
        Ok(Err(error)) => Err(StepFailure { code: error.code(), message: error.to_string() }),
        Err(panic) => Err(StepFailure {
            code: "runner_panic",
            message: format!("the model runner panicked: {}", panic_message(panic.as_ref())),
        }),
    }
}

/// What a panic said, if it said it as text.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}
