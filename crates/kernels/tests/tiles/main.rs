//! Products in tiles of bf16: at the level of AMX, whose instructions are emulated where the machine lacks them, and by
//! their definition.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

#[path = "../quantized/blocks.rs"]
mod blocks;

use std::ops::Range;

use blocks::{QUANTIZED, Random, dequantize, halves, random_row};
use half::{bf16, f16};
use tsserve_kernels::{Format, Level, Matrix, TileBlocks, TilePanel, TileRows, multiply_tiles, round_tiles};

/// Formats that are multiplied in tiles.
fn formats() -> impl Iterator<Item = Format> {
    QUANTIZED.into_iter().chain([Format::BF16])
}

/// All levels, that of AMX among them if need be in software.
fn levels() -> Vec<Level> {
    if let Err(why) = tsserve_kernels::amx_emulation::install() {
        println!("the level of AMX is left out: {why}");
    }
    Level::available()
}

/// One tile, some, and a number that is no multiple of 64 inputs where the format allows.
fn widths(format: Format) -> [usize; 3] {
    if format.block().0 == 256 { [256, 512, 768] } else { [32, 96, 224] }
}

/// Rows as stored, and their values.
fn random_rows(format: Format, n_rows: usize, n_cols: usize, random: &mut Random) -> (Vec<Vec<u8>>, Vec<Vec<f32>>) {
    let row = |_| {
        if format == Format::BF16 {
            let values: Vec<bf16> = (0..n_cols).map(|_| bf16::from_f32(random.normal())).collect();
            (bytes(&values), values.iter().map(|v| v.to_f32()).collect())
        } else {
            let row = random_row(format, n_cols, random);
            let values = dequantize(format, &row);
            (row, values)
        }
    };
    (0..n_rows).map(row).unzip()
}

fn bytes(values: &[bf16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn pack(format: Format, n_cols: usize, rows: &[Vec<u8>]) -> Matrix {
    Matrix::pack(format, rows.len(), n_cols, 1, &|i| &rows[i]).unwrap()
}

fn normals(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| random.normal()).collect()
}

fn rounded(level: Level, x: &[f32], width: usize) -> TileRows {
    let n_rows = x.len() / width;
    let mut rows = TileRows::with_capacity(n_rows, width);
    rows.round(level, x, width, n_rows, width);
    rows
}

/// `[row][padded output]`, three groups at a time.
fn product(level: Level, matrix: &Matrix, rows: &TileBlocks<'_>, n_rows: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let stride = matrix.n_groups() * 16;
    let mut out = vec![f32::NAN; n_rows * stride];
    let mut panel = TilePanel::with_capacity(3, matrix.n_cols());
    for first in (0..matrix.n_groups()).step_by(3) {
        let weights = panel.unpack(level, matrix, first..(first + 3).min(matrix.n_groups()));
        // SAFETY: `out` has the rows, padding included.
        unsafe { multiply_tiles(level, &weights, rows, bias, out.as_mut_ptr(), stride) };
    }
    out
}

/// As bits, with all NaNs the same.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
}

#[test]
fn every_level_equals_the_definition_for_every_number_of_rows() {
    let mut random = Random(1);
    for format in formats() {
        for width in widths(format) {
            let (n_out, padded) = (37, 48);
            let matrix = pack(format, width, &random_rows(format, n_out, width, &mut random).0);
            let x = normals(128 * width, &mut random);
            let bias = normals(padded, &mut random);
            for bias in [None, Some(&bias[..])] {
                let defined = product(Level::Scalar, &matrix, &rounded(Level::Scalar, &x, width).blocks(), 128, bias);
                for level in levels() {
                    // Others than AMX compute by the definition, from rows of their own rounding.
                    let few = if level == Level::Amx { 1..=33 } else { 33..=33 };
                    for n_rows in few.chain([128]) {
                        let rows = rounded(level, &x[(128 - n_rows) * width..], width);
                        let found = product(level, &matrix, &rows.blocks(), n_rows, bias);
                        let same = bits(&found) == bits(&defined[(128 - n_rows) * padded..]);
                        assert!(same, "{level} {format} {n_out} x {width}, {n_rows} rows, bias {}", bias.is_some());
                    }
                }
            }
        }
    }
}

