//! What a model's files say about it: `Architecture` and token ids from config.json, generation_config.json or GGUF
//! metadata.

mod blueprint;
mod error;
mod gguf;
mod json;
mod special_ids;

pub use error::ConfigError;
pub use gguf::{SUPPORTED_GGUF_ARCHITECTURES, architecture_from_gguf, special_ids_from_gguf};
pub use json::{SUPPORTED_MODEL_TYPES, architecture_from_json};
pub use special_ids::{SpecialIds, special_ids_from_json};
