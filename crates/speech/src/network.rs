//! What the decoding rules ask of a Whisper network.

/// Sizes of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkShape {
    /// 80 or 128.
    pub n_mels: usize,
    /// Mel frames of a window: twice `audio_context`.
    pub window_frames: usize,
    /// Positions of an encoded window (1500).
    pub audio_context: usize,
    /// Longest sequence of the decoder in tokens (448).
    pub text_context: usize,
    pub vocab_size: usize,
    pub decoder_layers: usize,
    pub decoder_heads: usize,
}

/// An encoded window: the network keeps its cross-attention keys and values until it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AudioId(pub u32);

/// A self-attention cache of one hypothesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheId(pub u32);

/// Tokens that one hypothesis appends to its cache.
#[derive(Debug, Clone, Copy)]
pub struct DecodeRow<'a> {
    pub audio: AudioId,
    pub cache: CacheId,
    /// At least one; cache and tokens together at most `text_context`.
    pub tokens: &'a [u32],
    /// Indices into `tokens`, ascending, after which logits are wanted.
    pub wanted: &'a [usize],
}

/// The network failed: out of memory, a broken device, a panic in a worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NetworkError(pub String);

/// A Whisper encoder and decoder. Calls compute; whoever implements it shares the machine with others.
///
/// A row's values depend neither on the other rows of a call nor on how its tokens were split over calls, up to
/// rounding.
///
/// # Panics
/// Implementations may panic on ids that were released and on slices of other lengths: those are the rules' mistakes.
pub trait WhisperNetwork: Send {
    fn shape(&self) -> &NetworkShape;

    /// Encodes windows, each `[n_mels][window_frames]`, one after the other in `mels`.
    fn encode(&mut self, mels: &[f32]) -> Result<Vec<AudioId>, NetworkError>;

    fn release_audio(&mut self, audio: AudioId);

    /// An empty cache.
    fn new_cache(&mut self) -> Result<CacheId, NetworkError>;

    fn release_cache(&mut self, cache: CacheId);

    /// Makes `to` what `from` is.
    fn copy_cache(&mut self, from: CacheId, to: CacheId);

    /// Forgets what came after the first `len` tokens.
    fn truncate_cache(&mut self, cache: CacheId, len: usize);

    /// Appends each row's tokens to its cache and writes the logits that were wanted to `logits`, which is cleared
    /// first: `[wanted of all rows, in order][vocab_size]`. No cache comes twice.
    fn decode(&mut self, rows: &[DecodeRow<'_>], logits: &mut Vec<f32>) -> Result<(), NetworkError>;

    /// One pass over `tokens` without a cache, for the timing of words. Writes to `scores` the cross-attention of
    /// `heads` (layer, head) before softmax, scaled: `[heads][tokens][audio_context]`. `logits` is called for each
    /// index of `tokens` in turn with the logits after that token.
    fn align(
        &mut self,
        audio: AudioId,
        tokens: &[u32],
        heads: &[(usize, usize)],
        scores: &mut Vec<f32>,
        logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError>;
}
