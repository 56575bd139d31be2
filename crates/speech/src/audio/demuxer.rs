//! Containers to packets of one track.

use std::io::ErrorKind;

use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::packet::Packet;
use symphonia::default::formats;

use super::decoder::Decoder;
use super::format::Format;
use super::source::Source;
use super::{Result, cut_off, damaged, refuse};

/// Packets in a row that bring nothing: tables can promise billions of empty ones.
const MAX_IDLE: usize = 10_000;

pub(super) struct Demuxer {
    reader: Box<dyn FormatReader>,
    format: Format,
    track: u32,
    idle: usize,
}

pub(super) enum Step {
    Packet(Packet),
    /// Other streams begin, which may be encoded in another way.
    Reset,
    End,
}

impl Demuxer {
    pub fn new(source: Source, format: Format) -> Result<Self> {
        let stream = MediaSourceStream::new(Box::new(source), MediaSourceStreamOptions::default());
        let options = FormatOptions::default();
        let reader = match format {
            Format::Wav => formats::WavReader::try_new(stream, options).map(boxed),
            Format::Aiff => formats::AiffReader::try_new(stream, options).map(boxed),
            Format::Flac => formats::FlacReader::try_new(stream, options).map(boxed),
            Format::Ogg => formats::OggReader::try_new(stream, options).map(boxed),
            Format::Mp4 => formats::IsoMp4Reader::try_new(stream, options).map(boxed),
            Format::Matroska => formats::MkvReader::try_new(stream, options).map(boxed),
            Format::Mpeg => formats::MpaReader::try_new(stream, options).map(boxed),
            Format::Adts => formats::AdtsReader::try_new(stream, options).map(boxed),
        };
        let reader = reader.map_err(|error| header_error(format, &error))?;
        Ok(Self { reader, format, track: 0, idle: 0 })
    }

    /// The first audio track that can be decoded, with its decoder.
    pub fn pick(&mut self) -> Result<(Track, Decoder)> {
        let mut refused = None;
        for track in self.reader.tracks() {
            if track.track_type() != Some(TrackType::Audio) {
                continue;
            }
            match Decoder::new(track, self.format) {
                Ok(decoder) => {
                    self.track = track.id;
                    return Ok((track.clone(), decoder));
                }
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        Err(refused.unwrap_or_else(|| {
            refuse(format!("the {} file has no audio track in a codec that is known here", self.format.name()))
        }))
    }

    /// `seconds`: of the recording so far, for what is said of damage.
    pub fn next(&mut self, seconds: f64) -> Result<Step> {
        loop {
            match self.reader.next_packet() {
                Ok(Some(packet)) => {
                    self.idle = if packet.data.is_empty() { self.idle + 1 } else { 0 };
                    if self.idle > MAX_IDLE {
                        return Err(damaged("it goes on with nothing but empty packets", Some(seconds)));
                    }
                    if packet.track_id == self.track {
                        // A WAV file of more than 4 GiB ends where the file does.
                        let ends = packet.data.is_empty() && self.format == Format::Wav;
                        return Ok(if ends { Step::End } else { Step::Packet(packet) });
                    }
                }
                Ok(None) => return Ok(Step::End),
                Err(Error::ResetRequired) => return Ok(Step::Reset),
                Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                    // These were walked to their end before.
                    let whole = matches!(self.format, Format::Ogg | Format::Matroska | Format::Mpeg | Format::Adts);
                    return if whole { Ok(Step::End) } else { Err(self.ends_early(seconds)) };
                }
                Err(error) => return Err(damaged(&plain(&error), Some(seconds))),
            }
        }
    }

    fn ends_early(&self, seconds: f64) -> crate::SpeechError {
        cut_off(&format!("the {} file promises more", self.format.name()), Some(seconds))
    }
}

fn boxed<R: FormatReader + 'static>(reader: R) -> Box<dyn FormatReader> {
    Box::new(reader)
}

fn header_error(format: Format, error: &Error) -> crate::SpeechError {
    match error {
        Error::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            cut_off(&format!("the header of the {} file is incomplete", format.name()), None)
        }
        Error::Unsupported(_) => {
            refuse(format!("the {} file is of a kind that is not decoded here: {}", format.name(), plain(error)))
        }
        _ => refuse(format!("the header of the {} file is broken: {}", format.name(), plain(error))),
    }
}

/// The library's words without its names for parts of itself.
pub(super) fn plain(error: &Error) -> String {
    let text = match error {
        Error::IoError(error) => return error.to_string(),
        Error::DecodeError(text) | Error::Unsupported(text) | Error::LimitError(text) => *text,
        _ => return error.to_string(),
    };
    text.split_once(": ").map_or(text, |(_, text)| text).to_owned()
}
