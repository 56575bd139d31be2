//! Which tokens may come next, and how likely they are among those. After `decoding.py` of openai/whisper
//! (SuppressBlank, SuppressTokens, ApplyTimestampRules), whose filters set logits to negative infinity; here ranges say
//! what is left, and only single ids are written.

use std::ops::Range;

use super::softmax::{self, largest, sum_exp};
use crate::error::SpeechError;
use crate::network::{NetworkError, NetworkShape};
use crate::vocabulary::{SpecialTokens, Vocabulary};
use crate::{Rules, TranscribeOptions};

/// The first timestamp of a window is at most 1.0 s.
const MAX_INITIAL_TIMESTAMP: u32 = 50;

/// The rules of one transcription.
#[derive(Debug, Clone)]
pub(crate) struct LogitRules {
    /// Never.
    suppressed: Vec<u32>,
    /// Not as the first token.
    begin_suppressed: Vec<u32>,
    end_of_text: u32,
    no_timestamps: u32,
    /// The timestamps of a window: `<|0.00|>` and those after it.
    stamps: Range<u32>,
    /// Ids below this may be chosen where no timestamps are written. The original does not forbid them there; a window
    /// would be more than one segment.
    without_timestamps: u32,
    /// Whether timestamps are written.
    timestamps: bool,
}

/// What of a row of logits may be chosen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Allowed {
    /// Text (with special tokens) and timestamps: ids of the row. Single ids within are negative infinity.
    pub ranges: [Range<usize>; 2],
    /// The likeliest token, of equals the first.
    pub best: u32,
    pub best_logit: f32,
    /// ln Σ e^logit over what is allowed.
    pub log_sum: f32,
}

impl Allowed {
    /// ln of the probability among what is allowed.
    pub fn logprob(&self, logit: f32) -> f32 {
        logit - self.log_sum
    }

    /// The token at `point` (0..1) of the distribution at a temperature above zero.
    pub fn draw(&self, logits: &[f32], temperature: f32, point: f64) -> u32 {
        softmax::draw(logits, self.ranges.clone(), self.best_logit, 1.0 / temperature, point)
            .map_or(self.best, |token| token as u32)
    }

    /// The `count` likeliest tokens with their logits, the likeliest first.
    pub fn top(&self, logits: &[f32], count: usize, best: &mut Vec<(u32, f32)>) {
        best.clear();
        for range in &self.ranges {
            softmax::top(logits, range.clone(), count, best);
        }
    }
}

impl LogitRules {
    pub fn new(
        shape: &NetworkShape,
        tokens: &SpecialTokens,
        vocabulary: &dyn Vocabulary,
        options: &TranscribeOptions,
    ) -> Self {
        let vocab_size = shape.vocab_size as u32;
        let mut suppressed = tokens.suppressed.clone();
        if options.rules == Rules::Openai {
            suppressed.extend([tokens.start_of_transcript, tokens.start_of_previous, tokens.no_speech]);
            suppressed.extend([tokens.start_of_lm, tokens.transcribe, tokens.translate].into_iter().flatten());
            // The original leaves these: one of them between two timestamps would open the way for text there.
            suppressed.extend(tokens.languages.iter().map(|(_, token)| token));
        }
        let mut begin_suppressed = tokens.begin_suppressed.clone();
        if begin_suppressed.is_empty() && options.rules == Rules::Openai {
            begin_suppressed = vocabulary.encode(" ");
            begin_suppressed.push(tokens.end_of_text);
        }
        for list in [&mut suppressed, &mut begin_suppressed] {
            list.retain(|&token| token < vocab_size);
            list.sort_unstable();
            list.dedup();
        }
        // One for each position of an encoded window, and its end.
        // What a padded vocabulary has behind them is no token.
        let end = tokens.first_timestamp.saturating_add(shape.audio_context as u32 + 1).min(vocab_size);
        Self {
            suppressed,
            begin_suppressed,
            end_of_text: tokens.end_of_text,
            no_timestamps: tokens.no_timestamps,
            stamps: tokens.first_timestamp..end,
            without_timestamps: if options.rules == Rules::Openai { tokens.first_timestamp } else { end },
            timestamps: options.timestamps,
        }
    }

    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// What may follow `sampled`, the tokens after the prompt. Writes negative infinity over suppressed logits;
    /// applying it twice to a row changes nothing.
    ///
    /// # Errors
    /// The row holds no number that could be chosen.
    pub fn apply(&self, sampled: &[u32], logits: &mut [f32]) -> Result<Allowed, SpeechError> {
        for &token in &self.suppressed {
            logits[token as usize] = f32::NEG_INFINITY;
        }
        if sampled.is_empty() {
            for &token in &self.begin_suppressed {
                logits[token as usize] = f32::NEG_INFINITY;
            }
        }
        let allowed = if self.timestamps { self.with_timestamps(sampled, logits) } else { self.any(logits) };
        allowed
            .filter(|allowed| allowed.log_sum.is_finite())
            .ok_or_else(|| NetworkError("the network gave no finite logits".to_owned()).into())
    }

