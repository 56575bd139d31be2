//! Whisper's encoder and decoder on the CPU kernels.

mod arithmetic;
mod checkpoint;
mod config;
mod ct2;
mod decoder;
mod encoder;
mod error;
mod ggml;
mod model;
mod places;
mod precision;
mod published;
mod reader;
mod rows;
mod special_ids;
mod step;
mod tensors;
mod weights;

pub use arithmetic::Arithmetic;
pub use checkpoint::{WhisperCheckpoint, WhisperWords};
pub use config::WhisperConfig;
pub use error::WhisperError;
pub use model::{WhisperModel, WhisperOptions, WhisperRow};
pub use precision::Precision;
pub use special_ids::WhisperSpecialIds;
