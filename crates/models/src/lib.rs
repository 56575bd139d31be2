//! The only crate with candle: weights from disk (`weights`), what a decoder is (`architecture`, read by `config`), a
//! model opened for loading (`checkpoint`), the runners, and Whisper's networks.

pub mod architecture;
pub mod candle;
pub mod checkpoint;
pub mod config;
pub mod cpu;
pub mod error;
mod kv_groups;
mod step;
pub mod weights;
pub mod whisper;

pub use kv_groups::KvGroupLayout;
pub use step::BLOCK_SIZE;
