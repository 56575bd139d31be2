//! What a model's files say about it: config.json, generation_config.json, GGUF metadata.

mod error;

pub use error::ConfigError;