#[test]
fn products_are_near_f64() {
    let mut random = Random(2);
    for format in formats() {
        let (n_out, n_rows, width) = (48, 40, 768);
        let (stored, weights) = random_rows(format, n_out, width, &mut random);
        let matrix = pack(format, width, &stored);
        let x = normals(n_rows * width, &mut random);
        for level in levels() {
            let out = product(level, &matrix, &rounded(level, &x, width).blocks(), n_rows, None);
            // To the same numbers rounded to bf16, and to the numbers themselves.
            let (mut from_rounded, mut from_exact, mut norm) = (0.0, 0.0, 0.0);
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(n_out)) {
                for (weights, out) in weights.iter().zip(out) {
                    let sum =
                        |value: fn(f32) -> f64| weights.iter().zip(x).map(|(w, x)| value(*w) * value(*x)).sum::<f64>();
                    let (rounded, exact) = (sum(|v| bf16::from_f32(v).to_f64()), sum(f64::from));
                    from_rounded += (rounded - f64::from(*out)).powi(2);
                    from_exact += (exact - f64::from(*out)).powi(2);
                    norm += exact.powi(2);
                }
            }
            let (from_rounded, from_exact) = (from_rounded / norm, from_exact / norm);
            println!("{format} {level}: {from_rounded:.1e} {from_exact:.1e}");
            assert!(from_rounded < 1e-12, "{format} {level}: {from_rounded:e} from the rounded numbers");
            assert!(from_exact < 1e-5, "{format} {level}: {from_exact:e} from the numbers");
        }
    }
}

/// Scales of zero, subnormal and great ones, infinities and NaNs of all payloads.
#[test]
fn weights_are_the_stored_values_rounded_at_every_level() {
    let mut random = Random(3);
    let scales: Vec<u16> = [0.0, 5.96e-8, -6.0e-5, 1.0, -65504.0, f32::INFINITY, f32::NEG_INFINITY]
        .map(|scale| f16::from_f32(scale).to_bits())
        .into_iter()
        .chain([0x7c01, 0x7e00, 0x7fff, 0xfc01, 0xffff])
        .collect();
    for format in QUANTIZED {
        let width = 768;
        let mut rows = random_rows(format, 20, width, &mut random).0;
        for (i, scale) in scales.iter().enumerate() {
            let mut row = random_row(format, width, &mut random);
            for block in row.chunks_exact_mut(format.block().1) {
                for &at in halves(format) {
                    block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                }
                if format == Format::MXFP4 {
                    block[0] = [0, 1, 2, 3, 127, 254, 255][i % 7];
                }
            }
            rows.push(row);
        }
        let matrix = pack(format, width, &rows);
        // The matrix of the rounded values is its own panel.
        let rounded: Vec<_> = rows
            .iter()
            .map(|row| bytes(&dequantize(format, row).into_iter().map(bf16::from_f32).collect::<Vec<_>>()))
            .collect();
        let expected = pack(Format::BF16, width, &rounded);
        // Of each row's products with unit vectors.
        for level in levels() {
            let mut panel = TilePanel::with_capacity(matrix.n_groups(), width);
            let weights = panel.unpack(level, &matrix, 0..matrix.n_groups());
            let pairs = |bytes: &[u8]| -> Vec<u16> {
                let values = bytes.chunks_exact(2).map(|two| bf16::from_le_bytes([two[0], two[1]]));
                values.map(|v| if v.is_nan() { bf16::NAN } else { v }.to_bits()).collect()
            };
            assert!(pairs(weights.packed()) == pairs(expected.packed()), "{level} {format}");
        }
    }
}

/// Numbers whose products and sums are subnormal or nearly so, zeros of both signs, infinities and NaNs.
#[test]
fn extremes_are_the_same_at_every_level() {
    let mut random = Random(4);
    let (n_out, n_rows, width) = (32, 48, 96);
    for round in 0..20 {
        let mut value = |exponents: Range<i32>| {
            let exponent = exponents.start + (random.bits() % (exponents.end - exponents.start) as u64) as i32;
            let value = (1.0 + f64::from(random.unit().abs())) * 2.0f64.powi(exponent);
            match random.bits() % 400 {
                0..40 => bf16::from_f32(if random.bits().is_multiple_of(2) { 0.0 } else { -0.0 }),
                // Subnormal.
                40..60 => bf16::from_bits(random.bits() as u16 & 0x807f),
                60 if round % 4 == 3 => bf16::INFINITY,
                61 if round % 4 == 3 => bf16::NAN,
                even if even.is_multiple_of(2) => bf16::from_f64(value),
                _ => bf16::from_f64(-value),
            }
        };
        // Products about the smallest normal number, about the largest ones, or of all magnitudes.
        let exponents = [-66..-59, 56..63, -120..120, -3..3][round % 4].clone();
        let rows: Vec<_> =
            (0..n_out).map(|_| bytes(&(0..width).map(|_| value(exponents.clone())).collect::<Vec<_>>())).collect();
        let x: Vec<f32> = (0..n_rows * width).map(|_| value(exponents.clone()).to_f32()).collect();
        let bias: Vec<f32> = (0..n_out).map(|_| random.unit() * [1e-37, 1e38, 1e-38, 0.0][round % 4]).collect();
        let matrix = pack(Format::BF16, width, &rows);
        for bias in [None, Some(&bias[..])] {
            let expected = product(Level::Scalar, &matrix, &rounded(Level::Scalar, &x, width).blocks(), n_rows, bias);
            assert!(expected.iter().all(|sum| !sum.is_subnormal()));
            for level in levels() {
                let found = product(level, &matrix, &rounded(level, &x, width).blocks(), n_rows, bias);
                assert_eq!(bits(&found), bits(&expected), "{level}, round {round}");
            }
        }
    }
}

