//! A loaded speech model and its transcriptions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tsserve_speech::{
    FeatureOptions, RecordingFeatures, Segment, SpecialTokens, SpeechError, TranscribeOptions, TranscriptEvent,
    WhisperNetwork, language_name, transcribe,
};

use tsserve_text::Tokenizer;

use super::jobs::{Jobs, Stop};
use super::network::SharedNetwork;
use super::request::TranscribeRequest;
use super::vocabulary::SpeechVocabulary;
use crate::error::CoreError;
use crate::options::LoadedModel;
use crate::output::{OutputEvent, OutputKind, OutputSink};

/// Positions of encoded audio in a second.
const AUDIO_TOKENS_PER_SECOND: f64 = 50.0;

/// A piece of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscribedSegment {
    pub segment: Segment,
    /// If they were wanted: the segment's text tokens, with their bytes.
    pub tokens: Vec<TranscribedToken>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TranscribedToken {
    pub id: u32,
    pub text: String,
    pub bytes: Vec<u8>,
    /// Natural logarithm.
    pub logprob: f32,
}

/// A loaded speech model.
pub(crate) struct SpeechModel {
    pub info: LoadedModel,
    pub(super) tokens: Arc<SpecialTokens>,
    pub(super) vocabulary: Arc<SpeechVocabulary>,
    pub(super) network: SharedNetwork,
    pub(super) jobs: Jobs,
    pub(super) sink: Arc<OutputSink>,
}

impl SpeechModel {
    /// Starts a transcription; its events go to the service's sink.
    pub(crate) fn transcribe(&self, id: u64, request: TranscribeRequest) -> Result<(), CoreError> {
        let options = request.options()?;
        let job = Job {
            id,
            request,
            options,
            tokens: Arc::clone(&self.tokens),
            vocabulary: Arc::clone(&self.vocabulary),
            network: self.network.clone(),
            sink: Arc::clone(&self.sink),
            jobs: self.jobs.clone(),
        };
        self.jobs.add(id, Box::new(move |stop| job.run(stop)))
    }

    pub(crate) fn cancel(&self, id: u64) {
        self.jobs.stop(id);
    }

    /// Stops all transcriptions, which fail with `closed`, and returns when none runs any more.
    pub(crate) fn close(&self) {
        let unbegun = self.jobs.stop_all();
        if !unbegun.is_empty() {
            let failed = |id| OutputEvent { id, kind: failure(&CoreError::Closed) };
            (self.sink)(unbegun.into_iter().map(failed).collect());
        }
        self.jobs.wait();
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.vocabulary.tokenizer
    }

    /// Running and waiting transcriptions.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.jobs.counts()
    }
}

impl Drop for SpeechModel {
    fn drop(&mut self) {
        // Without waiting: the last handle may go on a transcription's own thread.
        self.jobs.stop_all();
    }
}

/// One transcription, with all it needs.
struct Job {
    id: u64,
    request: TranscribeRequest,
    options: TranscribeOptions,
    tokens: Arc<SpecialTokens>,
    vocabulary: Arc<SpeechVocabulary>,
    network: SharedNetwork,
    sink: Arc<OutputSink>,
    jobs: Jobs,
}

impl Job {
    fn run(mut self, stop: &Stop) {
        let result = catch_unwind(AssertUnwindSafe(|| self.transcribe(stop)))
            .unwrap_or_else(|panic| Err(CoreError::from_panic(&*panic)));
        let Self { id, sink, jobs, network, .. } = self;
        // What it held of the network is free before anybody hears that it is over.
        drop(network);
        let kind = match result {
            Ok(finished) => finished,
            // Whoever cancelled it hears no more; whoever closed the model did so to somebody else's transcription.
            Err(CoreError::Cancelled) if !jobs.is_closed() => return,
            Err(error) => {
                let error = if matches!(error, CoreError::Cancelled) { CoreError::Closed } else { error };
                failure(&error)
            }
        };
        sink(vec![OutputEvent { id, kind }]);
    }

    /// The last event.
    fn transcribe(&mut self, stop: &Stop) -> Result<OutputKind, CoreError> {
        let Self { id, request, options, tokens, vocabulary, network, sink, .. } = self;
        let cancelled = || stop.is_set();
        let features = FeatureOptions { n_mels: network.shape().n_mels, vad: request.vad() };
        let mut features = RecordingFeatures::open(&request.audio, &features, stop.flag())?;
        let mut duration = 0.0;
        let mut finished = None;
        let mut emit = |event: TranscriptEvent| {
            let kind = match event {
                TranscriptEvent::Started { duration: seconds } => {
                    duration = seconds;
                    OutputKind::AudioStarted { duration: seconds }
                }
                TranscriptEvent::Language { code, probability } => {
                    let name = language_name(&code).unwrap_or(&code).to_owned();
                    OutputKind::Language { code, name, probability }
                }
                TranscriptEvent::Segment(segment) => OutputKind::Segment(Box::new(transcribed(segment, vocabulary))),
                TranscriptEvent::Progress { seconds } => OutputKind::AudioProgress { seconds },
                TranscriptEvent::Finished { text_tokens, .. } => {
                    let audio_tokens = (duration * AUDIO_TOKENS_PER_SECOND).round() as usize;
                    finished = Some(OutputKind::Transcribed { audio_tokens, text_tokens });
                    return;
                }
            };
            if !stop.is_set() {
                sink(vec![OutputEvent { id: *id, kind }]);
            }
        };
        transcribe(network, &**vocabulary, tokens, &mut features, options, &mut emit, &cancelled)?;
        finished.ok_or_else(|| CoreError::Internal("a transcription ended without an end".to_owned()))
    }
}

fn failure(error: &CoreError) -> OutputKind {
    OutputKind::Failed { code: error.code(), message: error.to_string(), param: error.param() }
}

fn transcribed(mut segment: Segment, vocabulary: &SpeechVocabulary) -> TranscribedSegment {
    let tokens = std::mem::take(&mut segment.logprobs)
        .into_iter()
        .map(|token| TranscribedToken {
            id: token.id,
            bytes: vocabulary.tokenizer.token_bytes(token.id).map(<[u8]>::to_vec).unwrap_or_default(),
            text: token.text,
            logprob: token.logprob,
        })
        .collect();
    TranscribedSegment { segment, tokens }
}

impl From<SpeechError> for CoreError {
    fn from(error: SpeechError) -> Self {
        match error {
            SpeechError::Audio(message) => Self::Audio(message),
            SpeechError::Invalid { message, param } => {
                Self::Invalid { message, param: Some(name_at_the_border(param)) }
            }
            SpeechError::Cancelled => Self::Cancelled,
            SpeechError::Network(error) => Self::Internal(error.to_string()),
        }
    }
}

/// The rules' names of options, as the border has them.
fn name_at_the_border(param: &'static str) -> &'static str {
    match param {
        "beam_size" => "beamSize",
        "best_of" => "bestOf",
        "batch" => "chunking",
        "hallucination_silence_threshold" => "hallucinationSilenceThreshold",
        other => other,
    }
}
