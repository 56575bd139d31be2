//! Whisper's encoder and decoder on the CPU kernels.

mod checkpoint;
mod config;
mod ct2;
mod decoder;
mod encoder;
mod error;
mod model;
mod places;
mod rows;
mod special_ids;
mod step;
mod tensors;
mod weights;

pub use checkpoint::WhisperCheckpoint;
pub use config::WhisperConfig;
pub use error::WhisperError;
pub use model::{Precision, WhisperModel, WhisperOptions, WhisperRow};
pub use special_ids::WhisperSpecialIds;
