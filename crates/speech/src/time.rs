//! Frames and seconds. Divided, not multiplied by a hundredth, so that a time is the number nearest to what it says.

/// Mel frames of a second.
const FRAMES_PER_SECOND: f64 = 100.0;
/// Mel frames of a position of encoded audio, which is a step of timestamps too.
pub(crate) const FRAMES_PER_POSITION: usize = 2;

/// The time at which a frame begins.
pub(crate) fn seconds(frame: usize) -> f64 {
    frame as f64 / FRAMES_PER_SECOND
}

/// The frame nearest to a time; 0 for times before the recording.
pub(crate) fn nearest_frame(seconds: f64) -> usize {
    (seconds * FRAMES_PER_SECOND).round_ties_even().max(0.0) as usize
}

/// A time rounded to a frame.
pub(crate) fn hundredths(seconds: f64) -> f64 {
    (seconds * FRAMES_PER_SECOND).round_ties_even() / FRAMES_PER_SECOND
}
