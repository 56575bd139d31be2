//! Attention over 8-bit integers in portable code: what all other levels compute, to the bit.

use super::numbers::{self, Codes, Query, wide_scale};
use super::{BLOCK, GROUP, KEY_OFFSET, key_bytes, key_scales, value_scales};
use crate::attention::kernels::{Kernels, Tile};
use crate::attention::math::ROUND;
use crate::attention::pages::from_half;
use crate::attention::scalar::{finish, fold, weights};
use crate::attention::{PAGE, Partial, SPAN};
use crate::lanes::Scalar;

pub(super) static KERNELS: Kernels =
    Kernels { tile_rows: 4, pack, tile, fold, finish, write: numbers::write::<Scalar> };

unsafe fn pack(rows: &[&[f32]], head_dim: usize, tile: &mut [f32]) {
    // SAFETY: portable code.
    unsafe { numbers::pack::<Scalar>(rows, head_dim, KERNELS.tile_rows, Codes::Planes, tile) };
}

unsafe fn tile(tile: Tile<'_>) {
    let head_dim = tile.head_dim;
    let query = Query::of(tile.q, head_dim, KERNELS.tile_rows);
    for (r, &(from, to)) in tile.ranges.iter().enumerate() {
        if from == to {
            tile.partials[r] = Partial::NONE;
            continue;
        }
        let scores = &mut tile.scores[r * SPAN..][..SPAN];
        for (j, score) in scores.iter_mut().enumerate().take(to).skip(from) {
            // SAFETY: a page that a row looks into is a page of this width, and is not written meanwhile.
            *score = unsafe { score_of(&query, r, tile.pages[j / PAGE], j % PAGE, head_dim) };
        }
        tile.partials[r] = weights(scores, from, to, tile.soft_cap);

        // SAFETY: as above, of the values' scales.
        let scale = |j: usize| unsafe {
            from_half(tile.pages[j / PAGE].add(value_scales(head_dim)).cast::<u16>().add(j % PAGE).read())
        };
        let (mut largest, mut sum) = (0.0f32, 0.0);
        for (j, p) in scores.iter_mut().enumerate().take(to).skip(from) {
            *p = if *p > 0.0 { *p * scale(j) } else { 0.0 };
            // The sum knows of a NaN, which the comparison forgets.
            (largest, sum) = (if *p > largest { *p } else { largest }, sum + *p);
        }
        let (scale, inverse) = wide_scale(if sum.is_nan() { sum } else { largest }.to_bits() & 0x7FFF_FFFF);
        for (d, out) in tile.out[r * head_dim..][..head_dim].iter_mut().enumerate() {
            let product = |(j, &w): (usize, &f32)| {
                let at = key_bytes(head_dim) + (j % PAGE / GROUP * head_dim + d) * GROUP + j % GROUP;
                // SAFETY: as above, of the values.
                nearest(w * inverse)
                    .wrapping_mul(i32::from(unsafe { tile.pages[j / PAGE].cast::<i8>().add(at).read() }))
            };
            let products = scores.iter().enumerate().take(to).skip(from).map(product);
            *out = products.fold(0, i32::wrapping_add) as f32 * scale;
        }
    }
}

/// The nearest integer of a small number, ties to even: the sum's low bits.
fn nearest(x: f32) -> i32 {
    (x + ROUND).to_bits().cast_signed() - ROUND.to_bits().cast_signed()
}

/// The score of query `r` of a tile and position `offset` of a page.
///
/// # Safety
/// It is a page of heads of this width, and it is not written meanwhile.
unsafe fn score_of(query: &Query, r: usize, page: *const u8, offset: usize, head_dim: usize) -> f32 {
    let mut s = 0.0f32;
    for (b, first) in (0..head_dim).step_by(BLOCK).enumerate() {
        let mut sum = 0;
        for d in first..head_dim.min(first + BLOCK) {
            let (g, i) = (d / GROUP, d % GROUP);
            // SAFETY: by contract; a tile's integers have 8 bytes for each group and row.
            unsafe {
                let planes = query.codes.add((g * KERNELS.tile_rows + r) * 2 * GROUP).cast::<i8>();
                let t = 256 * i32::from(planes.add(i).read()) + i32::from(planes.add(GROUP + i).read());
                let key = i32::from(page.add((g * PAGE + offset) * GROUP + i).read()) - KEY_OFFSET;
                sum += t * key;
            }
        }
        // SAFETY: by contract.
        let scale = unsafe { page.add(key_scales(head_dim)).cast::<u16>().add(b * PAGE + offset).read() };
        s = (sum as f32).mul_add(from_half(scale), s);
    }
    // SAFETY: a tile has a scale for each row.
    s * unsafe { query.scales.add(r).read() }
}
