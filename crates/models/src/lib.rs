//! The only crate with candle: weights from disk (`weights`), what a decoder is (`architecture`, read by `config`), a
//! model opened for loading (`checkpoint`), and the runners.

pub mod architecture;
pub mod candle;
pub mod checkpoint;
pub mod config;
pub mod cpu;
pub mod error;
mod kv_groups;
mod step;
pub mod weights;

pub use kv_groups::KvGroupLayout;
pub use step::BLOCK_SIZE;
