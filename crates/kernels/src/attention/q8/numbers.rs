//! Keys, values and queries to integers. All is written over [`Lanes`], whose operations give the same bits at every
//! level, and inlined into functions that are compiled for one.

use super::{BLOCK, GROUP, KEY_OFFSET, LINE, WIDE, key_bytes, key_scales, n_blocks, value_scales};
use crate::attention::PAGE;
use crate::lanes::{LANES, Lanes, load_up_to, store_up_to};

/// The largest integer of a key or value.
const NARROW: f32 = 127.0;
/// Bits of infinity; those of NaN are greater.
const INFINITE: u32 = 0xFF << 23;
/// Bits of 2^-100: below, queries and weights are taken for zeros, since the inverse of their scale would overflow.
const SMALLEST: u32 = (127 - 100) << 23;
/// A NaN in f16.
const NAN_HALF: u16 = 0x7E00;

/// 1 where a lane comes first of the two that change places, -1 where it comes second: neighbours of 1, 2, 4 and 8.
static SIGNS: [[f32; LANES]; 4] = [
    [1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1.],
    [1., 1., -1., -1., 1., 1., -1., -1., 1., 1., -1., -1., 1., 1., -1., -1.],
    [1., 1., 1., 1., -1., -1., -1., -1., 1., 1., 1., 1., -1., -1., -1., -1.],
    [1., 1., 1., 1., 1., 1., 1., 1., -1., -1., -1., -1., -1., -1., -1., -1.],
];

/// A block of a key or query in two vectors, with zeros behind its end.
type Block<L> = [<L as Lanes>::F; 2];

/// # Safety
/// As of [`Lanes`]; `n` f32 can be read there, 8, 16, 24 or 32.
#[inline(always)]
unsafe fn load_block<L: Lanes>(from: *const f32, n: usize) -> Block<L> {
    // SAFETY: the caller's promises.
    unsafe {
        let second = if n > LANES { load_up_to::<L>(from.add(LANES), n - LANES) } else { L::splat(0.0) };
        [load_up_to::<L>(from, n), second]
    }
}

/// Sums of neighbours at the places of the first ones, differences at those of the second ones.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
unsafe fn stage<L: Lanes, const N: usize>(x: L::F) -> L::F {
    // SAFETY: the caller's promise; signs are 16. A product with 1 or -1 is exact.
    unsafe { L::fma(x, L::load(SIGNS[N.ilog2() as usize].as_ptr()), L::swap::<N>(x)) }
}

/// Multiplies a block of `n` dimensions with a Hadamard matrix of 32, 16 or 8 dimensions, or one of 24 with one of 16 and
/// one of 8. A matrix of n squares to n times the identity.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
unsafe fn rotate<L: Lanes>(block: Block<L>, n: usize) -> Block<L> {
    // SAFETY: the caller's promise.
    unsafe {
        let eight = |x: L::F| stage::<L, 4>(stage::<L, 2>(stage::<L, 1>(x)));
        let [a, b] = [eight(block[0]), eight(block[1])];
        match n {
            32 => {
                let [a, b] = [stage::<L, 8>(a), stage::<L, 8>(b)];
                [L::add(a, b), L::sub(a, b)]
            }
            16 | 24 => [stage::<L, 8>(a), b],
            _ => [a, b],
        }
    }
}

/// As [`rotate`], but divided by the matrices' dimensions: products with what was rotated are what they were before.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
unsafe fn rotate_back<L: Lanes>(block: Block<L>, n: usize) -> Block<L> {
    let (first, second) = match n {
        32 => (1.0 / 32.0, 1.0 / 32.0),
        16 | 24 => (1.0 / 16.0, 1.0 / 8.0),
        _ => (1.0 / 8.0, 0.0),
    };
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b] = rotate::<L>(block, n);
        [L::mul(a, L::splat(first)), L::mul(b, L::splat(second))]
    }
}

/// The bits of magnitudes, ordered like them, with infinity and NaN last.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
unsafe fn magnitudes<L: Lanes>(x: L::F) -> L::I {
    // SAFETY: the caller's promise.
    unsafe { L::float_bits(L::abs(x)) }
}

/// The scale of a key's or value's integers, in f16, and its inverse; 0 if all integers are 0: the scale is then 0 or
/// NaN. `largest`: the bits of the greatest magnitude.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
unsafe fn narrow_scale<L: Lanes>(largest: u32) -> (u16, f32) {
    let (mut halves, mut scales) = ([0u16; LANES], [0.0f32; LANES]);
    // SAFETY: the caller's promise; both are 16 long.
    unsafe {
        L::store_f16(halves.as_mut_ptr(), L::splat(f32::from_bits(largest) / NARROW));
        L::store(scales.as_mut_ptr(), L::load_f16(halves.as_ptr()));
    }
    if largest >= INFINITE || scales[0] == f32::INFINITY {
        (NAN_HALF, 0.0)
    } else if scales[0] == 0.0 {
        (0, 0.0)
    } else {
        (halves[0], 1.0 / scales[0])
    }
}

