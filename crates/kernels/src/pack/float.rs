//! Float weights: the elements as stored, input by input, those of 16 rows side by side.
//!
//! F16 and F32 are `[k][16]`. BF16 is `[k / 2][16]` pairs of inputs, the even one in the low half of 32 bits: what
//! `vdpbf16ps` and AMX multiply, and what becomes two f32 vectors by a shift and a mask. An odd last input is paired
//! with 0.

use half::{bf16, f16};

use crate::{Format, ROW_GROUP};

/// Bytes of a group of 16 rows.
pub(crate) fn group_bytes(format: Format, n_cols: usize) -> usize {
    let inputs = if format == Format::BF16 { n_cols.next_multiple_of(2) } else { n_cols };
    inputs * ROW_GROUP * format.block().1
}

/// Packs up to 16 rows as one group into zeroed memory; rows that are missing stay zero.
pub(crate) fn pack_group(format: Format, _n_cols: usize, rows: &[&[u8]], out: &mut [u8]) {
    // Bytes that stay together: a pair or an element.
    let size = if format == Format::F16 { 2 } else { 4 };
    for (lane, row) in rows.iter().enumerate() {
        for (value, out) in row.chunks(size).zip(out.chunks_exact_mut(ROW_GROUP * size)) {
            // An odd last bf16 fills the low half of its pair.
            out[lane * size..][..value.len()].copy_from_slice(value);
        }
    }
}

/// The values of row `lane` of a group.
pub(crate) fn row(format: Format, _n_cols: usize, group: &[u8], lane: usize, out: &mut [f32]) {
    let element = |k: usize| match format {
        Format::BF16 => 4 * (k / 2 * ROW_GROUP + lane) + 2 * (k % 2),
        Format::F16 => 2 * (k * ROW_GROUP + lane),
        _ => 4 * (k * ROW_GROUP + lane),
    };
    for (k, out) in out.iter_mut().enumerate() {
        let at = element(k);
        let two = [group[at], group[at + 1]];
        *out = match format {
            Format::BF16 => bf16::from_le_bytes(two).to_f32(),
            Format::F16 => f16::from_le_bytes(two).to_f32(),
            _ => f32::from_le_bytes([two[0], two[1], group[at + 2], group[at + 3]]),
        };
    }
}
