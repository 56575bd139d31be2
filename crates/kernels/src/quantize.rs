//! Activations to integers with scales, tile by tile.
//!
//! Of a tile x with the greatest magnitude `max`, and `limit` 127 or 32512: scale = max / limit, inverse = limit / max
//! (each rounded to f32), and the integers are x * inverse, rounded to f32 and then to the nearest integer, ties to
//! even. The bits are the same at every level. A tile with max < 2^-100 is zero: scale 0, integers 0. One with a NaN or
//! an infinity has the scale NaN and integers 0, so that whatever it is multiplied with is NaN.

use std::ops::Range;

use crate::lanes::{LANES, Lanes, leveled};
use crate::rows::{BlockSums, Planes, QuantizedRows, RowsWriter, TilePlaces};
use crate::{Level, TILE};

/// Bits of 2^-100: below, the inverse of two planes would overflow.
const SMALLEST: u32 = (127 - 100) << 23;
/// Bits of infinity; those of NaN are greater.
const INFINITE: u32 = 0xff << 23;

/// Quantises tiles `tiles` of row `row` of `rows`; `x` is the whole row (width of `rows`).
///
/// # Safety
/// No other thread reads or writes these tiles at the same time.
///
/// # Panics
/// If the row is of another width, or there is no such row or tile, or the machine cannot run `level`.
pub unsafe fn quantize_tile_range(level: Level, x: &[f32], row: usize, rows: &RowsWriter<'_>, tiles: Range<usize>) {
    assert!(x.len() == rows.n_tiles() * TILE && tiles.end <= rows.n_tiles(), "a row of another width");
    // SAFETY: as the caller states.
    unsafe { quantize_tiles(level, &x[tiles.start * TILE..tiles.end * TILE], row, rows, tiles.start) };
}

/// Quantises `values`, which are whole tiles of row `row` of `rows` from tile `first` on.
///
/// # Safety
/// No other thread reads or writes these tiles at the same time.
///
/// # Panics
/// If there are no such tiles, or the machine cannot run `level`.
pub unsafe fn quantize_tiles(level: Level, values: &[f32], row: usize, rows: &RowsWriter<'_>, first: usize) {
    let n_tiles = values.len() / TILE;
    assert!(values.len() == n_tiles * TILE && first + n_tiles <= rows.n_tiles(), "tiles outside of a row");
    if n_tiles == 0 {
        return;
    }
    let to = rows.places(row, first);
    // SAFETY: the values are as many tiles, their places within the memory of `rows`, and the caller's alone.
    unsafe {
        match rows.planes() {
            Planes::One => one_plane(level, values.as_ptr(), n_tiles, to),
            Planes::Two => two_planes(level, values.as_ptr(), n_tiles, to),
        }
    }
}

impl QuantizedRows {
    /// Makes it the `n_rows` rows of `width` (a multiple of 32) values in `x`.
    ///
    /// # Panics
    /// If that is more than its capacity, or `x` of another length, or the machine cannot run `level`.
    pub fn quantize(&mut self, level: Level, x: &[f32], n_rows: usize, width: usize, planes: Planes) {
        assert_eq!(x.len(), n_rows * width, "{n_rows} rows of {width}");
        self.reshape(n_rows, width, planes);
        let writer = self.writer();
        for row in 0..n_rows {
            // SAFETY: the rows are borrowed exclusively.
            unsafe {
                quantize_tile_range(level, &x[row * width..][..width], row, &writer, 0..width / TILE);
            }
        }
    }
}

leveled! {
    /// # Safety
    /// `x` is `n_tiles` tiles and `to` the places of as many, the caller's alone.
    unsafe fn one_plane(x: *const f32, n_tiles: usize, to: TilePlaces) = one_plane_with;
}

leveled! {
    /// # Safety
    /// `x` is `n_tiles` tiles and `to` the places of as many, the caller's alone.
    unsafe fn two_planes(x: *const f32, n_tiles: usize, to: TilePlaces) = two_planes_with;
}

#[inline(always)]
unsafe fn one_plane_with<L: Lanes>(x: *const f32, n_tiles: usize, to: TilePlaces) {
    for tile in 0..n_tiles {
        // SAFETY: the caller's promises.
        unsafe {
            let values = to.values.add(tile * to.tile_stride);
            let (halves, sums) = tile_with::<L>(x.add(tile * TILE), 127.0);
            L::store_i8(values, halves[0]);
            L::store_i8(values.add(LANES), halves[1]);
            to.sums.add(tile * to.sums_stride).write(sums);
        }
    }
}

