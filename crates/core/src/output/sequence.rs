//! The output side of one request: detokenizer, stop strings, log-probabilities, counts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tsserve_engine::{Timings, TokenId, TokenOutput};
use tsserve_text::{Detokenizer, Piece, SpecialTokens, StopMatcher, StopOutput, Tokenizer};

use super::{OutputKind, Usage};
use crate::error::CoreError;
use crate::generate::GenerateRequest;

/// A token with what was asked about it.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenInfo {
    pub id: TokenId,
    /// U+FFFD where the token is part of a character.
    pub text: String,
    pub bytes: Vec<u8>,
    /// Natural logarithm; `None` for the first prompt token.
    pub logprob: Option<f32>,
    /// Best first.
    pub top: Vec<Alternative>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    pub id: TokenId,
    pub text: String,
    pub bytes: Vec<u8>,
    pub logprob: f32,
}

/// The tokens that end answers.
#[derive(Clone, Copy)]
pub(crate) struct AnswerEnds<'a> {
    /// The model's, also where the request ignores them.
    pub own: &'a Arc<[TokenId]>,
    /// Those that end this answer.
    pub of_request: &'a Arc<[TokenId]>,
}

/// What the output thread keeps of one request.
pub(crate) struct Registration {
    tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    stops: Option<StopMatcher>,
    prompt: Arc<[TokenId]>,
    /// Prompt tokens whose log-probabilities were reported so far; the first has none.
    prompt_reported: usize,
    want_logprobs: bool,
    want_prompt_logprobs: bool,
    end_tokens: Arc<[TokenId]>,
    usage: Usage,
    registered: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    /// Bytes of text that went into the stop matcher, and that came out.
    text_in: usize,
    text_out: usize,
    /// Tokens whose text is still held back, with where it begins and ends in the text that went in.
    held: VecDeque<HeldToken>,
}

struct HeldToken {
    info: TokenInfo,
    start: usize,
    end: usize,
}

/// What a step's tokens gave.
pub(super) struct Delta {
    pub kind: OutputKind,
    pub stopped_by: Option<String>,
}

