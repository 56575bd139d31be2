//! What a caller asks of a speech model.

use tsserve_speech::{AudioInput, Chunking, Task, Temperature, TranscribeOptions, VadOptions};

use crate::error::CoreError;

/// Most windows decoded together.
pub const MAX_SPEECH_BATCH: usize = 32;
/// Most bytes of text that is thought to precede.
pub const MAX_SPEECH_PROMPT_BYTES: usize = 64 << 10;

/// How windows are cut at silence and decoded together. Unset: see `ts/engine/speech.ts`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchedChunking {
    pub batch: Option<usize>,
    /// Share of speech above which a frame counts, 0..=1.
    pub threshold: Option<f32>,
    pub prefix_padding_ms: Option<u32>,
    pub silence_duration_ms: Option<u32>,
}

/// What a caller asks of a speech model. Unset fields are openai/whisper's defaults.
#[derive(Debug, Clone)]
pub struct TranscribeRequest {
    pub audio: AudioInput,
    pub translate: bool,
    /// ISO code or English name.
    pub language: Option<String>,
    pub prompt: Option<String>,
    /// The prompt precedes every window, not only the first.
    pub carry_prompt: bool,
    /// 0 is the ladder of openai/whisper, as is none.
    pub temperature: Option<f32>,
    pub beam_size: Option<usize>,
    pub best_of: Option<usize>,
    pub timestamps: Option<bool>,
    pub word_timestamps: bool,
    pub condition_on_previous_text: Option<bool>,
    /// Seconds.
    pub hallucination_silence_threshold: Option<f32>,
    /// `None`: window after window.
    pub batched: Option<BatchedChunking>,
    pub skip_silence: bool,
    pub logprobs: bool,
    pub seed: Option<u64>,
}

impl TranscribeRequest {
    /// The options of the decoding rules, which check most of them themselves.
    ///
    /// # Errors
    /// A value out of range.
    pub(super) fn options(&self) -> Result<TranscribeOptions, CoreError> {
        let defaults = TranscribeOptions::default();
        if let Some(temperature) = self.temperature
            && !(0.0..=1.0).contains(&temperature)
        {
            return Err(invalid("temperature", format!("temperature is {temperature}, it must be from 0 to 1")));
        }
        if self.prompt.as_ref().is_some_and(|prompt| prompt.len() > MAX_SPEECH_PROMPT_BYTES) {
            return Err(invalid("prompt", format!("a prompt may have at most {MAX_SPEECH_PROMPT_BYTES} bytes")));
        }
        if self.hallucination_silence_threshold.is_some() && !self.word_timestamps {
            let message = "hallucination_silence_threshold needs word timestamps".to_owned();
            return Err(invalid("hallucinationSilenceThreshold", message));
        }
        let chunking = match &self.batched {
            None => Chunking::Sequential,
            Some(BatchedChunking { batch, threshold, .. }) => {
                if batch.is_some_and(|batch| batch == 0 || batch > MAX_SPEECH_BATCH) {
                    let message = format!("the batch of windows must be from 1 to {MAX_SPEECH_BATCH}");
                    return Err(invalid("chunking", message));
                }
                if threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
                    return Err(invalid("chunking", "the threshold of speech must be from 0 to 1".to_owned()));
                }
                Chunking::Batched { batch: batch.unwrap_or(DEFAULT_SPEECH_BATCH) }
            }
        };
        Ok(TranscribeOptions {
            task: if self.translate { Task::Translate } else { Task::Transcribe },
            language: self.language.as_deref().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned),
            prompt: self.prompt.clone().filter(|prompt| !prompt.trim().is_empty()),
            carry_prompt: self.carry_prompt,
            temperature: match self.temperature {
                Some(temperature) if temperature > 0.0 => Temperature::Ladder(vec![temperature]),
                _ => Temperature::default(),
            },
            beam_size: self.beam_size.filter(|&beams| beams > 1),
            best_of: self.best_of.unwrap_or(defaults.best_of),
            timestamps: self.timestamps.unwrap_or(defaults.timestamps),
            word_timestamps: self.word_timestamps,
            condition_on_previous_text: self.condition_on_previous_text.unwrap_or(defaults.condition_on_previous_text),
            hallucination_silence_threshold: self.hallucination_silence_threshold,
            chunking,
            skip_silence: self.skip_silence,
            logprobs: self.logprobs,
            seed: self.seed.unwrap_or_else(fresh_seed),
            ..defaults
        })
    }
}

impl TranscribeRequest {
    /// What counts as speech, where that is asked.
    pub(super) fn vad(&self) -> VadOptions {
        let defaults = VadOptions::default();
        let Some(chunking) = &self.batched else { return defaults };
        VadOptions {
            threshold: chunking.threshold.unwrap_or(defaults.threshold),
            min_silence_ms: chunking.silence_duration_ms.unwrap_or(defaults.min_silence_ms),
            padding_before_ms: chunking.prefix_padding_ms.unwrap_or(defaults.padding_before_ms),
            ..defaults
        }
    }
}

/// Windows decoded together unless the caller says how many.
pub const DEFAULT_SPEECH_BATCH: usize = 8;

fn invalid(param: &'static str, message: String) -> CoreError {
    CoreError::Invalid { message, param: Some(param) }
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now())
}
