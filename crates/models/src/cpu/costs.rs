//! How long steps take on this machine: measured with the loaded model itself, before anybody uses it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tsserve_engine::{ModelRunner, OutputRow, RowRole, RowWant, SequenceId, SequencePlan, StepCosts, StepPlan};

use super::runner::CpuRunner;
use crate::step::BLOCK_SIZE;

/// Numbers of rows that are measured, those first that say most. Those up to 8 are computed as an answer's, the others as
/// a prompt's.
const ROWS: [usize; 10] = [1, 8, 32, 128, 4, 16, 64, 2, 6, 3];

/// So many of them are measured in any case: behind the last, time grows in proportion.
const LEAST_ROWS: usize = 3;

const ROUNDS: usize = 3;

/// Steps that must be known are timed a second time until this has passed. Longer ones are disturbed less.
const LEAST_PATIENCE: Duration = Duration::from_millis(600);

/// Nothing else is measured once this has passed.
const PATIENCE: Duration = Duration::from_millis(120);

/// Context at which it is measured what positions cost.
const DEPTH: usize = 1024;

/// Bytes ahead of the weight stream that may be prefetched. Half as fast again with it on one machine, a tenth
/// slower on another: measured, not guessed.
const PREFETCH: [usize; 3] = [0, 8 << 10, 16 << 10];

/// Prefetching must be this much faster than not.
const WORTH_IT: f64 = 0.95;

/// Chooses the prefetch distance and measures steps of a fresh runner. What it writes to the cache is read by nobody.
pub(super) fn calibrate(runner: &mut CpuRunner) -> Option<StepCosts> {
    // Touches the memory that is measured.
    time(runner, 0, 1)?;
    let started = Instant::now();
    runner.prefetch = choose_prefetch(runner, started)?;
    let mut points = Vec::with_capacity(ROUNDS * ROWS.len());
    for round in 0..ROUNDS {
        for (i, rows) in ROWS.into_iter().enumerate() {
            let patience = match (i < LEAST_ROWS, round) {
                (true, 0) => Duration::MAX,
                (true, 1) => LEAST_PATIENCE,
                _ => PATIENCE,
            };
            if started.elapsed() > patience {
                break;
            }
            points.extend(time(runner, 0, rows).map(|time| (rows, time)));
        }
    }
    // What neighbours on the machine disturb only becomes longer: of several times the shortest is taken.
    let costs = StepCosts::new(points)?;
    let at_depth = |runner: &mut CpuRunner, rows: usize, alone: Duration| {
        let once = time(runner, DEPTH, rows);
        let again = if started.elapsed() > LEAST_PATIENCE { None } else { time(runner, DEPTH, rows) };
        once.into_iter().chain(again).min().map_or(Duration::ZERO, |deep| deep.saturating_sub(alone) / rows as u32)
    };
    let decode = at_depth(runner, 1, Duration::from_secs_f64(costs.rows(1)));
    let alone = Duration::from_secs_f64(costs.rows(32));
    Some(costs.with_context(decode, at_depth(runner, 32, alone)))
}

/// The distance with the fastest step of one row; in turns, so that a neighbour on the machine disturbs all alike.
fn choose_prefetch(runner: &mut CpuRunner, started: Instant) -> Option<usize> {
    let mut best = [Duration::MAX; PREFETCH.len()];
    for _ in 0..4 {
        for (best, distance) in best.iter_mut().zip(PREFETCH) {
            runner.prefetch = distance;
            *best = time(runner, 0, 1)?.min(*best);
        }
        if started.elapsed() > PATIENCE / 2 {
            break;
        }
    }
    let without = best[0].mul_f64(WORTH_IT);
    let fastest = (1..PREFETCH.len()).min_by_key(|&i| best[i]).filter(|&i| best[i] < without);
    Some(PREFETCH[fastest.unwrap_or(0)])
}

/// The time of a step of `rows` rows of one sequence from position `start` on; `None` if it does not fit the runner.
fn time(runner: &mut CpuRunner, start: usize, rows: usize) -> Option<Duration> {
    let blocks = (start + rows).div_ceil(BLOCK_SIZE);
    let spec = runner.spec();
    if spec.groups.iter().any(|group| group.n_blocks < blocks) {
        return None;
    }
    let table: Arc<[u32]> = (0..blocks as u32).collect();
    let plan = SequencePlan {
        sequence: SequenceId(0),
        role: if rows <= 8 { RowRole::Decode } else { RowRole::Prompt },
        tokens: (0..rows).map(|i| (i * 31 % spec.vocab_size) as u32).collect(),
        start,
        block_tables: vec![table; spec.groups.len()],
        outputs: vec![OutputRow { index: rows - 1, want: RowWant::ArgMax }],
    };
    let started = Instant::now();
    runner.run(&StepPlan { sequences: vec![plan] }).ok()?;
    Some(started.elapsed())
}
