//! The only crate with candle: weights from disk, what a decoder is (`architecture`), and the runners.

pub mod architecture;
