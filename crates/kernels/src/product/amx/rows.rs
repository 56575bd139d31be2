//! Activations as tiles.

use std::marker::PhantomData;
use std::ops::Range;

use crate::lanes::{LANES, Lanes, leveled};
use crate::{AlignedBytes, Level, ROW_GROUP, TILE};

/// Rows of one tile.
pub(super) const BLOCK_ROWS: usize = 16;

/// Bytes of a row of a tile: 32 values of activations, or 16 outputs' pairs of weights, or 16 sums.
pub(super) const LINE: usize = 64;

/// Bytes of a tile.
pub(super) const TILE_BYTES: usize = BLOCK_ROWS * LINE;

const _: () = assert!(LINE == TILE * size_of::<u16>() && LINE == ROW_GROUP * size_of::<f32>());

/// Rows of activations rounded to bf16, in the order in which tiles are read: `[block of 16 rows][tile of 32
/// values][row][value]`. Memory for them, sized once.
#[derive(Debug)]
pub struct TileRows {
    shape: Shape,
    values: AlignedBytes,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    n_rows: usize,
    n_tiles: usize,
}

impl Shape {
    /// Bytes of the rows, those that fill the last block included.
    const fn bytes(self) -> usize {
        self.n_rows.div_ceil(BLOCK_ROWS) * self.n_tiles * TILE_BYTES
    }
}

/// Rows of [`TileRows`] from the first of a block on, as kernels read them.
#[derive(Debug, Clone, Copy)]
pub struct TileBlocks<'a> {
    pub(super) n_rows: usize,
    pub(super) n_tiles: usize,
    /// Whole blocks.
    pub(super) values: &'a [u8],
}

impl TileRows {
    /// Room for `max_rows` rows of up to `max_width` values.
    pub fn with_capacity(max_rows: usize, max_width: usize) -> Self {
        let room = Shape { n_rows: max_rows, n_tiles: max_width.div_ceil(TILE) };
        Self { shape: Shape { n_rows: 0, n_tiles: 0 }, values: AlignedBytes::zeroed(room.bytes()) }
    }

    /// Makes it `n_rows` rows of `width` (a multiple of 32) values, with whatever content.
    ///
    /// # Panics
    /// If that is more than its capacity.
    pub fn reshape(&mut self, n_rows: usize, width: usize) {
        let shape = Shape { n_rows, n_tiles: width / TILE };
        assert!(
            width.is_multiple_of(TILE) && shape.bytes() <= self.values.len(),
            "{n_rows} rows of {width} do not fit"
        );
        self.shape = shape;
    }

    /// Makes it the `n_rows` rows of `width` (a multiple of 32) values in `x` that start `stride` apart; they may overlap.
    ///
    /// # Panics
    /// If that is more than its capacity, `x` is too short, or the machine cannot run `level`.
    pub fn round(&mut self, level: Level, x: &[f32], stride: usize, n_rows: usize, width: usize) {
        self.reshape(n_rows, width);
        let writer = self.writer();
        for row in 0..n_rows {
            // SAFETY: the rows are borrowed exclusively.
            unsafe { round_tiles(level, &x[row * stride..][..width], row, &writer, 0) };
        }
    }

    /// All rows, for kernels.
    pub fn blocks(&self) -> TileBlocks<'_> {
        let Shape { n_rows, n_tiles } = self.shape;
        TileBlocks { n_rows, n_tiles, values: &self.values[..self.shape.bytes()] }
    }

    /// What threads fill the rows through, each its own tiles.
    pub fn writer(&mut self) -> TileRowsWriter<'_> {
        TileRowsWriter { shape: self.shape, values: self.values.as_mut_ptr(), rows: PhantomData }
    }
}

/// Rows being filled by several threads at once, each its own tiles.
#[derive(Debug)]
pub struct TileRowsWriter<'a> {
    shape: Shape,
    values: *mut u8,
    rows: PhantomData<&'a mut TileRows>,
}

// SAFETY: it is an exclusive borrow of plain numbers, and only unsafe functions write through it: their callers keep the
// tiles that threads write apart.
unsafe impl Send for TileRowsWriter<'_> {}
// SAFETY: as above.
unsafe impl Sync for TileRowsWriter<'_> {}

impl TileRowsWriter<'_> {
    pub fn n_rows(&self) -> usize {
        self.shape.n_rows
    }

    pub fn n_tiles(&self) -> usize {
        self.shape.n_tiles
    }

    /// Rows `rows`, for kernels.
    ///
    /// # Safety
    /// While they are in use nobody writes their tiles.
    ///
    /// # Panics
    /// If there are no such rows, or the first of them is not the first of a block.
    pub unsafe fn blocks(&self, rows: Range<usize>) -> TileBlocks<'_> {
        let Shape { n_rows, n_tiles } = self.shape;
        assert!(
            rows.start <= rows.end && rows.end <= n_rows && rows.start.is_multiple_of(BLOCK_ROWS),
            "rows {rows:?} of {n_rows} in blocks of {BLOCK_ROWS}"
        );
        let first = Shape { n_rows: rows.start, n_tiles }.bytes();
        let shape = Shape { n_rows: rows.len(), n_tiles };
        // SAFETY: blocks that exist lie within the memory (`reshape` saw to it), and nobody writes them.
        let values = unsafe { std::slice::from_raw_parts(self.values.add(first), shape.bytes()) };
        TileBlocks { n_rows: rows.len(), n_tiles, values }
    }
}

/// Rounds `values`, which are whole tiles of row `row` of `rows` from tile `first` on, to the nearest bf16, ties to even.
///
/// # Safety
/// No other thread reads or writes these tiles of the row at the same time.
///
/// # Panics
/// If there are no such tiles, or the machine cannot run `level`.
pub unsafe fn round_tiles(level: Level, values: &[f32], row: usize, rows: &TileRowsWriter<'_>, first: usize) {
    let (n, Shape { n_rows, n_tiles }) = (values.len() / TILE, rows.shape);
    assert!(values.len() == n * TILE && first + n <= n_tiles && row < n_rows, "tiles outside of a row");
    let at = (row / BLOCK_ROWS * n_tiles + first) * TILE_BYTES + row % BLOCK_ROWS * LINE;
    // SAFETY: the tiles lie within the memory of the rows, and this row's part of them is the caller's alone.
    unsafe { round_at(level, values.as_ptr(), n, rows.values.wrapping_add(at).cast()) }
}

leveled! {
    /// # Safety
    /// `x` is `n` tiles of a row, `to` the place of its part of the first, and all its parts are the caller's alone.
    unsafe fn round_at(x: *const f32, n: usize, to: *mut u16) = round_with;
}

#[inline(always)]
unsafe fn round_with<L: Lanes>(x: *const f32, n: usize, to: *mut u16) {
    for tile in 0..n {
        // SAFETY: the caller's promises.
        unsafe {
            let (x, to) = (x.add(tile * TILE), to.add(tile * TILE_BYTES / size_of::<u16>()));
            L::store_bf16(to, L::load(x));
            L::store_bf16(to.add(LANES), L::load(x.add(LANES)));
        }
    }
}
