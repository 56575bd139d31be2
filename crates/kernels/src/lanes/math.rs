//! Functions of sixteen values. Polynomials were fitted to minimise the greatest relative error; errors in ulp of the
//! result are those that the tests below see.

use super::Lanes;

/// (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2, within 3.1e-9 of e^r.
const EXP: [f32; 5] = [4.999_999_3e-1, 1.666_652e-1, 4.166_839e-2, 8.368_736e-3, 1.381_455_8e-3];

/// erfc(t) e^(t^2) / u in powers of u = 1 / (1 + 0.3 t), for t from 0 to 10.5, within 2e-8.
const ERFCX: [f32; 9] = [
    1.691_874_4e-1,
    1.707_234_1e-1,
    1.482_886_7e-1,
    2.150_991_7e-1,
    -9.501_186e-2,
    5.481_903e-1,
    -5.126_519e-1,
    4.857_293_6e-1,
    -1.295_545_6e-1,
];

/// ln 2 in two parts; a small integer times the first is exact.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];

/// `coefficients[0] + x * (coefficients[1] + x * …)`.
#[inline(always)]
unsafe fn polynomial<L: Lanes, const N: usize>(coefficients: &[f32; N], x: L::F) -> L::F {
    // SAFETY: the caller's promises.
    unsafe {
        let mut sum = L::splat(coefficients[N - 1]);
        for &c in coefficients[..N - 1].iter().rev() {
            sum = L::fma(sum, x, L::splat(c));
        }
        sum
    }
}

/// 2^n for integers from -126 to 127.
#[inline(always)]
unsafe fn power_of_2<L: Lanes>(n: L::I) -> L::F {
    // SAFETY: the caller's promises.
    unsafe { L::from_bits(L::shift_left::<23>(L::add_int(n, L::splat_int(127)))) }
}

/// n and e^r - 1 with x = n ln 2 + r, |r| <= ln 2 / 2.
#[inline(always)]
unsafe fn reduced<L: Lanes>(x: L::F) -> (L::I, L::F) {
    // SAFETY: the caller's promises.
    unsafe {
        let n = L::round(L::mul(x, L::splat(std::f32::consts::LOG2_E)));
        let r = L::fnma(n, L::splat(LN_2[1]), L::fnma(n, L::splat(LN_2[0]), x));
        (L::to_int(n), L::fma(L::mul(r, r), polynomial::<L, 5>(&EXP, r), r))
    }
}

/// e^x within 1 ulp, also where it is subnormal; 0 and infinity beyond, NaN of NaN.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller's promises.
    unsafe {
        // e^-104 rounds to 0 and e^89 to infinity. The order of operands lets NaN through.
        let x = L::min(L::splat(89.0), L::max(L::splat(-104.0), x));
        let (n, p) = reduced::<L>(x);
        // In two steps, because 2^n alone can be out of range.
        let half = L::shift_right::<1>(n);
        let p = L::mul(L::add(p, L::splat(1.0)), power_of_2::<L>(half));
        L::mul(p, power_of_2::<L>(L::sub_int(n, half)))
    }
}

/// tanh within 3 ulp.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn tanh<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller's promises.
    unsafe {
        // tanh 10 rounds to 1. With q = e^(-2|x|) - 1, tanh |x| = -q / (q + 2), without loss near 0.
        let (n, p) = reduced::<L>(L::mul(L::min(L::splat(10.0), L::abs(x)), L::splat(-2.0)));
        let scale = power_of_2::<L>(n);
        let q = L::fma(scale, p, L::sub(scale, L::splat(1.0)));
        L::with_sign(L::div(L::sub(L::splat(0.0), q), L::add(q, L::splat(2.0))), x)
    }
}

/// x / (1 + e^-x), within 3 ulp; 0 where it is below 1e-36.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn silu<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller's promises.
    unsafe { L::div(x, L::add(L::splat(1.0), exp::<L>(L::sub(L::splat(0.0), x)))) }
}

/// x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), as x / (1 + e^-w) with w twice the argument of tanh: within
/// 1.5e-7 * max(|x|, 1), in the negative tail too.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn gelu_tanh<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller's promises.
    unsafe {
        let cubic = L::fma(L::mul(x, x), L::splat(-0.071_354_82), L::splat(-1.595_769));
        L::div(x, L::add(L::splat(1.0), exp::<L>(L::mul(x, cubic))))
    }
}

