//! Assembly of tsserve without Node: models by name from disk or hub, their engines, and requests in text.
//!
//! ```text
//! LoadOptions → hub (files) → models (weights, runner) + text (tokenizer) → engine → Model
//!                           → models (Whisper) + text (tokenizer) + speech (rules) → SpeechModel
//! GenerateRequest → generate (ids, checks, grammar) → engine ⇒ output (ids → text, stop strings) ⇒ OutputEvent
//! ```

mod constraint;
mod error;
mod generate;
pub mod hub;
mod loader;
mod machine;
mod memory;
mod model;
mod options;
mod output;
mod runner;
mod sampling;
mod service;
mod speech;

pub use constraint::ConstraintRequest;
pub use error::CoreError;
pub use generate::{GenerateRequest, MAX_STOP_BYTES, MAX_STOP_STRINGS, Prompt};
pub use hub::CachedModel;
pub use loader::{DEFAULT_MAX_BATCH_TOKENS, DEFAULT_MAX_NUM_SEQS, DEFAULT_MAX_QUEUE};
pub use machine::{MachineReport, measure_machine};
pub use options::{LoadOptions, LoadProgress, LoadedModel, ModelKind};
pub use output::{Alternative, OutputEvent, OutputKind, OutputSink, TokenInfo, Usage};
pub use sampling::{MAX_BAD_WORD_TOKENS, MAX_BAD_WORDS, MAX_LOGIT_BIASES, MAX_SUPPRESSED_TOKENS, SamplingOptions};
pub use service::Service;
pub use speech::{
    BatchedChunking, CpuWhisper, DEFAULT_SPEECH_BATCH, MAX_SPEECH_BATCH, MAX_SPEECH_PROMPT_BYTES, TranscribeRequest,
    TranscribedSegment, TranscribedToken,
};
pub use tsserve_engine::{EngineStats, MAX_LOGPROBS, Timings};
pub use tsserve_models::candle::{DeviceKind, Dtype};
pub use tsserve_models::cpu::{CacheType, Quantization};
pub use tsserve_speech::{AudioInput, Segment, Word};
pub use tsserve_text::{Grammar, Piece, Trigger};
