//! Speech to text around a Whisper network: audio decoding, log-mel features, Whisper's decoding rules, word timing.
//! No candle, no tokenizers, nothing of ours: slices in and out. The network and the vocabulary come through traits.
//!
//! ```text
//! file → audio (16 kHz mono) → features (log-mel windows) → rules over a WhisperNetwork → TranscriptEvent
//! ```

mod audio;
mod decode;
mod error;
mod features;
mod languages;
mod network;
mod options;
mod session;
#[cfg(test)]
mod testing;
mod time;
mod transcribe;
mod transcript;
mod vocabulary;
mod words;

pub use audio::{AudioInput, AudioReader, MAX_CHANNELS, MAX_RATE, MAX_SECONDS, MIN_RATE};
pub use decode::non_speech_tokens;
pub use error::SpeechError;
pub use features::{
    FRAME_SAMPLES, FRAME_SECONDS, FeatureOptions, Features, HOP_SAMPLES, KEPT_SECONDS, LogMel, MelFilters,
    RecordingFeatures, SAMPLE_RATE, VadOptions, WINDOW_FRAMES,
};
pub use languages::{language_code, language_name};
pub use network::{AudioId, CacheId, DecodeRow, NetworkError, NetworkShape, WhisperNetwork};
pub use options::{Chunking, MAX_BATCH, MAX_HYPOTHESES, Rules, Task, Temperature, TranscribeOptions};
pub use transcribe::transcribe;
pub use transcript::{Segment, TokenLogprob, TranscriptEvent, Word};
pub use vocabulary::{SpecialTokens, Vocabulary};
