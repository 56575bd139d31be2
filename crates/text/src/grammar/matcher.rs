//! A compiled grammar and how far an answer has matched it.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{Recognizer, TokEnv, TokTrie};

use super::reason;
use super::trigger::{Trigger, Watch};
use crate::TextError;

/// Up to this many bytes that may come next, allowed tokens are found at once: their tree is walked on few paths.
const FEW_FIRST_BYTES: usize = 16;

/// Up to this many allowed tokens are named one by one.
const FEW_TOKENS: usize = 1024;

/// What may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextTokens {
    /// Anything: no trigger has come.
    Free,
    /// One of these, by increasing id; at least one.
    Few(Vec<u32>),
    /// One of the tokens of [`GrammarMatcher::mask`], which takes longer to find.
    Many,
    /// Nothing: the text is complete and cannot go on.
    Complete,
}

/// How far an answer has matched its grammar.
pub struct GrammarMatcher {
    /// `None` while a trigger is waited for.
    parser: Option<TokenParser>,
    watched: Option<Watched>,
    environment: TokEnv,
    /// A mask that was computed to count it.
    mask: Option<Vec<u32>>,
    /// What follows without a choice, while it is followed: made once for each run, since a part of its text could also
    /// become other tokens.
    forced: VecDeque<u32>,
}

struct Watched {
    /// The grammar's start, for each time that it is switched on.
    start: TokenParser,
    watch: Watch,
}

impl GrammarMatcher {
    pub(super) fn new(parser: TokenParser, environment: TokEnv, trigger: Option<Trigger>) -> Self {
        let (parser, watched) = match trigger {
            Some(trigger) => (None, Some(Watched { start: parser, watch: Watch::new(trigger) })),
            None => (Some(parser), None),
        };
        Self { parser, watched, environment, mask: None, forced: VecDeque::new() }
    }

    /// What may come next, as far as that is known at little cost.
    ///
    /// # Errors
    /// `Grammar`: the text has made the grammar too complex to follow.
    pub fn next_tokens(&mut self) -> Result<NextTokens, TextError> {
        self.force()?;
        if let Some(&token) = self.forced.front() {
            return Ok(NextTokens::Few(vec![token]));
        }
        let Some(parser) = &mut self.parser else { return Ok(NextTokens::Free) };
        match parser.stop_reason() {
            StopReason::NotStopped => {}
            reason if reason.is_ok() => return Ok(NextTokens::Complete),
            _ => return Err(failure(parser, "it has failed".to_owned())),
        }
        if self.mask.is_none() && !guarded(|| Ok(is_narrow(parser))).map_err(|said| failure(parser, said))? {
            return Ok(NextTokens::Many);
        }
        let mask = self.mask()?;
        let n_allowed: usize = mask.iter().map(|word| word.count_ones() as usize).sum();
        let few = (n_allowed <= FEW_TOKENS).then(|| NextTokens::Few(ids(&mask)));
        self.mask = Some(mask);
        Ok(few.unwrap_or(NextTokens::Many))
    }

    /// The allowed tokens as bits in words of 32, the lowest id in the lowest bit of the first word. End tokens are
    /// among them exactly where the text is complete.
    ///
    /// # Errors
    /// As `next_tokens`; or nothing is allowed.
    pub fn mask(&mut self) -> Result<Vec<u32>, TextError> {
        if let Some(mask) = self.mask.take() {
            return Ok(mask);
        }
        self.force()?;
        if let Some(&token) = self.forced.front() {
            return Ok(self.environment.tok_trie().singleton_token_set(token).as_slice().to_vec());
        }
        let parser = self.parser.as_mut().ok_or_else(|| TextError::Grammar("no trigger has come yet".to_owned()))?;
        let mask = guarded(|| parser.compute_mask()).map_err(|said| failure(parser, said))?;
        Ok(mask.as_slice().to_vec())
    }

