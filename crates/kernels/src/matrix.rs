//! Weight matrices, packed once.

use std::ops::Range;

use thiserror::Error;

use crate::pack::{self, Layout};
use crate::{AlignedBytes, Format, ROW_GROUP, TILE, encode};

/// Why a matrix cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PackError {
    #[error("a {format} matrix needs rows of a multiple of {multiple} weights, got {n_cols}")]
    Columns { format: Format, n_cols: usize, multiple: usize },
    #[error("row {row} of a {format} matrix should have {expected} bytes, got {actual}")]
    RowLength { format: Format, row: usize, expected: usize, actual: usize },
    #[error("there is no encoder to {format}")]
    NoEncoder { format: Format },
}

/// Writes a range of groups into their zeroed bytes.
type PackGroups<'p> = dyn Fn(Range<usize>, &mut [u8]) -> Result<(), PackError> + Sync + 'p;

/// The packed copy of a weight matrix `[n_rows, n_cols]`: what is stored, without loss, in the order in which kernels
/// read it. Rows are padded with zero weights to a multiple of [`ROW_GROUP`].
#[derive(Debug)]
pub struct Matrix {
    format: Format,
    n_rows: usize,
    n_cols: usize,
    bytes: AlignedBytes,
}

impl Matrix {
    /// Packs `n_rows` rows of `n_cols` weights, with up to `threads` threads that take a range of row groups each.
    /// `row(i)` is row `i` as stored: blocks of GGUF, or little-endian elements.
    pub fn pack<'a>(
        format: Format,
        n_rows: usize,
        n_cols: usize,
        threads: usize,
        row: &(dyn Fn(usize) -> &'a [u8] + Sync),
    ) -> Result<Self, PackError> {
        let (block_values, block_bytes) = format.block();
        let multiple = block_values.max(TILE);
        if !n_cols.is_multiple_of(multiple) {
            return Err(PackError::Columns { format, n_cols, multiple });
        }
        Self::pack_checked(format, n_rows, n_cols, threads, n_cols / block_values * block_bytes, row)
    }

