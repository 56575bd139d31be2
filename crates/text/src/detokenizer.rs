//! Token ids to text as they come, never half a character.

use crate::Tokenizer;
use crate::token_table::{DecodeRule, SPACE_MARK};

/// Turns one sequence's token ids into text, one id at a time.
///
/// The pieces of a sequence add up to what decoding it at once gives. One difference is on purpose: where a run of
/// byte tokens (`<0xNN>`) holds whole characters and then broken ones, transformers turns the whole run into U+FFFD;
/// here the whole characters stay, because they went out when they were complete.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    special: SpecialTokens,
    /// Further ids that come out as marks, sorted.
    marks: Vec<u32>,
    /// Bytes of a character that is not complete.
    pending: Vec<u8>,
    /// Whether a token has been decoded.
    started: bool,
    /// How many leading characters may still be dropped at the start of the text.
    strip: usize,
    window: Window,
}

/// What becomes of special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialTokens {
    /// They come out as [`Piece::Special`] and cut the text: no character reaches across one.
    #[default]
    Mark,
    /// They vanish before decoding, as with `skip_special_tokens` in transformers.
    Skip,
}

/// A stretch of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Whole characters.
    Text(String),
    /// A special token, or one that was declared a mark: known by its id, not by its looks.
    Special { id: u32, text: String },
}

/// What one token gave: nothing, text, a mark, or text and then a mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DetokOutput {
    pub pieces: Vec<Piece>,
}

impl DetokOutput {
    fn text(text: String) -> Self {
        Self { pieces: if text.is_empty() { Vec::new() } else { vec![Piece::Text(text)] } }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

impl IntoIterator for DetokOutput {
    type Item = Piece;
    type IntoIter = std::vec::IntoIter<Piece>;

    fn into_iter(self) -> Self::IntoIter {
        self.pieces.into_iter()
    }
}

impl Detokenizer {
    /// For a text of its own: SentencePiece decoders drop the space that encoding put in front.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer, special: SpecialTokens) -> Self {
        let strip = match tokenizer.rule() {
            DecodeRule::ByteFallback { strip: Some((_, count)), .. } => *count,
            _ => 0,
        };
        Self {
            tokenizer: tokenizer.clone(),
            special,
            marks: Vec::new(),
            pending: Vec::new(),
            started: false,
            strip,
            window: Window::default(),
        }
    }

    /// For tokens that continue a text, a completion's: a leading space belongs to it and stays.
    #[must_use]
    pub fn continuing(tokenizer: &Tokenizer, special: SpecialTokens) -> Self {
        Self { started: true, strip: 0, ..Self::new(tokenizer, special) }
    }

    /// Declares further tokens to be marks that are not special in the vocabulary (`<think>`, `<tool_call>`).
    #[must_use]
    pub fn marking(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        self.marks = ids.into_iter().collect();
        self.marks.sort_unstable();
        self
    }

    /// Takes the next id. An id that names nothing gives nothing.
    pub fn push(&mut self, id: u32) -> DetokOutput {
        let special = self.tokenizer.is_special(id);
        if special && self.special == SpecialTokens::Skip {
            return DetokOutput::default();
        }
        if special || self.marks.binary_search(&id).is_ok() {
            let mut out = DetokOutput::text(self.flush());
            self.started = true;
            self.strip = 0;
            out.pieces.push(Piece::Special { id, text: self.tokenizer.token_text(id) });
            return out;
        }
        let tokenizer = self.tokenizer.clone();
        let Some(bytes) = tokenizer.token_bytes(id) else {
            return DetokOutput::default();
        };
        let mut text = String::new();
        match tokenizer.rule() {
            DecodeRule::ByteLevel => take_characters(&mut self.pending, bytes, Broken::AsOne, &mut text),
            DecodeRule::ByteFallback { strip, .. } => {
                if tokenizer.table().is_byte(id) {
                    take_characters(&mut self.pending, bytes, Broken::EachByte, &mut text);
                } else {
                    end_characters(&mut self.pending, Broken::EachByte, &mut text);
                    // Not a byte token, so the bytes came from a string.
                    text.push_str(&String::from_utf8_lossy(bytes));
                }
                if let Some((content, _)) = strip {
                    self.strip_start(*content, &mut text);
                }
            }
            DecodeRule::Metaspace { mark, strip_first } => {
                if *strip_first && !self.started {
                    text = tokenizer.raw_token(id).unwrap_or_default().replace(*mark, "");
                } else {
                    text.push_str(&String::from_utf8_lossy(bytes));
                }
            }
            DecodeRule::Windowed => text = self.window.push(&tokenizer, id),
        }
        self.started = true;
        DetokOutput::text(text)
    }

    /// Ends the text: an incomplete character becomes U+FFFD. The detokenizer can go on after it as after a cut.
    pub fn finish(&mut self) -> DetokOutput {
        DetokOutput::text(self.flush())
    }

    fn flush(&mut self) -> String {
        let mut text = String::new();
        match self.tokenizer.rule() {
            DecodeRule::ByteLevel => end_characters(&mut self.pending, Broken::AsOne, &mut text),
            DecodeRule::ByteFallback { .. } => end_characters(&mut self.pending, Broken::EachByte, &mut text),
            DecodeRule::Metaspace { .. } => {}
            DecodeRule::Windowed => {
                let tokenizer = self.tokenizer.clone();
                text = self.window.finish(&tokenizer);
            }
        }
        text
    }

    fn strip_start(&mut self, content: char, text: &mut String) {
        while self.strip > 0 && !text.is_empty() {
            if text.starts_with(content) {
                text.drain(..content.len_utf8());
                self.strip -= 1;
            } else {
                self.strip = 0;
            }
        }
    }
}

/// How bytes that are no character show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// One U+FFFD for the longest beginning of a character, as `String::from_utf8_lossy`.
    AsOne,
    /// One U+FFFD per byte.
    EachByte,
}

