//! Rows of activations in pairs, as `usmmla` and the 2 x 2 sums take them.

use std::arch::aarch64::*;

use crate::product::weights::Weights;
use crate::{BlockSums, TILE};

/// A tile of `N` pairs of rows in `P` planes. Where the last pair lacks its second row, the first stands for it.
pub(super) struct RowPairs<const N: usize, const P: usize> {
    /// `[half][part]`: words 0 and 2 of a half's four, of the first and then of the second row; and words 1 and 3. Codes have
    /// the same order.
    pub values: [[[[int8x16_t; 2]; 2]; P]; N],
    /// `[x0, x1, x0, x1]`, as all that follows.
    pub scales: [float32x4_t; N],
    pub scaled_sums: [float32x4_t; N],
    /// Less by what the codes are too high by: of the whole tile, or of its halves where those have scales of their own.
    pub starts: [[int32x4_t; 2]; N],
}

impl<const N: usize, const P: usize> RowPairs<N, P> {
    /// # Safety
    /// There are `n_rows` sums at `sums`, and values `[P][n_rows][32]` at `x`; `n_rows` are `2 * N`, or one less.
    #[inline]
    #[target_feature(enable = "neon,dotprod,i8mm")]
    pub unsafe fn read<F: Weights>(x: *const i8, sums: *const BlockSums, n_rows: usize) -> Self {
        let none = vdupq_n_f32(0.0);
        let mut pairs = Self {
            values: [[[[vdupq_n_s8(0); 2]; 2]; P]; N],
            scales: [none; N],
            scaled_sums: [none; N],
            starts: [[vdupq_n_s32(0); 2]; N],
        };
        for n in 0..N {
            let (first, second) = (2 * n, (2 * n + 1).min(n_rows - 1));
            for p in 0..P {
                for half in 0..2 {
                    let words = |row: usize| {
                        // SAFETY: 16 of the values that the caller has promised.
                        vreinterpretq_s32_s8(unsafe { vld1q_s8(x.add((p * n_rows + row) * TILE + 16 * half)) })
                    };
                    let (a, b) = (words(first), words(second));
                    pairs.values[n][p][half] =
                        [vreinterpretq_s8_s32(vuzp1q_s32(a, b)), vreinterpretq_s8_s32(vuzp2q_s32(a, b))];
                }
            }
            // SAFETY: sums that the caller has promised, each of four numbers of 32 bits.
            let (a, b) = unsafe { (vld1q_s32(sums.add(first).cast()), vld1q_s32(sums.add(second).cast())) };
            // `[scale, scale, scaled sum, scaled sum]` and `[low, low, high, high]` of the first and the second row.
            let (scales, halves) = (vreinterpretq_f64_s32(vzip1q_s32(a, b)), vreinterpretq_f64_s32(vzip2q_s32(a, b)));
            pairs.scales[n] = vreinterpretq_f32_f64(vdupq_laneq_f64::<0>(scales));
            pairs.scaled_sums[n] = vreinterpretq_f32_f64(vdupq_laneq_f64::<1>(scales));
            if F::OFFSET != 0 {
                let low = vreinterpretq_s32_f64(vdupq_laneq_f64::<0>(halves));
                let high = vreinterpretq_s32_f64(vdupq_laneq_f64::<1>(halves));
                let of_parts = if F::HALVES { [low, high] } else { [vaddq_s32(low, high); 2] };
                pairs.starts[n] = of_parts.map(|sums| vmulq_n_s32(sums, -F::OFFSET));
            }
        }
        pairs
    }
}
