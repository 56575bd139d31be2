//! Chunks of WAV and AIFF: sizes that writers leave open, and data that ends too early.

use super::source::{Patch, Source};
use super::{Result, check_size, cut_off, damaged, refuse, unreadable};

/// Sizes from here on are placeholders of writers that did not know better: 0xffffffff, 0x7fffffff, 0x7ffff000 and
/// such.
const PLACEHOLDER: u32 = 0x7fff_0000;
/// Chunks before the data.
const MAX_CHUNKS: usize = 1000;

/// Checks the sizes of a WAV file, and says what to read in place of those that were left open.
pub(super) fn check_wav(source: &mut Source) -> Result<Vec<Patch>> {
    let len = source.len();
    let head = source.peek(0, 12).map_err(|error| unreadable(&error))?;
    let riff_size = little(&head, 4);
    // The whole's size is not relied on, and RF64 differs from RIFF in where sizes are only.
    let mut patches = vec![Patch { at: 0, bytes: *b"RIFF" }, Patch { at: 4, bytes: [0xff; 4] }];
    let (mut at, mut byte_rate, mut block, mut long_size) = (12, None, 1, None);
    for _ in 0..MAX_CHUNKS {
        let head = source.peek(at, 8).map_err(|error| unreadable(&error))?;
        if head.len() < 8 {
            return Err(cut_off("its WAV header ends before the samples", None));
        }
        let size = little(&head, 4);
        let body = at + 8;
        match &head[..4] {
            b"fmt " => {
                let format = source.peek(body, 16).map_err(|error| unreadable(&error))?;
                if format.len() < 16 {
                    return Err(cut_off("its WAV header is incomplete", None));
                }
                check_codec(u16::from_le_bytes([format[0], format[1]]))?;
                check_size(Some(little(&format, 4)), usize::from(u16::from_le_bytes([format[2], format[3]])))?;
                byte_rate = Some(little(&format, 8)).filter(|rate| *rate > 0);
                block = u64::from(u16::from_le_bytes([format[12], format[13]])).max(1);
            }
            b"ds64" => {
                let sizes = source.peek(body, 16).map_err(|error| unreadable(&error))?;
                long_size = sizes.get(8..).and_then(|size| Some(u64::from_le_bytes(*size.first_chunk()?)));
            }
            b"data" => {
                let there = len - body;
                let open =
                    size >= PLACEHOLDER || (size == 0 && (riff_size >= PLACEHOLDER || u64::from(riff_size) <= at));
                let promised = match long_size {
                    Some(promised) if size == u32::MAX => Some(promised),
                    _ if open && there < u64::from(size) => None,
                    _ if open && size == 0 => None,
                    _ => Some(u64::from(size)),
                };
                if let Some(promised) = promised.filter(|promised| *promised >= there + block) {
                    let seconds = |bytes: u64| byte_rate.map(|rate| bytes as f64 / f64::from(rate));
                    let what = match seconds(promised) {
                        Some(promised) => format!("its WAV header promises {promised:.1} s"),
                        None => "its WAV header promises more".to_owned(),
                    };
                    return Err(cut_off(&what, seconds(there)));
                }
                let size = promised.map_or(there, |promised| promised.min(there));
                // 4 GiB and more cannot be said: then everything that follows is data.
                let size = u32::try_from(size).unwrap_or(u32::MAX);
                patches.push(Patch { at: at + 4, bytes: size.to_le_bytes() });
                return Ok(patches);
            }
            _ => {}
        }
        let end = body + u64::from(size) + u64::from(size & 1);
        if end > len {
            return Err(cut_off("its WAV header ends before the samples", None));
        }
        at = end;
    }
    Err(damaged("its WAV header has no end", None))
}

/// PCM, ADPCM (two kinds), float, A-law, µ-law and what says the same in a longer way.
fn check_codec(tag: u16) -> Result<()> {
    match tag {
        1 | 2 | 3 | 6 | 7 | 0x11 | 0xfffe => Ok(()),
        _ => Err(refuse(format!("the WAV file holds codec 0x{tag:04x}, which is not decoded here"))),
    }
}

/// Checks the sizes of an AIFF file.
pub(super) fn check_aiff(source: &mut Source) -> Result<()> {
    let len = source.len();
    let mut at = 12;
    for _ in 0..MAX_CHUNKS {
        let head = source.peek(at, 8).map_err(|error| unreadable(&error))?;
        if head.len() < 8 {
            return Err(cut_off("its AIFF header ends before the samples", None));
        }
        let size = u64::from(u32::from_be_bytes([head[4], head[5], head[6], head[7]]));
        let end = at + 8 + size;
        if end > len {
            return Err(cut_off("its AIFF header promises more than there is", None));
        }
        if &head[..4] == b"SSND" {
            return Ok(());
        }
        at = end + (size & 1);
    }
    Err(damaged("its AIFF header has no end", None))
}

fn little(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
