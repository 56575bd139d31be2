//! A step of the CPU runner allocates what it hands out and nothing else, whatever it computes. Alone in its binary: the
//! allocator counts for the whole process.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod runner;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use runner::{Sequence, TINY, TestRunner, fixtures, last_row, levels, open};
use tsserve_engine::{ModelRunner, RowRole, RowWant, StepPlan};
use tsserve_models::cpu::{CacheType, CpuRunner};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(start, layout, new_size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a step that was planned before; gives what it allocated.
fn allocations(model: &mut TestRunner<CpuRunner>, plan: &StepPlan) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let results = model.runner.run(plan);
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    results.unwrap();
    after - before
}

/// A step of three answers and a chunk of a prompt, with a candidate wanted of each answer.
fn mixed(model: &mut TestRunner<CpuRunner>, answers: &mut [Sequence], prompt: &mut Sequence, chunk: usize) -> StepPlan {
    model.role = RowRole::Decode;
    let mut sequences: Vec<_> =
        answers.iter_mut().map(|sequence| model.plan(sequence, &[9], last_row(1, RowWant::ArgMax))).collect();
    model.role = RowRole::Prompt;
    sequences.push(model.plan(prompt, &vec![11; chunk], Vec::new()));
    StepPlan { sequences }
}

#[test]
fn a_step_allocates_its_results_only() {
    for name in TINY {
        for (level, cache_type) in levels().into_iter().flat_map(|level| CacheType::ALL.map(|kind| (level, kind))) {
            let checkpoint = open(&fixtures().join("models").join(name));
            let mut model = TestRunner::cpu_as(&checkpoint, level, None, cache_type, 128, 1024);
            let mut answers = [model.sequence(), model.sequence(), model.sequence()];
            let mut prompt = model.sequence();
            // The lists of rows grow to what the largest step needs.
            let plan = mixed(&mut model, &mut answers, &mut prompt, 160);
            allocations(&mut model, &plan);
            for chunk in [1, 7, 32, 100, 160] {
                let plan = mixed(&mut model, &mut answers, &mut prompt, chunk);
                // The list of results, and each one's list of candidates.
                assert_eq!(
                    allocations(&mut model, &plan),
                    1 + answers.len(),
                    "{name} {level} {cache_type}, a chunk of {chunk}"
                );
            }
            let mut quiet = StepPlan { sequences: vec![model.plan(&mut prompt, &[5; 100], Vec::new())] };
            assert_eq!(allocations(&mut model, &quiet), 0, "{name} {level} {cache_type}, without outputs");
            quiet.sequences = vec![model.plan(&mut prompt, &[5; 160], Vec::new())];
            assert_eq!(allocations(&mut model, &quiet), 0, "{name} {level} {cache_type}, without outputs, longer");
        }
    }
}
