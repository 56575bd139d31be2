//! Passes over a row of logits: largest value, sum of exponentials, the best few. Written over lanes so that the
//! compiler vectorises them: a row of 51,865 values is read a few times per token.

use std::ops::Range;

/// Values that are looked at together; a piece without anything of interest is passed over.
const PIECE: usize = 256;
const LANES: usize = 16;

/// Below this the exponential is taken for zero: f32 has no normal number for it.
const LOWEST: f32 = -87.0;

/// e^x for x ≤ 0, to about 2e-7 relative. Range reduction to |r| ≤ ln 2 / 2 and a polynomial, as in Cephes' expf; the
/// power of two is built in the exponent. Branch-free, so that loops over it vectorise on the baseline instruction set.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 · 2^23: adding it rounds to an integer that stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let tail = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0));
    let e = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * tail)));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < LOWEST { 0.0 } else { e * power }
}

/// The largest value and where it first stands. `None` where nothing is above negative infinity.
pub(crate) fn largest(row: &[f32], range: Range<usize>) -> Option<(usize, f32)> {
    let mut best: Option<(usize, f32)> = None;
    for (piece, values) in row[range.clone()].chunks(PIECE).enumerate() {
        let top = max_of(values);
        if top > best.map_or(f32::NEG_INFINITY, |(_, value)| value) {
            best = Some((range.start + piece * PIECE, top));
        }
    }
    let (start, top) = best?;
    let within = row[start..range.end].iter().position(|&value| value == top)?;
    Some((start + within, top))
}

/// The sum of e^((value − shift) · scale). `shift` is at least the largest value, `scale` above zero.
pub(crate) fn sum_exp(values: &[f32], shift: f32, scale: f32) -> f64 {
    let mut total = 0.0;
    for piece in values.chunks(PIECE) {
        let mut lanes = [0.0f32; LANES];
        let (whole, rest) = piece.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += exp((value - shift) * scale);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += exp((value - shift) * scale);
        }
        total += f64::from(lanes.iter().sum::<f32>());
    }
    total
}

/// ln Σ e^value over a whole row.
pub(crate) fn log_sum_exp(values: &[f32]) -> f32 {
    match largest(values, 0..values.len()) {
        Some((_, top)) => top + sum_exp(values, top, 1.0).ln() as f32,
        None => f32::NEG_INFINITY,
    }
}

/// Adds to `best` what of `range` belongs to the `count` largest, in falling order; of equals the first comes first.
pub(crate) fn top(row: &[f32], range: Range<usize>, count: usize, best: &mut Vec<(u32, f32)>) {
    if count == 0 {
        return;
    }
    for (piece, values) in row[range.clone()].chunks(PIECE).enumerate() {
        let least = |best: &[(u32, f32)]| if best.len() < count { f32::NEG_INFINITY } else { best[count - 1].1 };
        if max_of(values) <= least(best) {
            continue;
        }
        for (i, &value) in values.iter().enumerate() {
            if value > least(best) {
                let at = best.partition_point(|&(_, other)| other >= value);
                best.truncate(count - 1);
                best.insert(at, ((range.start + piece * PIECE + i) as u32, value));
            }
        }
    }
}

/// Where a point `at` in 0..1 of the distribution e^((value − shift) · scale) over `ranges` falls. `None` if no value
/// is above negative infinity.
pub(crate) fn draw(row: &[f32], ranges: [Range<usize>; 2], shift: f32, scale: f32, at: f64) -> Option<usize> {
    let total: f64 = ranges.iter().map(|range| sum_exp(&row[range.clone()], shift, scale)).sum();
    let mut left = at * total;
    // Where rounding leaves something over, the last token that can be.
    let mut last = None;
    for range in ranges {
        for (piece, values) in row[range.clone()].chunks(PIECE).enumerate() {
            let sum = sum_exp(values, shift, scale);
            let start = range.start + piece * PIECE;
            if left >= sum {
                left -= sum;
                if sum > 0.0 {
                    last = values.iter().rposition(|value| exp((value - shift) * scale) > 0.0).map(|i| start + i);
                }
                continue;
            }
            for (i, value) in values.iter().enumerate() {
                let share = f64::from(exp((value - shift) * scale));
                if share > 0.0 {
                    last = Some(start + i);
                    if left < share {
                        return last;
                    }
                }
                left -= share;
            }
        }
    }
    last
}

fn max_of(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, value);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}
