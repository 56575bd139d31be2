//! The only crate with candle: weights from disk (`weights`), what a decoder is (`architecture`, read by `config`), a
//! model opened for loading (`checkpoint`), and the runners.

pub mod architecture;
pub mod candle;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod weights;
