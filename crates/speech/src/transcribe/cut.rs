//! A window's tokens cut into segments at their timestamps, and how far the window was understood.

use crate::time::{FRAMES_PER_POSITION, seconds};
use crate::transcript::Word;

/// A segment in the making. Times in seconds of the recording.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Draft {
    pub start: f64,
    pub end: f64,
    pub tokens: Vec<u32>,
    /// Of each token.
    pub logprobs: Vec<f32>,
    pub words: Vec<Word>,
}

/// What a window's tokens say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cut {
    pub drafts: Vec<Draft>,
    /// Frames of the window that are done.
    pub advance: usize,
    /// A single timestamp at the end: nobody speaks behind it.
    pub closed: bool,
}

/// Cuts the tokens of a window that begins at frame `seek` and has `frames` of content, as openai/whisper does. `first`
/// is the token `<|0.00|>`.
///
/// Between two timestamps in a row ends a segment; what follows the last such pair is left to the next window. Without
/// a pair the window is one segment and done.
pub(crate) fn cut(tokens: &[u32], logprobs: &[f32], first: u32, seek: usize, frames: usize) -> Cut {
    let is_stamp = |token: u32| token >= first;
    // In frames of the window.
    let stamp = |token: u32| token.saturating_sub(first) as usize * FRAMES_PER_POSITION;
    let time = |token: u32| seconds(seek + stamp(token));
    let closed = match tokens {
        [.., before, last] => !is_stamp(*before) && is_stamp(*last),
        _ => false,
    };
    let pairs = tokens.windows(2).enumerate().filter(|(_, pair)| is_stamp(pair[0]) && is_stamp(pair[1]));
    let mut ends: Vec<usize> = pairs.map(|(index, _)| index + 1).collect();
    if ends.is_empty() {
        let last = tokens.iter().rev().find(|&&token| is_stamp(token)).filter(|&&token| token != first);
        let end = last.map_or(seconds(seek + frames), |&token| time(token));
        let draft =
            Draft { start: seconds(seek), end, tokens: tokens.into(), logprobs: logprobs.into(), words: Vec::new() };
        return Cut { drafts: vec![draft], advance: frames, closed };
    }
    // The last pair's first token: here the last whole segment ends.
    let last_end = ends.last().map_or(0, |&end| tokens[end - 1]);
    if closed {
        ends.push(tokens.len());
    }
    let mut begin = 0;
    let drafts = ends.into_iter().map(|end| {
        let range = begin..end;
        begin = end;
        let own = &tokens[range.clone()];
        Draft {
            start: time(own[0]),
            end: time(own[own.len() - 1]),
            tokens: own.into(),
            logprobs: logprobs[range].into(),
            words: Vec::new(),
        }
    });
    let drafts = drafts.collect();
    Cut { drafts, advance: if closed { frames } else { stamp(last_end) }, closed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FIRST, at};

    const A: u32 = 65;

    fn times(cut: &Cut) -> Vec<(f64, f64, usize)> {
        cut.drafts.iter().map(|d| ((d.start * 100.0).round(), (d.end * 100.0).round(), d.tokens.len())).collect()
    }

    fn of(tokens: &[u32]) -> Cut {
        let logprobs: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32)).collect();
        let cut = cut(tokens, &logprobs, FIRST, 1000, 2500);
        for draft in &cut.drafts {
            assert_eq!(draft.tokens.len(), draft.logprobs.len());
        }
        cut
    }

    #[test]
    fn pairs_of_timestamps_end_segments_and_the_rest_is_left() {
        let cut = of(&[at(0), A, at(200), at(220), A, A, at(560), at(560), A]);
        assert_eq!(times(&cut), [(1000.0, 1200.0, 3), (1220.0, 1560.0, 4)]);
        assert_eq!((cut.advance, cut.closed), (560, false));
        assert_eq!(cut.drafts[1].logprobs[0], -3.0);
    }

    #[test]
    fn a_single_timestamp_at_the_end_closes_the_window() {
        let cut = of(&[at(0), A, at(200), at(220), A, at(560)]);
        assert_eq!(times(&cut), [(1000.0, 1200.0, 3), (1220.0, 1560.0, 3)]);
        assert_eq!((cut.advance, cut.closed), (2500, true));
    }

    #[test]
    fn without_a_pair_the_window_is_one_segment() {
        let cut = of(&[at(20), A, A, at(800)]);
        assert_eq!(times(&cut), [(1000.0, 1800.0, 4)]);
        assert_eq!((cut.advance, cut.closed), (2500, true));
        // Cut off in the middle: the opening timestamp is the last one.
        assert_eq!(times(&of(&[at(20), A, A])), [(1000.0, 1020.0, 3)]);
        // Nothing but <|0.00|>, no timestamps at all, no tokens at all: the whole window.
        for tokens in [&[at(0), A][..], &[A, A], &[]] {
            assert_eq!(times(&of(tokens)), [(1000.0, 3500.0, tokens.len())]);
        }
    }
}