/// The nearest integers, ties to even; zeros if `inverse` is.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
unsafe fn integers<L: Lanes>(x: L::F, inverse: f32) -> L::I {
    // SAFETY: the caller's promise.
    unsafe {
        if inverse == 0.0 {
            return L::splat_int(0);
        }
        L::to_int(L::round(L::mul(x, L::splat(inverse))))
    }
}

/// Integers of a key or value. Its scale was rounded, so that the largest may lie a little beyond.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
unsafe fn narrow<L: Lanes>(x: L::F, inverse: f32) -> L::I {
    // SAFETY: the caller's promise.
    unsafe {
        let integers = L::max_int(integers::<L>(x, inverse), L::splat_int(-(NARROW as i32)));
        // There is no minimum: the negative ones' maximum.
        let negative = L::sub_int(L::splat_int(0), integers);
        L::sub_int(L::splat_int(0), L::max_int(negative, L::splat_int(-(NARROW as i32))))
    }
}

/// Writes one position.
///
/// # Safety
/// As of [`Lanes`]; `page` is a page of heads as wide as `k` and `v`, `offset` a position of it that nobody else uses.
#[inline(always)]
pub(super) unsafe fn write<L: Lanes>(page: *mut u8, offset: usize, k: &[f32], v: &[f32]) {
    let head_dim = k.len();
    assert_eq!(v.len(), head_dim);
    for (b, key) in k.chunks(BLOCK).enumerate() {
        let mut codes = [0i8; BLOCK];
        // SAFETY: the caller's promises, of the position's places in the page; four bytes of a group are one position's.
        unsafe {
            let turned = rotate::<L>(load_block::<L>(key.as_ptr(), key.len()), key.len());
            let largest = L::max_int(magnitudes::<L>(turned[0]), magnitudes::<L>(turned[1]));
            let (scale, inverse) = narrow_scale::<L>(L::reduce_max_int(largest).cast_unsigned());
            L::store_i8(codes.as_mut_ptr(), narrow::<L>(turned[0], inverse));
            L::store_i8(codes.as_mut_ptr().add(LANES), narrow::<L>(turned[1], inverse));
            for (g, codes) in codes.as_chunks::<GROUP>().0[..key.len() / GROUP].iter().enumerate() {
                let codes = codes.map(|code| code.cast_unsigned() ^ KEY_OFFSET as u8);
                page.add(((b * BLOCK / GROUP + g) * PAGE + offset) * GROUP).cast::<[u8; GROUP]>().write(codes);
            }
            page.add(key_scales(head_dim) + b * PAGE * size_of::<u16>()).cast::<u16>().add(offset).write(scale);
        }
    }
    let start = key_bytes(head_dim) + offset / GROUP * head_dim * GROUP + offset % GROUP;
    // SAFETY: as above; a byte of each four is this position's.
    unsafe {
        let mut largest = L::splat_int(0);
        for values in v.chunks(LANES) {
            largest = L::max_int(largest, magnitudes::<L>(load_up_to::<L>(values.as_ptr(), values.len())));
        }
        let (scale, inverse) = narrow_scale::<L>(L::reduce_max_int(largest).cast_unsigned());
        for (i, values) in v.chunks(LANES).enumerate() {
            let mut codes = [0i8; LANES];
            L::store_i8(codes.as_mut_ptr(), narrow::<L>(load_up_to::<L>(values.as_ptr(), values.len()), inverse));
            for (d, &code) in codes[..values.len()].iter().enumerate() {
                page.add(start + (i * LANES + d) * GROUP).cast::<i8>().write(code);
            }
        }
        page.add(value_scales(head_dim)).cast::<u16>().add(offset).write(scale);
    }
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
    #[cfg(target_arch = "x86_64")]
    Words,
}

