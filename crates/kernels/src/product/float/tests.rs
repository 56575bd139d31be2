use half::{bf16, f16};

use super::*;
use crate::testing::{Random, bits};

const FLOATS: [Format; 3] = [Format::BF16, Format::F16, Format::F32];

/// Values as stored, and their bytes.
fn stored(format: Format, values: &[f32]) -> (Vec<f32>, Vec<u8>) {
    let pairs = values.iter().map(|&v| match format {
        Format::BF16 => (bf16::from_f32(v).to_f32(), bf16::from_f32(v).to_le_bytes().to_vec()),
        Format::F16 => (f16::from_f32(v).to_f32(), f16::from_f32(v).to_le_bytes().to_vec()),
        _ => (v, v.to_le_bytes().to_vec()),
    });
    let (values, bytes): (Vec<_>, Vec<_>) = pairs.unzip();
    (values, bytes.concat())
}

/// A matrix of random values, and the values. Other widths than multiples of 32 only in f32.
fn random_matrix(random: &mut Random, format: Format, n_rows: usize, n_cols: usize) -> (Matrix, Vec<f32>) {
    let (values, bytes) = stored(format, &random.normals(n_rows * n_cols));
    if !n_cols.is_multiple_of(32) {
        return (Matrix::pack_f32(n_rows, n_cols, 2, &values).unwrap(), values);
    }
    let size = bytes.len() / n_rows;
    (Matrix::pack(format, n_rows, n_cols, 2, &|row| &bytes[row * size..][..size]).unwrap(), values)
}

/// The definition.
fn product(w: &[f32], x: &[f32], start: f32) -> f32 {
    w.iter().zip(x).fold(start, |sum, (w, x)| w.mul_add(*x, sum))
}

#[test]
fn packed_rows_are_the_stored_values() {
    let mut random = Random(31);
    for format in FLOATS {
        for (n_rows, n_cols) in [(1, 32), (16, 64), (37, 160), (5, 33), (20, 1)] {
            let (matrix, values) = random_matrix(&mut random, format, n_rows, n_cols);
            let mut row = vec![0.0; n_cols];
            for (i, values) in values.chunks_exact(n_cols).enumerate() {
                matrix.dequantize_row(i, &mut row);
                assert_eq!(row, values, "{format} row {i} of {n_rows} x {n_cols}");
            }
        }
    }
    // An odd number of bf16, which `Matrix` does not take but the layout does.
    let (values, bytes) = stored(Format::BF16, &random.normals(5));
    let mut group = vec![0; crate::pack::float::group_bytes(Format::BF16, 5)];
    assert_eq!(group.len(), 3 * 64);
    crate::pack::float::pack_group(Format::BF16, 5, &[&bytes, &bytes], &mut group);
    let mut row = [0.0; 5];
    crate::pack::float::row(Format::BF16, 5, &group, 1, &mut row);
    assert_eq!(row, *values);
}

#[test]
fn products_are_the_defined_sums_at_every_level_for_any_rows_and_groups() {
    let mut random = Random(32);
    for format in FLOATS {
        for (n_out, n_cols) in [(16, 32), (100, 96), (37, 33), (130, 7), (64, 1), (3, 576)] {
            let (matrix, w) = random_matrix(&mut random, format, n_out, n_cols);
            let (x_stride, stride) = (n_cols + 3, matrix.n_groups() * ROW_GROUP + 5);
            for n_rows in (1..=13).chain([33]) {
                let x = random.normals(n_rows * x_stride);
                for level in Level::available() {
                    let cut = random.below(matrix.n_groups() + 1);
                    let mut out = vec![f32::NAN; n_rows * stride];
                    for groups in [cut..matrix.n_groups(), 0..cut] {
                        let ahead = [0, 4096][random.below(2)];
                        // SAFETY: `out` has the rows.
                        unsafe {
                            multiply_f32(level, &matrix, groups, &x, x_stride, n_rows, out.as_mut_ptr(), stride, ahead);
                        }
                    }
                    for (r, out) in out.chunks_exact(stride).enumerate() {
                        let x = &x[r * x_stride..][..n_cols];
                        for (n, w) in w.chunks_exact(n_cols).enumerate() {
                            let expected = product(w, x, 0.0);
                            assert_eq!(out[n].to_bits(), expected.to_bits(), "{level} {format} {n_cols} {r} {n}");
                        }
                        let end = matrix.n_groups() * ROW_GROUP;
                        assert!(out[n_out..end].iter().all(|&v| v == 0.0));
                        assert!(out[end..].iter().all(|v| v.is_nan()));
                    }
                }
            }
        }
    }
}

