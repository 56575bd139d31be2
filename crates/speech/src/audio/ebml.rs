//! Elements of Matroska and WebM (RFC 8794, RFC 9559): whether all fit into the file, and what ends the recording.

use std::io::{self, BufReader, Read};

use super::source::Source;
use super::{Result, cut_off, damaged, unreadable};

const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x002a_d7b1;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;
const DISCARD_PADDING: u32 = 0x75a2;

/// What a walk finds that the demuxer does not tell.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Track number, and nanoseconds at the end of its last block that are no sound.
    pub padding: Option<(u64, u64)>,
}

struct Walk {
    file: BufReader<Source>,
    at: u64,
    len: u64,
}

/// Walks elements down to blocks. Those of unknown size end where the next of their level begins.
pub(super) fn check(source: Source) -> Result<Found> {
    let len = source.len();
    let mut walk = Walk { file: BufReader::new(source), at: 0, len };
    let mut found = Found::default();
    let (mut scale, mut cluster, mut seconds, mut track) = (1_000_000u64, 0, None, 0);
    while walk.at < len {
        let (id, size) = walk.header(seconds)?;
        let enters = matches!(id, SEGMENT | INFO | CLUSTER | BLOCK_GROUP);
        match size {
            None if matches!(id, SEGMENT | CLUSTER) => continue,
            None => return Err(damaged("a Matroska element has no size", seconds)),
            Some(size) if size > len - walk.at => return Err(cut_off("a Matroska element is incomplete", seconds)),
            Some(_) if enters => continue,
            Some(size) => {
                let body = walk.body(size)?;
                match id {
                    TIMESTAMP_SCALE => scale = number(&body).clamp(1, 1_000_000_000),
                    TIMESTAMP => cluster = number(&body),
                    BLOCK | SIMPLE_BLOCK => {
                        let (number, len) = vint(&body).unwrap_or((0, 0));
                        track = number;
                        if let Some(&[high, low]) = body.get(len..len + 2) {
                            let ticks = cluster as f64 + f64::from(i16::from_be_bytes([high, low]));
                            seconds = Some(ticks * scale as f64 / 1e9);
                        }
                        found.padding = found.padding.filter(|(padded, _)| *padded != track);
                    }
                    DISCARD_PADDING if body.len() <= 8 => {
                        // Signed; negative padding would be at the start.
                        let sign = body.first().is_some_and(|byte| byte & 0x80 != 0);
                        found.padding = (!sign).then(|| (track, number(&body)));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

impl Walk {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.file.read_exact(&mut byte)?;
        self.at += 1;
        Ok(byte[0])
    }

    /// The next element's id and size; `None`: unknown.
    fn header(&mut self, seconds: Option<f64>) -> Result<(u32, Option<u64>)> {
        let incomplete = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_off("a Matroska element is incomplete", seconds),
            _ => unreadable(&error),
        };
        let first = self.byte().map_err(incomplete)?;
        let more = first.leading_zeros();
        if more > 3 {
            return Err(damaged("it is no Matroska element that stands there", seconds));
        }
        let mut id = u32::from(first);
        for _ in 0..more {
            id = id << 8 | u32::from(self.byte().map_err(incomplete)?);
        }
        let first = self.byte().map_err(incomplete)?;
        let more = first.leading_zeros();
        if more > 7 {
            return Err(damaged("the size of a Matroska element is broken", seconds));
        }
        let mut size = u64::from(first) & (0x7f >> more);
        for _ in 0..more {
            size = size << 8 | u64::from(self.byte().map_err(incomplete)?);
        }
        Ok((id, (size != (1 << (7 * (more + 1))) - 1).then_some(size)))
    }

    /// The element's first bytes; goes to its end.
    fn body(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut body = vec![0; size.min(8) as usize];
        self.file.read_exact(&mut body).map_err(|error| unreadable(&error))?;
        // Sizes were compared with the file's, whose length fits.
        self.file.seek_relative((size - body.len() as u64) as i64).map_err(|error| unreadable(&error))?;
        self.at += size;
        debug_assert!(self.at <= self.len);
        Ok(body)
    }
}

/// Big-endian.
fn number(body: &[u8]) -> u64 {
    body.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// A number with its length in front, and how many bytes it takes.
fn vint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let more = first.leading_zeros() as usize;
    let rest = bytes.get(1..1 + more).filter(|_| more < 8)?;
    Some((rest.iter().fold(u64::from(first) & (0x7f >> more), |sum, &byte| sum << 8 | u64::from(byte)), 1 + more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_their_length() {
        assert_eq!(vint(&[0x81]), Some((1, 1)));
        assert_eq!(vint(&[0x41, 0x23]), Some((0x123, 2)));
        assert_eq!(vint(&[0x40]), None);
        assert_eq!(vint(&[0]), None);
        assert_eq!(vint(&[]), None);
    }
}
