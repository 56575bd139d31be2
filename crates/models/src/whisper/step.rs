//! What one pass of the decoder computes, laid out as rows: one for each token.

/// Rows of one pass, at most; longer input takes several.
pub(super) const MAX_ROWS: usize = 256;

/// Rows of one audio that cross-attention takes at once.
const QUERIES: usize = 24;

/// Tokens of one cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// Place of its cache.
    pub cache: usize,
    /// First row, and number of rows.
    pub first: usize,
    pub n: usize,
    /// Tokens in the cache before.
    pub start: usize,
}

/// Rows of one audio that follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub audio: usize,
    pub first: usize,
    pub n: usize,
}

/// The rows of a pass. Memory is kept from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub tokens: Vec<u32>,
    pub positions: Vec<usize>,
    pub units: Vec<Unit>,
    pub runs: Vec<Run>,
    /// Rows after which logits are wanted, and their place in the answer.
    pub wanted: Vec<(usize, usize)>,
}

impl Step {
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.units.clear();
        self.runs.clear();
        self.wanted.clear();
    }

    pub(super) fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// Appends tokens of one cache. Units of one audio come one after the other.
    pub(super) fn push(&mut self, audio: usize, cache: usize, start: usize, tokens: &[u32]) {
        let first = self.n_rows();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(start..start + tokens.len());
        self.units.push(Unit { cache, first, n: tokens.len(), start });
        let mut row = first;
        while row < self.n_rows() {
            let room = match self.runs.last_mut() {
                Some(run) if run.audio == audio && run.n < QUERIES => run,
                _ => {
                    self.runs.push(Run { audio, first: row, n: 0 });
                    continue;
                }
            };
            let n = (QUERIES - room.n).min(first + tokens.len() - row);
            room.n += n;
            row += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_audio_are_attended_together() {
        let mut step = Step::default();
        step.push(0, 4, 7, &[1, 2]);
        step.push(0, 2, 0, &[3; 40]);
        step.push(5, 1, 3, &[9]);
        let runs: Vec<_> = step.runs.iter().map(|run| (run.audio, run.first, run.n)).collect();
        assert_eq!(runs, [(0, 0, 24), (0, 24, 18), (5, 42, 1)]);
        assert_eq!(step.positions[..3], [7, 8, 0]);
        let units: Vec<_> = step.units.iter().map(|unit| (unit.cache, unit.first, unit.n)).collect();
        assert_eq!(units, [(4, 0, 2), (2, 2, 40), (1, 42, 1)]);
        step.clear();
        assert_eq!(step.n_rows() + step.runs.len() + step.units.len(), 0);
    }
}