    /// Quantises `n_rows` rows of `n_cols` finite weights on the way: `row(i, out)` writes row `i` in f32 to `out`. Threads
    /// as in [`Self::pack`]; each holds one row in f32, and never more.
    pub fn encode(
        format: Format,
        n_rows: usize,
        n_cols: usize,
        threads: usize,
        row: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Result<Self, PackError> {
        if !format.is_encodable() {
            return Err(PackError::NoEncoder { format });
        }
        let (multiple, block_bytes) = format.block();
        if !n_cols.is_multiple_of(multiple) {
            return Err(PackError::Columns { format, n_cols, multiple });
        }
        let row_bytes = n_cols / multiple * block_bytes;
        let group_bytes = group_bytes(format, n_cols);
        Self::pack_groups(format, n_rows, n_cols, threads, &|groups, out| {
            let mut values = vec![0.0; n_cols];
            let mut blocks = vec![0; ROW_GROUP * row_bytes];
            for (g, out) in groups.zip(out.chunks_exact_mut(group_bytes)) {
                let n = ROW_GROUP.min(n_rows - g * ROW_GROUP);
                for (lane, blocks) in blocks.chunks_exact_mut(row_bytes).take(n).enumerate() {
                    row(g * ROW_GROUP + lane, &mut values);
                    encode(format, &values, blocks);
                }
                let mut rows: [&[u8]; ROW_GROUP] = [&[]; ROW_GROUP];
                for (slot, row) in rows.iter_mut().zip(blocks.chunks_exact(row_bytes)) {
                    *slot = row;
                }
                pack::pack_group(format, &rows[..n], out);
            }
            Ok(())
        })
    }

    /// Packs `values` `[n_rows, n_cols]` of any width in f32: convolutions, and what is computed at load.
    ///
    /// # Panics
    /// If there are not as many values.
    pub fn pack_f32(n_rows: usize, n_cols: usize, threads: usize, values: &[f32]) -> Result<Self, PackError> {
        assert_eq!(values.len(), n_rows * n_cols, "{n_rows} rows of {n_cols}");
        // SAFETY: four bytes of every value, for as long as the values are borrowed; packed bytes are in the machine's
        // order, as float kernels read them.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        let row_bytes = 4 * n_cols;
        Self::pack_checked(Format::F32, n_rows, n_cols, threads, row_bytes, &|row| {
            &bytes[row * row_bytes..][..row_bytes]
        })
    }

    fn pack_checked<'a>(
        format: Format,
        n_rows: usize,
        n_cols: usize,
        threads: usize,
        row_bytes: usize,
        row: &(dyn Fn(usize) -> &'a [u8] + Sync),
    ) -> Result<Self, PackError> {
        let group_bytes = group_bytes(format, n_cols);
        Self::pack_groups(format, n_rows, n_cols, threads, &|groups, out| {
            for (g, out) in groups.zip(out.chunks_exact_mut(group_bytes)) {
                let first = g * ROW_GROUP;
                let mut rows: [&[u8]; ROW_GROUP] = [&[]; ROW_GROUP];
                let rows = &mut rows[..ROW_GROUP.min(n_rows - first)];
                for (lane, slot) in rows.iter_mut().enumerate() {
                    *slot = row(first + lane);
                    if slot.len() != row_bytes {
                        let (row, actual) = (first + lane, slot.len());
                        return Err(PackError::RowLength { format, row, expected: row_bytes, actual });
                    }
                }
                match format {
                    Format::BF16 | Format::F16 | Format::F32 => pack::float::pack_group(format, n_cols, rows, out),
                    _ => pack::pack_group(format, rows, out),
                }
            }
            Ok(())
        })
    }

    /// Has `pack` write the groups of each range into its zeroed bytes, with up to `threads` threads.
    fn pack_groups(
        format: Format,
        n_rows: usize,
        n_cols: usize,
        threads: usize,
        pack: &PackGroups<'_>,
    ) -> Result<Self, PackError> {
        let group_bytes = group_bytes(format, n_cols);
        let n_groups = n_rows.div_ceil(ROW_GROUP);
        let mut bytes = AlignedBytes::zeroed(n_groups * group_bytes);
        if group_bytes > 0 && n_groups > 0 {
            let per_thread = n_groups.div_ceil(threads.clamp(1, n_groups));
            std::thread::scope(|scope| {
                let mut parts = bytes.chunks_mut(per_thread * group_bytes).enumerate().map(|(i, out)| {
                    let groups = i * per_thread..((i + 1) * per_thread).min(n_groups);
                    (groups, out)
                });
                // The caller's thread takes the first part.
                let own = parts.next();
                let others: Vec<_> = parts.map(|(groups, out)| scope.spawn(move || pack(groups, out))).collect();
                let first = own.map_or(Ok(()), |(groups, out)| pack(groups, out));
                others
                    .into_iter()
                    .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .fold(first, Result::and)
            })?;
        }
        Ok(Self { format, n_rows, n_cols, bytes })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Groups of [`ROW_GROUP`] rows; the last may be partly padding.
    pub fn n_groups(&self) -> usize {
        self.n_rows.div_ceil(ROW_GROUP)
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The packed weights, for those who measure how fast memory gives them.
    pub fn packed(&self) -> &[u8] {
        &self.bytes
    }

    /// The packed bytes of a group.
    pub(crate) fn group(&self, group: usize) -> &[u8] {
        let size = group_bytes(self.format, self.n_cols);
        &self.bytes[group * size..][..size]
    }

    /// Row `row` in f32, `out` having `n_cols` elements: the values that the stored blocks define.
    ///
    /// # Panics
    /// If `row` is not below `n_rows`, or `out` has another length.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n_rows, "row {row} of {}", self.n_rows);
        assert_eq!(out.len(), self.n_cols, "the values of a row");
        let (group, lane) = (self.group(row / ROW_GROUP), row % ROW_GROUP);
        match self.format {
            Format::BF16 | Format::F16 | Format::F32 => pack::float::row(self.format, self.n_cols, group, lane, out),
            _ => pack::dequantize(self.format, group, lane, out),
        }
    }
}

fn group_bytes(format: Format, n_cols: usize) -> usize {
    match format {
        Format::BF16 | Format::F16 | Format::F32 => pack::float::group_bytes(format, n_cols),
        _ => Layout::of(format).group(n_cols),
    }
}
