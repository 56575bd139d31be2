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

    /// The logits of the tokens that the set holds, or of all, by increasing id.
    pub(super) fn into_allowed(self, set: Option<&TokenSet>) -> Vec<(TokenId, f32)> {
        match (self, set) {
            (Self::Whole(logits), None) => (0..).zip(logits).collect(),
            (Self::Whole(logits), Some(set)) => {
                set.iter().map_while(|id| Some((id, *logits.get(id as usize)?))).collect()
            }
            (Self::Few(logits), None) => logits,
            (Self::Few(mut logits), Some(set)) => {
                logits.retain(|&(id, _)| set.contains(id));
                logits
            }
        }
    }
}
