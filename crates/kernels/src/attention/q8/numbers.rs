//! Keys, values and queries to integers. All is inlined into functions that are compiled for a level, whose vectors do
//! the same operations on the same numbers, so the bits are the same everywhere.

use super::{BLOCK, GROUP, KEY_OFFSET, LINE, WIDE, key_bytes, key_scales, n_blocks, value_scales};
use crate::attention::PAGE;
use crate::attention::math::ROUND;
use crate::attention::pages::{from_half, to_half};

/// The largest integer of a key or value.
const NARROW: f32 = 127.0;
/// Bits of infinity; those of NaN are greater.
const INFINITE: u32 = 0xFF << 23;
/// Bits of 2^-100: below, numbers are taken for zeros, since the inverse of their scale would overflow.
const SMALLEST: u32 = (127 - 100) << 23;
/// A NaN in f16.
const NAN_HALF: u16 = 0x7E00;

/// Multiplies a block with Hadamard matrices: its first 32, 16 and 8 dimensions that are left, whatever there is. A
/// matrix of n squares to n times the identity.
#[inline(always)]
pub(super) fn rotate(block: &mut [f32]) {
    let rest = rotate_part::<32>(block, 1.0);
    let rest = rotate_part::<16>(rest, 1.0);
    rotate_part::<8>(rest, 1.0);
}

/// As [`rotate`], but divided by n: products with what was rotated are what they were before.
#[inline(always)]
pub(super) fn rotate_back(block: &mut [f32]) {
    let rest = rotate_part::<32>(block, 1.0 / 32.0);
    let rest = rotate_part::<16>(rest, 1.0 / 16.0);
    rotate_part::<8>(rest, 1.0 / 8.0);
}

/// Rotates the first N dimensions, if there are so many, and gives the others.
#[inline(always)]
fn rotate_part<const N: usize>(block: &mut [f32], scale: f32) -> &mut [f32] {
    if block.len() < N {
        return block;
    }
    let (part, rest) = block.split_at_mut(N);
    let Some(part) = part.first_chunk_mut::<N>() else { return rest };
    let mut half = N / 2;
    while half > 0 {
        let before = *part;
        for (i, x) in part.iter_mut().enumerate() {
            let other = before[i ^ half];
            *x = if i & half == 0 { before[i] + other } else { other - before[i] };
        }
        half /= 2;
    }
    for x in part {
        *x *= scale;
    }
    rest
}

/// The bits of the greatest magnitude: ordered like magnitudes, with infinity and NaN last.
#[inline(always)]
fn largest(x: &[f32]) -> u32 {
    x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7FFF_FFFF))
}

/// The nearest integer of a small number, ties to even.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    // The sum's low bits are the integer.
    (x + ROUND).to_bits().cast_signed() - ROUND.to_bits().cast_signed()
}

/// The scale of a key's or value's integers, in f16, and its inverse; no inverse if all integers are 0: the scale is
/// then 0 or NaN.
#[inline(always)]
fn scale_of(largest: u32) -> (u16, Option<f32>) {
    let half = to_half(f32::from_bits(largest) / NARROW);
    let scale = from_half(half);
    if largest >= INFINITE || scale == f32::INFINITY {
        (NAN_HALF, None)
    } else if scale == 0.0 {
        (0, None)
    } else {
        (half, Some(1.0 / scale))
    }
}

/// A key's or value's integer. The scale was rounded, so that the largest may lie a little beyond.
#[inline(always)]
fn narrow(x: f32, inverse: Option<f32>) -> i32 {
    inverse.map_or(0, |inverse| nearest(x * inverse).clamp(-NARROW as i32, NARROW as i32))
}

/// Writes one position.
///
/// # Safety
/// `page` is a page of heads as wide as `k` and `v`, `offset` a position of it that nobody else uses.
#[inline(always)]
pub(super) unsafe fn write(page: *mut u8, offset: usize, k: &[f32], v: &[f32]) {
    let head_dim = k.len();
    assert_eq!(v.len(), head_dim);
    let scales = key_scales(head_dim);
    for (b, key) in k.chunks(BLOCK).enumerate() {
        let mut turned = [0.0; BLOCK];
        let turned = &mut turned[..key.len()];
        turned.copy_from_slice(key);
        rotate(turned);
        let (scale, inverse) = scale_of(largest(turned));
        let mut codes = [0u8; BLOCK];
        for (code, &x) in codes.iter_mut().zip(&*turned) {
            *code = (narrow(x, inverse) + KEY_OFFSET) as u8;
        }
        // SAFETY: the position's places in the page, in whose groups four bytes are one position's.
        unsafe {
            for (g, codes) in codes.as_chunks::<GROUP>().0[..key.len() / GROUP].iter().enumerate() {
                page.add(((b * BLOCK / GROUP + g) * PAGE + offset) * GROUP).cast::<[u8; GROUP]>().write(*codes);
            }
            page.add(scales + b * PAGE * size_of::<u16>()).cast::<u16>().add(offset).write(scale);
        }
    }
    let (scale, inverse) = scale_of(largest(v));
    let start = key_bytes(head_dim) + offset / GROUP * head_dim * GROUP + offset % GROUP;
    for (part, values) in v.chunks(BLOCK).enumerate() {
        let mut codes = [0i8; BLOCK];
        for (code, &x) in codes.iter_mut().zip(values) {
            *code = narrow(x, inverse) as i8;
        }
        for (d, &code) in codes[..values.len()].iter().enumerate() {
            // SAFETY: the position's place in the page.
            unsafe { page.add(start + (part * BLOCK + d) * GROUP).cast::<i8>().write(code) };
        }
    }
    // SAFETY: the position's place in the page.
    unsafe { page.add(value_scales(head_dim)).cast::<u16>().add(offset).write(scale) };
}

