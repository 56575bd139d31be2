//! Opus streams (RFC 6716, RFC 7845): the header, and packets to samples.

use opus_pure::{ChannelLayout, MAX_PACKET_SAMPLES, OpusDecoder, OpusMSDecoder};

use super::{Result, refuse};
use crate::features::SAMPLE_RATE;

/// Opus decodes to any of its rates; this one needs no resampling.
pub(super) const RATE: u32 = SAMPLE_RATE;
/// Headers count samples at 48 kHz.
const PER_SAMPLE: u64 = 48_000 / RATE as u64;

/// An OpusHead (RFC 7845, 5.1), or the dOps box of MP4 with the same magic before it and its numbers in the other
/// order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Head {
    channels: usize,
    /// Samples before the recording.
    pre_skip: u32,
    /// Factor.
    gain: f32,
    family: u8,
    /// Streams, and how many of them are stereo, of families other than 0.
    streams: Option<(usize, usize)>,
}

impl Head {
    fn parse(data: &[u8]) -> Option<Self> {
        let fields = data.strip_prefix(b"OpusHead")?;
        let &[version, channels, s0, s1, _, _, _, _, g0, g1, family, ref mapping @ ..] = fields else { return None };
        let (pre_skip, gain) = match version {
            0 => (u16::from_be_bytes([s0, s1]), i16::from_be_bytes([g0, g1])),
            1..=15 => (u16::from_le_bytes([s0, s1]), i16::from_le_bytes([g0, g1])),
            _ => return None,
        };
        let streams = match (family, mapping) {
            (0, _) => None,
            (_, &[streams, coupled, ..]) => Some((usize::from(streams), usize::from(coupled))),
            _ => return None,
        };
        // Decibels in steps of 1/256.
        let gain = 10f32.powf(f32::from(gain) / (20.0 * 256.0));
        Some(Self {
            channels: usize::from(channels),
            pre_skip: in_samples(u64::from(pre_skip)) as u32,
            gain,
            family,
            streams,
        })
    }
}

/// Of 48 kHz to those that are decoded.
pub(super) fn in_samples(ticks: u64) -> u64 {
    ticks / PER_SAMPLE
}

enum Inner {
    Plain(Box<OpusDecoder>),
    Surround(Box<OpusMSDecoder>),
}

pub(super) struct OpusStream {
    inner: Inner,
    head: Head,
    /// Interleaved.
    samples: Vec<f32>,
}

impl OpusStream {
    pub fn new(head: &[u8]) -> Result<Self> {
        let Some(head) = Head::parse(head) else { return Err(refuse("the header of the Opus stream is broken")) };
        let unknown = || refuse("the channels of the Opus stream are laid out in a way that is not decoded here");
        let inner = match (head.family, head.channels) {
            (0, 1 | 2) => Inner::Plain(Box::new(OpusDecoder::new(RATE as i32, head.channels).map_err(|_| unknown())?)),
            (1, 1..=8) => {
                let layout = ChannelLayout::surround(head.channels, 1).map_err(|_| unknown())?;
                if head.streams != Some((layout.nb_streams, layout.nb_coupled_streams)) {
                    return Err(unknown());
                }
                Inner::Surround(Box::new(OpusMSDecoder::new(RATE as i32, head.channels, 1).map_err(|_| unknown())?))
            }
            _ => return Err(unknown()),
        };
        Ok(Self { inner, head, samples: vec![0.0; MAX_PACKET_SAMPLES * head.channels] })
    }

    pub fn channels(&self) -> usize {
        self.head.channels
    }

    /// Samples at the beginning that are the encoder's delay.
    pub fn pre_skip(&self) -> u32 {
        self.head.pre_skip
    }

    /// Interleaved samples of a packet.
    ///
    /// # Errors
    /// What the decoder says of a broken packet.
    pub fn decode(&mut self, packet: &[u8]) -> std::result::Result<&[f32], String> {
        if packet.is_empty() {
            return Err("an Opus packet is empty".to_owned());
        }
        let frames = match &mut self.inner {
            Inner::Plain(decoder) => decoder.decode(packet, MAX_PACKET_SAMPLES, &mut self.samples),
            Inner::Surround(decoder) => decoder.decode(packet, MAX_PACKET_SAMPLES, &mut self.samples),
        };
        let frames = frames.map_err(|error| error.to_string())?;
        let samples = &mut self.samples[..frames * self.head.channels];
        if self.head.gain != 1.0 {
            samples.iter_mut().for_each(|sample| *sample *= self.head.gain);
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_both_kinds() {
        let ogg = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\x06\0";
        let head = Head::parse(ogg).unwrap();
        assert_eq!((head.channels, head.pre_skip, head.family), (2, 104, 0));
        assert!((head.gain - 1.995_262).abs() < 1e-5);
        let mp4 = b"OpusHead\0\x01\x01\x38\0\0\xbb\x80\0\0\0";
        let head = Head::parse(mp4).unwrap();
        assert_eq!((head.channels, head.pre_skip, head.gain), (1, 104, 1.0));
        assert_eq!(Head::parse(b"OpusHead\x01\x02"), None);
        assert!(OpusStream::new(b"OpusHead\x01\x09\x38\x01\x80\xbb\0\0\0\0\x01\x05\x04").is_err());
        assert!(OpusStream::new(b"OpusHead\x01\x00\x38\x01\x80\xbb\0\0\0\0\0").is_err());
    }
}