#[inline(always)]
unsafe fn two_planes_with<L: Lanes>(x: *const f32, n_tiles: usize, to: TilePlaces) {
    for tile in 0..n_tiles {
        // SAFETY: the caller's promises.
        unsafe {
            let values = to.values.add(tile * to.tile_stride);
            let (halves, sums) = tile_with::<L>(x.add(tile * TILE), 32512.0);
            let (high, low) = split::<L>(halves[0]);
            L::store_i8(values, high);
            L::store_i8(values.add(to.plane_stride), low);
            let (high, low) = split::<L>(halves[1]);
            L::store_i8(values.add(LANES), high);
            L::store_i8(values.add(to.plane_stride + LANES), low);
            to.sums.add(tile * to.sums_stride).write(sums);
        }
    }
}

/// The integers of a tile, inputs 0 to 15 and 16 to 31, and its sums.
#[inline(always)]
unsafe fn tile_with<L: Lanes>(x: *const f32, limit: f32) -> ([L::I; 2], BlockSums) {
    // SAFETY: `x` is a tile.
    unsafe {
        let (a, b) = (L::load(x), L::load(x.add(LANES)));
        // Magnitudes are ordered like their bits, with infinity and NaN last.
        let magnitude = L::max_int(L::float_bits(L::abs(a)), L::float_bits(L::abs(b)));
        let max = L::reduce_max_int(magnitude).cast_unsigned();
        if !(SMALLEST..INFINITE).contains(&max) {
            let scale = if max < SMALLEST { 0.0 } else { f32::NAN };
            let zero = L::splat_int(0);
            return ([zero, zero], BlockSums { scale, scaled_sum: scale, low_half: 0, high_half: 0 });
        }
        let max = f32::from_bits(max);
        let scale = max / limit;
        let inverse = L::splat(limit / max);
        let a = L::to_int(L::round(L::mul(a, inverse)));
        let b = L::to_int(L::round(L::mul(b, inverse)));
        let (low_half, high_half) = (L::reduce_add_int(a), L::reduce_add_int(b));
        let scaled_sum = scale * (low_half + high_half) as f32;
        ([a, b], BlockSums { scale, scaled_sum, low_half, high_half })
    }
}

