//! When words are spoken. After `add_word_timestamps` in `timing.py` of openai/whisper.

mod align;
mod dtw;
#[cfg(test)]
mod goldens;
mod split;
mod tokens;

pub(crate) use split::is_punctuation;
pub(crate) use tokens::token_times;

use align::{Alignment, align};
use split::{Piece, merge_punctuation, split};

use crate::error::SpeechError;
use crate::network::AudioId;
use crate::session::Session;
use crate::time::{FRAMES_PER_POSITION, hundredths, seconds};
use crate::transcribe::Draft;
use crate::transcript::Word;
use crate::vocabulary::{SpecialTokens, Vocabulary};

/// A word that stands alone between sentences.
const SENTENCE_ENDS: &str = ".。!！?？";
/// Seconds; a median word is not taken for longer.
const MAX_MEDIAN: f64 = 0.7;

/// A decoded window whose words are to be timed.
pub(crate) struct Spoken<'a> {
    pub vocabulary: &'a dyn Vocabulary,
    pub tokens: &'a SpecialTokens,
    /// ISO code.
    pub language: &'a str,
    /// That of the window, without `<|notimestamps|>`.
    pub start_sequence: &'a [u32],
    pub audio: AudioId,
    /// Frame at which the window begins.
    pub seek: usize,
    /// Frames of content.
    pub frames: usize,
}

/// A word with times in seconds of the window.
#[derive(Debug, Clone, PartialEq)]
struct Timing {
    piece: Piece,
    start: f64,
    end: f64,
    probability: f32,
}

impl AsMut<Piece> for Timing {
    fn as_mut(&mut self) -> &mut Piece {
        &mut self.piece
    }
}

impl AsRef<Piece> for Timing {
    fn as_ref(&self) -> &Piece {
        &self.piece
    }
}

/// Gives the segments of a window their words, and ends and beginnings that fit these. `last_speech`: seconds of the
/// recording at which the speech before the window ended.
pub(crate) fn add_words(
    session: &mut Session<'_>,
    spoken: &Spoken<'_>,
    drafts: &mut [Draft],
    last_speech: f64,
) -> Result<(), SpeechError> {
    let is_text = |token: &u32| *token < spoken.tokens.end_of_text;
    let texts: Vec<Vec<u32>> =
        drafts.iter().map(|draft| draft.tokens.iter().copied().filter(is_text).collect()).collect();
    let text = texts.concat();
    let (sequence, audio, frames) = (spoken.start_sequence, spoken.audio, spoken.frames);
    let Some(alignment) = align(session, spoken.tokens, sequence, &text, audio, frames)? else {
        return Ok(());
    };
    // No word reaches from one segment into the next, as it may in the original: each segment with text has words then.
    let pieces: Vec<Vec<Piece>> = texts.iter().map(|text| split(spoken.vocabulary, spoken.language, text)).collect();
    let counts: Vec<usize> = pieces.iter().map(Vec::len).collect();
    let mut timings = timings(pieces.concat(), &alignment);
    let usual = Usual::of(&timings);
    clamp_at_sentence_ends(&mut timings, usual);
    place(&mut timings, &counts, drafts, seconds(spoken.seek), usual, last_speech);
    Ok(())
}

fn timings(pieces: Vec<Piece>, alignment: &Alignment) -> Vec<Timing> {
    let mut first = 0;
    let begin = |token: usize| alignment.begins.get(token).map_or(0.0, |&at| seconds(at * FRAMES_PER_POSITION));
    let timing = |piece: Piece| {
        let tokens = first..first + piece.tokens;
        first = tokens.end;
        let sum: f64 = alignment.probabilities[tokens.clone()].iter().map(|&p| f64::from(p)).sum();
        let probability = (sum / tokens.len().max(1) as f64) as f32;
        Timing { start: begin(tokens.start), end: begin(tokens.end), piece, probability }
    };
    pieces.into_iter().map(timing).collect()
}

/// How long words of a window are.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usual {
    median: f64,
    most: f64,
}

impl Usual {
    fn of(timings: &[Timing]) -> Self {
        let mut lengths: Vec<f64> =
            timings.iter().map(|timing| timing.end - timing.start).filter(|&length| length != 0.0).collect();
        lengths.sort_by(f64::total_cmp);
        let middle = lengths.len() / 2;
        let median = match lengths.len() {
            0 => 0.0,
            n if n % 2 == 1 => lengths[middle],
            _ => (lengths[middle - 1] + lengths[middle]) / 2.0,
        };
        let median = median.min(MAX_MEDIAN);
        Self { median, most: median * 2.0 }
    }
}

/// A word beside the end of a sentence may hold the pause: it gets twice the median at most.
fn clamp_at_sentence_ends(timings: &mut [Timing], usual: Usual) {
    for i in 1..timings.len() {
        if timings[i].end - timings[i].start > usual.most {
            if SENTENCE_ENDS.contains(&timings[i].piece.text) {
                timings[i].end = timings[i].start + usual.most;
            } else if SENTENCE_ENDS.contains(&timings[i - 1].piece.text) {
                timings[i].start = timings[i].end - usual.most;
            }
        }
    }
}

/// Gives each segment as many words as `counts` says, punctuation merged.
fn place(
    timings: &mut [Timing],
    counts: &[usize],
    drafts: &mut [Draft],
    offset: f64,
    usual: Usual,
    mut last_speech: f64,
) {
    let mut rest = timings;
    for (draft, &count) in drafts.iter_mut().zip(counts) {
        let (own, others) = rest.split_at_mut(count);
        rest = others;
        merge_punctuation(own);
        let words = own.iter().filter(|timing| !timing.piece.text.is_empty()).map(|timing| Word {
            text: timing.piece.text.clone(),
            start: hundredths(offset + timing.start),
            end: hundredths(offset + timing.end),
            probability: timing.probability,
        });
        draft.words = words.collect();
        if !draft.words.is_empty() {
            clamp_after_pause(&mut draft.words, usual, last_speech);
            fit(draft, usual);
            last_speech = draft.end;
        }
    }
}

