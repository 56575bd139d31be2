//! Convolution over time as a matrix product, without copying windows.

use std::ops::Range;

use super::float::{Start, gemm_f32};
use crate::{Level, Matrix, PackError};

/// The weights of a 1-d convolution, packed.
///
/// Rows are times and columns channels, so that the `kernel` times which one output sees lie side by side: they are a row
/// of a product's left side, and the next output's row starts `stride` times later, overlapping it.
#[derive(Debug)]
pub struct Conv1d {
    /// `[c_out, kernel * c_in]`
    weights: Matrix,
    c_in: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Conv1d {
    /// Packs `weights` `[c_out, c_in, kernel]`, as they are stored in files.
    ///
    /// # Panics
    /// If there are not as many weights, or `kernel` or `stride` is 0.
    pub fn pack(
        weights: &[f32],
        (c_out, c_in, kernel): (usize, usize, usize),
        stride: usize,
        padding: usize,
        threads: usize,
    ) -> Result<Self, PackError> {
        assert!(
            weights.len() == c_out * c_in * kernel && kernel > 0 && stride > 0,
            "{c_out} x {c_in} x {kernel} weights"
        );
        // [c_out, kernel, c_in]
        let mut by_time = Vec::with_capacity(weights.len());
        for weights in weights.chunks_exact((c_in * kernel).max(1)) {
            for k in 0..kernel {
                by_time.extend(weights.iter().skip(k).step_by(kernel));
            }
        }
        let weights = Matrix::pack_f32(c_out, kernel * c_in, threads, &by_time)?;
        Ok(Self { weights, c_in, kernel, stride, padding })
    }

    /// Output times for `len` input times.
    pub fn output_len(&self, len: usize) -> usize {
        (len + 2 * self.padding).checked_sub(self.kernel).map_or(0, |last| last / self.stride + 1)
    }

    /// Writes the output times `times` to `out` `[times.len(), c_out]`, of the whole input `x` `[len, c_in]`, before and
    /// after which there are zeros. A time's output does not depend on how times are split. The windows that reach
    /// beyond the input are copied to memory allocated for them.
    ///
    /// # Panics
    /// If the slices have other lengths, there are no such times, a bias has not one value per output channel, or the
    /// machine cannot run `level`.
    pub fn apply(&self, level: Level, x: &[f32], bias: Option<&[f32]>, times: Range<usize>, out: &mut [f32]) {
        let c_out = self.weights.n_rows();
        let len = x.len() / self.c_in.max(1);
        assert_eq!(x.len(), len * self.c_in, "times of {}", self.c_in);
        assert!(times.start <= times.end && times.end <= self.output_len(len), "times {times:?} of {len}");
        assert_eq!(out.len(), times.len() * c_out, "{} times of {c_out}", times.len());
        let start = bias.map_or(Start::Zero, Start::Bias);
        let width = self.kernel * self.c_in;

        // Outputs whose windows lie within the input.
        let first = self.padding.div_ceil(self.stride).clamp(times.start, times.end);
        let end = (len + self.padding).checked_sub(self.kernel).map_or(0, |last| last / self.stride + 1);
        let end = end.clamp(first, times.end);
        if first < end {
            let from = (first * self.stride - self.padding) * self.c_in;
            let out = &mut out[(first - times.start) * c_out..(end - times.start) * c_out];
            gemm_f32(level, &self.weights, &x[from..], self.stride * self.c_in, end - first, start, out, c_out);
        }

        let mut window = vec![0.0; width];
        for time in (times.start..first).chain(end..times.end) {
            for (k, window) in window.chunks_exact_mut(self.c_in.max(1)).enumerate() {
                match (time * self.stride + k).checked_sub(self.padding) {
                    Some(at) if at < len => window.copy_from_slice(&x[at * self.c_in..][..self.c_in]),
                    _ => window.fill(0.0),
                }
            }
            let out = &mut out[(time - times.start) * c_out..][..c_out];
            gemm_f32(level, &self.weights, &window, width, 1, start, out, c_out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn convolutions_are_the_defined_sums_at_every_level_and_split() {
        let mut random = Random(51);
        for (c_out, c_in, kernel, stride, padding, len) in [
            (20, 5, 3, 1, 1, 30),
            (33, 8, 3, 2, 1, 31),
            (16, 3, 4, 4, 0, 22),
            (5, 2, 7, 2, 3, 3),
            (4, 1, 3, 1, 1, 1),
            (7, 80, 3, 2, 1, 9),
            (3, 2, 5, 1, 0, 4),
            (3, 2, 3, 3, 5, 2),
        ] {
            let weights = random.normals(c_out * c_in * kernel);
            let (x, bias) = (random.normals(len * c_in), random.normals(c_out));
            let conv = Conv1d::pack(&weights, (c_out, c_in, kernel), stride, padding, 1).unwrap();
            let n = conv.output_len(len);
            assert_eq!(n, if len + 2 * padding < kernel { 0 } else { (len + 2 * padding - kernel) / stride + 1 });
            let mut expected = vec![0.0; n * c_out];
            for (i, expected) in expected.iter_mut().enumerate() {
                let (time, channel) = (i / c_out, i % c_out);
                *expected = bias[channel];
                for k in 0..kernel {
                    for c in 0..c_in {
                        let at = (time * stride + k).checked_sub(padding).filter(|&at| at < len);
                        let x = at.map_or(0.0, |at| x[at * c_in + c]);
                        *expected = weights[(channel * c_in + c) * kernel + k].mul_add(x, *expected);
                    }
                }
            }
            for level in Level::available() {
                let cut = random.below(n + 1);
                let mut out = vec![f32::NAN; n * c_out];
                let (one, two) = out.split_at_mut(cut * c_out);
                conv.apply(level, &x, Some(&bias), 0..cut, one);
                conv.apply(level, &x, Some(&bias), cut..n, two);
                assert_eq!(out, expected, "{level} {c_in} {kernel} {stride} {padding} {len} cut at {cut}");
            }
        }
    }

    #[test]
    fn without_bias_sums_start_at_zero() {
        let conv = Conv1d::pack(&[1.0, 2.0, 4.0], (1, 1, 3), 1, 1, 1).unwrap();
        let mut out = [f32::NAN; 3];
        conv.apply(Level::detect(), &[1.0, 10.0, 100.0], None, 0..3, &mut out);
        assert_eq!(out, [42.0, 421.0, 210.0]);
    }
}
