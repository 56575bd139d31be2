//! CPU kernels: packed weights, integer matrix products, attention over pages, and the team of threads that runs them.
//! No candle, no files, no models: slices and pointers in, slices out.
//!
//! Every kernel exists as portable code (`Level::Scalar`), which is its definition, and per instruction set. Which one
//! runs is chosen at run time by [`Level`]; integer kernels give the same bits at every level and for every number of
//! rows.

#[cfg(feature = "amx-emulation")]
#[doc(hidden)]
pub use product::emulation as amx_emulation;

mod aligned;
pub mod attention;
pub mod elementwise;
mod encode;
mod format;
mod lanes;
mod level;
mod logits;
mod matrix;
mod pack;
pub mod probe;
mod product;
mod quantize;
mod rows;
mod team;
#[cfg(test)]
mod testing;

pub use aligned::AlignedBytes;
pub use encode::encode;
pub use format::{Format, ROW_GROUP, TILE};
pub use level::Level;
pub use logits::{Candidate, LOGIT_CHUNK, LogSumExp, TopK, arg_max, log_sum_exp, scan as scan_logits};
pub use matrix::{Matrix, PackError};
pub use product::{
    Conv1d, Start, TileBlocks, TilePanel, TileRows, TileRowsWriter, TileWeights, gemm_bf16, gemm_f32, has_bf16_dots,
    multiply, multiply_bf16_rows, multiply_f32, multiply_f32_rows, multiply_tiles, round_tiles, round_to_bf16,
};
pub use quantize::{quantize_tile_range, quantize_tiles};
pub use rows::{BlockSums, MAX_BLOCK_ROWS, Planes, QuantizedBlock, QuantizedRows, RowsWriter};
pub use team::{Team, Worker};
