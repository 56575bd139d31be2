//! A recording cut where nobody speaks, into pieces of at most a window. After faster-whisper's batched pipeline, but a piece
//! stays one stretch of the recording: times need no map, and short pauses sound as they do.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::SpeechError;
use crate::features::Features;

/// Frames over which loudness is averaged where a piece must be cut: a fifth of a second, about the gap between two words.
const GAP: usize = 20;

/// The pieces that are still to come.
#[derive(Debug)]
pub(super) struct Chunks {
    /// Where somebody speaks.
    speech: VecDeque<Range<usize>>,
    longest: usize,
}

impl Chunks {
    /// Pieces of at most `longest` frames of ranges that are in order and do not overlap.
    pub fn new(speech: Vec<Range<usize>>, longest: usize) -> Self {
        Self { speech: speech.into(), longest }
    }

    /// The next piece: as many ranges as fit. A longer range is cut at the quietest place of its window's last third.
    pub fn next(&mut self, features: &mut dyn Features) -> Result<Option<Range<usize>>, SpeechError> {
        let Some(start) = self.speech.front().map(|range| range.start) else { return Ok(None) };
        let limit = start + self.longest;
        let mut end = start;
        while let Some(range) = self.speech.front().filter(|range| range.end <= limit) {
            end = range.end;
            self.speech.pop_front();
        }
        if end > start {
            return Ok(Some(start..end));
        }
        let cut = quietest(features, start + self.longest * 2 / 3..limit)?;
        if let Some(range) = self.speech.front_mut() {
            range.start = cut;
        }
        Ok(Some(start..cut))
    }
}

/// The middle of the least loud stretch of [`GAP`] frames, of equals the last.
fn quietest(features: &mut dyn Features, range: Range<usize>) -> Result<usize, SpeechError> {
    let frames = range.len();
    let mut mel = vec![0.0f32; features.n_mels() * frames];
    features.window(range.start, range.clone(), &mut mel)?;
    let mut loudness = vec![0.0f32; frames];
    for row in mel.chunks_exact(frames.max(1)) {
        loudness.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let gap = GAP.min(frames.max(1));
    let sums = loudness.windows(gap).map(|stretch| stretch.iter().sum::<f32>());
    let least = sums.enumerate().fold(None, |best: Option<(usize, f32)>, next| match best {
        Some(best) if best.1 < next.1 => Some(best),
        _ => Some(next),
    });
    // Never at the very beginning: a piece has at least a frame.
    Ok(least.map_or(range.end, |(at, _)| (range.start + at + gap / 2).max(range.start + 1)))
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, also of one")]
mod tests {
    use super::*;
    use crate::testing::Recording;

    fn all(speech: &[Range<usize>], quiet: &[Range<usize>]) -> Vec<Range<usize>> {
        let mut recording = Recording::new(100_000);
        recording.quiet = quiet.iter().flat_map(Clone::clone).map(|frame| (frame, -1.0)).collect();
        let mut chunks = Chunks::new(speech.to_vec(), 3000);
        std::iter::from_fn(|| chunks.next(&mut recording).unwrap()).collect()
    }

    #[test]
    fn ranges_are_packed_while_they_fit() {
        assert_eq!(all(&[], &[]), []);
        assert_eq!(all(&[100..500, 600..3100, 3200..3300], &[]), [100..3100, 3200..3300]);
        assert_eq!(all(&[0..3000, 3000..3001], &[]), [0..3000, 3000..3001]);
        assert_eq!(all(&[0..10, 90_000..90_010], &[]), [0..10, 90_000..90_010]);
    }

    #[test]
    fn long_ranges_are_cut_where_they_are_quiet() {
        // Quiet at 1000, too early to cut, and at 2500.
        assert_eq!(all(&[0..4000, 4100..4200], &[1000..1100, 2490..2510]), [0..2500, 2500..4200]);
        // Equally loud everywhere: cut late.
        assert_eq!(all(&[0..6100], &[]), [0..2990, 2990..5980, 5980..6100]);
        // A short range before a long one goes alone: the long one is not cut for its sake.
        assert_eq!(all(&[0..100, 200..3300], &[2800..2820]), [0..100, 200..2810, 2810..3300]);
    }
}
