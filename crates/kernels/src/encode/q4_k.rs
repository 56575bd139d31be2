//! Q4_K: 256 values as 8 tiles of 32, `value = d * scale * code - dmin * min` with 4-bit codes, a 6-bit scale and
//! minimum per tile, and `d` and `dmin` in f16.
//!
//! What is made small is the sum of squared errors, every weight counting the same: without knowing activations that is
//! the expected error of a product. Each tile first gets the best real scale and minimum of a number of candidates, each
//! the least-squares line through the codes that a trial scale rounds to. When `d` and `dmin` are known, scale and
//! minimum become the best of the 6-bit numbers around theirs, by the error of the values that will be read.
//!
//! The 8 tiles go side by side, one to a lane, so that all sums run down the columns.

use half::f16;

use super::inverse;

const TILES: usize = 8;
const LEN: usize = 32;

/// One number per tile.
type Lanes = [f32; TILES];

/// Steps of the first rounding, over the range of a tile's values. More than the 15 that span it exactly cut off the ends,
/// which a tile with outliers gains by.
const TRIAL_STEPS: [f32; 16] =
    [13.6, 14.0, 14.3, 14.6, 14.9, 15.2, 15.5, 15.8, 16.1, 16.4, 16.8, 17.2, 17.7, 18.2, 18.8, 19.5];

/// Rounds of codes and line after the best trial.
const REFINEMENTS: usize = 3;

const MAX_CODE: f32 = 15.0;
const MAX_SCALE: f32 = 63.0;

#[inline(always)]
pub(super) fn encode(values: &[f32; TILES * LEN], out: &mut [u8; 144]) {
    let mut x = [[0.0; TILES]; LEN];
    for (t, tile) in values.chunks_exact(LEN).enumerate() {
        for (column, &value) in x.iter_mut().zip(tile) {
            column[t] = value;
        }
    }
    let (scales, mins) = fit(&x);
    let unit = |numbers: &Lanes| f16::from_f32(numbers.iter().fold(0.0f32, |max, &v| max.max(v)) / MAX_SCALE);
    let (d, dmin) = (unit(&scales), unit(&mins));
    let (scales, mins) = six_bits(&x, &scales, &mins, d.to_f32(), dmin.to_f32());

    let mut code = [[0u8; TILES]; LEN];
    let (steps, shifts) = (scaled(&scales, d.to_f32()), scaled(&mins, dmin.to_f32()));
    let inverses = steps.map(inverse);
    for (code, x) in code.iter_mut().zip(&x) {
        for t in 0..TILES {
            code[t] = round_to((x[t] + shifts[t]) * inverses[t], MAX_CODE) as u8;
        }
    }

    let (header, nibbles) = out.split_at_mut(16);
    header[..2].copy_from_slice(&d.to_le_bytes());
    header[2..4].copy_from_slice(&dmin.to_le_bytes());
    put_six_bits(&mut header[4..], &scales, &mins);
    // Each 32 bytes hold two tiles, low nibbles and high nibbles.
    for (pair, bytes) in nibbles.chunks_exact_mut(LEN).enumerate() {
        for (byte, code) in bytes.iter_mut().zip(&code) {
            *byte = code[2 * pair] | code[2 * pair + 1] << 4;
        }
    }
}

/// Scales and minima, both at least 0, of every tile: `x` is about `scale * code - min`.
#[inline(always)]
fn fit(x: &[Lanes; LEN]) -> (Lanes, Lanes) {
    // The minimum is subtracted: it cannot be above 0.
    let (mut low, mut high) = ([0.0f32; TILES], x[0]);
    for x in x {
        for t in 0..TILES {
            low[t] = if x[t] < low[t] { x[t] } else { low[t] };
            high[t] = if x[t] > high[t] { x[t] } else { high[t] };
        }
    }
    // Seen from the minimum, so that errors are not differences of large numbers.
    let mut above = [[0.0; TILES]; LEN];
    let (mut sum, mut squares) = ([0.0; TILES], [0.0; TILES]);
    for (above, x) in above.iter_mut().zip(x) {
        for t in 0..TILES {
            above[t] = x[t] - low[t];
            sum[t] += above[t];
            squares[t] += above[t] * above[t];
        }
    }
    let tiles = Tiles { above, low, sum, squares };
    let mut best = Line { scale: [0.0; TILES], offset: [0.0; TILES], error: squares };
    for steps in TRIAL_STEPS {
        let mut inverses = [0.0; TILES];
        for t in 0..TILES {
            inverses[t] = steps * inverse(high[t] - low[t]);
        }
        tiles.improve(&mut best, &inverses, &[0.0; TILES]);
    }
    for _ in 0..REFINEMENTS {
        let (inverses, offset) = (best.scale.map(inverse), best.offset);
        tiles.improve(&mut best, &inverses, &offset);
    }
    let mut mins = [0.0; TILES];
    for t in 0..TILES {
        mins[t] = -(low[t] + best.offset[t]);
    }
    (best.scale, mins)
}

/// Tiles as distances from their minima.
struct Tiles {
    above: [Lanes; LEN],
    low: Lanes,
    sum: Lanes,
    squares: Lanes,
}