/// Packs the queries of a tile for [`Query`].
///
/// # Safety
/// As of [`Lanes`].
///
/// # Panics
/// If `tile` is shorter than `head_dim * tile_rows`.
#[inline(always)]
pub(super) unsafe fn pack<L: Lanes>(
    rows: &[&[f32]],
    head_dim: usize,
    tile_rows: usize,
    layout: Codes,
    tile: &mut [f32],
) {
    let (excess_at, scales_at, turned_at) = places(head_dim, tile_rows);
    let (integer_part, floats) = tile.split_at_mut(scales_at);
    let (scales, turned) = floats.split_at_mut(turned_at - scales_at);
    let turned = &mut turned[..head_dim];
    // SAFETY: any bits are bytes, four in each f32.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(integer_part.as_mut_ptr().cast::<[u8; 4]>(), integer_part.len()) };
    let (codes, excess) = bytes.split_at_mut(excess_at);
    let codes = codes.as_chunks_mut::<2>().0;
    for (r, row) in rows.iter().enumerate() {
        assert_eq!(row.len(), head_dim);
        // SAFETY: the caller's promise; all blocks are parts of the rows.
        let largest = unsafe {
            let mut largest = L::splat_int(0);
            for (row, turned) in row.chunks(BLOCK).zip(turned.chunks_mut(BLOCK)) {
                let n = row.len();
                let [a, b] = rotate_back::<L>(load_block::<L>(row.as_ptr(), n), n);
                largest = L::max_int(largest, L::max_int(magnitudes::<L>(a), magnitudes::<L>(b)));
                store_up_to::<L>(turned.as_mut_ptr(), n, a);
                if n > LANES {
                    store_up_to::<L>(turned.as_mut_ptr().add(LANES), n - LANES, b);
                }
            }
            L::reduce_max_int(largest).cast_unsigned()
        };
        let (scale, inverse) = wide_scale(largest);
        scales[r] = scale;
        for (b, block) in turned.chunks(BLOCK).enumerate() {
            let codes = &mut codes[b * (BLOCK / GROUP) * tile_rows + r..];
            // SAFETY: the caller's promise.
            let sum = unsafe {
                let [first, second] = load_block::<L>(block.as_ptr(), block.len());
                let [first, second] = [integers::<L>(first, inverse), integers::<L>(second, inverse)];
                let n_groups = block.len() / GROUP;
                match layout {
                    Codes::Planes => store_planes::<L>([first, second], n_groups, codes, tile_rows),
                    #[cfg(target_arch = "x86_64")]
                    Codes::Words => store_words::<L>([first, second], n_groups, codes, tile_rows),
                }
                L::reduce_add_int(L::add_int(first, second))
            };
            excess[b * tile_rows + r] = (KEY_OFFSET * sum).to_ne_bytes();
        }
    }
}

/// A block's integers as [`Codes::Planes`], each four `tile_rows` places after the four before.
///
/// # Safety
/// As of [`Lanes`].
#[inline(always)]
unsafe fn store_planes<L: Lanes>(t: [L::I; 2], n_groups: usize, codes: &mut [[[u8; 4]; 2]], tile_rows: usize) {
    let mut planes = [[0i8; BLOCK]; 2];
    for (half, t) in t.into_iter().enumerate() {
        // SAFETY: the caller's promise; planes have two halves of 16.
        unsafe {
            let high = L::shift_right::<8>(L::add_int(t, L::splat_int(128)));
            L::store_i8(planes[0].as_mut_ptr().add(half * LANES), high);
            L::store_i8(planes[1].as_mut_ptr().add(half * LANES), L::sub_int(t, L::shift_left::<8>(high)));
        }
    }
    let [high, low] = planes.map(|plane| plane.map(i8::cast_unsigned));
    let groups = high.as_chunks::<GROUP>().0.iter().zip(low.as_chunks::<GROUP>().0);
    for (codes, (high, low)) in codes.iter_mut().step_by(tile_rows).zip(groups).take(n_groups) {
        *codes = [*high, *low];
    }
}

/// A block's integers as [`Codes::Words`], each four `tile_rows` places after the four before.
///
/// # Safety
/// As of [`Lanes`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store_words<L: Lanes>(t: [L::I; 2], n_groups: usize, codes: &mut [[[u8; 4]; 2]], tile_rows: usize) {
    let mut words = [0f32; BLOCK];
    for (half, t) in t.into_iter().enumerate() {
        // SAFETY: the caller's promise; there are two halves of 16. The bits of integers, whatever they are as f32.
        unsafe { L::store(words.as_mut_ptr().add(half * LANES), L::from_bits(t)) };
    }
    for (codes, t) in codes.iter_mut().step_by(tile_rows).zip(words.as_chunks::<GROUP>().0).take(n_groups) {
        let pair = |a: f32, b: f32| ((a.to_bits() & 0xFFFF) | b.to_bits() << 16).to_le_bytes();
        *codes = [pair(t[0], t[2]), pair(t[1], t[3])];
    }
}

/// The scale of a query's or of weights' integers, and its inverse: 0 if all integers are, and the scale is 0 or NaN.
/// `largest`: the bits of the greatest magnitude.
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

/// Turns blocks as keys are turned, or back: for tests.
#[cfg(test)]
pub(super) fn turn(x: &mut [f32], back: bool) {
    use crate::lanes::Scalar;
    for block in x.chunks_mut(BLOCK) {
        let n = block.len();
        // SAFETY: portable code, and pointers to the block.
        unsafe {
            let loaded = load_block::<Scalar>(block.as_ptr(), n);
            let turned = if back { rotate_back::<Scalar>(loaded, n) } else { rotate::<Scalar>(loaded, n) };
            block.copy_from_slice(&turned.concat()[..n]);
        }
    }
}

const _: () = assert!(LINE >= PAGE * size_of::<u16>());
