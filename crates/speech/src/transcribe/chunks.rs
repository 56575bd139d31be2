//! A recording cut where nobody speaks, into pieces of at most a window. After faster-whisper's batched pipeline, but a
//! piece stays one stretch of the recording: times need no map, and short pauses sound as they do.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::SpeechError;
use crate::features::Features;

/// Frames over which loudness is averaged where a piece must be cut: a fifth of a second, about the gap between two
/// words.
const GAP: usize = 20;

/// A piece of a recording with its features, which are read once: pieces are gone back to while later ones are read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub range: Range<usize>,
    /// `[n_mels][window_frames]`, 0 behind the piece's end.
    mel: Vec<f32>,
    window_frames: usize,
}

impl Piece {
    /// Writes the features of its rest from frame `seek` on, `[n_mels][window_frames]`, followed by zeros.
    pub fn rest(&self, seek: usize, out: &mut [f32]) {
        let skipped = (seek - self.range.start).min(self.window_frames);
        for (own, out) in self.mel.chunks_exact(self.window_frames).zip(out.chunks_exact_mut(self.window_frames)) {
            let (kept, beyond) = out.split_at_mut(self.window_frames - skipped);
            kept.copy_from_slice(&own[skipped..]);
            beyond.fill(0.0);
        }
    }
}

/// The pieces that are still to come.
#[derive(Debug)]
pub(super) struct Chunks {
    /// Where somebody speaks.
    speech: VecDeque<Range<usize>>,
    window_frames: usize,
}

impl Chunks {
    /// Pieces of at most a window of ranges that are in order and do not overlap.
    pub fn new(speech: Vec<Range<usize>>, window_frames: usize) -> Self {
        Self { speech: speech.into(), window_frames }
    }

    /// Is none to come?
    pub fn is_empty(&self) -> bool {
        self.speech.is_empty()
    }

    /// The next piece: as many ranges as fit. A longer range is cut at the quietest place of its window's last third.
    pub fn next(&mut self, features: &mut dyn Features) -> Result<Option<Piece>, SpeechError> {
        let Some(start) = self.speech.front().map(|range| range.start) else { return Ok(None) };
        let limit = start + self.window_frames;
        let mut range = start..start;
        while let Some(next) = self.speech.front().filter(|next| next.end <= limit) {
            range.end = next.end;
            self.speech.pop_front();
        }
        let fits = !range.is_empty();
        if !fits {
            range.end = limit;
        }
        let mut mel = vec![0.0; features.n_mels() * self.window_frames];
        features.window(start, range.clone(), &mut mel)?;
        if !fits {
            range.end = start + quietest(&mel, self.window_frames);
            mel.chunks_exact_mut(self.window_frames).for_each(|row| row[range.len()..].fill(0.0));
            if let Some(front) = self.speech.front_mut() {
                front.start = range.end;
            }
        }
        Ok(Some(Piece { range, mel, window_frames: self.window_frames }))
    }
}

/// The middle of the least loud stretch of [`GAP`] frames in the last third of a window, of equals the last. Above 0.
fn quietest(mel: &[f32], frames: usize) -> usize {
    let from = frames * 2 / 3;
    let mut loudness = vec![0.0f32; frames - from];
    for row in mel.chunks_exact(frames) {
        loudness.iter_mut().zip(&row[from..]).for_each(|(sum, value)| *sum += value);
    }
    let sums = loudness.windows(GAP).map(|stretch| stretch.iter().sum::<f32>());
    let least = sums.enumerate().fold(None, |best: Option<(usize, f32)>, next| match best {
        Some(best) if best.1 < next.1 => Some(best),
        _ => Some(next),
    });
    least.map_or(frames, |(at, _)| from + at + GAP / 2)
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, also of one")]
mod tests {
    use super::*;
    use crate::testing::Recording;

    fn pieces(speech: &[Range<usize>], quiet: &[Range<usize>]) -> Vec<Piece> {
        let mut recording = Recording::new(100_000);
        recording.quiet = quiet.iter().flat_map(Clone::clone).map(|frame| (frame, -1.0)).collect();
        let mut chunks = Chunks::new(speech.to_vec(), 3000);
        std::iter::from_fn(|| chunks.next(&mut recording).unwrap()).collect()
    }

    fn all(speech: &[Range<usize>], quiet: &[Range<usize>]) -> Vec<Range<usize>> {
        pieces(speech, quiet).into_iter().map(|piece| piece.range).collect()
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

    #[test]
    fn the_rest_of_a_piece_is_its_features() {
        let pieces = pieces(&[0..4000], &[2490..2510]);
        // The second row of the recording is 1 where it has content, and -1 where it is quiet.
        let mut out = vec![9.0; 6000];
        pieces[0].rest(2400, &mut out);
        assert_eq!(out[3000..3090], [1.0; 90]);
        assert_eq!(out[3090..3100], [-1.0; 10]);
        assert_eq!(out[3100..], [0.0; 2900]);
        pieces[1].rest(2500, &mut out);
        assert_eq!((out[3000], out[3010], out[4499], out[4500]), (-1.0, 1.0, 1.0, 0.0));
    }
}
