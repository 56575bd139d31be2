//! How much of prompts a step computes beside answers that are being written.

use crate::costs::{StepCosts, StepLoad};
use crate::{EngineConfig, RowRole};

/// How long a step with chunks may take in any case, in times of its answers alone: what Sarathi-Serve (arXiv 2403.02310)
/// takes as a strict promise of the time between tokens. With 32 users who chat with a small model, 2 of them made the
/// last wait twice as long for its first token as 5, with no more tokens in all.
const OF_ANSWERS: f64 = 5.0;

/// Cuts chunks so that steps keep the time that is wanted between two tokens. Where a chunk is cut changes no answer: a
/// row's bits do not depend on the rows beside it.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub(crate) costs: StepCosts,
    /// Seconds; infinite where nothing is wanted.
    target: f64,
    block_size: usize,
}

/// A step as far as it is planned.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Planned {
    pub(crate) load: StepLoad,
    /// What of it writes answers, if anything does.
    pub(crate) answers: Option<StepLoad>,
    /// Whether a chunk is in it already.
    pub(crate) has_chunk: bool,
    /// Tokens that still fit.
    pub(crate) budget: usize,
}

/// A chunk that a sequence could compute: positions `start..end`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    pub(crate) role: RowRole,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Pace {
    pub(crate) fn new(costs: StepCosts, config: &EngineConfig, block_size: usize) -> Self {
        let target = config.inter_token_target.map_or(f64::INFINITY, |target| target.as_secs_f64());
        Self { costs, target, block_size }
    }

    /// Where the chunk ends in this step: whole where no answer waits for the step, else as far as the time allows, at
    /// a block's border. Where answers alone take much of the target, it is several times as long as they take: else a busy
    /// server or a large model would compute prompts a block at a time, each beside a step that costs as much without
    /// it. The first chunk of a step always has one block, so that prompts get on whatever the target. `None`: not in this step.
    pub(crate) fn cut(&self, planned: &Planned, chunk: Chunk) -> Option<usize> {
        let Chunk { role, start, end } = chunk;
        let target = planned
            .answers
            .as_ref()
            .map_or(f64::INFINITY, |answers| self.target.max(OF_ANSWERS * self.costs.seconds(answers)));
        let has_time = |end: usize| self.costs.seconds(&planned.load.with(role, start, end - start)) <= target;
        let fits = |end: usize| end - start <= planned.budget && has_time(end);
        if fits(end) {
            return Some(end);
        }
        let border = |i: usize| (start / self.block_size + 1 + i) * self.block_size;
        // The borders before the end that fit: all before the first that does not.
        let (mut fit, mut not) = (0, (end - 1) / self.block_size - start / self.block_size);
        while fit < not {
            let middle = fit.midpoint(not);
            if fits(border(middle)) {
                fit = middle + 1;
            } else {
                not = middle;
            }
        }
        let least = border(0).min(end);
        match fit.checked_sub(1) {
            Some(last) => Some(border(last)),
            None => (!planned.has_chunk && least - start <= planned.budget).then_some(least),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A row takes a millisecond, a step one more; 10 ms are wanted.
    fn pace() -> Pace {
        let costs = StepCosts::new([(1, Duration::from_millis(2)), (101, Duration::from_millis(102))]).unwrap();
        let config = EngineConfig { inter_token_target: Some(Duration::from_millis(10)), ..EngineConfig::default() };
        Pace::new(costs, &config, 4)
    }

    fn cut(planned: Planned, start: usize, end: usize) -> Option<usize> {
        pace().cut(&planned, Chunk { role: RowRole::Prompt, start, end })
    }

    #[test]
    fn a_chunk_takes_the_time_that_answers_leave() {
        let alone = Planned { budget: 100, ..Planned::default() };
        assert_eq!(cut(alone, 0, 50), Some(50));
        let writing = |n| {
            let load = (0..n).fold(StepLoad::default(), |load, _| load.with(RowRole::Decode, 9, 1));
            Planned { load, answers: Some(load), ..alone }
        };
        // 2 ms for one answer leave 7 rows of a chunk.
        assert_eq!(cut(writing(1), 8, 50), Some(12));
        assert_eq!([15, 16].map(|end| cut(writing(1), 8, end)), [Some(15), Some(12)]);
        // The first chunk has a block in any case, a second has no right to it.
        let filled = |rows| {
            let answer = writing(1);
            Planned { load: answer.load.with(RowRole::Prompt, 8, rows), has_chunk: true, ..answer }
        };
        assert_eq!([3, 4].map(|rows| cut(filled(rows), 8, 50)), [Some(12), None]);
        assert_eq!(cut(Planned { has_chunk: false, ..filled(9) }, 8, 50), Some(12));
        // From the middle of a block to its border.
        assert_eq!(cut(filled(5), 6, 50), Some(8));
    }

    #[test]
    fn many_answers_leave_a_chunk_several_times_as_long_as_they_take() {
        let load = (0..5).fold(StepLoad::default(), |load, _| load.with(RowRole::Decode, 9, 1));
        let planned = Planned { load, answers: Some(load), budget: 100, ..Planned::default() };
        // 6 ms of answers, and 23 rows of a chunk.
        assert_eq!(cut(planned, 8, 50), Some(28));
        assert_eq!(cut(Planned { has_chunk: true, load: load.with(RowRole::Prompt, 0, 20), ..planned }, 8, 50), None);
    }

    #[test]
    fn a_chunk_takes_the_tokens_that_are_left() {
        let left = |budget| Planned { budget, ..Planned::default() };
        assert_eq!(
            [42, 41, 4, 3, 0].map(|budget| cut(left(budget), 8, 50)),
            [Some(50), Some(48), Some(12), None, None]
        );
    }

    #[test]
    fn without_a_target_chunks_are_whole() {
        let costs = StepCosts::new([(1, Duration::from_secs(9))]).unwrap();
        let config = EngineConfig { inter_token_target: None, ..EngineConfig::default() };
        let planned = Planned {
            load: StepLoad::default().with(RowRole::Decode, 9, 1),
            answers: Some(StepLoad::default().with(RowRole::Decode, 9, 1)),
            has_chunk: true,
            budget: 99,
        };
        let chunk = Chunk { role: RowRole::Prompt, start: 8, end: 50 };
        assert_eq!(Pace::new(costs, &config, 4).cut(&planned, chunk), Some(50));
    }
}
