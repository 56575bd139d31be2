//! Dot products of unsigned codes with signed activations in 256-bit registers, exact.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::weights::codes;
use crate::product::weights::Weights;
use crate::{Format, TILE};

/// The activations of a tile: of row `r` in plane `p` at `(p * n_rows + r) * 32`; and widened, where that is asked for.
pub(in crate::product) struct Activations {
    at: *const i8,
    n_rows: usize,
    /// Of row `r` in plane `p` at `p * M + r`: inputs of even number, and of odd number.
    wide: MaybeUninit<[[i16; TILE]; 8]>,
}

impl Activations {
    /// Inputs `4 * g` to `4 * g + 3`, in each lane.
    ///
    /// # Safety
    /// There are so many planes and rows.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn bytes(&self, p: usize, r: usize, g: usize) -> __m256i {
        // SAFETY: the caller's promise.
        _mm256_set1_epi32(unsafe { self.at.add((p * self.n_rows + r) * TILE + 4 * g).cast::<i32>().read_unaligned() })
    }

    /// Inputs `4 * g` and `4 * g + 2` (`odd` 0) or the ones after them (1), in each lane.
    ///
    /// # Safety
    /// They were widened, and `index`, plane and row as one, is below their number.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn words(&self, index: usize, g: usize, odd: usize) -> __m256i {
        // SAFETY: the caller's promise.
        _mm256_set1_epi32(unsafe {
            self.wide.as_ptr().cast::<i16>().add(index * TILE + 16 * odd + 2 * g).cast::<i32>().read_unaligned()
        })
    }
}

/// Sums of products of `M` rows in `P` planes, with 8 rows of weights.
pub(in crate::product) struct Dots<const M: usize, const P: usize> {
    pub whole: [[__m256i; P]; M],
    /// Pairs in 16 bits that wait to be added.
    pairs: [[__m256i; P]; M],
}

impl<const M: usize, const P: usize> Dots<M, P> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn new() -> Self {
        let zero = [[_mm256_setzero_si256(); P]; M];
        Self { whole: zero, pairs: zero }
    }
}

/// How integers are multiplied.
pub(in crate::product) trait Dot {
    /// What the sums are too high by, times the sum of the activations.
    fn offset<F: Weights>() -> i32 {
        F::OFFSET
    }

    /// The activations of a tile of `M` rows in `P` planes from `at`, where a plane has `n_rows`.
    ///
    /// # Safety
    /// `at` has them; the machine has AVX2, FMA, F16C and what this needs.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn prepare<F: Weights, const M: usize, const P: usize>(at: *const i8, n_rows: usize) -> Activations {
        Activations { at, n_rows, wide: MaybeUninit::uninit() }
    }

    /// Adds the products of inputs `8 * J` to `8 * J + 7`, of half `H` of a tile's rows. Called for `J` 0 to 3.
    ///
    /// # Safety
    /// The tile is whole, `x` was prepared for it; the features as above.
    unsafe fn dot<F: Weights, const M: usize, const P: usize, const H: usize, const J: usize>(
        dots: &mut Dots<M, P>,
        tile: *const u8,
        x: &Activations,
    );
}

/// AVX2. `vpmaddubsw` adds pairs of products in 16 bits and saturates: codes below 64 are added in 16 bits as often as
/// that cannot happen, wider ones are widened before.
pub(in crate::product) struct Maddubs;

/// Are codes up to 255? Both such formats have an offset of 128, without which they are signed bytes.
const fn is_wide<F: Weights>() -> bool {
    F::OFFSET == 128
}

/// How often `dot`'s pairs can be added in 16 bits. A pair of products is at most `2 * code * 128`, and `dot` adds two:
/// 4 x 2 x 3840 (codes to 15), 2 x 2 x 6144 (MXFP4, to 24), 2 x 2 x 7936 (to 31) and 2 x 16128 (to 63) are below 32768.
const fn pairs_added<F: Weights>() -> usize {
    match F::FORMAT {
        Format::Q4_0 | Format::Q4_1 | Format::Q4_K => 4,
        Format::Q6_K => 1,
        _ => 2,
    }
}

