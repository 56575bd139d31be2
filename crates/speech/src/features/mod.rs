//! What the decoding rules read: windows of log-mel.

mod filters;
mod mel;
mod recording;
mod speech;

use std::ops::Range;

use crate::error::SpeechError;

pub use filters::MelFilters;
pub use mel::{FRAME_SAMPLES, HOP_SAMPLES, LogMel};
pub use recording::{FeatureOptions, KEPT_SECONDS, RecordingFeatures};
pub use speech::VadOptions;

/// Samples per second that Whisper hears.
pub const SAMPLE_RATE: u32 = 16_000;
/// Seconds from one mel frame to the next.
pub const FRAME_SECONDS: f64 = 0.01;
/// Frames of a window of 30 seconds.
pub const WINDOW_FRAMES: usize = 3000;

/// The log-mel of a whole recording, computed window by window.
pub trait Features {
    fn n_mels(&self) -> usize;

    /// Frames of the recording, without the silence that is thought to follow it.
    fn n_frames(&self) -> usize;

    /// Seconds of the recording.
    fn duration(&self) -> f64 {
        self.n_frames() as f64 * FRAME_SECONDS
    }

    /// Writes `out.len() / n_mels` frames from `start` on to `out`, `[n_mels][frames]`. Frames outside of `content` are
    /// 0: so openai/whisper and transformers fill a window that they cut off. `content` may reach beyond `n_frames`:
    /// there is silence, whose frames are not 0. Cheap in the order of the recording; going back may decode the file
    /// anew.
    fn window(&mut self, start: usize, content: Range<usize>, out: &mut [f32]) -> Result<(), SpeechError>;

    /// Where somebody speaks, as frames, in order, not overlapping.
    fn speech(&mut self) -> Result<Vec<Range<usize>>, SpeechError>;
}