    /// Takes in the answer's next token.
    ///
    /// # Errors
    /// As `next_tokens`; or the token is not allowed.
    pub fn accept(&mut self, token: u32) -> Result<(), TextError> {
        self.mask = None;
        if self.forced.pop_front().is_some_and(|forced| forced != token) {
            self.forced.clear();
        }
        let trie = self.environment.tok_trie();
        match (&mut self.parser, &mut self.watched) {
            (Some(parser), watched) => {
                let done = guarded(|| {
                    let backtrack = parser.consume_token(token)?;
                    Ok(backtrack == 0 && parser.check_stop()?)
                });
                match done {
                    // Free again, until the next trigger.
                    Ok(true) if watched.is_some() && parser.stop_reason() == StopReason::NoExtension => {
                        self.parser = None;
                    }
                    Ok(_) => {}
                    Err(said) => return Err(failure(parser, said)),
                }
            }
            (parser @ None, Some(Watched { start, watch })) => {
                let text = (!trie.is_special_token(token)).then(|| trie.token(token));
                if let Some(n_rest) = watch.push(token, text) {
                    let rest = text.map_or(&[][..], |text| &text[text.len() - n_rest..]);
                    *parser = begin(start, rest, token);
                }
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Tokens that follow without a choice, not accepted yet. They are what the tokenizer makes of the text that must
    /// come, less what a following text could change.
    ///
    /// # Errors
    /// As `next_tokens`.
    pub fn forced(&mut self) -> Result<Vec<u32>, TextError> {
        self.force()?;
        Ok(self.forced.iter().copied().collect())
    }

    fn force(&mut self) -> Result<(), TextError> {
        match &mut self.parser {
            Some(parser) if self.forced.is_empty() && !parser.stopped() => {
                let forced = guarded(|| Ok(parser.compute_ff_tokens())).map_err(|said| failure(parser, said))?;
                self.forced = forced.into();
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the answer could end here: the text is complete, or nothing has begun that would have to be.
    pub fn is_complete(&mut self) -> bool {
        match &mut self.parser {
            Some(parser) if parser.stopped() => parser.stop_reason().is_ok(),
            Some(parser) => guarded(|| Ok(parser.is_accepting())).unwrap_or(false),
            None => true,
        }
    }
}

impl Clone for GrammarMatcher {
    /// With caches of its own: the copies do not wait for each other.
    fn clone(&self) -> Self {
        let watched = self.watched.as_ref();
        Self {
            parser: self.parser.as_ref().map(TokenParser::deep_clone),
            watched: watched.map(|w| Watched { start: w.start.deep_clone(), watch: w.watch.clone() }),
            environment: self.environment.clone(),
            mask: self.mask.clone(),
            forced: self.forced.clone(),
        }
    }
}

impl std::fmt::Debug for GrammarMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarMatcher").field("matching", &self.parser.is_some()).finish_non_exhaustive()
    }
}

/// The grammar behind a marker whose token brought `rest` along. If the grammar cannot begin with that, the marker was
/// none: `None`.
fn begin(start: &TokenParser, rest: &[u8], token: u32) -> Option<TokenParser> {
    let mut parser = start.clone();
    if !rest.is_empty() {
        guarded(|| parser.parser.apply_token(rest, token)).ok()?;
    }
    guarded(|| parser.check_stop()).ok()?;
    (!parser.stopped()).then_some(parser)
}

/// Whether only a few bytes may come next.
fn is_narrow(parser: &mut TokenParser) -> bool {
    // What is forced and not yet a token stands at the start of the next one.
    if !parser.force_bytes().is_empty() {
        return true;
    }
    parser.parser.with_recognizer(|recognizer| {
        recognizer.trie_started("first bytes");
        let allowed = (0..TokTrie::SPECIAL_TOKEN_MARKER).filter(|&byte| recognizer.byte_allowed(byte));
        let narrow = allowed.take(FEW_FIRST_BYTES + 1).count() <= FEW_FIRST_BYTES;
        recognizer.trie_finished();
        narrow
    })
}

fn ids(mask: &[u32]) -> Vec<u32> {
    let mut ids = Vec::new();
    for (at, &word) in (0..).zip(mask) {
        let mut left = word;
        while left != 0 {
            ids.push(at * 32 + left.trailing_zeros());
            // Clears the lowest bit.
            left &= left - 1;
        }
    }
    ids
}

/// llguidance's own guard: a panic in it is an error and prints nothing. An error is told in words.
pub(super) fn guarded<T>(call: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|error| reason(&error))
}

/// Why a parser has stopped, or what it said.
pub(super) fn failure(parser: &TokenParser, said: String) -> TextError {
    TextError::Grammar(match parser.stop_reason() {
        StopReason::LexerTooComplex | StopReason::ParserTooComplex => "it is too complex to follow".to_owned(),
        StopReason::NoExtensionBias => "no text can match it".to_owned(),
        _ => said,
    })
}