#[test]
fn many_rows_start_from_a_bias_or_the_output_and_leave_what_is_not_theirs() {
    let mut random = Random(33);
    for format in FLOATS {
        // The last is cut into several chunks of rows.
        for (n_out, n_cols, n_rows) in [(16, 32, 1), (75, 64, 20), (40, 35, 7), (20, 4096, 67)] {
            let (matrix, w) = random_matrix(&mut random, format, n_out, n_cols);
            let x = random.normals(n_rows * n_cols);
            let bias = random.normals(n_out);
            // Rows side by side: what is behind one row is the next.
            let before = random.normals(n_rows * n_out + 1);
            for level in Level::available() {
                if level == Level::Scalar && n_cols > 1000 {
                    continue;
                }
                for start in [Start::Zero, Start::Bias(&bias), Start::Output] {
                    let mut out = before.clone();
                    let groups = 0..matrix.n_groups();
                    // SAFETY: `out` has the rows.
                    unsafe {
                        multiply_f32_rows(level, &matrix, groups, &x, n_cols, n_rows, start, out.as_mut_ptr(), n_out);
                    }
                    for (i, &got) in out[..n_rows * n_out].iter().enumerate() {
                        let (r, n) = (i / n_out, i % n_out);
                        let start = match start {
                            Start::Zero => 0.0,
                            Start::Bias(bias) => bias[n],
                            Start::Output => before[i],
                        };
                        let (w, x) = (&w[n * n_cols..][..n_cols], &x[r * n_cols..][..n_cols]);
                        assert_eq!(got.to_bits(), product(w, x, start).to_bits(), "{level} {format} {r} {n}");
                    }
                    assert_eq!(out[n_rows * n_out], before[n_rows * n_out]);
                }
            }
        }
    }
}

#[test]
fn products_are_near_f64() {
    let mut random = Random(34);
    for format in FLOATS {
        let (n_out, n_cols, n_rows) = (48, 2048, 9);
        let (matrix, w) = random_matrix(&mut random, format, n_out, n_cols);
        let x = random.normals(n_rows * n_cols);
        let mut out = vec![0.0; n_rows * n_out];
        // SAFETY: `out` has the rows.
        unsafe {
            multiply_f32(Level::detect(), &matrix, 0..3, &x, n_cols, n_rows, out.as_mut_ptr(), n_out, 0);
        }
        let (mut error, mut norm) = (0.0, 0.0);
        for (i, got) in out.into_iter().enumerate() {
            let (w, x) = (&w[i % n_out * n_cols..][..n_cols], &x[i / n_out * n_cols..][..n_cols]);
            let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            error += (exact - f64::from(got)).powi(2);
            norm += exact.powi(2);
        }
        assert!(error / norm < 1e-12, "{format}: {:e}", error / norm);
    }
}

#[test]
fn nan_and_infinity_stay_in_their_rows() {
    let mut random = Random(35);
    let (matrix, w) = random_matrix(&mut random, Format::BF16, 32, 64);
    for level in Level::available() {
        let mut x = random.normals(3 * 64);
        x[70] = f32::NAN;
        x[130] = f32::INFINITY;
        let mut out = vec![0.0; 3 * 32];
        // SAFETY: `out` has the rows.
        unsafe { multiply_f32(level, &matrix, 0..2, &x, 64, 3, out.as_mut_ptr(), 32, 0) };
        let expected: Vec<f32> = x
            .chunks_exact(64)
            .flat_map(|x| w.chunks_exact(64).map(|w| product(w, x, 0.0)).collect::<Vec<_>>())
            .collect();
        assert_eq!(bits(&out), bits(&expected), "{level}");
        assert!(out[..32].iter().all(|v| v.is_finite()) && out[32..64].iter().all(|v| v.is_nan()));
    }
}

#[test]
#[should_panic(expected = "rows of 32 in")]
fn rows_must_be_there() {
    let matrix = Matrix::pack_f32(16, 32, 1, &[0.0; 16 * 32]).unwrap();
    let mut out = [0.0; 32];
    // SAFETY: two rows of 16.
    unsafe { multiply_f32(Level::Scalar, &matrix, 0..1, &[0.0; 63], 32, 2, out.as_mut_ptr(), 16, 0) };
}
