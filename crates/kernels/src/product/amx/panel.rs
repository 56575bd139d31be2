//! Weights as tiles: pairs of inputs of 16 rows side by side, as BF16 matrices are packed.

use std::ops::Range;

use half::bf16;

use super::rows::TILE_BYTES;
use crate::pack::{self, RowTile};
use crate::{AlignedBytes, Format, Level, Matrix, ROW_GROUP, TILE};

/// Memory for the weights of a few groups in bf16; one for each thread, sized once.
#[derive(Debug)]
pub struct TilePanel {
    tiles: AlignedBytes,
}

/// Groups of a matrix as tiles of bf16.
#[derive(Debug, Clone)]
pub struct TileWeights<'a> {
    /// `[group][tile][pair of inputs][row]` pairs.
    pub(super) tiles: &'a [u8],
    pub(super) n_tiles: usize,
    pub(super) groups: Range<usize>,
}

impl TilePanel {
    /// Room for `max_groups` groups of matrices of up to `max_cols` columns.
    pub fn with_capacity(max_groups: usize, max_cols: usize) -> Self {
        Self { tiles: AlignedBytes::zeroed(max_groups * max_cols.div_ceil(TILE) * TILE_BYTES) }
    }

    /// Groups `groups` of a matrix: unpacked here, or where they are, if the matrix is of BF16.
    ///
    /// # Panics
    /// If the format [has no tiles](Format::has_tiles), there are no such groups, they are more than there is room for, or
    /// the machine cannot run `level`.
    pub fn unpack<'p>(&'p mut self, level: Level, matrix: &'p Matrix, groups: Range<usize>) -> TileWeights<'p> {
        let (format, n_tiles) = (matrix.format(), matrix.n_cols() / TILE);
        if format == Format::BF16 {
            return TileWeights::stored(matrix, groups);
        }
        assert!(format.has_tiles(), "{format} is not multiplied in tiles");
        assert!(groups.start <= groups.end && groups.end <= matrix.n_groups(), "groups of {}", matrix.n_groups());
        let group_bytes = n_tiles * TILE_BYTES;
        assert!(groups.len() * group_bytes <= self.tiles.len(), "no room for {} groups", groups.len());
        let tiles = &mut self.tiles[..groups.len() * group_bytes];
        if group_bytes > 0 {
            for (group, tiles) in groups.clone().zip(tiles.chunks_exact_mut(group_bytes)) {
                match level.checked() {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: the machine has AVX-512; the tiles are a group's.
                    Level::Vnni | Level::Amx => unsafe { crate::product::vnni::unpack_to_bf16(matrix, group, tiles) },
                    _ => unpack_group(format, matrix.group(group), tiles),
                }
            }
        }
        TileWeights { tiles, n_tiles, groups }
    }
}

impl<'a> TileWeights<'a> {
    /// Groups `groups` of a BF16 matrix, where they are.
    ///
    /// # Panics
    /// If it is of another format, or has no such groups.
    pub fn stored(matrix: &'a Matrix, groups: Range<usize>) -> Self {
        assert_eq!(matrix.format(), Format::BF16, "others are unpacked");
        let n_tiles = matrix.n_cols() / TILE;
        let group_bytes = n_tiles * TILE_BYTES;
        let tiles = &matrix.packed()[groups.start * group_bytes..groups.end * group_bytes];
        Self { tiles, n_tiles, groups }
    }

    /// The tiles as [`Matrix`] packs BF16, for those who compare.
    pub fn packed(&self) -> &[u8] {
        self.tiles
    }
}

/// The definition: each weight's value, rounded.
fn unpack_group(format: Format, group: &[u8], tiles: &mut [u8]) {
    for (tile, out) in tiles.chunks_exact_mut(TILE_BYTES).enumerate() {
        for lane in 0..ROW_GROUP {
            let RowTile { weights, d, m } = pack::row_tile(format, group, tile, lane);
            for (k, &weight) in weights.iter().enumerate() {
                let scaled = d[k / (TILE / 2)] * f32::from(weight);
                let value = if pack::has_mins(format) { scaled + m } else { scaled };
                let at = 4 * (k / 2 * ROW_GROUP + lane) + 2 * (k % 2);
                out[at..at + 2].copy_from_slice(&bf16::from_f32(value).to_le_bytes());
            }
        }
    }
}
