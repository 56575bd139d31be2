//! A plan checked against the runner and laid out flat: one row per token, whatever sequence it belongs to.

use std::sync::Arc;

use tsserve_engine::{BlockId, RowWant, RunnerError, RunnerSpec, SequencePlan, StepPlan};

use crate::step::{BLOCK_SIZE, check_sequence};

/// A checked plan. Row `r` is the `r`-th token over all sequences in plan order.
#[derive(Debug)]
pub struct Step<'p> {
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<usize>,
    pub spans: Vec<Span>,
    /// Per cache group, the cache row (block * BLOCK_SIZE + offset) that each row's key and value go to.
    pub slots: Vec<Vec<u32>>,
    /// Row and want of every output, in plan order.
    pub outputs: Vec<(usize, &'p RowWant)>,
}

/// The rows of one sequence.
#[derive(Debug, Clone)]
pub struct Span {
    /// First row.
    pub first: usize,
    /// Number of rows, at least 1.
    pub len: usize,
    /// Position of the first row.
    pub start: usize,
    /// One block table per cache group.
    pub tables: Vec<Arc<[BlockId]>>,
}

impl<'p> Step<'p> {
    /// # Errors
    /// `RunnerError::Plan` with what does not fit.
    pub fn new(plan: &'p StepPlan, spec: &RunnerSpec, max_batch_tokens: usize) -> Result<Self, RunnerError> {
        let n_tokens = plan.n_tokens();
        if n_tokens > max_batch_tokens {
            return Err(RunnerError::Plan(format!("{n_tokens} tokens, at most {max_batch_tokens} fit one step")));
        }
        let mut step = Self {
            tokens: Vec::with_capacity(n_tokens),
            positions: Vec::with_capacity(n_tokens),
            spans: Vec::with_capacity(plan.sequences.len()),
            slots: vec![Vec::with_capacity(n_tokens); spec.groups.len()],
            outputs: Vec::new(),
        };
        for sequence in &plan.sequences {
            step.push(sequence, spec)
                .map_err(|what| RunnerError::Plan(format!("sequence {}: {what}", sequence.sequence.0)))?;
        }
        Ok(step)
    }

    fn push(&mut self, sequence: &'p SequencePlan, spec: &RunnerSpec) -> Result<(), String> {
        check_sequence(sequence, spec)?;
        let (start, len, first) = (sequence.start, sequence.tokens.len(), self.tokens.len());
        let end = start + len;
        for (slots, table) in self.slots.iter_mut().zip(&sequence.block_tables) {
            slots.extend((start..end).map(|position| slot(table, position)));
        }
        self.outputs.extend(sequence.outputs.iter().map(|output| (first + output.index, &output.want)));
        self.tokens.extend(&sequence.tokens);
        self.positions.extend(start..end);
        self.spans.push(Span { first, len, start, tables: sequence.block_tables.clone() });
        Ok(())
    }
}

/// The cache row of a position.
pub fn slot(table: &[BlockId], position: usize) -> u32 {
    table[position / BLOCK_SIZE] * BLOCK_SIZE as u32 + (position % BLOCK_SIZE) as u32
}

/// Cache rows of the positions `from..to` as runs `(first row, length)`; blocks that follow each other are one run.
pub fn runs(table: &[BlockId], from: usize, to: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut position = from;
    while position < to {
        let length = (BLOCK_SIZE - position % BLOCK_SIZE).min(to - position);
        let row = slot(table, position) as usize;
        match runs.last_mut() {
            Some((first, total)) if *first + *total == row => *total += length,
            _ => runs.push((row, length)),
        }
        position += length;
    }
    runs
}

#[cfg(test)]
mod tests {
    use tsserve_engine::{CacheGroup, CacheKind, OutputRow, RowRole, SequenceId};

    use super::*;

    fn spec() -> RunnerSpec {
        RunnerSpec {
            vocab_size: 100,
            block_size: BLOCK_SIZE,
            max_context: 64,
            groups: vec![
                CacheGroup { kind: CacheKind::Full, n_blocks: 8 },
                CacheGroup { kind: CacheKind::Window(8), n_blocks: 8 },
            ],
        }
    }

    fn sequence() -> SequencePlan {
        SequencePlan {
            sequence: SequenceId(1),
            role: RowRole::Prompt,
            tokens: vec![5, 6],
            start: 31,
            block_tables: vec![vec![4, 2, 3].into(), vec![99, 1, 2].into()],
            outputs: vec![OutputRow { index: 1, want: RowWant::ArgMax }],
        }
    }

    #[test]
    fn rows_know_their_cache_rows_and_freed_window_blocks_are_not_looked_at() {
        let plan = StepPlan { sequences: vec![sequence()] };
        let spec = spec();
        let step = Step::new(&plan, &spec, 10).unwrap();
        assert_eq!(step.positions, [31, 32]);
        assert_eq!(step.slots, [vec![2 * 16 + 15, 3 * 16], vec![16 + 15, 2 * 16]]);
        assert_eq!(step.outputs[0].0, 1);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let spec = spec();
        let refuse = |change: &dyn Fn(&mut SequencePlan)| {
            let mut sequence = sequence();
            change(&mut sequence);
            let plan = StepPlan { sequences: vec![sequence] };
            Step::new(&plan, &spec, 10).unwrap_err().to_string()
        };
        assert!(refuse(&|s| s.tokens.clear()).contains("no tokens"));
        assert!(refuse(&|s| s.tokens[0] = 100).contains("token 100"));
        assert!(refuse(&|s| s.start = 63).contains("context"));
        assert!(refuse(&|s| s.start = usize::MAX).contains("context"));
        assert!(refuse(&|s| s.block_tables[0] = vec![4, 2].into()).contains("does not cover"));
        assert!(refuse(&|s| s.block_tables[0] = vec![8, 2, 3].into()).contains("block 8"));
        assert!(refuse(&|s| s.outputs[0].index = 2).contains("output index"));
        assert!(refuse(&|s| s.outputs[0].want = RowWant::TopK { k: 0, chosen: vec![] }).contains("top-k"));
        assert!(refuse(&|s| s.outputs[0].want = RowWant::Allowed(vec![100].into())).contains("token 100"));
        assert!(refuse(&|s| s.tokens = vec![1; 11]).contains("11 tokens"));
    }

    #[test]
    fn neighbouring_blocks_make_one_run() {
        assert_eq!(runs(&[4, 5, 2], 3, 40), [(4 * 16 + 3, 29), (32, 8)]);
        assert_eq!(runs(&[4, 5, 2], 17, 18), [(5 * 16 + 1, 1)]);
    }
}
