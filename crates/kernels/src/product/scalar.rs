//! Portable code: the definition of the integer products.

use std::ops::Range;

use crate::{Format, MAX_BLOCK_ROWS, Matrix, Planes, QuantizedBlock, ROW_GROUP, TILE, pack};

/// # Safety
/// As [`crate::multiply`], which has checked the arguments.
pub(super) unsafe fn multiply(
    matrix: &Matrix,
    groups: Range<usize>,
    input: &QuantizedBlock<'_>,
    out: *mut f32,
    stride: usize,
) {
    for group in groups {
        let mut acc = [[0.0; ROW_GROUP]; MAX_BLOCK_ROWS];
        group_sums(matrix, group, input, &mut acc);
        for (r, sums) in acc.iter().enumerate().take(input.n_rows) {
            for (lane, &sum) in sums.iter().enumerate() {
                // SAFETY: one of the elements that the caller has promised.
                unsafe { out.add(r * stride + group * ROW_GROUP + lane).write(sum) };
            }
        }
    }
}

/// `[row of the input][lane]`
type Sums = [[f32; ROW_GROUP]; MAX_BLOCK_ROWS];

fn group_sums(matrix: &Matrix, group: usize, input: &QuantizedBlock<'_>, acc: &mut Sums) {
    let group = matrix.group(group);
    // Each call is compiled for its format.
    match matrix.format() {
        Format::Q4_0 => add_tiles(Format::Q4_0, group, input, acc),
        Format::Q4_1 => add_tiles(Format::Q4_1, group, input, acc),
        Format::Q5_0 => add_tiles(Format::Q5_0, group, input, acc),
        Format::Q5_1 => add_tiles(Format::Q5_1, group, input, acc),
        Format::Q8_0 => add_tiles(Format::Q8_0, group, input, acc),
        Format::Q4_K => add_tiles(Format::Q4_K, group, input, acc),
        Format::Q5_K => add_tiles(Format::Q5_K, group, input, acc),
        Format::Q6_K => add_tiles(Format::Q6_K, group, input, acc),
        Format::MXFP4 => add_tiles(Format::MXFP4, group, input, acc),
        Format::IQ4_NL => add_tiles(Format::IQ4_NL, group, input, acc),
        Format::BF16 | Format::F16 | Format::F32 => unreachable!("a float format is not multiplied with integers"),
    }
}

#[inline(always)]
fn add_tiles(format: Format, group: &[u8], input: &QuantizedBlock<'_>, acc: &mut Sums) {
    let mut x = [[0; TILE]; MAX_BLOCK_ROWS];
    for (tile, sums) in input.sums.chunks_exact(input.n_rows).enumerate() {
        for (r, x) in x.iter_mut().enumerate().take(input.n_rows) {
            *x = integers(input, tile, r);
        }
        for lane in 0..ROW_GROUP {
            let row = pack::row_tile(format, group, tile, lane);
            let (low, high) = row.weights.split_at(TILE / 2);
            for ((sums, x), acc) in sums.iter().zip(&x).zip(&mut *acc) {
                let acc = &mut acc[lane];
                let (low, high) = (dot(low, &x[..TILE / 2]), dot(high, &x[TILE / 2..]));
                if format == Format::Q6_K {
                    *acc = (low as f32).mul_add(row.d[0] * sums.scale, *acc);
                    *acc = (high as f32).mul_add(row.d[1] * sums.scale, *acc);
                } else {
                    *acc = ((low + high) as f32).mul_add(row.d[0] * sums.scale, *acc);
                }
                if pack::has_mins(format) {
                    *acc = row.m.mul_add(sums.scaled_sum, *acc);
                }
            }
        }
    }
}

#[inline(always)]
fn dot(weights: &[i16], x: &[i16]) -> i32 {
    weights.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}

/// The integers of tile `tile` of row `r`, their planes put together.
#[inline]
fn integers(input: &QuantizedBlock<'_>, tile: usize, r: usize) -> [i16; TILE] {
    let plane = |p: usize| {
        let at = ((tile * input.planes.count() + p) * input.n_rows + r) * TILE;
        &input.values[at..at + TILE]
    };
    match input.planes {
        Planes::One => {
            let x = plane(0);
            std::array::from_fn(|k| i16::from(x[k]))
        }
        Planes::Two => {
            let (high, low) = (plane(0), plane(1));
            std::array::from_fn(|k| (i16::from(high[k]) << 8) + i16::from(low[k]))
        }
    }
}
