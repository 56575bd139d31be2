//! How keys and values of one head lie, and how they get there.

use crate::lanes::{LANES, Lanes, leveled};
use crate::{Format, Level, ROW_GROUP};

/// How the keys and values of one head lie in memory: keys as packed groups of 16 positions, values as packed groups of
/// 16 dimensions, both as [`Matrix`](crate::Matrix) packs floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panels {
    pub(super) format: Format,
    pub(super) head_dim: usize,
    /// A multiple of 16.
    pub(super) capacity: usize,
}

impl Panels {
    /// For up to `capacity` positions.
    ///
    /// # Panics
    /// If the format is quantised, or `head_dim` is not a positive multiple of 16.
    pub fn new(format: Format, head_dim: usize, capacity: usize) -> Self {
        assert!(!format.is_quantized(), "{format} keys");
        assert!(head_dim > 0 && head_dim.is_multiple_of(ROW_GROUP), "heads of {head_dim} are not a multiple of 16");
        Self { format, head_dim, capacity: capacity.next_multiple_of(ROW_GROUP) }
    }

    /// How keys and values are stored.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Bytes of one head, keys and values; a multiple of 64. Memory starts as zeros.
    pub const fn bytes(&self) -> usize {
        2 * self.part()
    }

    /// Bytes of the keys, and of the values.
    pub(super) const fn part(&self) -> usize {
        self.capacity * self.head_dim * self.format.block().1
    }

    /// Writes positions `first..first + n` to the head's memory: row r of `k` and `v`, `stride` apart, is position
    /// `first + r`. Values are rounded to the format. It is fastest for whole groups of 16 positions.
    ///
    /// # Safety
    /// `memory` is of one head and aligned to 64 bytes. Meanwhile nobody else reads or writes these positions, nor, in
    /// BF16, those that they share a pair with.
    ///
    /// # Panics
    /// If there are no such positions, `k` or `v` is too short, or the machine cannot run `level`.
    #[expect(clippy::too_many_arguments, reason = "where from and where to")]
    pub unsafe fn write(
        &self,
        level: Level,
        memory: *mut u8,
        first: usize,
        n: usize,
        k: &[f32],
        v: &[f32],
        stride: usize,
    ) {
        assert!(first + n <= self.capacity, "positions {first}..{} of {}", first + n, self.capacity);
        let end = n.checked_sub(1).map_or(0, |last| last * stride + self.head_dim);
        assert!(end <= k.len() && end <= v.len(), "{n} rows of {} every {stride}", self.head_dim);
        // SAFETY: the rows were checked, and the rest is the caller's promise.
        unsafe { write_at(level, *self, memory, first, n, k.as_ptr(), v.as_ptr(), stride) }
    }

    /// Makes the first `len` positions of `to` those of `from`.
    ///
    /// # Panics
    /// If there are no such positions, or the memories are not of one head each.
    pub fn copy(&self, from: &[u8], to: &mut [u8], len: usize) {
        assert!(from.len() == self.bytes() && to.len() == self.bytes(), "the memory of one head");
        assert!(len <= self.capacity, "{len} positions of {}", self.capacity);
        let (len, size) = (len.next_multiple_of(ROW_GROUP), self.format.block().1);
        let keys = len * self.head_dim * size;
        to[..keys].copy_from_slice(&from[..keys]);
        let (from, to) = (&from[self.part()..], &mut to[self.part()..]);
        let group = self.capacity * ROW_GROUP * size;
        for (from, to) in from.chunks_exact(group).zip(to.chunks_exact_mut(group)) {
            to[..len * ROW_GROUP * size].copy_from_slice(&from[..len * ROW_GROUP * size]);
        }
    }
}

leveled! {
    /// # Safety
    /// As of [`Panels::write`]; the rows are valid.
    unsafe fn write_at(
        panels: Panels,
        memory: *mut u8,
        first: usize,
        n: usize,
        k: *const f32,
        v: *const f32,
        stride: usize,
    ) = write_with;
}

/// How sixteen values of a row become elements of a format.
trait Element: Copy + Default {
    /// # Safety
    /// `to` are sixteen.
    unsafe fn store<L: Lanes>(to: *mut Self, a: L::F);
}

/// Elements of 16 bits: whether they are f16 or bf16 is a matter of the type around them.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct Half(u16);

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct Brain(u16);

impl Element for f32 {
    #[inline(always)]
    unsafe fn store<L: Lanes>(to: *mut Self, a: L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::store(to, a) }
    }
}

