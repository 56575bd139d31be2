//! Log-mel spectra, as openai/whisper and Hugging Face transformers compute them.

use std::fmt;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::filters::MelFilters;

/// Samples of a spectrum: 25 ms.
pub const FRAME_SAMPLES: usize = 400;
/// Samples from one frame to the next.
pub const HOP_SAMPLES: usize = 160;
/// Frequencies of a spectrum.
pub(super) const BINS: usize = FRAME_SAMPLES / 2 + 1;
/// Log-mel values reach this far below the greatest.
const RANGE: f32 = 8.0;
/// Log of the least energy that counts.
pub(super) const SILENCE: f32 = -10.0;

/// Computes log-mel frames. Spectra are computed in f64: quiet bins beside loud ones have no digits left in f32.
pub struct LogMel {
    filters: MelFilters,
    fft: Arc<dyn RealToComplex<f64>>,
    /// Periodic Hann.
    window: Vec<f64>,
    windowed: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    power: Vec<f64>,
}

impl fmt::Debug for LogMel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogMel").field("n_mels", &self.n_mels()).finish_non_exhaustive()
    }
}

impl LogMel {
    #[must_use]
    pub fn new(n_mels: usize) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(FRAME_SAMPLES);
        let turn = std::f64::consts::TAU / FRAME_SAMPLES as f64;
        Self {
            filters: MelFilters::new(n_mels),
            window: (0..FRAME_SAMPLES).map(|i| 0.5 - 0.5 * (turn * i as f64).cos()).collect(),
            windowed: vec![0.0; FRAME_SAMPLES],
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: vec![0.0; BINS],
            fft,
        }
    }

    #[must_use]
    pub fn n_mels(&self) -> usize {
        self.filters.n_mels()
    }

    /// Writes the logarithms (base 10) of `n_mels` energies of 400 samples, at least -10, to `out`.
    ///
    /// # Panics
    /// If either is shorter.
    pub fn frame(&mut self, samples: &[f32], out: &mut [f32]) {
        for ((to, &sample), &weight) in self.windowed.iter_mut().zip(&samples[..FRAME_SAMPLES]).zip(&self.window) {
            *to = f64::from(sample) * weight;
        }
        // Fails for buffers of other lengths only, and these are its own.
        let made = self.fft.process_with_scratch(&mut self.windowed, &mut self.spectrum, &mut self.scratch);
        debug_assert!(made.is_ok());
        for (power, bin) in self.power.iter_mut().zip(&self.spectrum) {
            *power = bin.norm_sqr();
        }
        let n_mels = self.n_mels();
        for (to, energy) in out[..n_mels].iter_mut().zip(self.filters.apply(&self.power)) {
            *to = (energy as f32).max(1e-10).log10();
        }
    }

    /// Power of the last frame's frequencies, 40 Hz apart.
    pub(super) fn power(&self) -> &[f64] {
        &self.power
    }

    /// The log-mel of one window, `[n_mels][frames]`: `samples` are cut or followed by silence to its length, and the
    /// greatest value is this window's own. What transformers' feature extractor gives for short audio.
    #[must_use]
    pub fn window(&mut self, samples: &[f32], frames: usize) -> Vec<f32> {
        let mut padded = samples[..samples.len().min(frames * HOP_SAMPLES)].to_vec();
        padded.resize(frames * HOP_SAMPLES, 0.0);
        self.whole(&padded)
    }

    /// The log-mel of all samples, `[n_mels][samples / 160]`, with the greatest value of all and mirrored at both ends.
    /// What transformers' feature extractor gives without padding.
    #[must_use]
    pub fn whole(&mut self, samples: &[f32]) -> Vec<f32> {
        let (frames, n_mels) = (samples.len() / HOP_SAMPLES, self.n_mels());
        let mut out = vec![0.0; n_mels * frames];
        let (mut cut, mut logs) = ([0.0; FRAME_SAMPLES], vec![0.0; n_mels]);
        for frame in 0..frames {
            let inside = (frame * HOP_SAMPLES).checked_sub(FRAME_SAMPLES / 2);
            match inside.and_then(|start| samples.get(start..start + FRAME_SAMPLES)) {
                Some(inside) => cut.copy_from_slice(inside),
                None => cut
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, to)| *to = samples[mirrored(frame * HOP_SAMPLES + i, samples.len())]),
            }
            self.frame(&cut, &mut logs);
            for (mel, &log) in logs.iter().enumerate() {
                out[mel * frames + frame] = log;
            }
        }
        let greatest = out.iter().copied().fold(SILENCE, f32::max);
        out.iter_mut().for_each(|value| *value = scaled(*value, greatest));
        out
    }
}

/// Index into `len` samples that are mirrored at both ends, half a frame before them being 0. `len` is at least 1.
fn mirrored(at: usize, len: usize) -> usize {
    let period = 2 * (len - 1).max(1);
    // Half a frame to the left, without going below 0.
    let at = (at + period * FRAME_SAMPLES - FRAME_SAMPLES / 2) % period;
    at.min(period - at).min(len - 1)
}

/// What the network takes for a logarithm, where `greatest` is the recording's.
pub(super) fn scaled(log: f32, greatest: f32) -> f32 {
    (log.max(greatest - RANGE) + 4.0) / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_mirrored_at_both_ends() {
        let at = |i: i64, len| mirrored((i + FRAME_SAMPLES as i64 / 2) as usize, len);
        assert_eq!([at(-2, 500), at(-1, 500), at(0, 500), at(1, 500)], [2, 1, 0, 1]);
        assert_eq!([at(499, 500), at(500, 500), at(502, 500)], [499, 498, 496]);
        // Shorter than half a frame: to and fro.
        assert_eq!((0..7).map(|i| at(i, 3)).collect::<Vec<_>>(), [0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(at(-5, 1), 0);
    }

    #[test]
    fn nothing_has_no_frames() {
        assert!(LogMel::new(80).whole(&[0.5; 159]).is_empty());
        assert!(LogMel::new(80).window(&[], 0).is_empty());
        let silence = LogMel::new(80).window(&[], 2);
        assert!(silence.iter().all(|&value| value == -1.5));
    }
}
