use std::path::PathBuf;

use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use tsserve_core::{
    AudioInput, BatchedChunking, CoreError, TranscribeRequest, TranscribedSegment, TranscribedToken, Word,
};

/// What is to be written down, and how. Exactly one of `path` and `bytes` is set.
#[napi(object, object_to_js = false)]
pub struct BindingTranscriptionRequest {
    pub path: Option<String>,
    /// Copied: they may change after the call.
    pub bytes: Option<Uint8Array>,
    /// With `bytes`: helps to recognise the format.
    pub name: Option<String>,
    #[napi(ts_type = "'transcribe' | 'translate'")]
    pub task: Option<String>,
    /// ISO code or English name.
    pub language: Option<String>,
    pub prompt: Option<String>,
    pub carry_prompt: Option<bool>,
    pub temperature: Option<f64>,
    pub beam_size: Option<u32>,
    pub best_of: Option<u32>,
    pub timestamps: Option<bool>,
    pub word_timestamps: Option<bool>,
    pub condition_on_previous_text: Option<bool>,
    /// Seconds.
    pub hallucination_silence_threshold: Option<f64>,
    /// Unset: window after window.
    pub batched: Option<BindingBatchedChunking>,
    pub skip_silence: Option<bool>,
    pub logprobs: Option<bool>,
    pub seed: Option<i64>,
}

/// How a recording is cut at silence.
#[napi(object, object_to_js = false)]
#[derive(Debug, Clone)]
pub struct BindingBatchedChunking {
    /// Windows decoded together.
    pub batch: Option<u32>,
    /// 0..1
    pub threshold: Option<f64>,
    pub prefix_padding_ms: Option<u32>,
    pub silence_duration_ms: Option<u32>,
}

impl BindingTranscriptionRequest {
    /// Copies the audio: for the JavaScript thread, which alone may read its bytes.
    ///
    /// # Errors
    /// `invalid_request` for what has no meaning.
    pub fn into_request(self) -> Result<TranscribeRequest, CoreError> {
        let invalid =
            |param: &'static str, message: &str| CoreError::Invalid { message: message.to_owned(), param: Some(param) };
        let audio = match (self.path, self.bytes) {
            (Some(path), None) => AudioInput::Path(PathBuf::from(path)),
            (None, Some(bytes)) => AudioInput::Bytes { bytes: bytes.to_vec().into(), name: self.name },
            _ => return Err(invalid("audio", "audio is a path or bytes, one of them")),
        };
        let translate = match self.task.as_deref() {
            None | Some("transcribe") => false,
            Some("translate") => true,
            Some(_) => return Err(invalid("task", "task is transcribe or translate")),
        };
        Ok(TranscribeRequest {
            audio,
            translate,
            language: self.language,
            prompt: self.prompt,
            carry_prompt: self.carry_prompt.unwrap_or(false),
            temperature: self.temperature.map(|value| value as f32),
            beam_size: self.beam_size.map(|n| n as usize),
            best_of: self.best_of.map(|n| n as usize),
            timestamps: self.timestamps,
            word_timestamps: self.word_timestamps.unwrap_or(false),
            condition_on_previous_text: self.condition_on_previous_text,
            hallucination_silence_threshold: self.hallucination_silence_threshold.map(|value| value as f32),
            batched: self.batched.map(Into::into),
            skip_silence: self.skip_silence.unwrap_or(false),
            logprobs: self.logprobs.unwrap_or(false),
            seed: self.seed.map(|seed| seed as u64),
        })
    }
}

impl From<BindingBatchedChunking> for BatchedChunking {
    fn from(chunking: BindingBatchedChunking) -> Self {
        Self {
            batch: chunking.batch.map(|n| n as usize),
            threshold: chunking.threshold.map(|value| value as f32),
            prefix_padding_ms: chunking.prefix_padding_ms,
            silence_duration_ms: chunking.silence_duration_ms,
        }
    }
}

/// A piece of a transcript; times in seconds of the recording.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingSegment {
    pub id: u32,
    /// Frame of 10 ms at which its window began.
    pub seek: u32,
    pub start: f64,
    pub end: f64,
    pub text: String,
    pub tokens: Vec<u32>,
    pub temperature: f64,
    pub avg_logprob: f64,
    pub compression_ratio: f64,
    pub no_speech_prob: f64,
    /// If they were asked for.
    pub words: Option<Vec<BindingWord>>,
    pub logprobs: Option<Vec<BindingTranscribedToken>>,
}

#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingWord {
    pub word: String,
    pub start: f64,
    pub end: f64,
    pub probability: f64,
}

/// A token of a transcript with its log-probability.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingTranscribedToken {
    pub id: u32,
    pub text: String,
    pub bytes: Vec<u8>,
    pub logprob: f64,
}

impl From<TranscribedSegment> for BindingSegment {
    fn from(TranscribedSegment { segment, tokens }: TranscribedSegment) -> Self {
        Self {
            id: segment.id as u32,
            seek: segment.seek as u32,
            start: segment.start,
            end: segment.end,
            text: segment.text,
            tokens: segment.tokens,
            temperature: rounded(segment.temperature),
            avg_logprob: segment.avg_logprob.into(),
            compression_ratio: segment.compression_ratio.into(),
            no_speech_prob: segment.no_speech_prob.into(),
            words: some(segment.words),
            logprobs: some(tokens),
        }
    }
}

/// `None` for an empty list: nothing was asked for, or nothing is there.
fn some<T, U: From<T>>(list: Vec<T>) -> Option<Vec<U>> {
    (!list.is_empty()).then(|| list.into_iter().map(U::from).collect())
}

/// 0.2f32 as 0.2, not as 0.20000000298023224.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}

impl From<Word> for BindingWord {
    fn from(word: Word) -> Self {
        Self { word: word.text, start: word.start, end: word.end, probability: word.probability.into() }
    }
}

impl From<TranscribedToken> for BindingTranscribedToken {
    fn from(token: TranscribedToken) -> Self {
        Self { id: token.id, text: token.text, bytes: token.bytes, logprob: token.logprob.into() }
    }
}