impl Broken {
    fn write(self, bytes: usize, out: &mut String) {
        let count = if self == Self::AsOne { bytes.min(1) } else { bytes };
        out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
    }
}

/// Appends `bytes` to `pending` and moves what is decided, characters or not, to `out`.
fn take_characters(pending: &mut Vec<u8>, bytes: &[u8], broken: Broken, out: &mut String) {
    if pending.is_empty()
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        out.push_str(text);
        return;
    }
    pending.extend_from_slice(bytes);
    let mut done = 0;
    for chunk in pending.utf8_chunks() {
        out.push_str(chunk.valid());
        done += chunk.valid().len();
        let invalid = chunk.invalid();
        if !invalid.is_empty() && done + invalid.len() == pending.len() && is_incomplete(invalid) {
            break;
        }
        broken.write(invalid.len(), out);
        done += invalid.len();
    }
    pending.drain(..done);
}

fn end_characters(pending: &mut Vec<u8>, broken: Broken, out: &mut String) {
    broken.write(pending.len(), out);
    pending.clear();
}

/// Whether further bytes can make a character of these.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Streaming for decoders of unknown nature, as `step_decode_stream` of the tokenizers crate: decode the tokens since
/// the last output together with those before them, and take what is new.
#[derive(Debug, Default)]
struct Window {
    ids: Vec<u32>,
    /// `ids[..prefix]` have been put out.
    prefix: usize,
    /// The text of `ids[..prefix]`.
    prefix_text: String,
}

impl Window {
    /// So many tokens without a whole character are broken text; it goes out as it is.
    const MAX_HELD: usize = 16;

    fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        self.ids.push(id);
        let text = decode(tokenizer, &self.ids);
        let held = self.ids.len() - self.prefix;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && held < Self::MAX_HELD {
            return String::new();
        }
        self.advance(tokenizer, &text)
    }

    fn advance(&mut self, tokenizer: &Tokenizer, text: &str) -> String {
        let new = new_part(&self.prefix_text, text);
        if new.is_empty() {
            return new;
        }
        self.ids.drain(..self.prefix);
        self.prefix = self.ids.len();
        self.prefix_text = decode(tokenizer, &self.ids);
        new
    }

    fn finish(&mut self, tokenizer: &Tokenizer) -> String {
        let new = new_part(&self.prefix_text, &decode(tokenizer, &self.ids));
        *self = Self::default();
        new
    }
}

/// What `text` has beyond `prefix`. A decoder that changes its mind about what went out loses the change.
fn new_part(prefix: &str, text: &str) -> String {
    if let Some(new) = text.strip_prefix(prefix) {
        return new.to_owned();
    }
    let same = prefix.chars().zip(text.chars()).take_while(|(a, b)| a == b).count();
    let skip = prefix.chars().count().max(same);
    text.chars().skip(skip).collect()
}

/// A decoder that fails on a few tokens costs their looks, not the answer.
fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    tokenizer.decode(ids, false).unwrap_or_else(|_| {
        let text = ids.iter().filter_map(|&id| tokenizer.token_bytes(id)).map(String::from_utf8_lossy);
        text.collect::<String>().replace(SPACE_MARK, " ")
    })
}
