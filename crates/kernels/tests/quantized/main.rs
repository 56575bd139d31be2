//! Packed matrices of the quantised formats and their products, against definitions written here.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod blocks;

use blocks::{QUANTIZED, Random, dequantize, halves, random_row};
use half::f16;
use tsserve_kernels::{BlockSums, Format, Level, Matrix, PackError, Planes, QuantizedRows, TILE, multiply};

const BOTH: [Planes; 2] = [Planes::One, Planes::Two];

/// Numbers of inputs that take one and more tiles, and no multiple of 64 where the format allows.
fn widths(format: Format) -> [usize; 2] {
    if format.block().0 == 256 { [256, 768] } else { [32, 224] }
}

fn random_rows(format: Format, n_rows: usize, n_cols: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random(seed);
    (0..n_rows).map(|_| random_row(format, n_cols, &mut random)).collect()
}

fn pack(format: Format, n_cols: usize, rows: &[Vec<u8>], threads: usize) -> Matrix {
    Matrix::pack(format, rows.len(), n_cols, threads, &|i| &rows[i]).unwrap()
}

/// Quantises as `BlockSums` and `Planes` define, value by value.
fn quantize(rows: &[Vec<f32>], planes: Planes) -> QuantizedRows {
    let width = rows[0].len();
    let mut out = QuantizedRows::with_capacity(rows.len(), width, planes);
    out.reshape(rows.len(), width, planes);
    let limit = if planes == Planes::One { 127.0 } else { 32512.0 };
    for (r, row) in rows.iter().enumerate() {
        for (tile, x) in row.chunks_exact(TILE).enumerate() {
            let scale = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / limit;
            let t = x.iter().map(|x| if scale > 0.0 { (x / scale).round() as i32 } else { 0 }).collect::<Vec<_>>();
            put_tile(&mut out, r, tile, &t, scale);
        }
    }
    out
}

fn put_tile(out: &mut QuantizedRows, row: usize, tile: usize, t: &[i32], scale: f32) {
    let planes = out.planes();
    let ([high, low], sums_at) = out.place(row, tile);
    let (values, sums) = out.parts_mut();
    for (k, &t) in t.iter().enumerate() {
        if planes == Planes::One {
            values[high + k] = i8::try_from(t).unwrap();
        } else {
            let top = (t + 128) >> 8;
            values[high + k] = i8::try_from(top).unwrap();
            values[low + k] = i8::try_from(t - (top << 8)).unwrap();
        }
    }
    let (low_half, high_half) = (t[..16].iter().sum::<i32>(), t[16..].iter().sum::<i32>());
    sums[sums_at] = BlockSums { scale, scaled_sum: scale * (low_half + high_half) as f32, low_half, high_half };
}

fn normal_rows(n_rows: usize, width: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = Random(seed);
    (0..n_rows).map(|_| (0..width).map(|_| random.normal()).collect()).collect()
}

/// `[row][padded output]` of all rows, block by block.
fn product(level: Level, matrix: &Matrix, input: &QuantizedRows, prefetch: usize) -> Vec<Vec<f32>> {
    let stride = matrix.n_groups() * 16;
    let mut out = vec![0.0f32; input.n_rows() * stride];
    for block in 0..input.n_blocks() {
        let out = &mut out[block * 8 * stride..];
        let groups = 0..matrix.n_groups();
        // SAFETY: `out` has the block's rows, and the level is available.
        unsafe { multiply(level, matrix, groups, &input.block(block), out.as_mut_ptr(), stride, prefetch) };
    }
    out.chunks_exact(stride).map(<[f32]>::to_vec).collect()
}

/// As bits, with all NaNs the same.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
}

