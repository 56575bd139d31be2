//! What tests of transcriptions with real networks share.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tsserve_core::CpuWhisper;
use tsserve_engine::ComputePool;
use tsserve_models::cpu::Level;
use tsserve_models::whisper::{Precision, WhisperCheckpoint, WhisperModel, WhisperOptions};
use tsserve_speech::{
    AudioId, CacheId, DecodeRow, Features, NetworkError, NetworkShape, Segment, SpecialTokens, SpeechError,
    TranscribeOptions, TranscriptEvent, Vocabulary, WhisperNetwork,
};
use tsserve_text::Tokenizer;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join(path)).unwrap()).unwrap()
}

/// Samples of a 16-bit mono WAV file whose header has 44 bytes.
pub fn wav(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let (samples, _) = bytes[44..].as_chunks::<2>();
    samples.iter().map(|&two| f32::from(i16::from_le_bytes(two)) / 32768.0).collect()
}

/// A checkpoint that is loaded, with its vocabulary.
pub struct Loaded {
    pub network: Spy,
    pub tokens: SpecialTokens,
    pub vocabulary: Words,
}

impl Loaded {
    pub fn open(folder: &Path, precision: Precision) -> Self {
        let checkpoint = WhisperCheckpoint::open(folder).unwrap();
        let ids = checkpoint.special_ids.clone();
        let level = Level::detect();
        let pool = ComputePool::new();
        let options =
            WhisperOptions { level, threads: 2, precision, arithmetic: None, max_windows: 8, max_caches: 24, pool };
        let model = WhisperModel::load(&checkpoint, options, &mut |_, _| {}).unwrap();
        let tokens = SpecialTokens {
            end_of_text: ids.end_of_text,
            start_of_transcript: ids.start_of_transcript,
            start_of_previous: ids.start_of_previous,
            start_of_lm: ids.start_of_lm,
            no_speech: ids.no_speech,
            no_timestamps: ids.no_timestamps,
            first_timestamp: ids.first_timestamp,
            transcribe: ids.transcribe,
            translate: ids.translate,
            languages: ids.languages,
            suppressed: ids.suppressed,
            begin_suppressed: ids.begin_suppressed,
            alignment_heads: ids.alignment_heads,
        };
        let tokenizer = Tokenizer::from_json_file(folder.join("tokenizer.json")).unwrap();
        let vocabulary = Words { tokenizer, end_of_text: tokens.end_of_text };
        let network = Spy { inner: CpuWhisper::new(model), lengths: HashMap::new(), prompts: Vec::new() };
        Self { network, tokens, vocabulary }
    }

    pub fn transcribe(&mut self, features: &mut dyn Features, options: &TranscribeOptions) -> Told {
        let mut told = Told::default();
        self.network.prompts.clear();
        let mut emit = |event| match event {
            TranscriptEvent::Segment(segment) => told.segments.push(segment),
            TranscriptEvent::Language { code, probability } => told.language = Some((code, probability)),
            _ => {}
        };
        let (network, never) = (&mut self.network, || false);
        tsserve_speech::transcribe(network, &self.vocabulary, &self.tokens, features, options, &mut emit, &never)
            .unwrap();
        // Detecting the language is no window.
        let detects = options.language.is_none() && !self.tokens.languages.is_empty();
        told.prompts = self.network.prompts.drain(..).skip(usize::from(detects)).collect();
        told
    }
}

/// What a transcription told.
#[derive(Debug, Default)]
pub struct Told {
    pub segments: Vec<Segment>,
    pub language: Option<(String, Option<f32>)>,
    /// Of each window.
    pub prompts: Vec<Vec<u32>>,
}

impl Told {
    pub fn text(&self) -> String {
        self.segments.iter().map(|segment| segment.text.as_str()).collect()
    }
}

pub struct Words {
    tokenizer: Tokenizer,
    end_of_text: u32,
}

impl Vocabulary for Words {
    fn decode(&self, tokens: &[u32]) -> String {
        let text: Vec<u32> = tokens.iter().copied().filter(|&token| token < self.end_of_text).collect();
        self.tokenizer.decode(&text, true).unwrap()
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_plain(text).unwrap()
    }
}

/// Features that are given.
pub struct Mel {
    pub n_mels: usize,
    /// `[n_mels][frames]`
    pub values: Vec<f32>,
}

impl Features for Mel {
    fn n_mels(&self) -> usize {
        self.n_mels
    }

    fn n_frames(&self) -> usize {
        self.values.len() / self.n_mels
    }

    fn window(&mut self, start: usize, content: Range<usize>, out: &mut [f32]) -> Result<(), SpeechError> {
        let (all, width) = (self.n_frames(), out.len() / self.n_mels);
        out.fill(0.0);
        for (own, out) in self.values.chunks_exact(all).zip(out.chunks_exact_mut(width)) {
            out[content.start - start..content.end - start].copy_from_slice(&own[content.clone()]);
        }
        Ok(())
    }

    fn speech(&mut self) -> Result<Vec<Range<usize>>, SpeechError> {
        Ok(std::iter::once(0..self.n_frames()).collect())
    }
}

/// A network that remembers what stood before the answers of its windows.
pub struct Spy {
    inner: CpuWhisper,
    lengths: HashMap<u32, usize>,
    pub prompts: Vec<Vec<u32>>,
}

impl WhisperNetwork for Spy {
    fn shape(&self) -> &NetworkShape {
        self.inner.shape()
    }

    fn encode(&mut self, mels: &[f32]) -> Result<Vec<AudioId>, NetworkError> {
        self.inner.encode(mels)
    }

    fn release_audio(&mut self, audio: AudioId) {
        self.inner.release_audio(audio);
    }

    fn new_cache(&mut self) -> Result<CacheId, NetworkError> {
        let cache = self.inner.new_cache()?;
        self.lengths.insert(cache.0, 0);
        Ok(cache)
    }

    fn release_cache(&mut self, cache: CacheId) {
        self.inner.release_cache(cache);
    }

    fn copy_cache(&mut self, from: CacheId, to: CacheId) {
        self.lengths.insert(to.0, self.lengths[&from.0]);
        self.inner.copy_cache(from, to);
    }

    fn truncate_cache(&mut self, cache: CacheId, len: usize) {
        self.lengths.insert(cache.0, len);
        self.inner.truncate_cache(cache, len);
    }

    fn decode(&mut self, rows: &[DecodeRow<'_>], logits: &mut Vec<f32>) -> Result<(), NetworkError> {
        for row in rows {
            let length = self.lengths.entry(row.cache.0).or_default();
            if *length == 0 {
                self.prompts.push(row.tokens.to_vec());
            }
            *length += row.tokens.len();
        }
        self.inner.decode(rows, logits)
    }

    fn align(
        &mut self,
        audio: AudioId,
        tokens: &[u32],
        heads: &[(usize, usize)],
        scores: &mut Vec<f32>,
        logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        self.inner.align(audio, tokens, heads, scores, logits)
    }
}