/// x / 2 * (1 + erf(x / sqrt 2)), within 8 ulp for x >= -3 and 16 ulp in the tail below.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn gelu<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller's promises.
    unsafe {
        let (one, half) = (L::splat(1.0), L::splat(0.5));
        // Beyond 14.8, erfc(|x| / sqrt 2) is 0 (its fit ends there). NaN passes.
        let size = L::min(L::splat(14.8), L::abs(x));
        let u = L::div(one, L::fma(size, L::splat(0.3 * std::f32::consts::FRAC_1_SQRT_2), one));
        // e^(-x^2 / 2), with what rounding of x^2 lost.
        let square = L::mul(size, size);
        let lost = L::sub(L::splat(0.0), L::fnma(size, size, square));
        let gauss = L::mul(exp::<L>(L::mul(square, L::splat(-0.5))), L::fnma(lost, half, one));
        let erfc = L::mul(L::mul(u, polynomial::<L, 9>(&ERFCX, u)), gauss);
        let tail = L::mul(L::mul(half, size), erfc);
        // x - tail for positive x. For the others -tail, of the clamped size: 0 where it is clamped.
        L::select(L::greater(x, L::splat(0.0)), L::sub(x, tail), L::sub(L::splat(0.0), tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::lanes::{LANES, leveled};
    use crate::testing::{Random, bits, ulps};

    /// A function of many values.
    macro_rules! function {
        ($name:ident, $with:ident, $function:ident) => {
            leveled! {
                unsafe fn $name(x: *mut f32, n: usize) = $with;
            }

            #[inline(always)]
            unsafe fn $with<L: Lanes>(x: *mut f32, n: usize) {
                for i in (0..n).step_by(LANES) {
                    // SAFETY: `x` points to n values, a multiple of 16.
                    unsafe { L::store(x.add(i), $function::<L>(L::load(x.add(i)))) }
                }
            }
        };
    }
    function!(exp_all, exp_all_with, exp);
    function!(tanh_all, tanh_all_with, tanh);
    function!(silu_all, silu_all_with, silu);
    function!(gelu_tanh_all, gelu_tanh_all_with, gelu_tanh);
    function!(gelu_all, gelu_all_with, gelu);

    type Function = unsafe fn(Level, *mut f32, usize);

    fn inputs(low: f32, high: f32) -> Vec<f32> {
        let mut random = Random(7);
        let mut x: Vec<f32> = (0..40_000).map(|_| low + (high - low) * random.uniform() as f32).collect();
        // Small ones of both signs, and the special ones.
        x.extend((0..4000).map(|_| ((random.uniform() * -80.0).exp() as f32).copysign(random.normal())));
        x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, 1e-45, -1e-45]);
        x.extend([88.722_83, 88.722_84, -87.336_5, -103.97, -103.98, -104.5, 89.5, 1.0, -1.0]);
        x.resize(x.len().next_multiple_of(LANES), 0.5);
        x
    }

    /// The values of the best level, after seeing that all levels give the same bits.
    fn at_every_level(function: Function, x: &[f32]) -> Vec<f32> {
        let mut results = Level::available().into_iter().map(|level| {
            let mut y = x.to_vec();
            // SAFETY: a multiple of 16 values.
            unsafe { function(level, y.as_mut_ptr(), y.len()) };
            y
        });
        let first = results.next().unwrap();
        results.for_each(|other| assert_eq!(bits(&first), bits(&other)));
        first
    }

    /// erfc for t >= 0 in f64: its series below 3, its continued fraction above.
    fn erfc(t: f64) -> f64 {
        if t < 3.0 {
            let (mut term, mut sum) = (t, t);
            for n in 1..200 {
                term *= -t * t / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let fraction = (1..200).rev().fold(t, |f, n| t + f64::from(n) / 2.0 / f);
            (-t * t).exp() / fraction / std::f64::consts::PI.sqrt()
        }
    }

    fn worst(
        function: Function,
        low: f32,
        high: f32,
        exact: impl Fn(f64) -> f64,
        error: impl Fn(f32, f64, f32) -> f64,
    ) -> f64 {
        let x = inputs(low, high);
        let y = at_every_level(function, &x);
        let mut worst: f64 = 0.0;
        for (&x, y) in x.iter().zip(y) {
            let expected = exact(f64::from(x));
            if expected.is_nan() {
                assert!(y.is_nan(), "f({x}) = {y}");
            } else if (expected as f32).is_infinite() {
                assert_eq!(y, expected as f32, "f({x})");
            } else {
                assert!(y.is_finite(), "f({x}) = {y}, not {expected}");
                worst = worst.max(error(y, expected, x));
            }
        }
        worst
    }

    #[test]
    fn exp_is_near() {
        let worst = worst(exp_all, -105.0, 90.0, f64::exp, |y, e, _| ulps(y, e));
        assert!(worst <= 1.0, "{worst}");
    }

    #[test]
    fn tanh_is_near() {
        let worst = worst(tanh_all, -12.0, 12.0, f64::tanh, |y, e, _| ulps(y, e));
        assert!(worst <= 3.0, "{worst}");
    }

    #[test]
    fn silu_is_near() {
        let worst = worst(
            silu_all,
            -30.0,
            30.0,
            |x| x / (1.0 + (-x).exp()),
            |y, e, _| {
                if e.abs() < 1e-36 { f64::from(y.abs() > 1e-36) * 100.0 } else { ulps(y, e) }
            },
        );
        assert!(worst <= 3.0, "{worst}");
    }

    #[test]
    fn gelu_with_tanh_is_near() {
        let exact = |x: f64| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x / (1.0 + (-2.0 * inner).exp())
        };
        let error = |y: f32, e: f64, x: f32| (f64::from(y) - e).abs() / f64::from(x.abs().max(1.0));
        let worst = worst(gelu_tanh_all, -15.0, 15.0, exact, error);
        assert!(worst <= 1.5e-7, "{worst}");
    }

    #[test]
    fn gelu_is_near() {
        // -infinity times 0 is NaN by the formula; here it is the limit, 0.
        let exact = |x: f64| {
            let tail = if x.is_infinite() { 0.0 } else { 0.5 * x.abs() * erfc(x.abs() / 2.0_f64.sqrt()) };
            if x > 0.0 { x - tail } else { -tail }
        };
        for (low, high, limit) in [(0.0, 20.0, 8.0), (-3.0, 0.0, 8.0), (-13.0, -3.0, 16.0)] {
            let x = inputs(low, high);
            let y = at_every_level(gelu_all, &x);
            let of_range = |&(&x, _): &(&f32, &f32)| x >= low && x <= high;
            let worst = x.iter().zip(&y).filter(of_range).map(|(&x, &y)| ulps(y, exact(f64::from(x))));
            let worst = worst.fold(0.0, f64::max);
            assert!(worst <= limit, "{worst} from {low} to {high}");
        }
        let mut x = [0.5; LANES];
        x[..5].copy_from_slice(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, -40.0]);
        let y = at_every_level(gelu_all, &x);
        assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[2] == 0.0 && y[3] == 0.0 && y[4] == 0.0, "{y:?}");
    }
}