#[test]
fn packed_rows_are_the_stored_values() {
    for format in QUANTIZED {
        for (n_cols, n_rows, threads) in
            [(widths(format)[0], 1, 1), (widths(format)[1], 16, 1), (widths(format)[1], 71, 3)]
        {
            let rows = random_rows(format, n_rows, n_cols, 1);
            let matrix = pack(format, n_cols, &rows, threads);
            let (values, size) = format.block();
            assert_eq!(matrix.bytes(), n_rows.div_ceil(16) * 16 * n_cols / values * size, "{format} grows");
            let mut out = vec![0.0; n_cols];
            for (i, row) in rows.iter().enumerate() {
                matrix.dequantize_row(i, &mut out);
                assert_eq!(bits(&out), bits(&dequantize(format, row)), "{format} row {i} of {n_rows} x {n_cols}");
            }
        }
    }
}

#[test]
fn products_are_near_f64() {
    for format in QUANTIZED {
        let (n_rows, n_cols) = (48, 768);
        let rows = random_rows(format, n_rows, n_cols, 2);
        let matrix = pack(format, n_cols, &rows, 2);
        let x = normal_rows(4, n_cols, 3);
        for (planes, limit) in [(Planes::One, 5e-5), (Planes::Two, 1e-9)] {
            let out = product(Level::Scalar, &matrix, &quantize(&x, planes), 0);
            let (mut error, mut norm) = (0.0, 0.0);
            for (n, row) in rows.iter().enumerate() {
                let row = dequantize(format, row);
                for (x, out) in x.iter().zip(&out) {
                    let exact: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    error += (exact - f64::from(out[n])).powi(2);
                    norm += exact.powi(2);
                }
            }
            let nmse = error / norm;
            println!("{format} {planes:?}: {nmse:.1e}");
            assert!(nmse < limit, "{format} {planes:?}: {nmse:e}");
        }
    }
}