    fn any(&self, logits: &[f32]) -> Option<Allowed> {
        let all = 0..self.without_timestamps as usize;
        let (best, best_logit) = largest(logits, all.clone())?;
        let log_sum = best_logit + sum_exp(&logits[all.clone()], best_logit, 1.0).ln() as f32;
        Some(Allowed { ranges: [all.clone(), all.end..all.end], best: best as u32, best_logit, log_sum })
    }

    fn with_timestamps(&self, sampled: &[u32], logits: &mut [f32]) -> Option<Allowed> {
        if let Some(logit) = logits.get_mut(self.no_timestamps as usize) {
            *logit = f32::NEG_INFINITY;
        }
        let [text, stamps] = self.ranges(sampled);
        let best_text = largest(logits, text.clone());
        let best_stamp = largest(logits, stamps.clone());
        let shift = [best_text, best_stamp].into_iter().flatten().map(|(_, logit)| logit).fold(f32::MIN, f32::max);
        let stamp_sum = sum_exp(&logits[stamps.clone()], shift, 1.0);
        // As likely as all timestamps together are, so likely must one text token be at least.
        let forced = best_stamp.is_some() && best_text.is_none_or(|(_, logit)| shift + stamp_sum.ln() as f32 > logit);
        let text = if forced { text.end..text.end } else { text };
        let (best, best_logit) = match (best_text.filter(|_| !forced), best_stamp) {
            (Some(text), Some(stamp)) => {
                if stamp.1 > text.1 {
                    stamp
                } else {
                    text
                }
            }
            (one, other) => one.or(other)?,
        };
        let sum = stamp_sum + if text.is_empty() { 0.0 } else { sum_exp(&logits[text.clone()], shift, 1.0) };
        let log_sum = shift + sum.ln() as f32;
        Some(Allowed { ranges: [text, stamps], best: best as u32, best_logit, log_sum })
    }

    /// Text and timestamps that the pairing of timestamps leaves.
    fn ranges(&self, sampled: &[u32]) -> [Range<usize>; 2] {
        let is_stamp = |token: &u32| *token >= self.stamps.start;
        let (mut text, mut stamps) = (0..self.stamps.start, self.stamps.clone());
        let Some(last) = sampled.last() else {
            text.start = text.end;
            stamps.end = stamps.end.min(stamps.start + MAX_INITIAL_TIMESTAMP + 1);
            return [to_usize(text), to_usize(stamps)];
        };
        let after_stamp = is_stamp(last);
        // The first timestamp opens a segment, as does the second of two.
        let opened = after_stamp && sampled.len().checked_sub(2).is_none_or(|at| is_stamp(&sampled[at]));
        if let Some(&stamp) = sampled.iter().rev().find(|&token| is_stamp(token)) {
            // The next segment may begin where this one ends; a segment ends after it began.
            let least = if after_stamp && !opened { stamp } else { stamp + 1 };
            stamps.start = least.clamp(stamps.start, stamps.end);
        }
        if opened {
            stamps.start = stamps.end;
        } else if after_stamp {
            text.start = self.end_of_text.min(text.end);
        }
        [to_usize(text), to_usize(stamps)]
    }
}

fn to_usize(range: Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}
