//! The CPU runner: packed weights, a step as one piece of work for a team of threads, no allocation in it.
//!
//! It interprets the same `Architecture` as the candle runner, which stays its check, and the fallback for what it has
//! no kernels for ([`unsupported`]).

mod attend;
mod buffers;
mod cache;
mod costs;
mod forward;
mod head;
mod layout;
mod measure;
mod quantization;
mod role_rows;
mod runner;
pub(crate) mod shared;
mod tiled;
mod weights;

pub use tsserve_kernels::Level;
pub use tsserve_kernels::attention::CacheType;

pub use cache::{cache_summary, kv_layout};
pub use measure::{Peaks, measure};
pub use quantization::{PackedSize, Quantization, packed_size};
pub(crate) use runner::team;
pub use runner::{CpuOptions, CpuRunner, unsupported};
pub(crate) use weights::{format_of, padded};
