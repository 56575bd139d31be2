//! What becomes of a decoded window: its segments, with words if they are wanted, and where the next window begins.

use std::ops::Range;

use super::cut::{Cut, Draft, cut};
use super::hallucination::{Surroundings, Verdict, judge};
use super::{Run, TranscriptEvent};
use crate::decode::Decoded;
use crate::error::SpeechError;
use crate::network::AudioId;
use crate::time::{nearest_frame, seconds};
use crate::transcript::{Segment, TokenLogprob};
use crate::words::{Spoken, add_words};

/// Windows in a row that go on by less than this share of a window are taken for a loop.
const CRAWL: usize = 30;
const MAX_CRAWLING: usize = 3;

/// A window that was understood.
pub(super) struct Outcome {
    /// Those without text or length are gone.
    pub drafts: Vec<Draft>,
    /// Frame at which to go on; after the window's beginning.
    pub next: usize,
    /// Nothing of it counts: silence, or what was made up in it.
    pub skipped: bool,
}

/// Where a run of windows stands.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Progress {
    /// Seconds at which speech was last heard.
    pub last_speech: f64,
    crawling: usize,
}

impl Run<'_> {
    /// Cuts a window into segments. `end`: the last frame that the windows of this run reach.
    pub fn finish(
        &mut self,
        decoded: &Decoded,
        audio: AudioId,
        window: Range<usize>,
        end: usize,
        progress: &mut Progress,
    ) -> Result<Outcome, SpeechError> {
        if self.decoder.is_silence(decoded) || self.hears_noise(decoded, &window)? {
            progress.crawling = 0;
            return Ok(Outcome { drafts: Vec::new(), next: window.end, skipped: true });
        }
        let first = self.decoder.tokens.first_timestamp;
        let cut = cut(&decoded.tokens, &decoded.logprobs, first, window.start, window.len());
        let cut_next = window.start + cut.advance;
        let Outcome { mut drafts, mut next, skipped } = if self.options().word_timestamps {
            self.finish_with_words(cut, audio, &window, &mut progress.last_speech)?
        } else {
            Outcome { drafts: cut.drafts, next: cut_next, skipped: false }
        };
        drafts.retain(|draft| draft.start != draft.end && !self.text(&draft.tokens).trim().is_empty());
        drafts.iter_mut().for_each(|draft| clip(draft, seconds(window.end)));
        progress.crawling = if next < window.start + self.window_frames() / CRAWL { progress.crawling + 1 } else { 0 };
        if next <= window.start || progress.crawling > MAX_CRAWLING {
            next = window.end;
            progress.crawling = 0;
        }
        Ok(Outcome { drafts, next: next.min(end), skipped })
    }

    /// Whether the network doubts that somebody speaks, and nothing in the window is as loud as speech. Not in the
    /// original, which keeps what the network is sure of: in noise and silence it is sure of what it made up.
    fn hears_noise(&mut self, decoded: &Decoded, window: &Range<usize>) -> Result<bool, SpeechError> {
        Ok(self.decoder.is_quiet(decoded) && !self.speech()?.touch(window))
    }

    fn finish_with_words(
        &mut self,
        cut: Cut,
        audio: AudioId,
        window: &Range<usize>,
        last_speech: &mut f64,
    ) -> Result<Outcome, SpeechError> {
        let Cut { mut drafts, advance, closed } = cut;
        let mut next = window.start + advance;
        let spoken = Spoken {
            vocabulary: self.decoder.vocabulary,
            tokens: self.decoder.tokens,
            language: &self.language,
            start_sequence: &self.start_sequence,
            audio,
            seek: window.start,
            frames: window.len(),
        };
        add_words(&mut self.session, &spoken, &mut drafts, *last_speech)?;
        let window_start = seconds(window.start);
        // What follows the last word is heard again, unless the window is done.
        let last_word = end_of(&drafts).filter(|&end| !closed && end > window_start);
        if let Some(end) = last_word {
            next = nearest_frame(end);
        }
        if let Some(threshold) = self.options().hallucination_silence_threshold.map(f64::from) {
            let window_end = seconds(window.start + self.window_frames());
            if last_word.is_some_and(|end| window_end - end <= threshold) {
                next = window.end;
            }
            let around = Surroundings {
                threshold,
                window_start,
                content_end: seconds(window.end),
                window_end,
                recording_end: seconds(self.n_frames),
                last_speech: *last_speech,
            };
            match judge(&drafts, &around) {
                Verdict::Keep => {}
                Verdict::SkipLeadingSilence(from) => {
                    return Ok(Outcome { drafts: Vec::new(), next: nearest_frame(from), skipped: true });
                }
                Verdict::Drop(index, from) => {
                    drafts.truncate(index);
                    next = nearest_frame(from);
                }
            }
        }
        if let Some(end) = end_of(&drafts) {
            *last_speech = end;
        }
        Ok(Outcome { drafts, next, skipped: false })
    }

    /// Text of tokens of which some are timestamps.
    pub fn text(&self, tokens: &[u32]) -> String {
        let text: Vec<u32> = tokens.iter().copied().filter(|&token| token < self.decoder.tokens.end_of_text).collect();
        self.decoder.vocabulary.decode(&text)
    }

    /// Tells segments of the window that began at `seek`.
    pub fn tell(&mut self, drafts: Vec<Draft>, decoded: &Decoded, seek: usize) {
        for draft in drafts {
            let logprobs = if self.options().logprobs { self.logprobs(&draft) } else { Vec::new() };
            let text = self.text(&draft.tokens);
            let end_of_text = self.decoder.tokens.end_of_text;
            self.text_tokens += draft.tokens.iter().filter(|&&token| token < end_of_text).count();
            let segment = Segment {
                id: self.segments,
                seek,
                start: draft.start,
                end: draft.end,
                text,
                tokens: draft.tokens,
                temperature: decoded.temperature,
                avg_logprob: decoded.avg_logprob,
                compression_ratio: decoded.compression_ratio,
                no_speech_prob: decoded.no_speech_prob,
                words: draft.words,
                logprobs,
            };
            self.segments += 1;
            (self.emit)(TranscriptEvent::Segment(segment));
        }
    }

    fn logprobs(&self, draft: &Draft) -> Vec<TokenLogprob> {
        let tokens = draft.tokens.iter().zip(&draft.logprobs);
        let text = tokens.filter(|&(&token, _)| token < self.decoder.tokens.end_of_text);
        text.map(|(&id, &logprob)| TokenLogprob { id, text: self.decoder.vocabulary.decode(&[id]), logprob }).collect()
    }
}

/// Times within the content: a timestamp may lie in the silence behind it.
fn clip(draft: &mut Draft, content_end: f64) {
    let words = draft.words.iter_mut().flat_map(|word| [&mut word.start, &mut word.end]);
    for time in [&mut draft.start, &mut draft.end].into_iter().chain(words) {
        *time = time.min(content_end);
    }
    draft.end = draft.end.max(draft.start);
}

/// Where the last word ends, or the last segment if there are no words.
fn end_of(drafts: &[Draft]) -> Option<f64> {
    let word = drafts.iter().rev().find_map(|draft| draft.words.last());
    word.map(|word| word.end).or_else(|| drafts.last().map(|draft| draft.end))
}
