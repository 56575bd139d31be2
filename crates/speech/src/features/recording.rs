//! The features of a recording that is decoded while they are asked for.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::mel::{FRAME_SAMPLES, HOP_SAMPLES, LogMel, SILENCE, scaled};
use super::speech::{self, Level, VadOptions};
use super::{Features, SAMPLE_RATE};
use crate::audio::{AudioInput, AudioReader};
use crate::error::SpeechError;

/// Recordings up to this length are kept as samples (19 MB); longer ones are decoded a second time instead.
pub const KEPT_SECONDS: usize = 300;
/// Samples before a window that stay at hand: the rules step back by less than a window.
const KEPT_BEHIND: u64 = 30 * SAMPLE_RATE as u64;
const HALF_FRAME: u64 = FRAME_SAMPLES as u64 / 2;
const HOP: u64 = HOP_SAMPLES as u64;

/// How features are computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureOptions {
    /// 80 or 128, as the checkpoint says.
    pub n_mels: usize,
    pub vad: VadOptions,
}

/// [`Features`] by openai/whisper's rules: mirrored at the start, followed by silence, one greatest value for the whole
/// recording. The first pass over the recording finds that value, the length and how loud each frame is.
pub struct RecordingFeatures {
    mel: LogMel,
    vad: VadOptions,
    samples: u64,
    /// Greatest log-mel value.
    greatest: f32,
    levels: Vec<Level>,
    wave: Wave,
    cancelled: Arc<AtomicBool>,
}

impl fmt::Debug for RecordingFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingFeatures").field("samples", &self.samples).finish_non_exhaustive()
    }
}

/// Samples of the recording from `first` on.
struct Wave {
    kept: Vec<f32>,
    first: u64,
    /// Where more comes from; `None`: all samples are kept.
    reader: Option<AudioReader>,
}

impl RecordingFeatures {
    /// Decodes the whole recording once.
    ///
    /// # Errors
    /// [`SpeechError::Audio`] for audio that cannot be read, [`SpeechError::Cancelled`] once `cancelled` is set: then,
    /// and in all later calls.
    pub fn open(input: &AudioInput, options: &FeatureOptions, cancelled: Arc<AtomicBool>) -> Result<Self, SpeechError> {
        let mut reader = AudioReader::open(input)?;
        let mut pass = Pass::new(options.n_mels);
        let mut all = Some(Vec::new());
        let mut block = Vec::new();
        loop {
            check(&cancelled)?;
            block.clear();
            if !reader.read(&mut block)? {
                break;
            }
            pass.push(&block);
            all = all.filter(|all: &Vec<f32>| all.len() + block.len() <= KEPT_SECONDS * SAMPLE_RATE as usize);
            if let Some(all) = &mut all {
                all.extend_from_slice(&block);
            }
        }
        let wave = match all {
            Some(kept) => Wave { kept, first: 0, reader: None },
            None => {
                reader.rewind()?;
                Wave { kept: Vec::new(), first: 0, reader: Some(reader) }
            }
        };
        Ok(pass.finish(wave, options.vad, cancelled))
    }

    /// Of 16 kHz mono samples.
    #[must_use]
    pub fn from_samples(samples: Vec<f32>, options: &FeatureOptions) -> Self {
        let mut pass = Pass::new(options.n_mels);
        pass.push(&samples);
        pass.finish(Wave { kept: samples, first: 0, reader: None }, options.vad, Arc::default())
    }

    /// Samples of the recording at 16 kHz.
    #[must_use]
    pub fn n_samples(&self) -> u64 {
        self.samples
    }
}

fn check(cancelled: &AtomicBool) -> Result<(), SpeechError> {
    if cancelled.load(Ordering::Relaxed) { Err(SpeechError::Cancelled) } else { Ok(()) }
}

impl Features for RecordingFeatures {
    fn n_mels(&self) -> usize {
        self.mel.n_mels()
    }

    fn n_frames(&self) -> usize {
        (self.samples / HOP) as usize
    }

    fn duration(&self) -> f64 {
        self.samples as f64 / f64::from(SAMPLE_RATE)
    }

    fn window(&mut self, start: usize, content: Range<usize>, out: &mut [f32]) -> Result<(), SpeechError> {
        let n_mels = self.mel.n_mels();
        let frames = out.len().checked_div(n_mels).unwrap_or(0);
        // Behind these no frame reaches the last sample.
        let sounding = ((self.samples + HALF_FRAME).div_ceil(HOP)) as usize;
        let wanted = start.max(content.start)..(start + frames).min(content.end).min(sounding);
        if !wanted.is_empty() {
            let (first, end) = (wanted.start as u64 * HOP, (wanted.end as u64 - 1) * HOP + HALF_FRAME);
            self.wave.hold(first.saturating_sub(HALF_FRAME), end.min(self.samples), &self.cancelled)?;
        }
        let silence = scaled(SILENCE, self.greatest);
        let (mut cut, mut logs) = ([0.0; FRAME_SAMPLES], vec![0.0; n_mels]);
        for column in 0..frames {
            let frame = start + column;
            if wanted.contains(&frame) {
                self.wave.cut(frame as u64, &mut cut);
                self.mel.frame(&cut, &mut logs);
            }
            for (mel, &log) in logs.iter().enumerate() {
                out[mel * frames + column] = match () {
                    () if wanted.contains(&frame) => scaled(log, self.greatest),
                    () if content.contains(&frame) => silence,
                    () => 0.0,
                };
            }
        }
        Ok(())
    }

