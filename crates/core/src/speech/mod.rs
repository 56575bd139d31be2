//! Speech models: transcriptions as jobs of their own threads, over one network that they share call by call.

mod cpu_whisper;
mod jobs;
mod load;
mod model;
mod network;
mod request;
mod vocabulary;

pub use cpu_whisper::CpuWhisper;
pub(crate) use load::{is_speech, load};
pub(crate) use model::SpeechModel;
pub use model::{TranscribedSegment, TranscribedToken};
pub use request::{
    BatchedChunking, DEFAULT_SPEECH_BATCH, MAX_SPEECH_BATCH, MAX_SPEECH_PROMPT_BYTES, TranscribeRequest,
};
