//! The Whisper network of the CPU kernels as the decoding rules see it.

use tsserve_models::whisper::{WhisperError, WhisperModel, WhisperRow};
use tsserve_speech::{AudioId, CacheId, DecodeRow, NetworkError, NetworkShape, WhisperNetwork};

/// A [`WhisperModel`] behind the seam of the decoding rules.
#[derive(Debug)]
pub struct CpuWhisper {
    model: WhisperModel,
    shape: NetworkShape,
}

impl CpuWhisper {
    pub fn new(model: WhisperModel) -> Self {
        let config = model.config();
        let shape = NetworkShape {
            n_mels: config.n_mels,
            window_frames: config.window_frames(),
            audio_context: config.audio_context,
            text_context: config.text_context,
            vocab_size: config.vocab_size,
            decoder_layers: config.decoder_layers,
            decoder_heads: config.decoder_heads,
        };
        Self { model, shape }
    }
}

fn network_error(error: WhisperError) -> NetworkError {
    NetworkError(error.to_string())
}

impl WhisperNetwork for CpuWhisper {
    fn shape(&self) -> &NetworkShape {
        &self.shape
    }

    fn encode(&mut self, mels: &[f32]) -> Result<Vec<AudioId>, NetworkError> {
        let ids = self.model.encode(mels).map_err(network_error)?;
        Ok(ids.into_iter().map(AudioId).collect())
    }

    fn release_audio(&mut self, audio: AudioId) {
        self.model.release_audio(audio.0);
    }

    fn new_cache(&mut self) -> Result<CacheId, NetworkError> {
        self.model.new_cache().map(CacheId).map_err(network_error)
    }

    fn release_cache(&mut self, cache: CacheId) {
        self.model.release_cache(cache.0);
    }

    fn copy_cache(&mut self, from: CacheId, to: CacheId) {
        // Ids that were released are the rules' mistake: the next decode says so.
        _ = self.model.copy_cache(from.0, to.0);
    }

    fn truncate_cache(&mut self, cache: CacheId, len: usize) {
        // As above.
        _ = self.model.truncate_cache(cache.0, len);
    }

    fn decode(&mut self, rows: &[DecodeRow<'_>], logits: &mut Vec<f32>) -> Result<(), NetworkError> {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| WhisperRow { audio: row.audio.0, cache: row.cache.0, tokens: row.tokens, wanted: row.wanted })
            .collect();
        self.model.decode(&rows, logits).map_err(network_error)
    }

    fn align(
        &mut self,
        audio: AudioId,
        tokens: &[u32],
        heads: &[(usize, usize)],
        scores: &mut Vec<f32>,
        logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        self.model.align(audio.0, tokens, heads, scores, logits).map_err(network_error)
    }
}
