//! Encoders against GGML's own blocks, and Q4_K against simpler searches.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

#[path = "quantized/blocks.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod blocks;

use std::collections::HashMap;
use std::path::Path;

use blocks::{Random, dequantize};
use half::f16;
use tsserve_kernels::{Format, Matrix, PackError, encode};

/// The tensors of the golden file by name, as bytes.
fn golden() -> HashMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/quant/blocks.safetensors");
    let file = std::fs::read(path).unwrap();
    let header_len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let (header, data) = file[8..].split_at(header_len);
    // `"name":{..."data_offsets":[from,to]}`, in a header without nested objects but the metadata's empty one.
    let header = std::str::from_utf8(header).unwrap();
    let entries = header.split("},").filter_map(|entry| {
        let (name, rest) = entry.trim_start_matches('{').split_once("\":")?;
        let (_, offsets) = rest.split_once("data_offsets\":[")?;
        let (from, to) = offsets[..offsets.find(']')?].split_once(',')?;
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        Some((name.trim_matches('"').to_owned(), data[from..to].to_vec()))
    });
    entries.collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn encoded(format: Format, values: &[f32]) -> Vec<u8> {
    let (len, bytes) = format.block();
    let mut out = vec![0xaa; values.len() / len * bytes];
    encode(format, values, &mut out);
    out
}

/// Sum of squared differences, in parts of the sum of squares.
fn relative_error(format: Format, values: &[f32], blocks: &[u8]) -> f64 {
    let read = dequantize(format, blocks);
    let square = |x: f64| x * x;
    let error: f64 = values.iter().zip(&read).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    error / values.iter().map(|x| square(f64::from(*x))).sum::<f64>()
}

#[test]
fn q8_0_and_q4_0_are_ggmls_to_the_bit() {
    let golden = golden();
    for format in [Format::Q8_0, Format::Q4_0] {
        let values = floats(&golden[&format!("{format}.source")]);
        assert_eq!(values.len(), 2048);
        assert_eq!(encoded(format, &values), golden[&format!("{format}.raw")], "{format}");
    }
}

#[test]
fn halves_and_extremes_round_as_ggml_rounds() {
    let mut x = [0.0f32; 32];
    // Scale 1 in Q8_0: halves go away from zero.
    x[..6].copy_from_slice(&[-127.0, 0.5, -0.5, 1.5, -2.5, 126.5]);
    let codes: Vec<i8> = encoded(Format::Q8_0, &x)[2..8].iter().map(|b| b.cast_signed()).collect();
    assert_eq!(codes, [-127, 1, -1, 2, -3, 127]);
    // In Q4_0 the first of the farthest is -8, its opposite would be 8 and is 7; halves go up.
    x = [0.0; 32];
    x[..6].copy_from_slice(&[8.0, -8.0, 0.5, -0.5, 1.5, -3.0]);
    let bytes = encoded(Format::Q4_0, &x);
    assert_eq!(bytes[..2], f16::from_f32(-1.0).to_le_bytes());
    let codes: Vec<u8> = bytes[2..8].iter().map(|b| b & 15).collect();
    assert_eq!(codes, [0, 15, 8, 9, 7, 11]);
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4_K] {
        let zeros = encoded(format, &[0.0; 256]);
        assert!(dequantize(format, &zeros).iter().all(|&v| v == 0.0), "{format}");
    }
}