#[test]
fn a_sum_just_below_the_smallest_normal_number_is_zero_only_if_it_stays_below() {
    // 2^-126 - 2^-k for some k, as 2^-63 * 2^-63 - 2^-63 * 2^(63 - k): which of these round to 2^-126 with 24 bits?
    for (k, normal) in [(148, false), (149, false), (150, false), (151, true), (152, true), (170, true)] {
        let mut weights = vec![bf16::ZERO; 32];
        weights[0] = bf16::from_f64(2.0f64.powi(-63));
        weights[2] = bf16::from_f64(-(2.0f64.powi(63 - k)));
        let matrix = pack(Format::BF16, 32, &[bytes(&weights)]);
        let x = vec![2.0f32.powi(-63); 32];
        for level in levels() {
            let sum = product(level, &matrix, &rounded(level, &x, 32).blocks(), 1, None)[0];
            assert_eq!(sum, if normal { f32::MIN_POSITIVE } else { 0.0 }, "{level}: 2^-126 - 2^-{k}");
        }
    }
}

#[test]
fn only_the_rows_and_groups_asked_for_are_written() {
    let mut random = Random(5);
    let (width, stride) = (96, 83);
    for format in [Format::Q8_0, Format::BF16] {
        let matrix = pack(format, width, &random_rows(format, 80, width, &mut random).0);
        let x = normals(50 * width, &mut random);
        for level in levels() {
            let all = product(level, &matrix, &rounded(level, &x, width).blocks(), 50, None);
            let mut rows = rounded(level, &x, width);
            let writer = rows.writer();
            let mut panel = TilePanel::with_capacity(3, width);
            let weights = panel.unpack(level, &matrix, 1..4);
            let mut out = vec![7.5f32; 50 * stride];
            // SAFETY: nobody writes the rows, and `out` has them.
            unsafe {
                let to = out.as_mut_ptr().add(16 * stride);
                multiply_tiles(level, &weights, &writer.blocks(16..35), None, to, stride);
            }
            for (r, (out, all)) in out.chunks_exact(stride).zip(all.chunks_exact(80)).enumerate() {
                if (16..35).contains(&r) {
                    assert_eq!(out[16..64], all[16..64], "{level} {format} row {r}");
                    assert!(out[..16].iter().chain(&out[64..]).all(|&v| v == 7.5), "{level} {format} row {r}");
                } else {
                    assert!(out.iter().all(|&v| v == 7.5), "{level} {format} row {r}");
                }
            }
        }
    }
}

#[test]
fn threads_fill_rows_and_multiply_side_by_side() {
    let mut random = Random(6);
    let (n_rows, width) = (40, 224);
    let matrix = pack(Format::Q4_0, width, &random_rows(Format::Q4_0, 64, width, &mut random).0);
    let x = normals(n_rows * width, &mut random);
    for level in levels() {
        let whole = rounded(level, &x, width);
        let expected = product(level, &matrix, &whole.blocks(), n_rows, None);
        let mut parts = TileRows::with_capacity(n_rows, width);
        parts.reshape(n_rows, width);
        let writer = parts.writer();
        std::thread::scope(|scope| {
            for tiles in [0..3, 3..3, 3..7] {
                let (writer, x) = (&writer, &x);
                scope.spawn(move || {
                    for row in 0..n_rows {
                        let values = &x[row * width..][tiles.start * 32..tiles.end * 32];
                        // SAFETY: the threads' tiles are disjoint.
                        unsafe { round_tiles(level, values, row, writer, tiles.start) };
                    }
                });
            }
        });
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..3).map(|_| scope.spawn(|| product(level, &matrix, &parts.blocks(), n_rows, None))).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), expected, "{level}");
            }
        });
    }
}

#[test]
#[should_panic(expected = "F16 is not multiplied in tiles")]
fn a_format_without_tiles_is_refused() {
    let row = [0; 64];
    let matrix = Matrix::pack(Format::F16, 1, 32, 1, &|_| &row).unwrap();
    TilePanel::with_capacity(1, 32).unpack(Level::Scalar, &matrix, 0..1);
}

#[test]
#[should_panic(expected = "no room for 2 groups")]
fn more_groups_than_there_is_room_for_are_refused() {
    let row = [0; 34];
    let matrix = Matrix::pack(Format::Q8_0, 32, 32, 1, &|_| &row).unwrap();
    TilePanel::with_capacity(1, 32).unpack(Level::Scalar, &matrix, 0..2);
}
