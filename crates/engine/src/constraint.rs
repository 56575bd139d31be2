//! What an answer must match, as the engine sees it: sets of token ids, no text.

use std::fmt;
use std::sync::Arc;

use crate::TokenId;

/// Decides which tokens may follow an answer. Held by one sequence, told of each of its generated tokens.
///
/// The calls of one position: `next`, then `mask` if that said [`Next::Many`], then `accept` with the token chosen,
/// then `forced` and `accept` for each of those tokens. Nothing is ever taken back: a preempted sequence keeps its
/// tokens, and with them its constraint.
pub trait Constraint: Send + fmt::Debug {
    /// What is known of the next token before its row is computed. Cheap: it is called between two steps.
    ///
    /// # Errors
    /// The constraint has become too complex to follow; the sequence fails.
    fn next(&mut self) -> Result<Next, ConstraintError>;

    /// The tokens behind [`Next::Many`]. May take its time: it is called on another thread while the step computes (after
    /// the step only for a position that a right draft has reached).
    ///
    /// # Errors
    /// As `next`.
    fn mask(&mut self) -> Result<TokenSet, ConstraintError>;

    /// Takes in the answer's next token.
    ///
    /// # Errors
    /// As `next`; or the token was not allowed.
    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError>;

    /// Tokens that follow without a choice; possibly none. They are not accepted yet, and need not all be used.
    ///
    /// # Errors
    /// As `next`.
    fn forced(&mut self) -> Result<Vec<TokenId>, ConstraintError>;

    /// An independent copy in the same state.
    fn clone_box(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.clone_box()
    }
}

/// What a constraint says of the next token.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Any token will do: what has to be matched has not begun.
    Free,
    /// One of these, by increasing id; at least one.
    Few(Arc<[TokenId]>),
    /// One of many; `mask` says which.
    Many,
    /// The answer is complete and nothing can follow it.
    Done,
}

/// Why a constraint cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConstraintError {
    pub message: String,
}

/// A set of token ids, one bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSet {
    /// Token `i` is bit `i % 32` of word `i / 32`.
    words: Vec<u32>,
}

impl TokenSet {
    /// Bits in words of 32, the lowest id in the lowest bit of the first. Ids beyond the words are not in the set.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// The bits, as `from_words` takes them.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    pub fn contains(&self, token: TokenId) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The ids by increasing id.
    pub fn iter(&self) -> impl Iterator<Item = TokenId> {
        (0..).zip(&self.words).flat_map(|(at, &word)| {
            // Clears the lowest bit each time.
            std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
                .take_while(|&word| word != 0)
                .map(move |word| at * 32 + word.trailing_zeros())
        })
    }
}

impl FromIterator<TokenId> for TokenSet {
    fn from_iter<I: IntoIterator<Item = TokenId>>(tokens: I) -> Self {
        let mut words = Vec::new();
        for token in tokens {
            let at = token as usize / 32;
            if at >= words.len() {
                words.resize(at + 1, 0);
            }
            words[at] |= 1 << (token % 32);
        }
        Self { words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let ids = [0, 1, 31, 32, 63, 64, 1000];
        let set: TokenSet = ids.into_iter().rev().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), ids);
        assert_eq!((set.len(), set.is_empty()), (ids.len(), false));
        assert!(ids.iter().all(|&id| set.contains(id)));
        assert!(![2, 30, 33, 999, 1001, 100_000].iter().any(|&id| set.contains(id)));
        assert!(TokenSet::from_words(vec![0, 0]).is_empty() && TokenSet::default().iter().next().is_none());
    }
}
