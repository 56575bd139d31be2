//! HE-AAC, which looks like AAC-LC: the decoder at hand would give the lower half of the band and say nothing.

use super::{Result, refuse};

/// Packets that are looked at: spectral band replication, where it is used, is in every one.
const LOOKED_AT: usize = 24;

/// What an AudioSpecificConfig (ISO 14496-3, 1.6.2.1) says.
pub(super) fn check_config(config: &[u8]) -> Result<()> {
    let Some(object) = object_type(config) else { return Ok(()) };
    match object {
        2 if !names_extension(config) => Ok(()),
        2 | 5 | 29 => Err(half_band()),
        1 => Err(not_decoded("AAC Main")),
        3 => Err(not_decoded("AAC-SSR")),
        4 => Err(not_decoded("AAC-LTP")),
        23 => Err(not_decoded("AAC-LD")),
        39 => Err(not_decoded("AAC-ELD")),
        42 => Err(not_decoded("xHE-AAC")),
        _ => Err(not_decoded(&format!("MPEG-4 audio of type {object}"))),
    }
}

fn half_band() -> crate::SpeechError {
    refuse(
        "the audio is HE-AAC (AAC with spectral band replication), which is not decoded here: convert it to AAC-LC, MP3, \
         Opus, FLAC or WAV",
    )
}

fn not_decoded(codec: &str) -> crate::SpeechError {
    refuse(format!("the audio is {codec}, which is not decoded here; AAC-LC is"))
}

fn object_type(config: &[u8]) -> Option<u32> {
    let object = bits(config, 0, 5)?;
    Some(if object == 31 { 32 + bits(config, 5, 6)? } else { object })
}

/// Whether the config of AAC-LC goes on with the extension that says: spectral band replication is present.
fn names_extension(config: &[u8]) -> bool {
    // Object type, rate (4 bits, or 24 more), channels, three flags of which the second may bring 14 bits.
    let rate = if bits(config, 5, 4) == Some(15) { 28 } else { 4 };
    let flags = 5 + rate + 4;
    let core = if bits(config, flags + 1, 1) == Some(1) { 14 } else { 0 };
    let extension = flags + 3 + core;
    bits(config, extension, 11) == Some(0x2b7)
        && bits(config, extension + 11, 5) == Some(5)
        && bits(config, extension + 16, 1) == Some(1)
}

/// Counts packets that end with spectral band replication, for streams that do not announce it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: usize,
    extended: usize,
}

impl Watch {
    /// # Errors
    /// When nearly all of the packets so far were HE-AAC's.
    pub fn look(&mut self, packet: &[u8]) -> Result<()> {
        if self.seen < LOOKED_AT {
            self.seen += 1;
            self.extended += usize::from(ends_with_extension(packet));
            // Chance makes one packet in fifty look like it.
            if self.seen == LOOKED_AT && self.extended * 4 >= LOOKED_AT * 3 {
                return Err(half_band());
            }
        }
        Ok(())
    }

    /// What is to be said of a recording shorter than what is looked at.
    pub fn finish(&self) -> Result<()> {
        match self.seen >= 4 && self.seen < LOOKED_AT && self.extended * 4 >= self.seen * 3 {
            true => Err(half_band()),
            false => Ok(()),
        }
    }
}

/// Whether the last element of a packet is a fill element with spectral band replication.
///
/// Elements have no sizes but this kind, so it is looked for from the end: 3 bits of end, before them as many bytes as
/// the fill element's header says, which begins with the kind of data in it.
fn ends_with_extension(packet: &[u8]) -> bool {
    const FILL: u32 = 6;
    let Some(last) = packet.last().filter(|byte| **byte != 0) else { return false };
    // The end (111) is followed by zeros up to the byte's end.
    let end = packet.len() * 8 - last.trailing_zeros() as usize;
    let Some(end) = end.checked_sub(3) else { return false };
    if bits(packet, end, 3) != Some(7) {
        return false;
    }
    let is = |header: usize, count: usize| -> bool {
        let Some(at) = end.checked_sub(header + count * 8) else { return false };
        let told = match bits(packet, at + 3, 4) {
            Some(15) if header == 15 => bits(packet, at + 7, 8).map(|more| more as usize + 14),
            Some(count) if header == 7 && count < 15 => Some(count as usize),
            _ => None,
        };
        // 13 and 14: spectral band replication without and with a checksum.
        bits(packet, at, 3) == Some(FILL)
            && told == Some(count)
            && matches!(bits(packet, at + header, 4), Some(13 | 14))
    };
    (1..15).any(|count| is(7, count)) || (15..=269).any(|count| is(15, count))
}

fn bits(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    (at..at + count).try_fold(0, |sum, at| {
        let byte = bytes.get(at / 8)?;
        Some(sum << 1 | u32::from(byte >> (7 - at % 8) & 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of `head` (without its end) with a fill element of `data` and the end behind it.
    fn with_fill(head: &[bool], data: &[u8]) -> Vec<u8> {
        let mut all = head.to_vec();
        let mut push = |value: usize, count: usize| all.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        push(6, 3);
        if data.len() < 15 {
            push(data.len(), 4);
        } else {
            push(15, 4);
            push(data.len() - 14, 8);
        }
        for &byte in data {
            push(usize::from(byte), 8);
        }
        push(7, 3);
        all.chunks(8)
            .map(|bits| bits.iter().enumerate().fold(0, |byte, (i, &bit)| byte | u8::from(bit) << (7 - i)))
            .collect()
    }

    #[test]
    fn replication_is_seen_from_the_end() {
        for bits_before in 0..16 {
            let head: Vec<bool> = (0..bits_before + 40).map(|i| i % 3 == 0).collect();
            for len in [1, 2, 14, 15, 16, 100, 269] {
                let mut data = vec![0x55; len];
                data[0] = 0xd5;
                assert!(ends_with_extension(&with_fill(&head, &data)), "{bits_before} {len}");
                data[0] = 0xe0;
                assert!(ends_with_extension(&with_fill(&head, &data)));
                // Padding and dynamic range are not meant.
                data[0] = 0x00;
                assert!(!ends_with_extension(&with_fill(&head, &data)));
                data[0] = 0xb0;
                assert!(!ends_with_extension(&with_fill(&head, &data)));
            }
        }
        assert!(!ends_with_extension(&[]));
        assert!(!ends_with_extension(&[0]));
        assert!(!ends_with_extension(&[0xff]));
    }

    #[test]
    fn noise_is_seldom_taken_for_it() {
        let mut state = 1u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let taken = (0..5000)
            .filter(|_| {
                let packet: Vec<u8> = (0..300).map(|_| random()).collect();
                ends_with_extension(&packet)
            })
            .count();
        assert!(taken < 150, "{taken} of 5000");
    }

    #[test]
    fn configs_tell_their_type() {
        // AAC-LC 44.1 kHz stereo; HE-AAC explicit; AAC-LC with the extension's mark behind it; HE-AAC v2; AAC Main.
        assert!(check_config(&[0x12, 0x10]).is_ok());
        assert!(check_config(&[0x2b, 0x92, 0x08, 0x00]).is_err());
        assert!(check_config(&[0x13, 0x90, 0x56, 0xe5, 0xa0]).is_err());
        assert!(check_config(&[0x13, 0x90, 0x56, 0xe5, 0x00]).is_ok());
        assert!(check_config(&[0xeb, 0x8a, 0x08, 0x00]).is_err());
        assert!(check_config(&[0x0a, 0x10]).unwrap_err().to_string().contains("AAC Main"));
        assert!(check_config(&[]).is_ok());
    }
}