impl Dot for Maddubs {
    fn offset<F: Weights>() -> i32 {
        if is_wide::<F>() { 0 } else { F::OFFSET }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn prepare<F: Weights, const M: usize, const P: usize>(at: *const i8, n_rows: usize) -> Activations {
        let mut x = Activations { at, n_rows, wide: MaybeUninit::uninit() };
        if is_wide::<F>() {
            let wide = x.wide.as_mut_ptr().cast::<__m256i>();
            for p in 0..P {
                for r in 0..M {
                    // SAFETY: the caller has 32 values there; `wide` has room for 8 rows of 64 bytes, and P * M is at
                    // most 8.
                    unsafe {
                        let bytes = _mm256_loadu_si256(at.add((p * n_rows + r) * TILE).cast());
                        let [even, odd] = widen(bytes);
                        _mm256_storeu_si256(wide.add(2 * (p * M + r)), even);
                        _mm256_storeu_si256(wide.add(2 * (p * M + r) + 1), odd);
                    }
                }
            }
        }
        x
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn dot<F: Weights, const M: usize, const P: usize, const H: usize, const J: usize>(
        dots: &mut Dots<M, P>,
        tile: *const u8,
        x: &Activations,
    ) {
        // SAFETY: the tile is whole, and the activations are those of M rows in P planes.
        unsafe {
            let [a, b] = codes::<F, H, J>(tile);
            if is_wide::<F>() {
                let sign = _mm256_set1_epi8(-128);
                for (g, codes) in [(2 * J, a), (2 * J + 1, b)] {
                    let [even, odd] = widen(_mm256_xor_si256(codes, sign));
                    for r in 0..M {
                        for p in 0..P {
                            let even = _mm256_madd_epi16(even, x.words(p * M + r, g, 0));
                            let odd = _mm256_madd_epi16(odd, x.words(p * M + r, g, 1));
                            dots.whole[r][p] = _mm256_add_epi32(dots.whole[r][p], _mm256_add_epi32(even, odd));
                        }
                    }
                }
                return;
            }
            let ones = _mm256_set1_epi16(1);
            for r in 0..M {
                for p in 0..P {
                    let first = _mm256_maddubs_epi16(a, x.bytes(p, r, 2 * J));
                    let second = _mm256_maddubs_epi16(b, x.bytes(p, r, 2 * J + 1));
                    let mut pairs = _mm256_add_epi16(first, second);
                    if !J.is_multiple_of(pairs_added::<F>()) {
                        pairs = _mm256_add_epi16(pairs, dots.pairs[r][p]);
                    }
                    if (J + 1).is_multiple_of(pairs_added::<F>()) {
                        let products = _mm256_madd_epi16(pairs, ones);
                        dots.whole[r][p] = _mm256_add_epi32(dots.whole[r][p], products);
                    } else {
                        dots.pairs[r][p] = pairs;
                    }
                }
            }
        }
    }
}

/// The signed bytes of even number in 16 bits each, and those of odd number.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(bytes: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
}

/// An instruction that adds products of four bytes to 32-bit sums. It is written as assembly so that the kernel around
/// it is compiled once for AVX2's features.
macro_rules! one_instruction {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        pub(in crate::product) struct $name;

        impl Dot for $name {
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn dot<F: Weights, const M: usize, const P: usize, const H: usize, const J: usize>(
                dots: &mut Dots<M, P>,
                tile: *const u8,
                x: &Activations,
            ) {
                // SAFETY: the tile is whole, the activations are those of M rows in P planes, and the machine has the
                // instruction, which only changes `sum`.
                unsafe {
                    for (half, codes) in codes::<F, H, J>(tile).into_iter().enumerate() {
                        for r in 0..M {
                            for p in 0..P {
                                let mut sum = dots.whole[r][p];
                                asm!(
                                    $instruction,
                                    sum = inout(ymm_reg) sum,
                                    codes = in(ymm_reg) codes,
                                    x = in(ymm_reg) x.bytes(p, r, 2 * J + half),
                                    options(pure, nomem, nostack, preserves_flags)
                                );
                                dots.whole[r][p] = sum;
                            }
                        }
                    }
                }
            }
        }
    };
}

one_instruction!(
    /// AVX-VNNI.
    Dpbusd,
    "{{vex}} vpdpbusd {sum}, {codes}, {x}"
);

#[cfg(test)]
one_instruction!(
    /// AVX-512 VNNI and VL, on 256 bits.
    DpbusdEvex,
    "{{evex}} vpdpbusd {sum}, {codes}, {x}"
);
