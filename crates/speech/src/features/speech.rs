//! Where somebody speaks, by loudness alone: an energy gate.
//!
//! A frame counts as speech if it is louder than the noise around it, in the band of voices or in that of sibilants.
//! The noise is what a tenth of the frames within five seconds to either side do not exceed, at least near silence.
//! Steady noise is no speech then; music, steps and slamming doors are. Nothing is known of what speech sounds like.

use std::ops::Range;

/// What counts as speech.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VadOptions {
    /// 0..=1: how much louder than the noise speech is, from 2 dB (nearly everything counts) to 10 dB.
    pub threshold: f32,
    /// Shorter noises are none.
    pub min_speech_ms: u32,
    /// Shorter pauses belong to speech.
    pub min_silence_ms: u32,
    /// Kept before speech.
    pub padding_before_ms: u32,
    /// Kept after speech.
    pub padding_after_ms: u32,
}

impl Default for VadOptions {
    fn default() -> Self {
        Self { threshold: 0.5, min_speech_ms: 60, min_silence_ms: 300, padding_before_ms: 300, padding_after_ms: 300 }
    }
}

/// Loudness of a frame's lower and upper band in half decibels over -120 dB of full scale.
pub(super) type Level = [u8; BANDS];

const BANDS: usize = 2;
/// Frequencies, 40 Hz apart: 200 to 3480 Hz, 3520 to 7480 Hz.
const BAND_BINS: [Range<usize>; BANDS] = [5..88, 88..188];
const LOWEST_DB: f64 = -120.0;
const STEPS_PER_DB: f64 = 2.0;
/// Noise is never taken for quieter: -80 dB, which hides the last bit of 16-bit samples.
const LEAST_NOISE: u8 = 80;
/// Frames to either side in which the noise is looked for.
const AROUND: usize = 500;
/// Speech goes on until it is nearer to the noise than this share of what it began with.
const HYSTERESIS: f32 = 0.6;
const FRAME_MS: u32 = 10;

/// Loudness of a frame by the power of its frequencies.
pub(super) fn level(power: &[f64]) -> Level {
    // Sum of the squared window, and half the transform's length, bring white noise to its own power.
    const SCALE: f64 = 150.0 * 200.0;
    BAND_BINS.map(|bins| {
        let power: f64 = power[bins].iter().sum();
        // `as` saturates: silence is 0.
        ((10.0 * (power / SCALE + 1e-30).log10() - LOWEST_DB) * STEPS_PER_DB).round() as u8
    })
}

/// Frames with speech, in order, not touching each other.
pub(super) fn find(levels: &[Level], options: &VadOptions) -> Vec<Range<usize>> {
    let margin = (2.0 + 8.0 * options.threshold.clamp(0.0, 1.0)) * STEPS_PER_DB as f32;
    let mut noise = Noise::new(levels);
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut speaking = false;
    for (frame, level) in levels.iter().enumerate() {
        noise.go_to(frame);
        let needed = if speaking { margin * HYSTERESIS } else { margin };
        speaking = (0..BANDS).any(|band| f32::from(level[band]) >= f32::from(noise.floor(band)) + needed);
        match found.last_mut() {
            Some(last) if speaking && last.end == frame => last.end += 1,
            _ if speaking => found.push(frame..frame + 1),
            _ => {}
        }
    }
    let frames = |ms: u32| (ms / FRAME_MS) as usize;
    found = joined(found, frames(options.min_silence_ms));
    found.retain(|range| range.len() >= frames(options.min_speech_ms));
    for range in &mut found {
        range.start = range.start.saturating_sub(frames(options.padding_before_ms));
        range.end = (range.end + frames(options.padding_after_ms)).min(levels.len());
    }
    joined(found, 1)
}

/// Joins what less than `gap` frames part.
fn joined(ranges: Vec<Range<usize>>, gap: usize) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start < last.end + gap => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// The noise around a frame, kept up as the frame moves on.
struct Noise<'a> {
    levels: &'a [Level],
    within: Range<usize>,
    /// How often each level occurs within, by band.
    counts: [[u32; 256]; BANDS],
}

impl<'a> Noise<'a> {
    fn new(levels: &'a [Level]) -> Self {
        Self { levels, within: 0..0, counts: [[0; 256]; BANDS] }
    }

    fn go_to(&mut self, frame: usize) {
        let wanted = frame.saturating_sub(AROUND)..(frame + AROUND + 1).min(self.levels.len());
        for level in &self.levels[self.within.end..wanted.end] {
            (0..BANDS).for_each(|band| self.counts[band][usize::from(level[band])] += 1);
        }
        for level in &self.levels[self.within.start..wanted.start] {
            (0..BANDS).for_each(|band| self.counts[band][usize::from(level[band])] -= 1);
        }
        self.within = wanted;
    }

    fn floor(&self, band: usize) -> u8 {
        let tenth = self.within.len() as u32 / 10;
        let mut below = 0;
        for (level, count) in (0..=u8::MAX).zip(self.counts[band]) {
            below += count;
            if below > tenth {
                return level.max(LEAST_NOISE);
            }
        }
        LEAST_NOISE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(levels: &[u8]) -> Vec<Range<usize>> {
        let levels: Vec<Level> = levels.iter().map(|&level| [level, 0]).collect();
        let options = VadOptions { padding_before_ms: 0, padding_after_ms: 0, ..VadOptions::default() };
        find(&levels, &options)
    }

    #[test]
    fn loud_parts_are_found() {
        let mut levels = vec![100; 1000];
        levels[300..400].fill(140);
        levels[410..500].fill(140);
        levels[700..703].fill(140);
        levels[800..850].fill(140);
        // A short pause is joined, a click is dropped.
        assert_eq!(gate(&levels), [300..500, 800..850]);
    }

    #[test]
    fn steady_levels_and_silence_are_none() {
        assert_eq!(gate(&[200; 3000]), []);
        assert_eq!(gate(&[0; 3000]), []);
        assert_eq!(gate(&[]), []);
        // The last bit of 16-bit samples.
        let flicker: Vec<u8> = (0..3000).map(|i| if i % 7 < 3 { 60 } else { 0 }).collect();
        assert_eq!(gate(&flicker), []);
    }

    #[test]
    fn it_starts_higher_than_it_ends() {
        let mut levels = vec![100; 1000];
        // 6 dB over the noise are 12 steps; 60 % of it are 7.2.
        levels[200..260].fill(111);
        levels[500..510].fill(112);
        levels[510..560].fill(108);
        levels[560..600].fill(107);
        let found = gate(&levels);
        assert_eq!((found.len(), found[0].clone()), (1, 500..560));
    }

    #[test]
    fn padding_joins_and_stays_inside() {
        let mut levels = vec![[0, 0]; 200];
        levels[10..30].fill([200, 0]);
        levels[80..100].fill([0, 200]);
        levels[190..200].fill([200, 0]);
        let found = find(&levels, &VadOptions { min_silence_ms: 200, ..VadOptions::default() });
        assert_eq!(found, [0..130, 160..200]);
    }

    #[test]
    fn levels_are_decibels_of_full_scale() {
        let mut power = vec![0.0; 201];
        assert_eq!(level(&power), [0, 0]);
        // 0 dB in the lower band, -60 dB in the upper.
        power[10] = 30_000.0;
        power[100] = 0.03;
        assert_eq!(level(&power), [240, 120]);
        power[10] = f64::MAX;
        assert_eq!(level(&power)[0], 255);
    }
}
