//! The functions of single numbers that scores go through. They are the definition: vector code does the same
//! operations in the same order and so gives the same bits.
//!
//! All are inlined, so that inside code compiled for FMA `mul_add` is one instruction.

/// log2(e)
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// 1.5 * 2^23. Adding it rounds a small number to an integer, ties to even, and leaves that integer in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Weights below 2^-100 are zero. Weights above it times any f16 are normal numbers, so nothing slows down.
pub(super) const LEAST: f32 = -100.0;

/// 2^f - 1 = f * (c0 + c1 f + c2 f^2 + ..) for f in -1/2..1/2: the polynomial with the least relative error of 2^f,
/// 9.2e-8, found by Lawson's iteration.
#[expect(clippy::approx_constant, reason = "near ln 2, but not ln 2: it is fitted with the others")]
pub(super) const EXP2: [f32; 5] = [0.693_147, 0.240_222_42, 0.055_507_336, 0.009_671_517, 0.001_326_474];

/// tanh(x) = x + x z P(z), z = x^2, for |x| < [`TANH_SMALL`]: least relative error, 4.4e-9, by Remez' algorithm.
pub(super) const TANH: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_088, -0.005_704_987];
pub(super) const TANH_SMALL: f32 = 0.625;

/// The larger, `b` if they cannot be compared: what `vmaxps` does.
#[inline(always)]
pub(super) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// e^x for x <= 0, within 2e-7 of it relatively; 0 below 2^[`LEAST`]; 1 for 0; NaN for NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let t = x * LOG2_E;
    let shifted = t + ROUND;
    let f = t - (shifted - ROUND);
    let [c0, c1, c2, c3, c4] = EXP2;
    let q = c4.mul_add(f, c3).mul_add(f, c2).mul_add(f, c1).mul_add(f, c0);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let y = q.mul_add(f, 1.0) * power;
    if t < LEAST { 0.0 } else { y }
}

/// `cap * tanh(x / cap)`
#[inline(always)]
pub(super) fn soft_cap(x: f32, cap: f32) -> f32 {
    let x = x / cap;
    let z = x * x;
    let [c0, c1, c2, c3, c4] = TANH;
    let p = c4.mul_add(z, c3).mul_add(z, c2).mul_add(z, c1).mul_add(z, c0);
    let small = (x * z).mul_add(p, x);
    let size = max(x, 0.0 - x);
    let e = exp(size * -2.0);
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let large = (1.0 - e) / (1.0 + e) * sign;
    cap * if size < TANH_SMALL { small } else { large }
}

/// The sum of 16 lanes, halves upon halves.
#[inline(always)]
pub(super) fn sum_lanes(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_near_and_exact_at_its_ends() {
        let mut worst = 0.0f64;
        for i in 0..=690_000 {
            let x = -(i as f32) * 1e-4;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        // The argument's own rounding, 2^-24 of up to 69, comes on top of the polynomial's.
        assert!(worst < 7e-6, "{worst}");
        let mut worst = 0.0f64;
        for i in 0..=10_000 {
            let x = -(i as f32) * 1e-4;
            worst = worst.max((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(-70.0), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        for bits in [f32::NAN.to_bits(), 0x7FC0_0001, 0xFFFF_FFFF] {
            assert!(exp(f32::from_bits(bits)).is_nan());
        }
    }

    #[test]
    fn soft_cap_is_near() {
        let mut worst = 0.0f64;
        for i in -60_000..=60_000 {
            let x = i as f32 * 5e-3;
            let want = 50.0 * (f64::from(x) / 50.0).tanh();
            worst = worst.max((f64::from(soft_cap(x, 50.0)) - want).abs() / want.abs().max(1e-3));
        }
        assert!(worst < 4e-7, "{worst}");
        assert_eq!(soft_cap(f32::INFINITY, 50.0), 50.0);
        assert_eq!(soft_cap(f32::NEG_INFINITY, 50.0), -50.0);
        assert!(soft_cap(f32::NAN, 50.0).is_nan());
    }
}