    fn speech(&mut self) -> Result<Vec<Range<usize>>, SpeechError> {
        Ok(speech::find(&self.levels, &self.vad))
    }
}

impl Wave {
    /// Makes samples `first..end` of the recording be at hand.
    fn hold(&mut self, first: u64, end: u64, cancelled: &AtomicBool) -> Result<(), SpeechError> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        if first < self.first {
            reader.rewind()?;
            self.kept.clear();
            self.first = 0;
        }
        while self.first + (self.kept.len() as u64) < end {
            check(cancelled)?;
            self.forget(first.saturating_sub(KEPT_BEHIND));
            let Some(reader) = &mut self.reader else { break };
            if !reader.read(&mut self.kept)? {
                return Err(SpeechError::Audio("the audio file was changed while it was read".to_owned()));
            }
        }
        self.forget(first.saturating_sub(KEPT_BEHIND));
        Ok(())
    }

    /// Drops samples before `first`, once they are many.
    fn forget(&mut self, first: u64) {
        let old = first.saturating_sub(self.first).min(self.kept.len() as u64);
        if old > KEPT_BEHIND || old == self.kept.len() as u64 {
            self.kept.drain(..old as usize);
            self.first += old;
        }
    }

    /// The samples of a frame, centred on its time; they must be at hand.
    fn cut(&self, frame: u64, out: &mut [f32; FRAME_SAMPLES]) {
        let inside = (frame * HOP).checked_sub(HALF_FRAME + self.first).map(|start| start as usize);
        if let Some(inside) = inside.and_then(|start| self.kept.get(start..start + FRAME_SAMPLES)) {
            out.copy_from_slice(inside);
            return;
        }
        for (i, to) in out.iter_mut().enumerate() {
            let at = frame * HOP + i as u64;
            // Mirrored before the start, silent behind the end.
            let sample = at.abs_diff(HALF_FRAME);
            let kept = usize::try_from(sample.wrapping_sub(self.first)).ok();
            *to = kept.and_then(|kept| self.kept.get(kept)).copied().unwrap_or(0.0);
        }
    }
}

/// The first pass.
struct Pass {
    mel: LogMel,
    wave: Wave,
    samples: u64,
    greatest: f32,
    levels: Vec<Level>,
    logs: Vec<f32>,
}

impl Pass {
    fn new(n_mels: usize) -> Self {
        let wave = Wave { kept: Vec::new(), first: 0, reader: None };
        Self {
            mel: LogMel::new(n_mels),
            wave,
            samples: 0,
            greatest: SILENCE,
            levels: Vec::new(),
            logs: vec![0.0; n_mels],
        }
    }

    fn push(&mut self, samples: &[f32]) {
        self.samples += samples.len() as u64;
        self.wave.kept.extend_from_slice(samples);
        // The first frame is mirrored: it needs half a frame and one sample.
        while self.levels.len() as u64 * HOP + HALF_FRAME < self.samples {
            self.frame();
        }
        let done = (self.levels.len() as u64 * HOP).saturating_sub(HALF_FRAME);
        let old = done.saturating_sub(self.wave.first);
        self.wave.kept.drain(..old as usize);
        self.wave.first += old;
    }

    fn frame(&mut self) {
        let mut cut = [0.0; FRAME_SAMPLES];
        self.wave.cut(self.levels.len() as u64, &mut cut);
        self.mel.frame(&cut, &mut self.logs);
        self.greatest = self.logs.iter().copied().fold(self.greatest, f32::max);
        self.levels.push(speech::level(self.mel.power()));
    }

    fn finish(mut self, wave: Wave, vad: VadOptions, cancelled: Arc<AtomicBool>) -> RecordingFeatures {
        let frames = (self.samples / HOP) as usize;
        // Frames that reach into the silence which follows.
        while (self.levels.len() as u64) < (self.samples + HALF_FRAME).div_ceil(HOP) {
            self.frame();
        }
        self.levels.truncate(frames);
        self.levels.shrink_to_fit();
        let Self { mel, samples, greatest, levels, .. } = self;
        RecordingFeatures { mel, vad, samples, greatest, levels, wave, cancelled }
    }
}
