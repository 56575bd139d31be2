//! Quantised activations: what integer kernels multiply weights with.
//!
//! A row x is cut into tiles of 32 values, each with its own scale. One plane: x = scale * q, q from -127 to 127, and
//! scale = max|x| / 127. Two planes: x = scale * t, t = 256 * high + low from -32512 to 32512, scale = max|x| / 32512,
//! high = (t + 128) >> 8 and low = t - 256 * high, both in i8. Two planes are near f32 and cost nothing where a step
//! waits for memory. How values are rounded is defined in `quantize.rs`.

use std::marker::PhantomData;

/// Rows that one kernel call takes, at most.
pub const MAX_BLOCK_ROWS: usize = 8;

/// How finely activations are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Planes {
    /// 8 bits.
    One,
    /// 16 bits as two planes of 8.
    Two,
}

impl Planes {
    pub const fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// What a kernel must know of one tile of one row beside its integers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct BlockSums {
    /// Value of one unit.
    pub scale: f32,
    /// `scale * (low_half + high_half) as f32`, rounded once: the quantised sum of the tile's values.
    pub scaled_sum: f32,
    /// Sum of the integers (of t, with two planes) of inputs 0 to 15.
    pub low_half: i32,
    /// Of inputs 16 to 31.
    pub high_half: i32,
}

/// Up to [`MAX_BLOCK_ROWS`] quantised rows of one width, as kernels read them.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedBlock<'a> {
    /// Rows, 1 to [`MAX_BLOCK_ROWS`].
    pub n_rows: usize,
    pub planes: Planes,
    /// `[n_tiles][planes][n_rows][32]`, the high plane first.
    pub values: &'a [i8],
    /// `[n_tiles][n_rows]`
    pub sums: &'a [BlockSums],
}

/// Memory for quantised rows, cut into blocks of [`MAX_BLOCK_ROWS`] (the last may be shorter). Sized once.
#[derive(Debug)]
pub struct QuantizedRows {
    n_rows: usize,
    n_tiles: usize,
    planes: Planes,
    values: Vec<i8>,
    sums: Vec<BlockSums>,
}

impl QuantizedRows {
    /// Room for `max_rows` rows of up to `max_width` values in up to `max_planes`.
    pub fn with_capacity(max_rows: usize, max_width: usize, max_planes: Planes) -> Self {
        let max_tiles = max_width.div_ceil(crate::TILE);
        Self {
            n_rows: 0,
            n_tiles: 0,
            planes: Planes::One,
            values: vec![0; max_rows * max_tiles * crate::TILE * max_planes.count()],
            sums: vec![BlockSums::default(); max_rows * max_tiles],
        }
    }

    /// Makes it `n_rows` rows of `width` (a multiple of 32) values, with whatever content.
    ///
    /// # Panics
    /// If that is more than its capacity.
    pub fn reshape(&mut self, n_rows: usize, width: usize, planes: Planes) {
        let n_tiles = width / crate::TILE;
        assert!(
            width.is_multiple_of(crate::TILE)
                && n_rows * n_tiles <= self.sums.len()
                && n_rows * width * planes.count() <= self.values.len(),
            "{n_rows} rows of {width} do not fit"
        );
        (self.n_rows, self.n_tiles, self.planes) = (n_rows, n_tiles, planes);
    }

    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub fn n_tiles(&self) -> usize {
        self.n_tiles
    }

    pub fn planes(&self) -> Planes {
        self.planes
    }

    pub fn n_blocks(&self) -> usize {
        self.n_rows.div_ceil(MAX_BLOCK_ROWS)
    }

    /// Rows of block `block`.
    pub fn block_rows(&self, block: usize) -> usize {
        self.shape().block_rows(block)
    }

    /// Block `block`, for kernels.
    pub fn block(&self, block: usize) -> QuantizedBlock<'_> {
        let n_rows = self.block_rows(block);
        let first = block * MAX_BLOCK_ROWS * self.n_tiles;
        let stride = crate::TILE * self.planes.count();
        QuantizedBlock {
            n_rows,
            planes: self.planes,
            values: &self.values[first * stride..][..n_rows * self.n_tiles * stride],
            sums: &self.sums[first..][..n_rows * self.n_tiles],
        }
    }

    /// Where tile `tile` of row `row` lies: index of its 32 values per plane (high first) in all values, and of its
    /// sums.
    pub fn place(&self, row: usize, tile: usize) -> ([usize; 2], usize) {
        self.shape().place(row, tile)
    }

    /// All values and sums, for whoever quantises: threads write disjoint tiles.
    pub fn parts_mut(&mut self) -> (&mut [i8], &mut [BlockSums]) {
        (&mut self.values, &mut self.sums)
    }

    /// What threads fill the rows through, each its own tiles.
    pub fn writer(&mut self) -> RowsWriter<'_> {
        let shape = self.shape();
        RowsWriter { shape, values: self.values.as_mut_ptr(), sums: self.sums.as_mut_ptr(), rows: PhantomData }
    }

    fn shape(&self) -> Shape {
        Shape { n_rows: self.n_rows, n_tiles: self.n_tiles, planes: self.planes }
    }
}

