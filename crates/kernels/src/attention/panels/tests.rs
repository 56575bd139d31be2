use half::{bf16, f16};

use super::*;
use crate::testing::{Random, bits};
use crate::{Format, has_bf16_dots};

const FORMATS: [Format; 3] = [Format::F32, Format::F16, Format::BF16];

/// Keys and values `[positions][head_dim]`, rounded as the format stores them.
fn rounded(format: Format, values: &[f32]) -> Vec<f32> {
    let round = |&x: &f32| match format {
        Format::F16 => f16::from_f32(x).to_f32(),
        Format::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    };
    values.iter().map(round).collect()
}

/// One head's memory with the first `n` positions of these keys and values, written in pieces.
fn filled(level: Level, panels: &Panels, pieces: &[usize], k: &[f32], v: &[f32], stride: usize) -> AlignedBytes {
    let mut memory = AlignedBytes::zeroed(panels.bytes());
    let mut first = 0;
    for &n in pieces {
        let from = first * stride;
        // SAFETY: the memory is ours.
        unsafe { panels.write(level, memory.as_mut_ptr(), first, n, &k[from..], &v[from..], stride) };
        first += n;
    }
    memory
}

/// Attention in f64 of row `q` over the first `seen` positions.
fn exact(q: &[f32], k: &[f32], v: &[f32], stride: usize, seen: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let scores: Vec<f64> = (0..seen).map(|j| dot(q, &k[j * stride..][..q.len()])).collect();
    let max = scores.iter().fold(f64::NEG_INFINITY, |max, &s| max.max(s));
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let column = |d: usize| weights.iter().enumerate().map(|(j, w)| w * f64::from(v[j * stride + d])).sum::<f64>();
    (0..q.len()).map(|d| column(d) / sum).collect()
}

fn attend(level: Level, panels: &Panels, memory: &[u8], queries: Queries<'_>) -> Vec<f32> {
    let d = panels.head_dim;
    let mut out = vec![f32::NAN; queries.n * d];
    let mut scratch = PanelScratch::new(panels.capacity, d);
    // SAFETY: `out` has a row for each query.
    unsafe { attend_panels(level, panels, memory, &queries, &mut scratch, out.as_mut_ptr(), d, None) };
    out
}

#[test]
fn answers_are_near_f64_and_equal_at_every_level_and_split() {
    let mut random = Random(81);
    for (head_dim, capacity, n, seen, causal) in [
        (16, 20, 1, 1, false),
        (64, 448, 1, 37, true),
        (64, 448, 40, 300, true),
        (32, 100, 5, 100, false),
        (64, 1500, 26, 1500, false),
        (16, 9, 9, 9, true),
    ] {
        let stride = head_dim + 3;
        let (k, v) = (random.normals(seen * stride), random.normals(seen * stride));
        let q: Vec<f32> = random.normals(n * stride).iter().map(|q| q * 0.5).collect();
        for format in FORMATS {
            let panels = Panels::new(format, head_dim, capacity);
            let (k_stored, v_stored) = (rounded(format, &k), rounded(format, &v));
            let queries = Queries { q: &q, stride, n, seen, causal, dots: false };
            let memory = filled(Level::Scalar, &panels, &[seen], &k, &v, stride);
            let expected = attend(Level::Scalar, &panels, &memory, queries);
            for (r, row) in expected.chunks(head_dim).enumerate() {
                let seen = if causal { seen - (n - 1 - r) } else { seen };
                let exact = exact(&q[r * stride..][..head_dim], &k_stored, &v_stored, stride, seen);
                for (found, exact) in row.iter().zip(exact) {
                    assert!((f64::from(*found) - exact).abs() < 1e-5 * exact.abs().max(1.0), "{format} {n} of {seen}");
                }
            }
            for level in Level::available() {
                let cuts: [&[usize]; 2] =
                    [&[seen], &[seen.min(3), (seen - seen.min(3)).min(45), seen.saturating_sub(48)]];
                for pieces in cuts {
                    let written = filled(level, &panels, pieces, &k, &v, stride);
                    assert_eq!(*written, *memory, "{level} {format} {pieces:?}");
                }
                assert_eq!(bits(&attend(level, &panels, &memory, queries)), bits(&expected), "{level} {format}");
                // A row alone.
                let last = Queries { q: &q[(n - 1) * stride..], n: 1, ..queries };
                let alone = attend(level, &panels, &memory, last);
                assert_eq!(bits(&alone), bits(&expected[(n - 1) * head_dim..]), "{level} {format}");
            }
        }
    }
}

