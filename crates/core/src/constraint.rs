//! Grammars of requests: from what a request asks for to what the engine holds an answer to.

use tsserve_engine::{Constraint, ConstraintError, Next, TokenId, TokenSet};
use tsserve_text::{Grammar, GrammarMatcher, NextTokens, TextError, Trigger};

/// What an answer must match.
#[derive(Debug, Clone, PartialEq)]
pub struct ConstraintRequest {
    pub grammar: Grammar,
    /// `None`: from the answer's first token on.
    pub trigger: Option<Trigger>,
}

/// A grammar as the engine knows it.
#[derive(Debug, Clone)]
pub(crate) struct GrammarConstraint(pub(crate) GrammarMatcher);

impl Constraint for GrammarConstraint {
    fn next(&mut self) -> Result<Next, ConstraintError> {
        Ok(match self.0.next_tokens().map_err(told)? {
            NextTokens::Free => Next::Free,
            NextTokens::Few(tokens) => Next::Few(tokens.into()),
            NextTokens::Many => Next::Many,
            NextTokens::Complete => Next::Done,
        })
    }

    fn mask(&mut self) -> Result<TokenSet, ConstraintError> {
        self.0.mask().map(TokenSet::from_words).map_err(told)
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        self.0.accept(token).map_err(told)
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, ConstraintError> {
        self.0.forced().map_err(told)
    }

    fn clone_box(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

fn told(error: TextError) -> ConstraintError {
    ConstraintError { message: error.to_string() }
}
