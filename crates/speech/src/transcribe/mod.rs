//! A whole recording: windows one after the other or several at once, and what is told of them.

mod batched;
mod chunks;
mod cut;
mod hallucination;
mod options;
mod regions;
mod sequential;
#[cfg(test)]
mod tests;
mod transformers;
mod window;

pub(crate) use cut::Draft;

use std::ops::Range;

use crate::decode::{Decoder, detect_language};
use crate::error::SpeechError;
use crate::features::Features;
use crate::network::{AudioId, WhisperNetwork};
use crate::session::Session;
use crate::time::seconds;
use crate::transcript::TranscriptEvent;
use crate::vocabulary::{SpecialTokens, Vocabulary};
use crate::{Chunking, Rules, Task, TranscribeOptions};
use regions::Regions;

/// Writes down what is said in a recording and tells it to `emit`, segment by segment, in order of time.
///
/// `cancelled` is asked before every call of the network. Everything taken of the network is given back, also on
/// errors. A recording without frames, and one in which nobody speaks where silence is not decoded, has no segments; if
/// no language was given, then none is told.
///
/// # Errors
/// [`SpeechError::Invalid`] names an option that is out of range or that this checkpoint cannot follow, before anything
/// is told; the others come from the recording, the network or `cancelled`.
pub fn transcribe(
    network: &mut dyn WhisperNetwork,
    vocabulary: &dyn Vocabulary,
    tokens: &SpecialTokens,
    features: &mut dyn Features,
    options: &TranscribeOptions,
    emit: &mut dyn FnMut(TranscriptEvent),
    cancelled: &dyn Fn() -> bool,
) -> Result<(), SpeechError> {
    let language = options::check(options, tokens, network.shape())?;
    let n_frames = features.n_frames();
    emit(TranscriptEvent::Started { duration: features.duration() });
    let decoder = Decoder::new(network.shape(), tokens, vocabulary, options);
    let session = Session::new(network, cancelled);
    let mut run = Run {
        session,
        decoder,
        features,
        emit,
        n_frames,
        language: String::new(),
        start_sequence: Vec::new(),
        segments: 0,
        text_tokens: 0,
        mels: Vec::new(),
        speech: None,
    };
    if let Some(language) = language {
        run.set_language(language, None);
    }
    match (options.rules, &options.chunking) {
        (Rules::Transformers, _) => transformers::transcribe(&mut run)?,
        (Rules::Openai, Chunking::Sequential) => sequential::transcribe(&mut run)?,
        (Rules::Openai, Chunking::Batched { batch }) => batched::transcribe(&mut run, *batch)?,
    }
    let (decoded_tokens, windows) = (run.session.decoded_tokens, run.session.windows);
    (run.emit)(TranscriptEvent::Finished { decoded_tokens, text_tokens: run.text_tokens, windows });
    Ok(())
}

/// A transcription that runs.
struct Run<'a> {
    session: Session<'a>,
    decoder: Decoder<'a>,
    features: &'a mut dyn Features,
    emit: &'a mut dyn FnMut(TranscriptEvent),
    n_frames: usize,
    /// ISO code; empty while it is unknown.
    language: String,
    /// What stands before a window's tokens; `<|notimestamps|>` may follow. Empty while the language is unknown.
    start_sequence: Vec<u32>,
    /// Told so far.
    segments: usize,
    text_tokens: usize,
    mels: Vec<f32>,
    /// Where somebody speaks, once that was asked.
    speech: Option<Regions>,
}

impl Run<'_> {
    fn options(&self) -> &TranscribeOptions {
        self.decoder.options
    }

    fn window_frames(&self) -> usize {
        self.session.shape().window_frames
    }

    /// Encodes a window of content, of at most `window_frames`; what is missing is filled with zeros, as in the
    /// original. `None` where it is silent to the last bit: there is nothing to hear, and networks make something up.
    fn encode(&mut self, window: Range<usize>) -> Result<Option<AudioId>, SpeechError> {
        self.session.check()?;
        let frames = self.window_frames();
        self.mels.resize(self.session.shape().n_mels * frames, 0.0);
        self.features.window(window.start, window.clone(), &mut self.mels)?;
        let mut content = self.mels.chunks_exact(frames).flat_map(|row| &row[..window.len()]);
        let first = content.next();
        if self.options().rules == Rules::Openai && content.all(|value| Some(value) == first) {
            return Ok(None);
        }
        Ok(self.session.encode(&self.mels)?.first().copied())
    }

    /// Where somebody speaks.
    fn speech(&mut self) -> Result<&Regions, SpeechError> {
        if self.speech.is_none() {
            self.speech = Some(Regions::new(self.features.speech()?, self.n_frames));
        }
        Ok(self.speech.get_or_insert_default())
    }

    /// Encodes windows whose features `write` writes.
    fn encode_with(&mut self, count: usize, write: impl Fn(usize, &mut [f32])) -> Result<Vec<AudioId>, SpeechError> {
        let size = self.session.shape().n_mels * self.window_frames();
        self.mels.resize(count * size, 0.0);
        self.mels.chunks_exact_mut(size).enumerate().for_each(|(index, mel)| write(index, mel));
        self.session.encode(&self.mels)
    }

    /// Detects the language by a window, if it is not known yet.
    fn know_language(&mut self, audio: AudioId) -> Result<(), SpeechError> {
        if self.start_sequence.is_empty() {
            let tokens = self.decoder.tokens;
            if let Some((index, probability)) = detect_language(&mut self.session, tokens, audio)? {
                self.set_language(index, Some(probability));
            }
        }
        Ok(())
    }

    fn set_language(&mut self, index: usize, probability: Option<f32>) {
        let tokens = self.decoder.tokens;
        self.start_sequence = vec![tokens.start_of_transcript];
        let language = tokens.languages.get(index);
        self.start_sequence.extend(language.map(|(_, token)| *token));
        // transformers leaves the task open where it detects the language.
        let open = self.options().rules == Rules::Transformers && probability.is_some();
        self.start_sequence.extend(match self.options().task {
            Task::Translate => tokens.translate,
            Task::Transcribe => tokens.transcribe.filter(|_| !open),
        });
        self.language = language.map_or_else(|| "en".to_owned(), |(code, _)| code.clone());
        (self.emit)(TranscriptEvent::Language { code: self.language.clone(), probability });
    }

    /// The start sequence of a window that is decoded.
    fn window_start(&self) -> Vec<u32> {
        let mark = Some(self.decoder.tokens.no_timestamps).filter(|_| !self.options().timestamps);
        self.start_sequence.iter().copied().chain(mark).collect()
    }

    fn progress(&mut self, frame: usize) {
        (self.emit)(TranscriptEvent::Progress { seconds: seconds(frame.min(self.n_frames)) });
    }
}
