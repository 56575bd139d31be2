use super::*;
use crate::testing::{Random, bits, special};

/// Lengths about the edges of vectors and of unrolled loops.
const LENGTHS: [usize; 14] = [0, 1, 2, 15, 16, 17, 31, 63, 64, 65, 100, 127, 576, 1000];

/// Runs `kernel` at every level on the same rows, and sees to it that all give the same bits; answers them.
fn same_at_every_level(kernel: impl Fn(Level) -> Vec<f32>) -> Vec<f32> {
    let mut results = Level::available().into_iter().map(|level| (level, kernel(level)));
    let (_, first) = results.next().unwrap();
    for (level, other) in results {
        assert_eq!(bits(&first), bits(&other), "{level}");
    }
    first
}

fn assert_near(got: &[f32], expected: impl IntoIterator<Item = f64>, tolerance: f64) {
    let mut n = 0;
    for (&got, expected) in got.iter().zip(expected) {
        assert!((f64::from(got) - expected).abs() <= tolerance * expected.abs().max(1e-3), "{got}, not {expected}");
        n += 1;
    }
    assert_eq!(n, got.len());
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn sums_and_products() {
    let mut random = Random(11);
    for n in LENGTHS {
        let (x, y) = (random.normals(n), random.normals(n));
        let of = |kernel: fn(Level, &mut [f32], &[f32])| {
            same_at_every_level(|level| {
                let mut x = x.clone();
                kernel(level, &mut x, &y);
                x
            })
        };
        let pairs = || x.iter().zip(&y);
        assert_eq!(of(add), pairs().map(|(x, y)| x + y).collect::<Vec<_>>());
        assert_eq!(of(|l, x, _| scale(l, x, 0.3)), x.iter().map(|x| x * 0.3).collect::<Vec<_>>());
        let expected: Vec<f32> = pairs().map(|(x, y)| y.mul_add(-1.7, *x)).collect();
        assert_eq!(of(|l, x, y| add_scaled(l, x, y, -1.7)), expected);
        assert_near(&of(|l, x, _| exp(l, x)), wide(&x).into_iter().map(f64::exp), 1.2e-7);
    }
}

#[test]
fn rms_norms() {
    let mut random = Random(12);
    for n in &LENGTHS[1..] {
        let (mut x, weight) = (random.normals(*n), random.normals(*n));
        let expected = |x: &[f32]| {
            let x = wide(x);
            let mean = x.iter().map(|x| x * x).sum::<f64>() / *n as f64;
            let weight = wide(&weight);
            x.into_iter().zip(weight).map(|(x, w)| x / (mean + f64::from(1e-5_f32)).sqrt() * w).collect::<Vec<_>>()
        };
        let norm = |x: &[f32]| {
            same_at_every_level(|level| {
                let mut out = vec![f32::NAN; *n];
                rms_norm(level, x, &weight, 1e-5, &mut out);
                let mut again = x.to_vec();
                rms_norm_in_place(level, &mut again, &weight, 1e-5);
                assert_eq!(bits(&out), bits(&again));
                out
            })
        };
        assert_near(&norm(&x), expected(&x), 5e-7);
        x.iter_mut().for_each(|v| *v *= 1e15);
        assert_near(&norm(&x), expected(&x), 5e-7);
        assert!(norm(&vec![0.0; *n]).iter().all(|&v| v == 0.0));
        x[random.below(*n)] = special(&mut random);
        assert!(norm(&x).iter().any(|v| v.is_nan()));
    }
}

#[test]
fn layer_norms() {
    let mut random = Random(13);
    for n in &LENGTHS[1..] {
        let (mut x, weight, bias) = (random.normals(*n), random.normals(*n), random.normals(*n));
        x.iter_mut().for_each(|v| *v += 3.0);
        let got = same_at_every_level(|level| {
            let mut out = vec![f32::NAN; *n];
            layer_norm(level, &x, &weight, &bias, 1e-5, &mut out);
            out
        });
        let x = wide(&x);
        let mean = x.iter().sum::<f64>() / *n as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / *n as f64;
        for (i, &got) in got.iter().enumerate() {
            let (w, b) = (f64::from(weight[i]), f64::from(bias[i]));
            let expected = (x[i] - mean) / (variance + 1e-5).sqrt() * w + b;
            // One value alone is its own mean: what rounding leaves of it is divided by sqrt(eps).
            assert!((f64::from(got) - expected).abs() <= 4e-6 * (1.0 + w.abs()), "{got}, not {expected}");
        }
    }
}

#[test]
fn softmaxes() {
    let mut random = Random(14);
    for n in &LENGTHS[1..] {
        let mut x: Vec<f32> = random.normals(*n).into_iter().map(|v| v * 10.0).collect();
        let softmax_of = |x: &[f32]| {
            same_at_every_level(|level| {
                let mut x = x.to_vec();
                softmax(level, &mut x);
                x
            })
        };
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = x.iter().map(|x| (f64::from(*x) - f64::from(max)).exp()).collect();
        let sum = powers.iter().sum::<f64>();
        assert_near(&softmax_of(&x), powers.into_iter().map(|p| p / sum), 2e-6);
        if *n > 1 {
            x[0] = f32::NEG_INFINITY;
            assert_eq!(softmax_of(&x)[0], 0.0);
        }
        x[random.below(*n)] = f32::NAN;
        assert!(softmax_of(&x).iter().any(|v| v.is_nan()));
        assert!(softmax_of(&vec![f32::NEG_INFINITY; *n]).iter().all(|v| v.is_nan()));
    }
}

#[test]
fn activations_gated_and_alone() {
    let mut random = Random(15);
    let exact = |activation: Activation, x: f64| match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            x / (1.0 + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).exp())
        }
        // Phi by Simpson's rule from 0 to x.
        Activation::Gelu => {
            let steps = 200;
            let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let sum = (0..=steps).map(|i| {
                let weight = if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
                weight * density(x * f64::from(i) / f64::from(steps))
            });
            x * (0.5 + sum.sum::<f64>() * x / f64::from(steps) / 3.0)
        }
    };
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::Gelu] {
        for n in LENGTHS {
            let (gate, up) = (random.normals(n), random.normals(n));
            let alone = same_at_every_level(|level| {
                let mut x = gate.clone();
                activate(level, activation, &mut x);
                x
            });
            assert_near(&alone, wide(&gate).into_iter().map(|x| exact(activation, x)), 1e-6);
            let got = same_at_every_level(|level| {
                let mut out = vec![f32::NAN; n];
                gated(level, activation, &gate, &up, &mut out);
                let mut again = gate.clone();
                gated_in_place(level, activation, &mut again, &up);
                assert_eq!(bits(&out), bits(&again));
                out
            });
            assert_eq!(got, alone.iter().zip(&up).map(|(a, u)| a * u).collect::<Vec<_>>());
        }
    }
}