/// t to high = (t + 128) >> 8 and low = t - 256 * high.
#[inline(always)]
unsafe fn split<L: Lanes>(t: L::I) -> (L::I, L::I) {
    // SAFETY: the caller's promises.
    unsafe {
        let high = L::shift_right::<8>(L::add_int(t, L::splat_int(128)));
        (high, L::sub_int(t, L::shift_left::<8>(high)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, special};

    /// By the definition, in plain code.
    fn expected(x: &[f32], planes: Planes) -> (Vec<[i8; 2]>, BlockSums) {
        let limit = if planes == Planes::One { 127.0 } else { 32512.0 };
        let max = x.iter().fold(0.0_f32, |max, v| if v.abs() > max || v.is_nan() { v.abs() } else { max });
        if max < 2.0_f32.powi(-100) || !max.is_finite() || x.iter().any(|v| v.is_nan()) {
            let scale = if max < 2.0_f32.powi(-100) { 0.0 } else { f32::NAN };
            return (vec![[0; 2]; TILE], BlockSums { scale, scaled_sum: scale, low_half: 0, high_half: 0 });
        }
        let t: Vec<i32> = x.iter().map(|v| (v * (limit / max)).round_ties_even() as i32).collect();
        let (low_half, high_half) = (t[..16].iter().sum::<i32>(), t[16..].iter().sum::<i32>());
        let scale = max / limit;
        let values = t.iter().map(|&t| {
            if planes == Planes::One {
                return [i8::try_from(t).unwrap(); 2];
            }
            let high = (t + 128) >> 8;
            [i8::try_from(high).unwrap(), i8::try_from(t - 256 * high).unwrap()]
        });
        (values.collect(), BlockSums { scale, scaled_sum: scale * (low_half + high_half) as f32, low_half, high_half })
    }

    fn bits(sums: BlockSums) -> (Option<u32>, Option<u32>, i32, i32) {
        let bits = |v: f32| (!v.is_nan()).then_some(v.to_bits());
        (bits(sums.scale), bits(sums.scaled_sum), sums.low_half, sums.high_half)
    }

    #[test]
    fn tiles_are_quantised_as_defined_at_every_level_in_every_place() {
        let mut random = Random(1);
        for level in Level::available() {
            for planes in [Planes::One, Planes::Two] {
                for (n_rows, width) in [(1, 32), (2, 576), (8, 96), (9, 64), (21, 160)] {
                    let mut x: Vec<f32> = (0..n_rows * width).map(|_| random.normal() * 3.0).collect();
                    // Extremes among them: whole tiles, and single values.
                    for tile in x.chunks_exact_mut(TILE) {
                        match random.below(12) {
                            0 => tile.fill(0.0),
                            1 => tile.iter_mut().for_each(|v| *v *= 1e-33),
                            2 => tile.iter_mut().for_each(|v| *v *= 1e37),
                            3 => tile.iter_mut().for_each(|v| *v = if *v > 0.0 { f32::MAX } else { -f32::MAX }),
                            4 => tile[random.below(TILE)] = special(&mut random),
                            5 => tile.iter_mut().for_each(|v| *v = (*v * 20.0).round() + 0.5),
                            6 => tile.fill(-1e-30),
                            _ => {}
                        }
                    }
                    let mut rows = QuantizedRows::with_capacity(n_rows, width, planes);
                    rows.quantize(level, &x, n_rows, width, planes);
                    for row in 0..n_rows {
                        for tile in 0..width / TILE {
                            let (values, sums) = expected(&x[row * width + tile * TILE..][..TILE], planes);
                            let ([high, low], place) = rows.place(row, tile);
                            let (values_at, sums_at) = rows.parts_mut();
                            for (i, [h, l]) in values.into_iter().enumerate() {
                                assert_eq!((values_at[high + i], values_at[low + i]), (h, l), "{level} {row} {tile}");
                            }
                            assert_eq!(bits(sums_at[place]), bits(sums), "{level} {row} {tile}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn quantised_values_are_within_half_a_unit() {
        let mut random = Random(2);
        let x: Vec<f32> = (0..TILE * 50).map(|_| random.normal()).collect();
        for (planes, units) in [(Planes::One, 127.0), (Planes::Two, 32512.0)] {
            let mut rows = QuantizedRows::with_capacity(1, x.len(), planes);
            rows.quantize(Level::detect(), &x, 1, x.len(), planes);
            let block = rows.block(0);
            for (tile, x) in x.chunks_exact(TILE).enumerate() {
                let max = x.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
                for (i, x) in x.iter().enumerate() {
                    let at = tile * planes.count() * TILE + i;
                    let q = match planes {
                        Planes::One => i32::from(block.values[at]),
                        Planes::Two => i32::from(block.values[at]) * 256 + i32::from(block.values[at + TILE]),
                    };
                    let error = (f64::from(block.sums[tile].scale) * f64::from(q) - f64::from(*x)).abs();
                    assert!(error <= f64::from(max) / units * 0.51, "{error}");
                }
            }
        }
    }

    #[test]
    fn threads_fill_one_row_together() {
        let mut random = Random(3);
        let x: Vec<f32> = (0..TILE * 40).map(|_| random.normal()).collect();
        let mut whole = QuantizedRows::with_capacity(1, x.len(), Planes::Two);
        whole.quantize(Level::detect(), &x, 1, x.len(), Planes::Two);
        let mut parts = QuantizedRows::with_capacity(1, x.len(), Planes::Two);
        parts.reshape(1, x.len(), Planes::Two);
        let writer = parts.writer();
        std::thread::scope(|scope| {
            for tiles in [0..13, 13..13, 13..40] {
                let (writer, x) = (&writer, &x);
                // SAFETY: the threads' tiles are disjoint.
                scope.spawn(move || unsafe { quantize_tile_range(Level::detect(), x, 0, writer, tiles) });
            }
        });
        assert_eq!(whole.block(0).values, parts.block(0).values);
        assert_eq!(whole.block(0).sums, parts.block(0).sums);
    }

    #[test]
    #[should_panic(expected = "a row of another width")]
    fn a_row_of_another_width_is_refused() {
        let mut rows = QuantizedRows::with_capacity(2, 64, Planes::One);
        rows.reshape(2, 64, Planes::One);
        // SAFETY: nobody else has the rows.
        unsafe { quantize_tile_range(Level::Scalar, &[0.0; 63], 0, &rows.writer(), 0..2) };
    }
}