/// `scale * code + offset`, for each tile, and the sum of its squared errors.
struct Line {
    scale: Lanes,
    offset: Lanes,
    error: Lanes,
}

impl Tiles {
    /// Takes, where it is better, the least-squares line through the codes that `(above - offset) * inverse` rounds to.
    #[inline(always)]
    fn improve(&self, best: &mut Line, inverses: &Lanes, offset: &Lanes) {
        let (mut codes, mut code_squares, mut products) = ([0.0; TILES], [0.0; TILES], [0.0; TILES]);
        for above in &self.above {
            for t in 0..TILES {
                let code = round_to((above[t] - offset[t]) * inverses[t], MAX_CODE);
                codes[t] += code;
                code_squares[t] += code * code;
                products[t] += code * above[t];
            }
        }
        for t in 0..TILES {
            let n = LEN as f32;
            let determinant = n * code_squares[t] - codes[t] * codes[t];
            let inverse_determinant = inverse(determinant);
            let slope = (n * products[t] - codes[t] * self.sum[t]) * inverse_determinant;
            let at_zero = (code_squares[t] * self.sum[t] - codes[t] * products[t]) * inverse_determinant;
            // A minimum above 0 cannot be stored: the best line through 0 instead.
            let bounded = at_zero > -self.low[t];
            let through = -self.low[t];
            let bounded_slope = (products[t] - through * codes[t]) * inverse(code_squares[t]);
            let (slope, at_zero) = if bounded { (bounded_slope, through) } else { (slope, at_zero) };
            let error = self.squares[t] + slope * slope * code_squares[t] + n * at_zero * at_zero
                - 2.0 * (slope * products[t] + at_zero * self.sum[t] - slope * at_zero * codes[t]);
            let better = slope > 0.0 && error < best.error[t];
            best.scale[t] = if better { slope } else { best.scale[t] };
            best.offset[t] = if better { at_zero } else { best.offset[t] };
            best.error[t] = if better { error } else { best.error[t] };
        }
    }
}

/// The best 6-bit scales and minima of those next to the ones found, for units `d` and `dmin`.
#[inline(always)]
fn six_bits(x: &[Lanes; LEN], scales: &Lanes, mins: &Lanes, d: f32, dmin: f32) -> (Lanes, Lanes) {
    let nearest = |numbers: &Lanes, unit: f32| {
        let inverse = inverse(unit);
        numbers.map(|number| round_to(number * inverse, MAX_SCALE))
    };
    let (scales, mins) = (nearest(scales, d), nearest(mins, dmin));
    let mut best = (scales, mins);
    let mut least = [f32::INFINITY; TILES];
    // Values so small that f16 makes their scales 0 are 0, not their minima.
    let min_steps: &[f32] = if d > 0.0 { &[0.0, -1.0, 1.0] } else { &[0.0, -1.0, 1.0, -MAX_SCALE] };
    for scale_step in [0.0, -1.0, 1.0] {
        for &min_step in min_steps {
            let (mut scale, mut min) = ([0.0; TILES], [0.0; TILES]);
            for t in 0..TILES {
                scale[t] = (scales[t] + scale_step).clamp(0.0, MAX_SCALE);
                min[t] = (mins[t] + min_step).clamp(0.0, MAX_SCALE);
            }
            let error = errors(x, &scaled(&scale, d), &scaled(&min, dmin));
            for t in 0..TILES {
                let better = error[t] < least[t];
                best.0[t] = if better { scale[t] } else { best.0[t] };
                best.1[t] = if better { min[t] } else { best.1[t] };
                least[t] = if better { error[t] } else { least[t] };
            }
        }
    }
    best
}

/// Sums of squared errors of the values that will be read.
#[inline(always)]
fn errors(x: &[Lanes; LEN], steps: &Lanes, shifts: &Lanes) -> Lanes {
    let inverses = steps.map(inverse);
    let mut errors = [0.0; TILES];
    for x in x {
        for t in 0..TILES {
            let code = round_to((x[t] + shifts[t]) * inverses[t], MAX_CODE);
            let error = x[t] - (steps[t] * code - shifts[t]);
            errors[t] += error * error;
        }
    }
    errors
}

#[inline(always)]
fn scaled(numbers: &Lanes, unit: f32) -> Lanes {
    numbers.map(|number| unit * number)
}

/// The nearest whole number from 0 to `most`, which is below 2^22; 0 for NaN. The sum leaves no bits for fractions.
#[inline(always)]
fn round_to(value: f32, most: f32) -> f32 {
    const WHOLE: f32 = 12_582_912.0;
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < most { value } else { most };
    (value + WHOLE) - WHOLE
}

/// Scales and minima of 6 bits in 12 bytes: those of tiles 0 to 3 whole, those of 4 to 7 in low halves and, in the upper
/// bits of the first eight bytes, the rest.
#[inline(always)]
fn put_six_bits(out: &mut [u8], scales: &Lanes, mins: &Lanes) {
    for t in 0..4 {
        let [(scale, min), (later_scale, later_min)] = [t, t + 4].map(|t| (scales[t] as u8, mins[t] as u8));
        out[t] = scale | later_scale >> 4 << 6;
        out[t + 4] = min | later_min >> 4 << 6;
        out[t + 8] = later_scale & 15 | later_min << 4;
    }
}