/// The first words after a pause may hold the pause.
fn clamp_after_pause(words: &mut [Word], usual: Usual, last_speech: f64) {
    let (first, second) = match words {
        [first, second, ..] => (first, Some(second)),
        [first] => (first, None),
        [] => return,
    };
    let long_pair = second.as_ref().is_some_and(|second| second.end - first.start > usual.most * 2.0);
    let long = first.end - first.start > usual.most || long_pair;
    if first.end - last_speech > usual.median * 4.0 && long {
        if let Some(second) = second.filter(|second| second.end - second.start > usual.most) {
            let boundary = (second.end / 2.0).max(second.end - usual.most);
            (first.end, second.start) = (boundary, boundary);
        }
        first.start = (first.end - usual.most).max(0.0);
    }
}

/// The segment begins and ends with its words, unless one of these is too long.
fn fit(draft: &mut Draft, usual: Usual) {
    if let Some(first) = draft.words.first_mut() {
        if draft.start < first.end && draft.start - 0.5 > first.start {
            first.start = (first.end - usual.median).min(draft.start).max(0.0);
        } else {
            draft.start = first.start;
        }
    }
    if let Some(last) = draft.words.last_mut() {
        if draft.end > last.start && draft.end + 0.5 < last.end {
            last.end = (last.start + usual.median).max(draft.end);
        } else {
            draft.end = last.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(text: &str, start: f64, end: f64) -> Timing {
        Timing { piece: Piece { text: text.into(), tokens: 1 }, start, end, probability: 0.5 }
    }

    fn word(start: f64, end: f64) -> Word {
        Word { text: " a".into(), start, end, probability: 1.0 }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn the_median_leaves_out_words_without_length() {
        let words = [timing(" a", 0.0, 0.2), timing(" b", 0.2, 0.2), timing(" c", 0.2, 0.6)];
        let usual = Usual::of(&words);
        assert!(near(usual.median, 0.3) && near(usual.most, 0.6), "{usual:?}");
        assert_eq!(Usual::of(&[timing(" a", 1.0, 9.0)]), Usual { median: 0.7, most: 1.4 });
        assert_eq!(Usual::of(&[]), Usual { median: 0.0, most: 0.0 });
    }

    #[test]
    fn pauses_at_sentence_ends_are_cut() {
        let usual = Usual { median: 0.2, most: 0.4 };
        let mut words = [timing(" a", 0.0, 0.2), timing(".", 0.2, 2.2), timing(" b", 2.2, 4.2), timing(" c", 4.2, 6.2)];
        clamp_at_sentence_ends(&mut words, usual);
        assert!(near(words[1].end, 0.6));
        assert!(near(words[2].start, 3.8) && near(words[2].end, 4.2));
        assert!(near(words[3].start, 4.2), "in the middle of a sentence a long word stays");
    }

    #[test]
    fn a_long_first_word_after_a_pause_is_cut() {
        let usual = Usual { median: 0.2, most: 0.4 };
        let mut words = [word(0.0, 3.0), word(3.0, 3.2)];
        clamp_after_pause(&mut words, usual, 0.0);
        assert!(near(words[0].start, 2.6) && near(words[0].end, 3.0));
        // The second one too long as well: both are moved to its end.
        let mut words = [word(0.0, 1.0), word(1.0, 3.0)];
        clamp_after_pause(&mut words, usual, 0.0);
        assert!(near(words[0].end, 2.6) && near(words[1].start, 2.6) && near(words[0].start, 2.2));
        // Right after speech nothing is cut.
        let mut words = [word(0.0, 0.7)];
        clamp_after_pause(&mut words, usual, 0.0);
        assert!(near(words[0].start, 0.0));
    }

    #[test]
    fn segments_follow_their_words_unless_one_is_too_long() {
        let usual = Usual { median: 0.2, most: 0.4 };
        let mut draft = Draft { start: 1.0, end: 5.0, words: vec![word(1.2, 1.4), word(1.4, 4.8)], ..Draft::default() };
        fit(&mut draft, usual);
        assert!(near(draft.start, 1.2) && near(draft.end, 4.8));
        // The first word begins long before its segment, the last ends long after.
        let mut draft = Draft { start: 1.0, end: 2.0, words: vec![word(0.2, 1.1), word(1.1, 3.0)], ..Draft::default() };
        fit(&mut draft, usual);
        assert!(near(draft.start, 1.0) && near(draft.words[0].start, 0.9));
        assert!(near(draft.end, 2.0) && near(draft.words[1].end, 2.0));
    }

    #[test]
    fn words_are_dealt_out_to_their_segments() {
        let mut timings = [
            timing(" a", 0.0, 0.2),
            timing(" b", 0.2, 0.2),
            timing(",", 0.2, 0.4),
            timing(".", 0.4, 0.4),
            timing(" c", 0.4, 0.6),
        ];
        let mut drafts = [Draft { end: 1.0, ..Draft::default() }, Draft { start: 1.0, end: 2.0, ..Draft::default() }];
        place(&mut timings, &[3, 2], &mut drafts, 10.0, Usual { median: 0.2, most: 0.4 }, 10.0);
        let texts: Vec<Vec<&str>> =
            drafts.iter().map(|draft| draft.words.iter().map(|word| word.text.as_str()).collect()).collect();
        assert_eq!(texts, [vec![" a", " b,"], vec![".", " c"]]);
        assert_eq!(drafts[1].words[1].start, 10.4);
    }
}