#[test]
fn soft_caps() {
    let mut random = Random(16);
    for n in LENGTHS {
        let mut x: Vec<f32> = random.normals(n).into_iter().map(|v| v * 40.0).collect();
        let capped = |x: &[f32]| {
            same_at_every_level(|level| {
                let mut x = x.to_vec();
                softcap(level, &mut x, 30.0);
                x
            })
        };
        assert_near(&capped(&x), wide(&x).into_iter().map(|x| 30.0 * (x / 30.0).tanh()), 4e-7);
        if n > 3 {
            x[..4].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0]);
            let y = capped(&x);
            assert!(y[0] == 30.0 && y[1] == -30.0 && y[2].is_nan() && y[3] == 0.0);
        }
    }
}

#[test]
fn heads_are_rotated_and_the_rest_is_not() {
    let mut random = Random(17);
    for (half, rest) in [(0, 5), (1, 0), (8, 0), (10, 3), (16, 0), (17, 1), (32, 32), (48, 16), (64, 0), (128, 0)] {
        let head = random.normals(2 * half + rest);
        let angles = random.normals(half);
        let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
        let got = same_at_every_level(|level| {
            let mut head = head.clone();
            rope(level, &mut head, &cos, &sin);
            head
        });
        for i in 0..half {
            let (a, b) = (f64::from(head[i]), f64::from(head[half + i]));
            let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
            let size = a.hypot(b) * 1.5e-7;
            assert!((f64::from(got[i]) - (a * c - b * s)).abs() <= size);
            assert!((f64::from(got[half + i]) - (b * c + a * s)).abs() <= size);
        }
        assert_eq!(got[2 * half..], head[2 * half..]);
    }
}

#[test]
#[should_panic(expected = "assertion")]
fn lengths_must_agree() {
    add(Level::Scalar, &mut [0.0; 3], &[0.0; 4]);
}
