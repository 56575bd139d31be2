//! What every runner checks of a plan before it computes.

use tsserve_engine::{CacheKind, RowWant, RunnerSpec, SequencePlan};

/// Positions per KV block, of every runner.
pub const BLOCK_SIZE: usize = 16;

/// Does one sequence of a plan fit the runner?
///
/// # Errors
/// What does not fit, as half a sentence.
pub(crate) fn check_sequence(sequence: &SequencePlan, spec: &RunnerSpec) -> Result<(), String> {
    let (start, len) = (sequence.start, sequence.tokens.len());
    if len == 0 {
        return Err("no tokens".to_owned());
    }
    let end = start
        .checked_add(len)
        .filter(|end| *end <= spec.max_context)
        .ok_or_else(|| format!("{len} tokens from position {start} on pass the context of {}", spec.max_context))?;
    if let Some(token) = sequence.tokens.iter().find(|token| **token as usize >= spec.vocab_size) {
        return Err(format!("token {token} is not below the vocabulary size {}", spec.vocab_size));
    }
    if sequence.block_tables.len() != spec.groups.len() {
        return Err(format!("{} block tables for {} groups", sequence.block_tables.len(), spec.groups.len()));
    }
    for (index, (table, group)) in sequence.block_tables.iter().zip(&spec.groups).enumerate() {
        let visible = visible_from(group.kind, start);
        let blocks = table
            .get(visible / BLOCK_SIZE..end.div_ceil(BLOCK_SIZE))
            .ok_or_else(|| format!("the table of group {index} does not cover position {}", end - 1))?;
        if let Some(block) = blocks.iter().find(|block| **block as usize >= group.n_blocks) {
            return Err(format!("block {block} of group {index} is not below {}", group.n_blocks));
        }
    }
    let mut previous = None;
    for output in &sequence.outputs {
        if output.index >= len || previous.is_some_and(|previous| output.index <= previous) {
            return Err(format!("output index {} is out of range or order", output.index));
        }
        previous = Some(output.index);
        check_want(&output.want, spec.vocab_size)?;
    }
    Ok(())
}

/// The first position that a token at `position` sees.
pub(crate) fn visible_from(kind: CacheKind, position: usize) -> usize {
    match kind {
        CacheKind::Window(window) => (position + 1).saturating_sub(window),
        CacheKind::Full | CacheKind::State => 0,
    }
}

fn check_want(want: &RowWant, vocab_size: usize) -> Result<(), String> {
    let ids: &[u32] = match want {
        RowWant::ArgMax | RowWant::Full => &[],
        RowWant::TopK { k: 0, .. } => return Err("top-k of nothing".to_owned()),
        RowWant::TopK { chosen, .. } => chosen,
        RowWant::Allowed(ids) => ids,
    };
    match ids.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(format!("logit of token {id} wanted, the vocabulary has {vocab_size}")),
        None => Ok(()),
    }
}