#[test]
fn every_level_equals_scalar_and_rows_do_not_depend_on_others() {
    for format in QUANTIZED {
        for n_cols in widths(format) {
            let matrix = pack(format, n_cols, &random_rows(format, 37, n_cols, 4), 1);
            let x = normal_rows(8, n_cols, 5);
            for planes in BOTH {
                let expected: Vec<_> = x
                    .iter()
                    .map(|x| product(Level::Scalar, &matrix, &quantize(std::slice::from_ref(x), planes), 0)[0].clone())
                    .collect();
                for level in Level::available() {
                    for n_rows in 1..=8 {
                        let input = quantize(&x[8 - n_rows..], planes);
                        for prefetch in [0, 4096] {
                            let out = product(level, &matrix, &input, prefetch);
                            for (r, out) in out.iter().enumerate() {
                                let expected = &expected[8 - n_rows + r];
                                let what = format!("{level} {format} {n_cols} {planes:?}, row {r} of {n_rows}");
                                assert_eq!(bits(out), bits(expected), "{what}");
                                assert!(out[37..].iter().all(|&v| v == 0.0), "{what}: padding");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn only_the_groups_asked_for_are_written() {
    for format in QUANTIZED {
        let n_cols = widths(format)[1];
        let matrix = pack(format, n_cols, &random_rows(format, 64, n_cols, 6), 1);
        let input = quantize(&normal_rows(3, n_cols, 7), Planes::One);
        for level in Level::available() {
            let all = product(level, &matrix, &input, 0);
            let stride = 70;
            let mut out = vec![7.5f32; 3 * stride];
            // SAFETY: three rows of `stride`, of which groups 1 and 2 are written.
            unsafe { multiply(level, &matrix, 1..3, &input.block(0), out.as_mut_ptr(), stride, 0) };
            for (out, all) in out.chunks_exact(stride).zip(all) {
                assert_eq!(out[16..48], all[16..48], "{level} {format}");
                assert!(out[..16].iter().chain(&out[48..]).all(|&v| v == 7.5), "{level} {format}");
            }
        }
    }
}

/// Activations at the ends of their ranges, in all the ways their signs can fall together with the weights'.
fn extreme_rows(n_cols: usize, planes: Planes) -> QuantizedRows {
    // 32383 and -128 have a low plane of 127 and -128.
    let values: &[i32] =
        if planes == Planes::One { &[127, -127, 0] } else { &[32512, -32512, 32383, -32384, 127, -128] };
    let mut rows = QuantizedRows::with_capacity(8, n_cols, planes);
    rows.reshape(8, n_cols, planes);
    let mut random = Random(8);
    for row in 0..8 {
        for tile in 0..n_cols / TILE {
            let t: Vec<i32> = (0..TILE)
                .map(|_| values[if row < values.len() { row } else { random.bits() as usize % values.len() }])
                .collect();
            put_tile(&mut rows, row, tile, &t, 0.75);
        }
    }
    rows
}

#[test]
fn extremes_are_exact_at_every_level() {
    for format in QUANTIZED {
        let n_cols = widths(format)[1];
        let size = format.block().1;
        // All codes and scales 0, all with every bit set, the largest magnitudes (Q8_0: -128), and random ones; f16
        // numbers zero, subnormal, the largest, infinite and NaN.
        let scales = [0.0, 5.96e-8, -6.0e-5, 1.0, -65504.0, f32::INFINITY, f32::NAN];
        let mut rows = Vec::new();
        for fill in [0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0] {
            for scale in scales {
                let mut row = vec![fill; n_cols / format.block().0 * size];
                for block in row.chunks_exact_mut(size) {
                    for &at in halves(format) {
                        block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                    }
                    if format == Format::MXFP4 {
                        block[0] = if scale.is_nan() {
                            255
                        } else if scale == 0.0 {
                            1
                        } else {
                            fill
                        };
                    }
                }
                rows.push(row);
            }
        }
        let matrix = pack(format, n_cols, &rows, 2);
        let mut values = vec![0.0; n_cols];
        for (i, row) in rows.iter().enumerate() {
            matrix.dequantize_row(i, &mut values);
            assert_eq!(bits(&values), bits(&dequantize(format, row)), "{format} row {i}");
        }
        for planes in BOTH {
            let input = extreme_rows(n_cols, planes);
            let expected = product(Level::Scalar, &matrix, &input, 0);
            // Scale 1 and the first row of activations, all at the maximum: no sum may have wrapped.
            for (i, row) in rows.iter().enumerate().filter(|(i, _)| i % scales.len() == 3) {
                let t = if planes == Planes::One { 127.0 } else { 32512.0 };
                let exact: f64 = dequantize(format, row).iter().map(|w| f64::from(*w) * t * 0.75).sum();
                let actual = f64::from(expected[0][i]);
                let near = (actual - exact).abs() <= exact.abs() * 1e-5 + 1e-30;
                assert!(near || actual == f64::from(exact as f32), "{format} {planes:?}: {actual} {exact}");
            }
            for level in Level::available() {
                let out = product(level, &matrix, &input, 0);
                for (r, (out, expected)) in out.iter().zip(&expected).enumerate() {
                    assert_eq!(bits(out), bits(expected), "{level} {format} {planes:?} row {r}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_packed_is_said() {
    let rows = random_rows(Format::Q4_K, 20, 512, 9);
    let error = Matrix::pack(Format::Q4_K, 20, 288, 1, &|i| &rows[i]).unwrap_err();
    assert_eq!(error, PackError::Columns { format: Format::Q4_K, n_cols: 288, multiple: 256 });
    let error = Matrix::pack(Format::F32, 20, 40, 1, &|i| &rows[i]).unwrap_err();
    assert_eq!(error, PackError::Columns { format: Format::F32, n_cols: 40, multiple: 32 });
    for threads in [1, 4] {
        let row = |i: usize| &rows[i][if i == 17 { 1 } else { 0 }..];
        let error = Matrix::pack(Format::Q4_K, 20, 512, threads, &row).unwrap_err();
        let expected = PackError::RowLength { format: Format::Q4_K, row: 17, expected: 288, actual: 287 };
        assert_eq!(error, expected);
    }
    let none: [&[u8]; 0] = [];
    let empty = Matrix::pack(Format::Q8_0, 0, 64, 4, &|i| none[i]).unwrap();
    assert_eq!((empty.n_groups(), empty.bytes()), (0, 0));
}
