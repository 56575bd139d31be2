//! Portable code: the definition of products in tiles.

use super::panel::TileWeights;
use super::rows::{BLOCK_ROWS, LINE, TILE_BYTES, TileBlocks};
use crate::{ROW_GROUP, TILE};

/// # Safety
/// As [`super::multiply_tiles`], which has checked the arguments.
pub(super) unsafe fn multiply(
    weights: &TileWeights<'_>,
    rows: &TileBlocks<'_>,
    bias: Option<&[f32]>,
    out: *mut f32,
    stride: usize,
) {
    let group_bytes = weights.n_tiles * TILE_BYTES;
    for (index, group) in weights.groups.clone().enumerate() {
        let tiles = &weights.tiles[index * group_bytes..][..group_bytes];
        for row in 0..rows.n_rows {
            for lane in 0..ROW_GROUP {
                let output = group * ROW_GROUP + lane;
                let start = bias.map_or(0.0, |bias| bias[output]);
                let sum = tiles.chunks_exact(TILE_BYTES).enumerate().fold(start, |sum, (tile, weights)| {
                    let at = (row / BLOCK_ROWS * rows.n_tiles + tile) * TILE_BYTES + row % BLOCK_ROWS * LINE;
                    add_tile(sum, &rows.values[at..][..LINE], &weights[4 * lane..])
                });
                // SAFETY: one of the elements that the caller has promised.
                unsafe { out.wrapping_add(row * stride + output).write(sum) };
            }
        }
    }
}

/// What one tile's inputs make of a sum; `weights` starts at an output's first pair.
fn add_tile(sum: f32, x: &[u8], weights: &[u8]) -> f32 {
    let value =
        |bytes: &[u8], at: usize| flushed(f32::from_bits(u32::from(bytes[at + 1]) << 24 | u32::from(bytes[at]) << 16));
    let [mut even, mut odd] = [0.0; 2];
    for pair in 0..TILE / 2 {
        let (x_at, w_at) = (4 * pair, LINE * pair);
        even = fma(value(x, x_at), value(weights, w_at), even);
        odd = fma(value(x, x_at + 2), value(weights, w_at + 2), odd);
    }
    add(sum, add(even, odd))
}

/// `a * b + c` of numbers that are not subnormal.
fn fma(a: f32, b: f32, c: f32) -> f32 {
    /// What is smaller is subnormal once it is rounded to 24 bits: half a unit below the smallest normal number.
    const SUBNORMAL: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1 << 25) as f64);

    let result = a.mul_add(b, c);
    if result.abs() > f32::MIN_POSITIVE || result == 0.0 || result.is_nan() {
        return result;
    }
    // The steps between subnormal numbers are coarse: some sums that would be subnormal are rounded up to the smallest
    // normal number by them. In f64 such a sum is exact, or too far from the border for its rounding to matter.
    let sum = f64::from(a) * f64::from(b) + f64::from(c);
    if sum.abs() < SUBNORMAL { 0.0_f32.copysign(result) } else { result }
}

fn add(a: f32, b: f32) -> f32 {
    // A subnormal sum of two numbers is exact.
    flushed(flushed(a) + flushed(b))
}

/// The number, or zero for one that is subnormal.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}
