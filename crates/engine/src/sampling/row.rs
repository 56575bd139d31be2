//! Logits on their way to a choice.

use crate::{TokenId, TokenSet};

/// The logits of one position: of every token, or of a few.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Row {
    /// By token id.
    Whole(Vec<f32>),
    /// By increasing token id.
    Few(Vec<(TokenId, f32)>),
}

impl Row {
    /// Changes the logit of a token that the row holds.
    pub(super) fn change(&mut self, token: TokenId, new: impl FnOnce(f32) -> f32) {
        let logit = match self {
            Self::Whole(logits) => logits.get_mut(token as usize),
            Self::Few(logits) => {
                let at = logits.binary_search_by_key(&token, |&(id, _)| id);
                at.ok().map(|at| &mut logits[at].1)
            }
        };
        if let Some(logit) = logit {
            *logit = new(*logit);
        }
    }

    pub(super) fn forbid(&mut self, token: TokenId) {
        self.change(token, |_| f32::NEG_INFINITY);
    }

    /// Forbids what the set does not hold.
    pub(super) fn keep(&mut self, set: &TokenSet) {
        match self {
            Self::Whole(logits) => {
                let words = set.words().iter().copied().chain(std::iter::repeat(0));
                for (chunk, word) in logits.chunks_mut(32).zip(words) {
                    if word != u32::MAX {
                        let bits = chunk.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                        bits.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                    }
                }
            }
            Self::Few(logits) => logits.retain(|&(id, _)| set.contains(id)),
        }
    }

    /// The tokens that are not forbidden, by increasing id.
    pub(super) fn left(&self) -> Vec<(TokenId, f32)> {
        let is_left = |&(_, logit): &(TokenId, f32)| logit != f32::NEG_INFINITY;
        match self {
            Self::Whole(logits) => (0..).zip(logits.iter().copied()).filter(is_left).collect(),
            Self::Few(logits) => logits.iter().copied().filter(is_left).collect(),
        }
    }
}
