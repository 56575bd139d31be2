//! Attention in portable code: what all other levels compute, to the bit.

use super::kernels::{Kernels, Tile};
use super::math::{exp, max, soft_cap, sum_lanes};
use super::pages::{PAGE, from_half, to_half};
use super::{Partial, SPAN};

pub(super) static KERNELS: Kernels = Kernels { tile_rows: 4, pack, tile, fold, finish, write };

unsafe fn pack(rows: &[&[f32]], head_dim: usize, tile: &mut [f32]) {
    pack_columns(rows, head_dim, KERNELS.tile_rows, tile);
}

/// Packs the queries of a tile: `[head_dim][tile_rows]`, of which as many columns are written as there are queries.
pub(super) fn pack_columns(rows: &[&[f32]], head_dim: usize, tile_rows: usize, tile: &mut [f32]) {
    for (d, places) in tile.chunks_exact_mut(tile_rows).enumerate().take(head_dim) {
        for (place, row) in places.iter_mut().zip(rows) {
            *place = row[d];
        }
    }
}

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
            unsafe { std::slice::from_raw_parts(tile.pages[j / PAGE].cast::<u16>(), 2 * PAGE * head_dim) }
                .split_at(PAGE * head_dim)
        };
        for (j, score) in scores.iter_mut().enumerate().take(to).skip(from) {
            let keys = page(j).0;
            let mut s = 0.0f32;
            for d in 0..head_dim {
                s = tile.q[d * KERNELS.tile_rows + r].mul_add(from_half(keys[d * PAGE + j % PAGE]), s);
            }
            *score = s;
        }
        tile.partials[r] = weights(scores, from, to, tile.soft_cap);

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

/// Caps the scores of positions `from..to` and turns them into weights.
pub(super) fn weights(scores: &mut [f32], from: usize, to: usize, cap: Option<f32>) -> Partial {
    let mut largest = f32::NEG_INFINITY;
    for score in &mut scores[from..to] {
        *score = cap.map_or(*score, |cap| soft_cap(*score, cap));
        largest = max(largest, *score);
    }
    let mut lanes = [0.0f32; PAGE];
    for (j, score) in scores.iter_mut().enumerate().take(to).skip(from) {
        *score = exp(*score - largest);
        lanes[j % PAGE] += *score;
    }
    Partial { max: largest, sum: sum_lanes(lanes) }
}

pub(super) unsafe fn fold(state: &mut Partial, out: &mut [f32], add: Partial, o: &[f32]) {
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

pub(super) unsafe fn finish(sum: f32, out: &mut [f32]) {
    let scale = 1.0 / sum;
    for out in out {
        *out *= scale;
    }
}

unsafe fn write(page: *mut u8, offset: usize, k: &[f32], v: &[f32]) {
    let page: *mut u16 = page.cast();
    let values = PAGE * k.len() + offset * v.len();
    for (d, (&k, &v)) in k.iter().zip(v).enumerate() {
        // SAFETY: both places are in the page, which has 2 * 16 * head_dim values and no other user.
        unsafe {
            page.add(d * PAGE + offset).write(to_half(k));
            page.add(values + d).write(to_half(v));
        }
    }
}
