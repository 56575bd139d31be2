//! Encoded audio, from a file or from memory, to 16 kHz mono.
//!
//! # What is read
//! WAV (with RF64), AIFF, FLAC, Ogg, MP4 (m4a, mov), Matroska (webm), MPEG audio (mp3, mp2) and ADTS (aac); in them
//! PCM, A-law, µ-law, ADPCM, FLAC, ALAC, Vorbis, Opus, MPEG audio and AAC-LC with one or two channels. The format is
//! found by content alone; names are not looked at. Of several tracks the first audio track that can be decoded is
//! taken. Channels are averaged, then resampled; delays that encoders and resamplers add are taken away, so that the
//! length is the recording's.
//!
//! # What is refused
//! Every refusal is [`SpeechError::Audio`] with one sentence, and where the place is known the second of the recording.
//! - **Cut off**: a container that promises more than there is: sizes of chunks, boxes and elements, pages, the number
//!   of samples in FLAC, the number of frames in an MP3's LAME header. What tools write that do not know the length yet
//!   is no promise: WAV sizes of 0 or of 2 GiB and more, Matroska elements of unknown size, Ogg streams without a last
//!   page. MPEG audio and ADTS make no promise, so that their last frame may be incomplete.
//! - **Damaged**: a checksum that differs (Ogg, FLAC), bytes between frames that are none (MPEG audio, ADTS, FLAC), a
//!   packet that its decoder refuses, values that are no numbers. Flipped bits that none of these shows stay unnoticed.
//! - **Half of it**: HE-AAC, of which the decoder would give the lower half of the band only.
//! - **Nothing**: no audio track, a codec that is not known, no samples.
//! - **Too much**: rates outside [`MIN_RATE`]`..=`[`MAX_RATE`], odd ones above 200 kHz, more than [`MAX_CHANNELS`]
//!   channels, more than [`MAX_SECONDS`].
//!
//! Containers are walked once before anything is decoded (one file per container in this folder), because the demuxers
//! pass over damage silently. A panic in a library becomes a refusal, and nothing is printed of it.

mod aac;
mod decoder;
mod demuxer;
mod ebml;
mod flow;
mod format;
mod isomp4;
mod mpeg;
mod ogg;
mod opus;
mod quiet;
mod reader;
mod resampler;
mod riff;
mod source;
mod vorbis;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::SpeechError;

pub use reader::AudioReader;

/// Samples per second and channel that are accepted.
pub const MIN_RATE: u32 = 1_000;
/// See [`MIN_RATE`].
pub const MAX_RATE: u32 = 768_000;
/// Channels of a track.
pub const MAX_CHANNELS: usize = 64;
/// Length of a recording: a small file can promise, and even hold, years of silence.
pub const MAX_SECONDS: u64 = 24 * 60 * 60;

/// Encoded audio.
#[derive(Debug, Clone)]
pub enum AudioInput {
    /// A regular file. It must not change while it is read.
    Path(PathBuf),
    Bytes {
        bytes: Arc<[u8]>,
        /// Shown in no message and not needed to find the format.
        name: Option<String>,
    },
}

type Result<T> = std::result::Result<T, SpeechError>;

fn refuse(sentence: impl Into<String>) -> SpeechError {
    SpeechError::Audio(sentence.into())
}

/// Before anything of that size is allocated. Some tracks tell with the first packet only.
fn check_size(rate: Option<u32>, channels: usize) -> Result<()> {
    if let Some(rate) = rate.filter(|rate| !(MIN_RATE..=MAX_RATE).contains(rate)) {
        return Err(refuse(format!("the audio has {rate} samples per second; {MIN_RATE} to {MAX_RATE} are read here")));
    }
    match channels > MAX_CHANNELS {
        true => Err(refuse(format!("the audio has {channels} channels; up to {MAX_CHANNELS} are read here"))),
        false => Ok(()),
    }
}

/// "at 1.2 s", where the place is known.
fn at(seconds: Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!(" at {seconds:.1} s"))
}

fn cut_off(what: &str, seconds: Option<f64>) -> SpeechError {
    refuse(format!("the audio is cut off{}: {what}", at(seconds)))
}

fn damaged(what: &str, seconds: Option<f64>) -> SpeechError {
    refuse(format!("the audio is damaged{}: {what}", at(seconds)))
}

fn unreadable(error: &std::io::Error) -> SpeechError {
    refuse(format!("the audio cannot be read: {error}"))
}