/// Q4_K without search: the range of every 32 in 15 steps, 6-bit scale and minimum rounded to the nearest.
fn plain_q4_k(values: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    for block in values.chunks_exact(256) {
        let tiles: Vec<(f32, f32)> = block
            .chunks_exact(32)
            .map(|x| {
                let (low, high) = x.iter().fold((0.0f32, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
                ((high - low) / 15.0, -low)
            })
            .collect();
        let unit = |max: f32| f16::from_f32(max / 63.0).to_f32();
        let d = unit(tiles.iter().fold(0.0, |max, tile| max.max(tile.0)));
        let dmin = unit(tiles.iter().fold(0.0, |max, tile| max.max(tile.1)));
        let bits = |value: f32, unit: f32| if unit > 0.0 { (value / unit).round().min(63.0) * unit } else { 0.0 };
        for (x, (scale, min)) in block.chunks_exact(32).zip(tiles) {
            let (scale, min) = (bits(scale, d), bits(min, dmin));
            let code = |x: f32| if scale > 0.0 { ((x + min) / scale).round().clamp(0.0, 15.0) } else { 0.0 };
            out.extend(x.iter().map(|&x| scale * code(x) - min));
        }
    }
    out
}

/// Name and values of several distributions.
fn distributions() -> Vec<(&'static str, Vec<f32>)> {
    let mut random = Random(11);
    let mut many = |value: &mut dyn FnMut(&mut Random, usize) -> f32| -> Vec<f32> {
        (0..16 * 1024).map(|i| value(&mut random, i)).collect()
    };
    vec![
        ("normal", many(&mut |r, _| r.normal() * 0.02)),
        ("uniform", many(&mut |r, _| r.unit())),
        ("long tails", many(&mut |r, _| r.normal().powi(3) * 1e-3)),
        ("outliers", many(&mut |r, i| r.normal() * if i % 97 == 0 { 1.0 } else { 0.05 })),
        ("positive", many(&mut |r, _| 3.0 + r.normal().abs())),
        ("negative", many(&mut |r, _| -3.0 - r.normal().abs())),
        ("mixed sizes", many(&mut |r, i| r.normal() * [1e-4, 1e-2, 1.0][i / 32 % 3])),
        ("sparse", many(&mut |r, i| if i % 5 == 0 { r.normal() } else { 0.0 })),
        ("tiny", many(&mut |r, _| r.normal() * 1e-6)),
    ]
}

#[test]
fn q4_k_is_nearer_than_without_search_everywhere() {
    for (name, values) in distributions() {
        let found = relative_error(Format::Q4_K, &values, &encoded(Format::Q4_K, &values));
        let plain = plain_q4_k(&values);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let error: f64 = values.iter().zip(&plain).map(|(a, b)| square(a - b)).sum();
        let plain = error / values.iter().map(|x| square(*x)).sum::<f64>();
        let q4_0 = relative_error(Format::Q4_0, &values, &encoded(Format::Q4_0, &values));
        let q8_0 = relative_error(Format::Q8_0, &values, &encoded(Format::Q8_0, &values));
        println!("{name}: Q4_K {found:.2e}, without search {plain:.2e}, Q4_0 {q4_0:.2e}, Q8_0 {q8_0:.2e}");
        if name == "tiny" {
            // Scales below the least number of f16: never worse than no weights at all.
            assert!(found <= 1.0, "{name}: {found:e}");
        } else {
            assert!(found <= 0.9 * plain, "{name}: {found:e}, without search {plain:e}");
            assert!(found < 1.5e-2 && q4_0 < 4e-2 && q8_0 < 2e-4, "{name}");
        }
    }
}

#[test]
fn what_q4_k_can_hold_it_holds() {
    // Whole numbers of the units, with a scale and a minimum of 63 among them so that the units are found.
    let mut random = Random(12);
    let mut values = Vec::new();
    for t in 0..8usize {
        let (scale, min) = if t == 0 { (63, 63) } else { (1 + random.bits() % 63, random.bits() % 64) };
        let mut codes: Vec<u64> = (0..32).map(|_| random.bits() % 16).collect();
        (codes[3], codes[9]) = (0, 15);
        values.extend(codes.iter().map(|code| 0.25 * (scale * code) as f32 - 0.5 * min as f32));
    }
    let error = relative_error(Format::Q4_K, &values, &encoded(Format::Q4_K, &values));
    assert!(error < 1e-6, "{error:e}");
}

#[test]
fn matrices_are_encoded_row_by_row() {
    for (format, n_cols) in [(Format::Q8_0, 96), (Format::Q4_0, 32), (Format::Q4_K, 512)] {
        let mut random = Random(13);
        let rows: Vec<Vec<f32>> = (0..37).map(|_| (0..n_cols).map(|_| random.normal()).collect()).collect();
        let blocks: Vec<Vec<u8>> = rows.iter().map(|row| encoded(format, row)).collect();
        let expected = Matrix::pack(format, 37, n_cols, 1, &|i| &blocks[i]).unwrap();
        for threads in [1, 3] {
            let matrix = Matrix::encode(format, 37, n_cols, threads, &|i, out| out.copy_from_slice(&rows[i])).unwrap();
            assert!(matrix.packed() == expected.packed(), "{format}, {threads} threads");
        }
    }
    let row = |_: usize, out: &mut [f32]| out.fill(1.0);
    let error = Matrix::encode(Format::Q4_K, 4, 288, 1, &row).unwrap_err();
    assert_eq!(error, PackError::Columns { format: Format::Q4_K, n_cols: 288, multiple: 256 });
    let error = Matrix::encode(Format::Q6_K, 4, 256, 1, &row).unwrap_err();
    assert_eq!(error, PackError::NoEncoder { format: Format::Q6_K });
}

/// What is not finite, and what f16 cannot hold, makes no panic.
#[test]
fn no_value_stops_an_encoder() {
    let values: Vec<f32> =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, 0.0]
            .into_iter()
            .cycle()
            .take(256)
            .collect();
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4_K] {
        let bytes = encoded(format, &values);
        assert_eq!(dequantize(format, &bytes).len(), 256, "{format}");
        let tiny = vec![1e-45f32; 256];
        let read = dequantize(format, &encoded(format, &tiny));
        assert!(read.iter().all(|v| v.is_finite() && v.abs() < 1e-7), "{format}");
    }
}
