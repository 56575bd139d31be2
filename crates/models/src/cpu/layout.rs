//! A plan checked and laid out as rows: those computed finely first, then those of prompts. The buffers are kept from
//! step to step, so a step allocates nothing here.

use tsserve_engine::{CacheKind, RowRole, RunnerError, RunnerSpec, SequencePlan, StepPlan};
use tsserve_kernels::attention::SPAN;

use crate::step::{check_sequence, visible_from};

/// Rows of a prompt that one piece of attention work computes.
const TILE_ROWS: usize = 16;

/// The first positions of a sequence are computed as finely as answers are. All later tokens look at them: models park
/// their attention there, on states so large that errors in them are felt everywhere.
const FINE_POSITIONS: usize = 4;

/// The rows of a step.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Number of rows computed finely; they are the first.
    pub n_decode: usize,
    /// Token id of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<usize>,
    /// Index into the plan's sequences of each row.
    pub sequences: Vec<usize>,
    /// Row and place in the plan (sequence, output) of every wanted output, in plan order.
    pub outputs: Vec<Output>,
    /// Pieces of prompts.
    pub tiles: Vec<Tile>,
    /// Per cache group: what the fine rows see, in pieces.
    pub groups: Vec<Vec<Piece>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub row: usize,
    pub sequence: usize,
    pub output: usize,
}

/// Rows of one prompt that follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub row: usize,
    pub len: usize,
}

/// Positions `from..to` seen by one row; a row's pieces follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub row: usize,
    pub from: usize,
    pub to: usize,
}

impl Layout {
    /// # Errors
    /// `RunnerError::Plan` with what does not fit.
    pub(super) fn fill(&mut self, plan: &StepPlan, spec: &RunnerSpec, max_tokens: usize) -> Result<(), RunnerError> {
        let n_tokens = plan.n_tokens();
        if n_tokens > max_tokens {
            return Err(RunnerError::Plan(format!("{n_tokens} tokens, at most {max_tokens} fit one step")));
        }
        for sequence in &plan.sequences {
            check_sequence(sequence, spec)
                .map_err(|what| RunnerError::Plan(format!("sequence {}: {what}", sequence.sequence.0)))?;
        }
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.tiles.clear();
        self.push(plan, true);
        self.n_decode = self.tokens.len();
        self.push(plan, false);
        self.outputs.sort_unstable_by_key(|output| (output.sequence, output.output));
        self.groups.resize_with(spec.groups.len(), Vec::new);
        for (pieces, group) in self.groups.iter_mut().zip(&spec.groups) {
            pieces.clear();
            for (row, &position) in self.positions[..self.n_decode].iter().enumerate() {
                push_pieces(pieces, row, position, group.kind);
            }
        }
        Ok(())
    }

    /// Appends the fine rows of all sequences, or the others.
    fn push(&mut self, plan: &StepPlan, fine: bool) {
        for (index, sequence) in plan.sequences.iter().enumerate() {
            let n_fine = fine_rows(sequence);
            let part = if fine { 0..n_fine } else { n_fine..sequence.tokens.len() };
            let first = self.tokens.len();
            self.tokens.extend_from_slice(&sequence.tokens[part.clone()]);
            self.positions.extend(sequence.start + part.start..sequence.start + part.end);
            self.sequences.extend(part.clone().map(|_| index));
            let outputs = sequence.outputs.iter().enumerate().filter(|(_, wanted)| part.contains(&wanted.index));
            self.outputs.extend(outputs.map(|(output, wanted)| Output {
                row: first + wanted.index - part.start,
                sequence: index,
                output,
            }));
            if !fine {
                let end = self.tokens.len();
                let tiles = (first..end).step_by(TILE_ROWS);
                self.tiles.extend(tiles.map(|row| Tile { row, len: TILE_ROWS.min(end - row) }));
            }
        }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.tokens.len()
    }
}

/// How many of a sequence's rows, from its first, are computed with fine activations: all those of an answer, since they
/// decide its tokens and a step with few rows waits for memory anyway, and the first positions of a prompt.
fn fine_rows(sequence: &SequencePlan) -> usize {
    let n = sequence.tokens.len();
    match sequence.role {
        RowRole::Decode => n,
        RowRole::Prompt => FINE_POSITIONS.saturating_sub(sequence.start).min(n),
    }
}

fn push_pieces(pieces: &mut Vec<Piece>, row: usize, position: usize, kind: CacheKind) {
    let (mut from, end) = (visible_from(kind, position), position + 1);
    while from < end {
        let to = ((from / SPAN + 1) * SPAN).min(end);
        pieces.push(Piece { row, from, to });
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_absolute_borders() {
        let mut pieces = Vec::new();
        push_pieces(&mut pieces, 3, 2 * SPAN + 4, CacheKind::Window(SPAN));
        let found: Vec<_> = pieces.iter().map(|piece| (piece.row, piece.from, piece.to)).collect();
        assert_eq!(found, [(3, SPAN + 5, 2 * SPAN), (3, 2 * SPAN, 2 * SPAN + 5)]);
    }
}
