//! Tokens of a Whisper checkpoint.

/// Text of tokens.
pub trait Vocabulary: Send + Sync {
    /// Without special tokens and timestamps; U+FFFD where bytes are no UTF-8.
    fn decode(&self, tokens: &[u32]) -> String;

    /// Without adding special tokens.
    fn encode(&self, text: &str) -> Vec<u32>;
}

/// Ids with a meaning, as the checkpoint's own files give them.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecialTokens {
    pub end_of_text: u32,
    pub start_of_transcript: u32,
    pub start_of_previous: u32,
    pub start_of_lm: Option<u32>,
    pub no_speech: u32,
    pub no_timestamps: u32,
    /// `<|0.00|>`; those up to 30.00 follow in steps of 0.02.
    pub first_timestamp: u32,
    /// `None` for English-only models, which have neither these nor `languages`.
    pub transcribe: Option<u32>,
    pub translate: Option<u32>,
    /// ISO code ("en") and token.
    pub languages: Vec<(String, u32)>,
    /// Never chosen by default: what is not spoken.
    pub suppressed: Vec<u32>,
    /// Not chosen as the first token of a window, by default.
    pub begin_suppressed: Vec<u32>,
    /// (layer, head) whose cross-attention follows the words. Empty: unknown, the upper half of the layers is used.
    pub alignment_heads: Vec<(usize, usize)>,
}
