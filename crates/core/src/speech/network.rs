//! One network for several transcriptions: they take turns call by call, in the order of asking.

use std::sync::{Arc, Mutex, PoisonError};

use tsserve_engine::ComputePool;
use tsserve_speech::{AudioId, CacheId, DecodeRow, NetworkError, NetworkShape, WhisperNetwork};

/// A network that is shared; clones are handles for other transcriptions.
#[derive(Clone)]
pub(super) struct SharedNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    shape: NetworkShape,
    /// A mutex alone would let whoever has just left it in again.
    turns: ComputePool,
    network: Mutex<Box<dyn WhisperNetwork>>,
}

impl SharedNetwork {
    pub(super) fn new(network: Box<dyn WhisperNetwork>) -> Self {
        let shape = network.shape().clone();
        Self { shared: Arc::new(Shared { shape, turns: ComputePool::new(), network: Mutex::new(network) }) }
    }

    fn call<T>(&self, call: impl FnOnce(&mut dyn WhisperNetwork) -> T) -> T {
        let _turn = self.shared.turns.lease();
        // After a panic the network is as good as before: it catches its own.
        let mut network = self.shared.network.lock().unwrap_or_else(PoisonError::into_inner);
        call(&mut **network)
    }
}

impl WhisperNetwork for SharedNetwork {
    fn shape(&self) -> &NetworkShape {
        &self.shared.shape
    }

    fn encode(&mut self, mels: &[f32]) -> Result<Vec<AudioId>, NetworkError> {
        let window = self.shape().n_mels * self.shape().window_frames;
        let mut made = Vec::new();
        // Window by window: the others get their turn between them.
        for mel in mels.chunks(window) {
            match self.call(|network| network.encode(mel)) {
                Ok(ids) => made.extend(ids),
                Err(error) => {
                    // The caller never hears of those that went well.
                    made.into_iter().for_each(|audio| self.release_audio(audio));
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    fn release_audio(&mut self, audio: AudioId) {
        self.call(|network| network.release_audio(audio));
    }

    fn new_cache(&mut self) -> Result<CacheId, NetworkError> {
        self.call(|network| network.new_cache())
    }

    fn release_cache(&mut self, cache: CacheId) {
        self.call(|network| network.release_cache(cache));
    }

    fn copy_cache(&mut self, from: CacheId, to: CacheId) {
        self.call(|network| network.copy_cache(from, to));
    }

    fn truncate_cache(&mut self, cache: CacheId, len: usize) {
        self.call(|network| network.truncate_cache(cache, len));
    }

    fn decode(&mut self, rows: &[DecodeRow<'_>], logits: &mut Vec<f32>) -> Result<(), NetworkError> {
        self.call(|network| network.decode(rows, logits))
    }

    fn align(
        &mut self,
        audio: AudioId,
        tokens: &[u32],
        heads: &[(usize, usize)],
        scores: &mut Vec<f32>,
        logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        self.call(|network| network.align(audio, tokens, heads, scores, logits))
    }
}