/// Where a tile's queries are in its `head_dim * tile_rows` f32 of memory.
#[derive(Clone, Copy)]
pub(super) struct Query {
    /// Integers: 8 bytes for each four dimensions, `[head_dim / 4][tile_rows]`, as the level's instructions want them.
    pub codes: *const u8,
    /// What a block's sum is too high by, because of [`KEY_OFFSET`], `[blocks][tile_rows]`.
    pub excess: *const i32,
    /// `[tile_rows]`
    pub scales: *const f32,
}

impl Query {
    /// The queries in `tile`.
    ///
    /// # Panics
    /// If it is too short for them.
    pub(super) fn of(tile: &[f32], head_dim: usize, tile_rows: usize) -> Self {
        let (excess, scales, _) = places(head_dim, tile_rows);
        assert!(tile.len() >= head_dim * tile_rows, "memory of a tile");
        let start = tile.as_ptr();
        Self { codes: start.cast(), excess: start.wrapping_add(excess).cast(), scales: start.wrapping_add(scales) }
    }
}

/// Where what sums are too high by, scales, and a row being turned lie in a tile's memory, counted in f32. Integers are
/// half of it; the rest holds these for four rows or more.
const fn places(head_dim: usize, tile_rows: usize) -> (usize, usize, usize) {
    let excess = head_dim * tile_rows / 2;
    let scales = excess + n_blocks(head_dim) * tile_rows;
    (excess, scales, scales + tile_rows)
}

/// How the integers of four dimensions are laid out in their 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// Bytes: those of the high plane, then those of the low one. An integer is 256 times the one plus the other.
    Planes,
    /// 16 bits each: dimensions 0, 2, 1, 3.
    Words,
}

/// Packs the queries of a tile for [`Query`].
#[inline(always)]
pub(super) fn pack(rows: &[&[f32]], head_dim: usize, tile_rows: usize, layout: Codes, tile: &mut [f32]) {
    let (excess_at, scales_at, turned_at) = places(head_dim, tile_rows);
    let (integers, floats) = tile.split_at_mut(scales_at);
    let (scales, turned) = floats.split_at_mut(turned_at - scales_at);
    let turned = &mut turned[..head_dim];
    // SAFETY: any bits are integers, as long as those of f32.
    let integers = unsafe { std::slice::from_raw_parts_mut(integers.as_mut_ptr().cast::<[u8; 4]>(), integers.len()) };
    let (codes, excess) = integers.split_at_mut(excess_at);
    let codes = codes.as_chunks_mut::<2>().0;
    for (r, row) in rows.iter().enumerate() {
        turned.copy_from_slice(row);
        turned.chunks_mut(BLOCK).for_each(rotate_back);
        let (scale, inverse) = wide_scale(largest(turned));
        scales[r] = scale;
        for (b, block) in turned.chunks(BLOCK).enumerate() {
            let mut integers = [0i32; BLOCK];
            for (t, &x) in integers.iter_mut().zip(block) {
                *t = if inverse == 0.0 { 0 } else { nearest(x * inverse) };
            }
            excess[b * tile_rows + r] = (KEY_OFFSET * integers.iter().sum::<i32>()).to_ne_bytes();
            for (g, t) in integers.as_chunks::<GROUP>().0[..block.len() / GROUP].iter().enumerate() {
                let words = match layout {
                    Codes::Planes => {
                        let high = t.map(|t| (t + 128) >> 8);
                        // The low plane is what is left, in a byte.
                        [high.map(|t| t as u8), t.map(|t| t as u8)]
                    }
                    Codes::Words => {
                        let word = |t: i32| (t as i16).to_le_bytes();
                        let pair = |a: i32, b: i32| [word(a)[0], word(a)[1], word(b)[0], word(b)[1]];
                        [pair(t[0], t[2]), pair(t[1], t[3])]
                    }
                };
                codes[(b * BLOCK / GROUP + g) * tile_rows + r] = words;
            }
        }
    }
}

/// The scale of a query's or of weights' integers, and its inverse: 0 if all integers are, and the scale is 0 or NaN.
#[inline(always)]
pub(super) fn wide_scale(largest: u32) -> (f32, f32) {
    if largest < SMALLEST {
        (0.0, 0.0)
    } else if largest >= INFINITE {
        (f32::NAN, 0.0)
    } else {
        let largest = f32::from_bits(largest);
        (largest / WIDE, WIDE / largest)
    }
}

/// The integers of weights: none of them is negative.
#[inline(always)]
pub(super) fn wide(x: f32, inverse: f32) -> i32 {
    nearest(x * inverse)
}

const _: () = assert!(LINE >= PAGE * size_of::<u16>());
