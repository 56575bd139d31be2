//! Speech to text around a Whisper network: audio decoding, log-mel features, Whisper's decoding rules, word timing.
//! No candle, no tokenizers, nothing of ours: slices in and out. The network and the vocabulary come through traits.
//!
//! ```text
//! file → audio (16 kHz mono) → features (log-mel windows) → rules over a WhisperNetwork → TranscriptEvent
//! ```

mod audio;
mod error;
mod features;
mod network;
mod options;
mod transcript;
mod vocabulary;

pub use audio::{AudioInput, AudioReader, MAX_CHANNELS, MAX_RATE, MAX_SECONDS, MIN_RATE};
pub use error::SpeechError;
pub use features::{
    FRAME_SAMPLES, FRAME_SECONDS, FeatureOptions, Features, HOP_SAMPLES, KEPT_SECONDS, LogMel, MelFilters,
    RecordingFeatures, SAMPLE_RATE, VadOptions, WINDOW_FRAMES,
};
pub use network::{AudioId, CacheId, DecodeRow, NetworkError, NetworkShape, WhisperNetwork};
pub use options::{Chunking, Rules, Task, Temperature, TranscribeOptions};
pub use transcript::{Segment, TokenLogprob, TranscriptEvent, Word};
pub use vocabulary::{SpecialTokens, Vocabulary};
