//! A tokenizer as the decoding rules see it.

use tsserve_speech::{SpecialTokens, Vocabulary};
use tsserve_text::Tokenizer;

pub(super) struct SpeechVocabulary {
    pub tokenizer: Tokenizer,
    /// From this id on tokens are marks, not text.
    pub end_of_text: u32,
}

impl SpeechVocabulary {
    pub(super) fn new(tokenizer: Tokenizer, tokens: &SpecialTokens) -> Self {
        Self { tokenizer, end_of_text: tokens.end_of_text }
    }
}

impl Vocabulary for SpeechVocabulary {
    fn decode(&self, tokens: &[u32]) -> String {
        // Not by the tokenizer's decoder, which may tidy spaces up: Whisper's words are told apart by them.
        let text = tokens.iter().filter(|&&id| id < self.end_of_text);
        let bytes: Vec<u8> = text.filter_map(|&id| self.tokenizer.token_bytes(id)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        // Words of a prompt, not marks: "<|endoftext|>" in it is text.
        self.tokenizer.encode_plain(text).unwrap_or_default()
    }
}