/// How many rows, how wide, how fine.
#[derive(Debug, Clone, Copy)]
struct Shape {
    n_rows: usize,
    n_tiles: usize,
    planes: Planes,
}

impl Shape {
    fn block_rows(self, block: usize) -> usize {
        (self.n_rows - block * MAX_BLOCK_ROWS).min(MAX_BLOCK_ROWS)
    }

    fn place(self, row: usize, tile: usize) -> ([usize; 2], usize) {
        let block = row / MAX_BLOCK_ROWS;
        let (n_rows, r) = (self.block_rows(block), row % MAX_BLOCK_ROWS);
        let first = block * MAX_BLOCK_ROWS * self.n_tiles;
        let planes = self.planes.count();
        let at = |plane: usize| first * crate::TILE * planes + ((tile * planes + plane) * n_rows + r) * crate::TILE;
        ([at(0), at(planes - 1)], first + tile * n_rows + r)
    }
}

/// Quantised rows being filled by several threads at once, each its own tiles.
#[derive(Debug)]
pub struct RowsWriter<'a> {
    shape: Shape,
    values: *mut i8,
    sums: *mut BlockSums,
    rows: PhantomData<&'a mut QuantizedRows>,
}

// SAFETY: it is an exclusive borrow of plain numbers, and only unsafe functions write through it: their callers keep the
// tiles that threads write apart.
unsafe impl Send for RowsWriter<'_> {}
// SAFETY: as above.
unsafe impl Sync for RowsWriter<'_> {}

/// Where the tiles of one row lie, from one of them on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TilePlaces {
    /// The tile's 32 values, of the only or the high plane.
    pub values: *mut i8,
    /// Its sums.
    pub sums: *mut BlockSums,
    /// From the high plane to the low one.
    pub plane_stride: usize,
    /// From one tile's values to the next's.
    pub tile_stride: usize,
    /// From one tile's sums to the next's.
    pub sums_stride: usize,
}

impl RowsWriter<'_> {
    pub fn n_rows(&self) -> usize {
        self.shape.n_rows
    }

    pub fn n_tiles(&self) -> usize {
        self.shape.n_tiles
    }

    pub fn planes(&self) -> Planes {
        self.shape.planes
    }

    /// Block `block`, for kernels.
    ///
    /// # Safety
    /// While the block is in use nobody writes its tiles.
    ///
    /// # Panics
    /// If there is no such block.
    pub unsafe fn block(&self, block: usize) -> QuantizedBlock<'_> {
        let Shape { n_rows, n_tiles, planes } = self.shape;
        assert!(block * MAX_BLOCK_ROWS < n_rows, "no block {block}");
        let (rows, first) = (self.shape.block_rows(block), block * MAX_BLOCK_ROWS * n_tiles);
        let stride = crate::TILE * planes.count();
        // SAFETY: a block that exists lies within the memory (`reshape` saw to it), and nobody writes it.
        unsafe {
            QuantizedBlock {
                n_rows: rows,
                planes,
                values: std::slice::from_raw_parts(self.values.add(first * stride), rows * n_tiles * stride),
                sums: std::slice::from_raw_parts(self.sums.add(first), rows * n_tiles),
            }
        }
    }

    /// Where tile `tile` of row `row` and those after it are written.
    ///
    /// # Panics
    /// If there is no such tile.
    pub(crate) fn places(&self, row: usize, tile: usize) -> TilePlaces {
        assert!(row < self.shape.n_rows && tile < self.shape.n_tiles, "no tile {tile} of row {row}");
        let ([values, _], sums) = self.shape.place(row, tile);
        let n_rows = self.shape.block_rows(row / MAX_BLOCK_ROWS);
        TilePlaces {
            // SAFETY: a tile that exists lies within the rows, which are within the memory (`reshape` saw to it).
            values: unsafe { self.values.add(values) },
            // SAFETY: as above.
            sums: unsafe { self.sums.add(sums) },
            plane_stride: n_rows * crate::TILE,
            tile_stride: n_rows * crate::TILE * self.shape.planes.count(),
            sums_stride: n_rows,
        }
    }
}