#[test]
fn dots_of_bf16_are_near_f64() {
    if !has_bf16_dots() {
        return;
    }
    let mut random = Random(82);
    for (seen, n) in [(1500, 50), (77, 3)] {
        let d = 64;
        let (k, v) = (random.normals(seen * d), random.normals(seen * d));
        let q: Vec<f32> = random.normals(n * d).iter().map(|q| q * 0.2).collect();
        let panels = Panels::new(Format::BF16, d, seen);
        let memory = filled(Level::Vnni, &panels, &[seen], &k, &v, d);
        let queries = Queries { q: &q, stride: d, n, seen, causal: false, dots: true };
        let found = attend(Level::Vnni, &panels, &memory, queries);
        match crate::amx_emulation::install() {
            Ok(()) => assert_eq!(bits(&attend(Level::Amx, &panels, &memory, queries)), bits(&found)),
            Err(why) => println!("the level of AMX is left out: {why}"),
        }
        let (k, v, q) = (rounded(Format::BF16, &k), rounded(Format::BF16, &v), rounded(Format::BF16, &q));
        let (mut error, mut norm) = (0.0, 0.0);
        for (row, q) in found.chunks(d).zip(q.chunks(d)) {
            for (found, exact) in row.iter().zip(exact(q, &k, &v, d, seen)) {
                error += (f64::from(*found) - exact).powi(2);
                norm += exact.powi(2);
            }
        }
        // Weights are rounded to 8 bits.
        assert!(error / norm < 1e-5, "{:e}", error / norm);
    }
}

#[test]
fn taps_see_scores_and_copies_are_equal() {
    let mut random = Random(83);
    let (d, seen) = (32, 50);
    let (k, v, q) = (random.normals(seen * d), random.normals(seen * d), random.normals(2 * d));
    for format in FORMATS {
        let panels = Panels::new(format, d, 64);
        let memory = filled(Level::detect(), &panels, &[seen], &k, &v, d);
        let stored = rounded(format, &k);
        let mut scratch = PanelScratch::new(64, d);
        let (mut out, mut taps) = (vec![0.0; 2 * d], Vec::new());
        let queries = Queries { q: &q, stride: d, n: 2, seen, causal: false, dots: false };
        let mut tap = |row: usize, scores: &[f32]| taps.push((row, scores.to_vec()));
        // SAFETY: `out` has two rows.
        unsafe {
            let level = Level::detect();
            attend_panels(level, &panels, &memory, &queries, &mut scratch, out.as_mut_ptr(), d, Some(&mut tap));
        }
        assert_eq!(taps.len(), 2);
        for (row, scores) in taps {
            let dot = |j: usize| (0..d).fold(0.0f32, |sum, i| stored[j * d + i].mul_add(q[row * d + i], sum));
            assert_eq!(scores, (0..seen).map(dot).collect::<Vec<_>>(), "{format}");
        }
        let mut copy = AlignedBytes::zeroed(panels.bytes());
        panels.copy(&memory, &mut copy, seen);
        assert_eq!(*copy, *memory);
        let mut part = AlignedBytes::zeroed(panels.bytes());
        panels.copy(&memory, &mut part, 20);
        let queries = Queries { seen: 20, ..queries };
        assert_eq!(
            attend(Level::detect(), &panels, &part, queries),
            attend(Level::detect(), &panels, &memory, queries)
        );
    }
}