impl Element for Half {
    #[inline(always)]
    unsafe fn store<L: Lanes>(to: *mut Self, a: L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::store_f16(to.cast(), a) }
    }
}

impl Element for Brain {
    #[inline(always)]
    unsafe fn store<L: Lanes>(to: *mut Self, a: L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::store_bf16(to.cast(), a) }
    }
}

#[inline(always)]
unsafe fn write_with<L: Lanes>(
    panels: Panels,
    memory: *mut u8,
    first: usize,
    n: usize,
    k: *const f32,
    v: *const f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        match panels.format {
            Format::BF16 => write_as::<L, Brain, 2>(panels, memory, first, n, k, v, stride),
            Format::F16 => write_as::<L, Half, 1>(panels, memory, first, n, k, v, stride),
            _ => write_as::<L, f32, 1>(panels, memory, first, n, k, v, stride),
        }
    }
}

/// PAIR inputs of a row lie side by side, before those of the next row.
#[inline(always)]
unsafe fn write_as<L: Lanes, E: Element, const PAIR: usize>(
    panels: Panels,
    memory: *mut u8,
    first: usize,
    n: usize,
    k: *const f32,
    v: *const f32,
    stride: usize,
) {
    let Panels { head_dim, capacity, .. } = panels;
    let mut row = 0;
    while row < n {
        // Rows of one group of positions.
        let position = first + row;
        let rows = (ROW_GROUP - position % ROW_GROUP).min(n - row);
        for d in (0..head_dim).step_by(LANES) {
            let (mut keys, mut values) = ([[E::default(); LANES]; ROW_GROUP], [[E::default(); LANES]; ROW_GROUP]);
            // SAFETY: sixteen dimensions from d on of rows that are valid.
            unsafe {
                for r in 0..rows {
                    let from = (row + r) * stride + d;
                    E::store::<L>(keys[r].as_mut_ptr(), L::load(k.add(from)));
                    E::store::<L>(values[r].as_mut_ptr(), L::load(v.add(from)));
                }
                // A group of positions: input i of row r is at (i / PAIR * 16 + r) * PAIR + i % PAIR.
                let to = memory.cast::<E>().add(position / ROW_GROUP * ROW_GROUP * head_dim + d * ROW_GROUP);
                put::<E, PAIR>(to, &keys, position % ROW_GROUP, rows);
                // A group of dimensions: their rows are dimensions, and inputs are positions.
                let group = memory.add(panels.part()).cast::<E>().add(d * capacity);
                put_inputs::<E, PAIR>(group, &values, position, rows);
            }
        }
        row += rows;
    }
}

/// Tile rows as the rows `first..first + rows` of a group, whose first sixteen inputs are at `to`.
#[inline(always)]
unsafe fn put<E: Element, const PAIR: usize>(to: *mut E, tile: &[[E; LANES]; ROW_GROUP], first: usize, rows: usize) {
    let place = |r: usize, i: usize| (i / PAIR * ROW_GROUP + first + r) * PAIR + i % PAIR;
    // SAFETY: the caller's promise: sixteen inputs of sixteen rows.
    unsafe {
        if rows == ROW_GROUP {
            // Of known length.
            for i in (0..LANES).step_by(PAIR) {
                for (r, row) in tile.iter().enumerate() {
                    for (j, &x) in row[i..i + PAIR].iter().enumerate() {
                        to.add(i * ROW_GROUP + r * PAIR + j).write(x);
                    }
                }
            }
        } else {
            for (r, row) in tile.iter().enumerate().take(rows) {
                for (i, &x) in row.iter().enumerate() {
                    to.add(place(r, i)).write(x);
                }
            }
        }
    }
}

/// Tile rows as inputs `first..first + rows` of a group of sixteen rows that starts at `to`.
#[inline(always)]
unsafe fn put_inputs<E: Element, const PAIR: usize>(
    to: *mut E,
    tile: &[[E; LANES]; ROW_GROUP],
    first: usize,
    rows: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if rows == ROW_GROUP {
            let to = to.add(first * ROW_GROUP);
            for (pair, inputs) in tile.chunks_exact(PAIR).enumerate() {
                for lane in 0..LANES {
                    for (j, input) in inputs.iter().enumerate() {
                        to.add((pair * ROW_GROUP + lane) * PAIR + j).write(input[lane]);
                    }
                }
            }
        } else {
            for (r, row) in tile.iter().enumerate().take(rows) {
                let input = first + r;
                for (lane, &x) in row.iter().enumerate() {
                    to.add((input / PAIR * ROW_GROUP + lane) * PAIR + input % PAIR).write(x);
                }
            }
        }
    }
}
