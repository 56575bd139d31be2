//! What stands before the tokens of a window.

use crate::vocabulary::SpecialTokens;

/// Tokens that a window is decoded after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub tokens: Vec<u32>,
    /// Where the start of the transcript stands.
    pub start: usize,
}

impl Prompt {
    /// `<|startofprev|>` and the last half of the context of `previous`, if there is any, then the start sequence.
    pub fn new(tokens: &SpecialTokens, previous: &[u32], start_sequence: &[u32], text_context: usize) -> Self {
        let room = (text_context / 2).saturating_sub(1);
        let previous = &previous[previous.len().saturating_sub(room)..];
        Self::joined(if previous.is_empty() { None } else { Some(tokens.start_of_previous) }, previous, start_sequence)
    }

    pub fn joined(mark: Option<u32>, previous: &[u32], start_sequence: &[u32]) -> Self {
        let tokens: Vec<u32> = mark.iter().chain(previous).chain(start_sequence).copied().collect();
        Self { start: tokens.len() - start_sequence.len(), tokens }
    }
}

/// The initial prompt as tokens: a space and the text without space around it.
pub(crate) fn prompt_text(prompt: &str) -> String {
    format!(" {}", prompt.trim())
}
