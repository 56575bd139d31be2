//! Mono samples of any rate to 16 kHz.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use super::{Result, refuse};
use crate::features::SAMPLE_RATE;

/// Samples of a block at the lower of the two rates, about. The longer, the steeper the filter: this one passes nine
/// tenths of the band and stops at its end, as that of the reference (soxr, high quality) does.
const BLOCK: usize = 320;

/// Samples of the shortest time that is whole at both rates, which is transformed at once. Only rates above it that
/// nothing records at reach it: they would take 150 MB.
const MAX_UNIT: usize = 200_000;

/// Resamples without delay: the first sample stays the first, and `n` samples become `n * 16000 / rate`, rounded up.
pub(super) struct Resampler {
    rate: u32,
    /// `None`: the rate is right already.
    inner: Option<Fft<f32>>,
    /// Waits for a full block.
    waiting: Vec<f32>,
    block: Vec<f32>,
    /// Of the filter's delay, what is still to be dropped.
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    pub fn new(rate: u32) -> Result<Self> {
        let inner = match rate == SAMPLE_RATE {
            true => None,
            false => {
                let (from, to) = (rate as usize, SAMPLE_RATE as usize);
                // Blocks are multiples of the shortest time with whole samples at both rates. The filter's delay is
                // half a block, which must be whole too.
                let unit = from / greatest_divisor(from, to);
                if unit > MAX_UNIT {
                    return Err(refuse(format!("the audio has {rate} samples per second, which no recording has")));
                }
                let units = BLOCK.max(BLOCK * from / to).div_ceil(unit);
                let block = unit * (units + (unit * units) % 2);
                let made = Fft::new_custom(from, to, block, 1, 1, WindowFunction::BlackmanHarris2, FixedSync::Both);
                Some(made.map_err(|error| refuse(format!("the audio cannot be resampled from {rate} Hz: {error}")))?)
            }
        };
        let delay = inner.as_ref().map_or(0, |inner| inner.output_delay());
        Ok(Self { rate, inner, waiting: Vec::new(), block: Vec::new(), delay, taken: 0, given: 0 })
    }

    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Appends to `out` what can be said after `samples`.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<()> {
        self.taken += samples.len() as u64;
        let Some(needed) = self.inner.as_ref().map(|inner| inner.input_frames_next()) else {
            out.extend_from_slice(samples);
            return Ok(());
        };
        self.waiting.extend_from_slice(samples);
        let whole = self.waiting.len() / needed * needed;
        let waiting = std::mem::take(&mut self.waiting);
        for block in waiting[..whole].chunks_exact(needed) {
            self.run(block, out)?;
        }
        self.waiting = waiting;
        self.waiting.drain(..whole);
        Ok(())
    }

    /// Appends the rest.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<()> {
        let Some(needed) = self.inner.as_ref().map(|inner| inner.input_frames_next()) else { return Ok(()) };
        let total = (self.taken * u64::from(SAMPLE_RATE)).div_ceil(u64::from(self.rate));
        let mut block = std::mem::take(&mut self.waiting);
        while self.given < total {
            block.resize(needed, 0.0);
            let before = out.len();
            self.run(&block, out)?;
            if self.given > total {
                let over = usize::try_from(self.given - total).unwrap_or(usize::MAX);
                out.truncate(out.len().saturating_sub(over).max(before));
                self.given = total;
            }
            block.clear();
        }
        Ok(())
    }

    fn run(&mut self, input: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let Some(inner) = &mut self.inner else { return Ok(()) };
        let frames = inner.output_frames_next();
        self.block.resize(frames, 0.0);
        let failed = |error: &dyn std::fmt::Display| refuse(format!("the audio cannot be resampled: {error}"));
        let from = InterleavedSlice::new(input, 1, input.len()).map_err(|error| failed(&error))?;
        let mut to = InterleavedSlice::new_mut(&mut self.block, 1, frames).map_err(|error| failed(&error))?;
        let (_, written) = inner.process_into_buffer(&from, &mut to, None).map_err(|error| failed(&error))?;
        let dropped = self.delay.min(written);
        self.delay -= dropped;
        out.extend_from_slice(&self.block[dropped..written]);
        self.given += (written - dropped) as u64;
        Ok(())
    }
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 100 Hz sine of `rate`, resampled in parts of `part`.
    fn sine(rate: u32, samples: usize, part: usize) -> Vec<f32> {
        let wave: Vec<f32> =
            (0..samples).map(|i| (i as f64 / f64::from(rate) * 100.0 * std::f64::consts::TAU).sin() as f32).collect();
        let mut resampler = Resampler::new(rate).unwrap();
        let mut out = Vec::new();
        for part in wave.chunks(part) {
            resampler.push(part, &mut out).unwrap();
        }
        resampler.finish(&mut out).unwrap();
        out
    }

    #[test]
    fn any_rate_keeps_length_and_phase() {
        for rate in [1_000, 7_999, 8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 47_999, 48_000, 192_000, 768_000] {
            let samples = rate as usize / 2 + 17;
            let out = sine(rate, samples, 1000);
            assert_eq!(out.len(), (samples * 16_000).div_ceil(rate as usize), "{rate}");
            // Away from the ends, which a sine that starts and stops blurs.
            let worst = (2000..out.len() - 2000)
                .map(|i| (f64::from(out[i]) - (i as f64 / 16_000.0 * 100.0 * std::f64::consts::TAU).sin()).abs())
                .fold(0.0, f64::max);
            assert!(worst < 1e-3, "{rate}: {worst}");
        }
    }

    #[test]
    fn cuts_do_not_matter() {
        let whole = sine(44_100, 30_000, 30_000);
        for part in [1, 13, 1024, 4099] {
            assert_eq!(sine(44_100, 30_000, part), whole);
        }
    }

    #[test]
    fn rates_that_nothing_records_at_are_refused() {
        for rate in [192_001, 352_800, 384_000, 705_600, 768_000] {
            assert!(Resampler::new(rate).is_ok(), "{rate}");
        }
        assert!(Resampler::new(767_999).is_err());
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(sine(44_100, 0, 1).is_empty());
        assert_eq!(sine(44_100, 1, 1).len(), 1);
    }
}
