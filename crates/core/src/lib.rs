//! Assembly of tsserve without Node: models by name from disk or hub, their engines, and requests in text.
//!
//! ```text
//! LoadOptions → hub (files) → models (weights, runner) + text (tokenizer) → engine → Model
//! GenerateRequest → generate (ids, checks) → engine ⇒ output (ids → text, stop strings) ⇒ OutputEvent
//! ```

mod error;
mod generate;
pub mod hub;
mod loader;
mod machine;
mod memory;
mod model;
mod options;
mod output;
mod service;

pub use error::CoreError;
pub use generate::{GenerateRequest, MAX_STOP_BYTES, MAX_STOP_STRINGS, Prompt, SamplingOptions};
pub use hub::CachedModel;
pub use loader::{DEFAULT_MAX_BATCH_TOKENS, DEFAULT_MAX_NUM_SEQS, DEFAULT_MAX_QUEUE};
pub use options::{LoadOptions, LoadProgress, LoadedModel};
pub use output::{Alternative, OutputEvent, OutputKind, OutputSink, TokenInfo, Usage};
pub use service::Service;
pub use tsserve_engine::{EngineStats, MAX_LOGPROBS, Timings};
pub use tsserve_models::candle::{DeviceKind, Dtype};
pub use tsserve_text::Piece;
