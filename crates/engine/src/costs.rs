//! What a step costs on this machine, as its runner measured it when it was loaded.

use std::time::Duration;

use crate::{RowRole, SequencePlan, StepPlan};

/// Positions that the context costs are given for.
const CONTEXT_UNIT: f64 = 1024.0;

/// How long steps take, by what is in them. The engine decides by it and by nothing it measures itself: equal tables
/// and equal requests make equal plans.
#[derive(Debug, Clone, PartialEq)]
pub struct StepCosts {
    /// Rows to seconds: rows increasing, seconds not decreasing, at least one point.
    points: Vec<(usize, f64)>,
    /// Seconds that one position of context adds to a row.
    decode_position: f64,
    prompt_position: f64,
}

/// What is in a step: rows by role, and the positions of context that they see together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct StepLoad {
    decode: RoleLoad,
    prompt: RoleLoad,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct RoleLoad {
    rows: usize,
    positions: f64,
}

impl StepCosts {
    /// `points` says how long a step of so many rows takes at a context of a few positions, in any order. Between two
    /// points time is interpolated, behind the last it grows as between the last two, but by half of the last one's mean
    /// time per row at least, before the first it is that of the first. Where a step of more rows was measured to be
    /// faster, its time holds: neighbours on the machine only make steps longer. `None` without a point.
    pub fn new(points: impl IntoIterator<Item = (usize, Duration)>) -> Option<Self> {
        let seconds = |(rows, time): (usize, Duration)| (rows > 0).then_some((rows, time.as_secs_f64()));
        let mut points: Vec<_> = points.into_iter().filter_map(seconds).collect();
        points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points.dedup_by_key(|point| point.0);
        let mut most = f64::INFINITY;
        for (_, seconds) in points.iter_mut().rev() {
            most = seconds.min(most);
            *seconds = most;
        }
        (!points.is_empty()).then_some(Self { points, decode_position: 0.0, prompt_position: 0.0 })
    }

    /// What 1024 positions of context add to one row of either role.
    #[must_use]
    pub fn with_context(self, decode: Duration, prompt: Duration) -> Self {
        let per_position = |time: Duration| time.as_secs_f64() / CONTEXT_UNIT;
        Self { decode_position: per_position(decode), prompt_position: per_position(prompt), ..self }
    }

    /// Seconds of a step of so many rows at a context of a few positions; 0 for none.
    pub fn rows(&self, rows: usize) -> f64 {
        let behind = self.points.partition_point(|&(at, _)| at < rows);
        let (x1, y1) = self.points[behind.min(self.points.len() - 1)];
        // The other point that the line goes through.
        let before = behind.min(self.points.len() - 1).checked_sub(1).map(|i| self.points[i]);
        let slope = before.map(|(x0, y0)| (y1 - y0) / (x1 - x0) as f64);
        let mean = y1 / x1 as f64;
        match slope {
            _ if rows == 0 => 0.0,
            _ if rows > x1 => y1 + slope.map_or(mean, |slope| slope.max(mean / 2.0)) * (rows - x1) as f64,
            Some(slope) => y1 - slope * (x1 - rows) as f64,
            None => y1,
        }
    }

    /// Seconds of the step of a plan.
    pub fn plan(&self, plan: &StepPlan) -> f64 {
        let with = |load: StepLoad, s: &SequencePlan| load.with(s.role, s.start, s.tokens.len());
        self.seconds(&plan.sequences.iter().fold(StepLoad::default(), with))
    }

    /// Seconds of a step. Rows of the two roles may be computed one after the other, so their times are added: on the
    /// safe side where a runner does better.
    pub(crate) fn seconds(&self, load: &StepLoad) -> f64 {
        let StepLoad { decode, prompt } = load;
        self.rows(decode.rows)
            + self.rows(prompt.rows)
            + self.decode_position * decode.positions
            + self.prompt_position * prompt.positions
    }
}

impl StepLoad {
    /// The same with `n` more rows of one sequence from position `start` on.
    #[must_use]
    pub(crate) fn with(mut self, role: RowRole, start: usize, n: usize) -> Self {
        let part = match role {
            RowRole::Decode => &mut self.decode,
            RowRole::Prompt => &mut self.prompt,
        };
        part.rows += n;
        part.positions += n as f64 * (start as f64 + n as f64 / 2.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(points: &[(usize, u64)]) -> StepCosts {
        StepCosts::new(points.iter().map(|&(rows, ms)| (rows, Duration::from_millis(ms)))).unwrap()
    }

    #[test]
    fn time_is_interpolated_and_never_falls() {
        // Unordered, with a measurement that a neighbour on the machine disturbed: 8 rows are not slower than 16.
        let costs = costs(&[(16, 8), (1, 2), (4, 3), (8, 9), (0, 1)]);
        let ms = |rows| (costs.rows(rows) * 1e6).round() / 1e3;
        assert_eq!([0, 1, 2, 4, 6, 8, 12, 16].map(ms), [0.0, 2.0, 2.333, 3.0, 5.5, 8.0, 8.0, 8.0]);
        // Behind the last point half a millisecond per row, which is the slope, then half of the mean, which is more.
        let growing = self::costs(&[(2, 2), (4, 4), (8, 6)]);
        let ms = |rows| (growing.rows(rows) * 1e6).round() / 1e3;
        assert_eq!([1, 3, 6, 8, 12, 16].map(ms), [2.0, 3.0, 5.0, 6.0, 8.0, 10.0]);
        let flat = self::costs(&[(1, 7), (8, 8)]);
        assert_eq!([1, 8, 16, 512].map(|rows| (flat.rows(rows) * 1e6).round() / 1e3), [7.0, 8.0, 12.0, 260.0]);
        assert_eq!(self::costs(&[(4, 4)]).rows(8), 0.008);
        assert_eq!(StepCosts::new([(0, Duration::ZERO)]), None);
    }

    #[test]
    fn context_is_counted_by_role() {
        let costs = costs(&[(1, 2), (16, 8)]).with_context(Duration::from_millis(1), Duration::from_micros(100));
        let load = StepLoad::default().with(RowRole::Decode, 1024, 1).with(RowRole::Prompt, 2048, 16);
        let expected = 0.002 + 0.008 + 0.001 * (1024.5 / 1024.0) + 16.0 * 0.0001 * (2056.0 / 1024.0);
        assert!((costs.seconds(&load) - expected).abs() < 1e-12);
    }
}
