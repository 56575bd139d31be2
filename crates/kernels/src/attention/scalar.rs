//! Attention in portable code: what all other levels compute, to the bit.

use super::kernels::{Kernels, Tile};
use super::math::{exp, max, soft_cap, sum_lanes};
use super::pages::{PAGE, from_half, to_half};
use super::{Partial, SPAN};

pub(super) static KERNELS: Kernels = Kernels { tile_rows: 4, tile, fold, finish, write };

unsafe fn tile(tile: Tile<'_>) {
    let head_dim = tile.head_dim;
    for (r, &(from, to)) in tile.ranges.iter().enumerate() {
        if from == to {
            tile.partials[r] = Partial::NONE;
            continue;
        }
        let scores = &mut tile.scores[r * SPAN..][..SPAN];
        let page = |j: usize| {
            // SAFETY: a page that a row looks into is `[head_dim][16]` keys and `[16][head_dim]` values, and is not
            // written meanwhile.
            unsafe { std::slice::from_raw_parts(tile.pages[j / PAGE], 2 * PAGE * head_dim) }.split_at(PAGE * head_dim)
        };
        let mut largest = f32::NEG_INFINITY;
        for (j, score) in scores.iter_mut().enumerate().take(to).skip(from) {
            let keys = page(j).0;
            let mut s = 0.0f32;
            for d in 0..head_dim {
                s = tile.q[d * KERNELS.tile_rows + r].mul_add(from_half(keys[d * PAGE + j % PAGE]), s);
            }
            *score = tile.soft_cap.map_or(s, |cap| soft_cap(s, cap));
            largest = max(largest, *score);
        }
        let mut lanes = [0.0f32; PAGE];
        for (j, score) in scores.iter_mut().enumerate().take(to).skip(from) {
            *score = exp(*score - largest);
            lanes[j % PAGE] += *score;
        }
        tile.partials[r] = Partial { max: largest, sum: sum_lanes(lanes) };

        let out = &mut tile.out[r * head_dim..][..head_dim];
        out.fill(0.0);
        for (j, &p) in scores.iter().enumerate().take(to).skip(from) {
            let values = &page(j).1[j % PAGE * head_dim..][..head_dim];
            for (out, &v) in out.iter_mut().zip(values) {
                *out = p.mul_add(from_half(v), *out);
            }
        }
    }
}

unsafe fn fold(state: &mut Partial, out: &mut [f32], add: Partial, o: &[f32]) {
    let (a, b) = fold_state(state, add);
    for (out, &o) in out.iter_mut().zip(o) {
        *out = o.mul_add(b, *out * a);
    }
}

/// Folds maximum and sum, and gives the factors of the old and of the added outputs.
#[inline(always)]
pub(super) fn fold_state(state: &mut Partial, add: Partial) -> (f32, f32) {
    let largest = max(state.max, add.max);
    let (a, b) = (exp(state.max - largest), exp(add.max - largest));
    *state = Partial { max: largest, sum: add.sum.mul_add(b, state.sum * a) };
    (a, b)
}

unsafe fn finish(sum: f32, out: &mut [f32]) {
    let scale = 1.0 / sum;
    for out in out {
        *out *= scale;
    }
}

unsafe fn write(page: *mut u16, offset: usize, k: &[f32], v: &[f32]) {
    let values = PAGE * k.len() + offset * v.len();
    for (d, (&k, &v)) in k.iter().zip(v).enumerate() {
        // SAFETY: both places are in the page, which has 2 * 16 * head_dim values and no other user.
        unsafe {
            page.add(d * PAGE + offset).write(to_half(k));
            page.add(values + d).write(to_half(v));
        }
    }
}
