//! Segments that were likely made up in silence: their words are very short, very long or improbable. After
//! `transcribe.py` of openai/whisper (`hallucination_silence_threshold`).

use super::cut::Draft;
use crate::transcript::Word;
use crate::words::is_punctuation;

/// What is known of the window around the segments. Seconds of the recording.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    /// Longer silences are skipped.
    pub threshold: f64,
    pub window_start: f64,
    /// Of the content in it.
    pub content_end: f64,
    /// Of the window, silence behind the content included.
    pub window_end: f64,
    pub recording_end: f64,
    /// Where the speech before the window ended.
    pub last_speech: f64,
}

/// What to do about a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Keep,
    /// The first segment is suspicious and silence goes before it: decode again from this second on, keep nothing.
    SkipLeadingSilence(f64),
    /// The segments from this one on are dropped; decode again from this second on.
    Drop(usize, f64),
}

pub(crate) fn judge(drafts: &[Draft], around: &Surroundings) -> Verdict {
    if let Some(first) = spoken(drafts).filter(|first| is_anomaly(first)) {
        let gap = first.start - around.window_start;
        if gap > around.threshold {
            return Verdict::SkipLeadingSilence(around.window_start + gap);
        }
    }
    let mut last_end = around.last_speech;
    for (index, draft) in drafts.iter().enumerate().filter(|(_, draft)| !draft.words.is_empty()) {
        if is_anomaly(draft) {
            let next = spoken(&drafts[index + 1..]);
            let next_start = next.and_then(|next| next.words.first()).map_or(around.content_end, |word| word.start);
            let silence_before = draft.start - last_end > around.threshold
                || draft.start < around.threshold
                || draft.start - around.window_start < 2.0;
            let silence_after = next_start - draft.end > around.threshold
                || next.is_some_and(is_anomaly)
                || around.window_end - draft.end < 2.0;
            if silence_before && silence_after {
                let nearly_over = around.recording_end - draft.end < around.threshold;
                let from = if nearly_over { around.recording_end } else { draft.start.max(around.window_start + 1.0) };
                return Verdict::Drop(index, from);
            }
        }
        last_end = draft.end;
    }
    Verdict::Keep
}

/// The first segment that has words.
fn spoken(drafts: &[Draft]) -> Option<&Draft> {
    drafts.iter().find(|draft| !draft.words.is_empty())
}

fn is_anomaly(draft: &Draft) -> bool {
    let words = || draft.words.iter().filter(|word| !is_punctuation(&word.text)).take(8);
    let score: f64 = words().map(anomaly).sum();
    !draft.words.is_empty() && (score >= 3.0 || score + 0.01 >= words().count() as f64)
}

/// How unlikely a word is.
fn anomaly(word: &Word) -> f64 {
    let duration = word.end - word.start;
    let improbable = if word.probability < 0.15 { 1.0 } else { 0.0 };
    improbable + (0.133 - duration).max(0.0) * 15.0 + (duration - 2.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(start: f64, end: f64, probability: f32) -> Word {
        Word { text: " a".into(), start, end, probability }
    }

    fn draft(words: Vec<Word>) -> Draft {
        Draft { start: words[0].start, end: words[words.len() - 1].end, words, ..Draft::default() }
    }

    fn good(start: f64) -> Draft {
        draft((0..4).map(|i| word(start + 0.3 * f64::from(i), start + 0.3 * f64::from(i + 1), 0.9)).collect())
    }

    fn bad(start: f64) -> Draft {
        draft((0..4).map(|i| word(start + 0.3 * f64::from(i), start + 0.3 * f64::from(i + 1), 0.05)).collect())
    }

    fn around() -> Surroundings {
        Surroundings {
            threshold: 1.0,
            window_start: 60.0,
            content_end: 90.0,
            window_end: 90.0,
            recording_end: 600.0,
            last_speech: 60.0,
        }
    }

    #[test]
    fn scores_are_those_of_the_original() {
        assert_eq!(anomaly(&word(0.0, 0.5, 0.5)), 0.0);
        assert_eq!(anomaly(&word(0.0, 0.5, 0.1)), 1.0);
        assert!((anomaly(&word(0.0, 0.033, 0.5)) - 1.5).abs() < 1e-9);
        assert!((anomaly(&word(0.0, 3.5, 0.5)) - 1.5).abs() < 1e-9);
        assert!(is_anomaly(&bad(0.0)) && !is_anomaly(&good(0.0)) && !is_anomaly(&Draft::default()));
        // Punctuation does not count: a segment of nothing else is one.
        let mut dots = draft(vec![word(0.0, 0.5, 0.9)]);
        dots.words[0].text = "...".into();
        assert!(!is_anomaly(&dots), "'...' is none of the marks");
        dots.words[0].text = ".".into();
        assert!(is_anomaly(&dots));
    }

    #[test]
    fn silence_before_a_doubtful_first_segment_is_skipped() {
        assert_eq!(judge(&[bad(63.0), good(70.0)], &around()), Verdict::SkipLeadingSilence(63.0));
        assert_eq!(judge(&[good(63.0)], &around()), Verdict::Keep);
    }

    #[test]
    fn doubtful_segments_between_silences_are_dropped() {
        let verdict = judge(&[good(60.2), bad(65.0), good(75.0)], &around());
        assert_eq!(verdict, Verdict::Drop(1, 65.0));
        // Speech right before and right behind it: it stays.
        assert_eq!(judge(&[good(62.0), bad(63.2), good(64.4)], &around()), Verdict::Keep);
        // Near the end of the recording nothing is left to decode.
        let end = Surroundings { recording_end: 67.0, ..around() };
        assert_eq!(judge(&[good(60.2), bad(65.0)], &end), Verdict::Drop(1, 67.0));
    }
}