impl Registration {
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        ends: AnswerEnds<'_>,
        request: &GenerateRequest,
        prompt: Arc<[TokenId]>,
    ) -> Result<Self, CoreError> {
        let stops = if request.stop.is_empty() { None } else { Some(StopMatcher::new(request.stop.iter().cloned())?) };
        Ok(Self {
            tokenizer: tokenizer.clone(),
            // What ends an answer is a mark even where the vocabulary calls it an ordinary token.
            detokenizer: Detokenizer::continuing(tokenizer, SpecialTokens::Mark)
                .marking(ends.own.iter().chain(ends.of_request.iter()).copied()),
            stops,
            prompt,
            prompt_reported: 0,
            want_logprobs: request.logprobs.is_some(),
            want_prompt_logprobs: request.prompt_logprobs.is_some(),
            end_tokens: Arc::clone(ends.of_request),
            usage: Usage::default(),
            registered: Instant::now(),
            started: None,
            first_token: None,
            text_in: 0,
            text_out: 0,
            held: VecDeque::new(),
        })
    }

    pub(super) fn start(&mut self, prompt_tokens: usize, cached_tokens: usize) {
        self.started = Some(Instant::now());
        self.usage.prompt_tokens = prompt_tokens;
        self.usage.cached_tokens = cached_tokens;
    }

    /// The first prompt token, which has no log-probability, where the prompt's were asked for.
    pub(super) fn first_prompt_token(&mut self) -> Option<TokenInfo> {
        if !self.want_prompt_logprobs || self.prompt_reported > 0 {
            return None;
        }
        self.prompt_reported = 1;
        let token = *self.prompt.first()?;
        Some(self.info(TokenOutput { token, logprob: None, top: Vec::new() }))
    }

    pub(super) fn prompt_tokens(&mut self, tokens: Vec<TokenOutput>) -> Vec<TokenInfo> {
        self.prompt_reported += tokens.len();
        tokens.into_iter().map(|token| self.info(token)).collect()
    }

    /// Takes the step's tokens; what of their text is certain comes out.
    pub(super) fn push(&mut self, tokens: Vec<TokenOutput>) -> Delta {
        if self.first_token.is_none() {
            self.first_token = Some(Instant::now());
        }
        let mut pieces = Vec::new();
        let mut stopped_by = None;
        let mut n_tokens = 0;
        for token in tokens {
            n_tokens += 1;
            self.usage.completion_tokens += 1;
            let id = token.token;
            let start = self.text_in;
            let raw = self.detokenizer.push(id);
            let is_end = self.end_tokens.contains(&id);
            for piece in raw {
                self.text_in += piece_len(&piece);
                stopped_by = self.through_stops(piece, &mut pieces);
                if stopped_by.is_some() {
                    break;
                }
            }
            // As in OpenAI's API, the token that ends the answer is not one of its log-probabilities.
            if self.want_logprobs && !is_end {
                let info = self.info(token);
                self.held.push_back(HeldToken { info, start, end: self.text_in });
            }
            if stopped_by.is_some() {
                break;
            }
        }
        let tokens = self.release(stopped_by.is_some());
        Delta { kind: OutputKind::Delta { pieces: merge(pieces), tokens, n_tokens }, stopped_by }
    }

    /// What was held back until the end: the rest of the text, and whether it holds a stop string after all.
    pub(super) fn finish(&mut self) -> (Option<OutputKind>, Option<String>) {
        let mut pieces = Vec::new();
        let mut stopped_by = None;
        for piece in self.detokenizer.finish() {
            self.text_in += piece_len(&piece);
            stopped_by = self.through_stops(piece, &mut pieces);
        }
        if stopped_by.is_none()
            && let Some(stops) = &mut self.stops
        {
            let rest = stops.finish();
            stopped_by = self.take_stop_output(rest, &mut pieces);
        }
        let tokens = self.release(stopped_by.is_some()).filter(|tokens| !tokens.is_empty());
        let pieces = merge(pieces);
        let kind =
            (!pieces.is_empty() || tokens.is_some()).then_some(OutputKind::Delta { pieces, tokens, n_tokens: 0 });
        (kind, stopped_by)
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Durations up to now, for an end that the engine does not know of.
    pub(super) fn timings_now(&self) -> Timings {
        let started = self.started.unwrap_or(self.registered);
        let first = self.first_token.unwrap_or(started);
        Timings {
            queued: started.duration_since(self.registered).as_secs_f64(),
            prefill: first.duration_since(started).as_secs_f64(),
            decode: first.elapsed().as_secs_f64(),
        }
    }

    /// Sends a piece through the stop strings. Returns the one that was met.
    fn through_stops(&mut self, piece: Piece, out: &mut Vec<Piece>) -> Option<String> {
        let Some(stops) = &mut self.stops else {
            self.text_out += piece_len(&piece);
            out.push(piece);
            return None;
        };
        match piece {
            Piece::Text(text) => {
                let output = stops.push_text(&text);
                self.take_stop_output(output, out)
            }
            Piece::Special { id, text } => {
                let output = stops.push_special(&text);
                let stopped_by = self.take_stop_output(output, out);
                if stopped_by.is_none() {
                    self.text_out += text.len();
                    out.push(Piece::Special { id, text });
                }
                stopped_by
            }
        }
    }

    fn take_stop_output(&mut self, output: StopOutput, out: &mut Vec<Piece>) -> Option<String> {
        self.text_out += output.text.len();
        out.push(Piece::Text(output.text));
        let stops = self.stops.as_ref()?;
        stops.strings().get(output.matched?).cloned()
    }

    /// Tokens whose text is out. At a stop string: also the one whose text it cut, and none after it.
    fn release(&mut self, stopped: bool) -> Option<Vec<TokenInfo>> {
        if !self.want_logprobs {
            return None;
        }
        let mut out = Vec::new();
        while let Some(front) = self.held.front() {
            let whole = front.end <= self.text_out;
            let cut_by_stop = stopped && front.start < self.text_out;
            if !whole && !cut_by_stop {
                break;
            }
            if let Some(token) = self.held.pop_front() {
                out.push(token.info);
            }
        }
        if stopped {
            self.held.clear();
        }
        Some(out)
    }

    fn info(&self, token: TokenOutput) -> TokenInfo {
        let bytes = |id| self.tokenizer.token_bytes(id).unwrap_or_default().to_vec();
        TokenInfo {
            id: token.token,
            text: self.tokenizer.token_text(token.token),
            bytes: bytes(token.token),
            logprob: token.logprob,
            top: token
                .top
                .into_iter()
                .map(|(id, logprob)| Alternative { id, text: self.tokenizer.token_text(id), bytes: bytes(id), logprob })
                .collect(),
        }
    }
}

fn piece_len(piece: &Piece) -> usize {
    match piece {
        Piece::Text(text) | Piece::Special { text, .. } => text.len(),
    }
}

/// Neighbouring runs of text become one, empty ones go.
fn merge(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match (out.last_mut(), piece) {
            (_, Piece::Text(text)) if text.is_empty() => {}
            (Some(Piece::Text(last)), Piece::Text(text)) => last.push_str(&text),
            (_, piece) => out.push(piece),
        }
    }
    out
}
