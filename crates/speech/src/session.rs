//! One transcription's use of the network: cancellation before every call, counts, and everything given back at the
//! end.

use crate::error::SpeechError;
use crate::network::{AudioId, CacheId, DecodeRow, NetworkShape, WhisperNetwork};

/// A network while one transcription runs. What was taken of it is released when this is dropped, whatever happened.
pub(crate) struct Session<'a> {
    network: &'a mut dyn WhisperNetwork,
    cancelled: &'a dyn Fn() -> bool,
    shape: NetworkShape,
    audios: Vec<AudioId>,
    caches: Vec<CacheId>,
    free: Vec<CacheId>,
    /// Windows that were encoded.
    pub windows: usize,
    /// Tokens that were chosen, those of dropped attempts included.
    pub decoded_tokens: usize,
}

impl<'a> Session<'a> {
    pub fn new(network: &'a mut dyn WhisperNetwork, cancelled: &'a dyn Fn() -> bool) -> Self {
        let shape = network.shape().clone();
        let (audios, caches, free) = (Vec::new(), Vec::new(), Vec::new());
        Self { network, cancelled, shape, audios, caches, free, windows: 0, decoded_tokens: 0 }
    }

    pub fn shape(&self) -> &NetworkShape {
        &self.shape
    }

    /// Encodes windows, one after the other in `mels`.
    pub fn encode(&mut self, mels: &[f32]) -> Result<Vec<AudioId>, SpeechError> {
        self.check()?;
        let encoded = self.network.encode(mels)?;
        self.audios.extend(&encoded);
        self.windows += encoded.len();
        Ok(encoded)
    }

    pub fn release(&mut self, audio: AudioId) {
        if let Some(at) = self.audios.iter().position(|&other| other == audio) {
            self.audios.swap_remove(at);
            self.network.release_audio(audio);
        }
    }

    /// An empty cache: one that was given back, or a new one.
    pub fn take_cache(&mut self) -> Result<CacheId, SpeechError> {
        if let Some(cache) = self.free.pop() {
            self.network.truncate_cache(cache, 0);
            return Ok(cache);
        }
        let cache = self.network.new_cache()?;
        self.caches.push(cache);
        Ok(cache)
    }

    pub fn give_back(&mut self, cache: CacheId) {
        self.free.push(cache);
    }

    pub fn copy_cache(&mut self, from: CacheId, to: CacheId) {
        self.network.copy_cache(from, to);
    }

    pub fn truncate_cache(&mut self, cache: CacheId, len: usize) {
        self.network.truncate_cache(cache, len);
    }

    pub fn decode(&mut self, rows: &[DecodeRow<'_>], logits: &mut Vec<f32>) -> Result<(), SpeechError> {
        self.check()?;
        self.network.decode(rows, logits)?;
        Ok(())
    }

    pub fn align(
        &mut self,
        audio: AudioId,
        tokens: &[u32],
        heads: &[(usize, usize)],
        scores: &mut Vec<f32>,
        logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), SpeechError> {
        self.check()?;
        self.network.align(audio, tokens, heads, scores, logits)?;
        Ok(())
    }

    /// # Errors
    /// The transcription was cancelled.
    pub fn check(&self) -> Result<(), SpeechError> {
        if (self.cancelled)() { Err(SpeechError::Cancelled) } else { Ok(()) }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        for &audio in &self.audios {
            self.network.release_audio(audio);
        }
        for &cache in &self.caches {
            self.network.release_cache(cache);
        }
    }
}
