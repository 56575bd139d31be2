//! Frames of MPEG audio (ISO 11172-3, 13818-3) and ADTS (ISO 13818-7): streams without a container.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::format::{Format, id3v2_size};
use super::source::Source;
use super::{Result, cut_off, damaged, unreadable};

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    format: Format,
    /// Version and layer; frames of one stream agree in them.
    kind: u8,
    rate: u32,
    /// Bytes, header included.
    size: usize,
    samples: u32,
}

/// Bytes of an ADTS header; MPEG audio needs the first four.
const HEADER: usize = 7;

fn parse(head: &[u8]) -> Option<Frame> {
    mpeg_frame(head.first_chunk()?).or_else(|| adts_frame(head.first_chunk()?))
}

fn mpeg_frame(&[a, b, c, _]: &[u8; 4]) -> Option<Frame> {
    const BITRATES: [[u32; 14]; 5] = [
        [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let version = b >> 3 & 3;
    let layer = 4 - (b >> 1 & 3);
    let (bitrate, rate) = (usize::from(c >> 4), usize::from(c >> 2 & 3));
    // Version 1 and layer 4 are reserved; a bitrate of 0 is free format, which says no size.
    if a != 0xff || b < 0xe0 || version == 1 || layer == 4 || !(1..=14).contains(&bitrate) || rate == 3 {
        return None;
    }
    let first = version == 3;
    let table = match (first, layer) {
        (true, 1) => 0,
        (true, 2) => 1,
        (true, _) => 2,
        (false, 1) => 3,
        (false, _) => 4,
    };
    let rate = [44_100, 48_000, 32_000][rate] >> [2, 0, 1, 0][usize::from(version)];
    let bits = BITRATES[table][bitrate - 1] * 1000;
    let padding = u32::from(c >> 1 & 1);
    let (size, samples) = match layer {
        1 => ((12 * bits / rate + padding) * 4, 384),
        3 if !first => (72 * bits / rate + padding, 576),
        _ => (144 * bits / rate + padding, 1152),
    };
    Some(Frame { format: Format::Mpeg, kind: version << 4 | layer, rate, size: size as usize, samples })
}

fn adts_frame(&[a, b, c, d, e, f, _]: &[u8; HEADER]) -> Option<Frame> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    let size = usize::from(d & 3) << 11 | usize::from(e) << 3 | usize::from(f >> 5);
    let rate = *RATES.get(usize::from(c >> 2 & 15))?;
    (a == 0xff && b & 0xf6 == 0xf0 && size > HEADER).then_some(Frame {
        format: Format::Adts,
        kind: b & 8 | c >> 6,
        rate,
        size,
        samples: 1024,
    })
}

impl Frame {
    fn follows(&self, before: &Self) -> bool {
        (self.format, self.kind, self.rate) == (before.format, before.kind, before.rate)
    }
}

/// The first frame in `head` that others follow; `whole`: nothing comes after `head`.
pub(super) fn find(head: &[u8], whole: bool) -> Option<(Format, usize)> {
    (0..head.len()).find_map(|offset| {
        let first = parse(&head[offset..])?;
        // Two bytes look like a header too often. One frame at the very start is believed if it is all there is.
        let (needed, least) = if offset == 0 { (2, 1) } else { (3, 2) };
        let mut at = offset;
        for seen in 0..needed {
            match parse(head.get(at..).unwrap_or_default()) {
                Some(frame) if frame.follows(&first) => at += frame.size,
                None if whole && seen >= least && at + HEADER > head.len() => break,
                _ => return None,
            }
        }
        Some((first.format, offset))
    })
}

/// Walks all frames, which must follow each other without gap; tags are passed over, and the last frame may be cut.
///
/// Returns whether the file holds just as many frames as its LAME header says, whose padding then ends the recording.
pub(super) fn check(source: Source) -> Result<bool> {
    let len = source.len();
    let mut stream = BufReader::new(source);
    let mut first: Option<Frame> = None;
    let (mut at, mut frames, mut promised) = (0u64, 0u64, None);
    while at < len {
        let head = fill(&mut stream, at, len).map_err(|error| unreadable(&error))?;
        let Some(frame) = parse(&head).filter(|frame| first.is_none_or(|first| frame.follows(&first))) else {
            match tag_size(&head) {
                Some(size) => at += size,
                None => {
                    let seconds = first.map(|first| frames as f64 * f64::from(first.samples) / f64::from(first.rate));
                    check_tail(&mut stream, at, len, first.map_or(0, |first| first.size), seconds)?;
                    break;
                }
            }
            continue;
        };
        if first.is_none() {
            first = Some(frame);
            promised = promised_frames(&head);
            if promised.is_some() {
                // The header's frame holds no sound.
                at += frame.size as u64;
                continue;
            }
        }
        at += frame.size as u64;
        if at <= len {
            frames += 1;
        }
    }
    // The last frame may be cut.
    let (Some(first), Some(promised)) = (first, promised) else { return Ok(false) };
    if frames + 1 < promised {
        let seconds = |frames: u64| frames as f64 * f64::from(first.samples) / f64::from(first.rate);
        let what = format!("its header promises {:.1} s", seconds(promised));
        return Err(cut_off(&what, Some(seconds(frames))));
    }
    Ok(frames == promised)
}

/// Enough of what is at `at` for a header and for what may stand in the first frame.
fn fill(stream: &mut BufReader<Source>, at: u64, len: u64) -> std::io::Result<Vec<u8>> {
    let position = stream.stream_position()?;
    stream.seek_relative(at as i64 - position as i64)?;
    let mut head = vec![0; 256.min(len - at) as usize];
    stream.read_exact(&mut head)?;
    Ok(head)
}

/// Frames that a Xing or Info header with LAME's extension counts: others are often wrong.
fn promised_frames(head: &[u8]) -> Option<u64> {
    let &[_, version, _, mode, ..] = head else { return None };
    let (first, mono) = (version >> 3 & 3 == 3, mode >> 6 == 3);
    let side = match (first, mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    let crc = if version & 1 == 0 { 2 } else { 0 };
    let tag = head.get(4 + crc + side..)?;
    if !(tag.starts_with(b"Xing") || tag.starts_with(b"Info")) {
        return None;
    }
    let flags = u32::from_be_bytes(*tag.get(4..)?.first_chunk()?);
    let frames = u32::from_be_bytes(*tag.get(8..)?.first_chunk()?);
    // Frames, bytes, table of contents and quality precede the encoder's name.
    let name =
        tag.get(8 + [0, 4, 4, 8, 100, 104, 104, 108][flags as usize & 7] + if flags & 8 == 0 { 0 } else { 4 }..)?;
    (flags & 1 == 1 && (name.starts_with(b"LAME") || name.starts_with(b"Lav"))).then_some(u64::from(frames))
}

/// Bytes of the tag that begins here.
fn tag_size(head: &[u8]) -> Option<u64> {
    if let Some(size) = id3v2_size(head) {
        return Some(size);
    }
    if head.starts_with(b"TAG") {
        return Some(128);
    }
    if head.starts_with(b"APETAGEX") {
        let size = u64::from(u32::from_le_bytes(*head.get(12..)?.first_chunk()?));
        // A tag's header counts neither itself nor stands before a footer that is not counted.
        return Some(if head.get(23)? & 0x20 == 0 { 32 } else { 32 + size });
    }
    None
}

/// What follows the last frame: the rest of a cut one, silence of zeros, or damage.
fn check_tail(stream: &mut BufReader<Source>, at: u64, len: u64, frame: usize, seconds: Option<f64>) -> Result<()> {
    if len - at <= frame as u64 {
        return Ok(());
    }
    stream.seek(SeekFrom::Start(at)).map_err(|error| unreadable(&error))?;
    let mut block = [0; 4096];
    loop {
        match stream.read(&mut block).map_err(|error| unreadable(&error))? {
            0 => return Ok(()),
            n if block[..n].iter().all(|&byte| byte == 0) => {}
            _ => return Err(damaged("there are bytes between its frames that belong to none", seconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_sizes() {
        // MPEG 1 layer III, 128 kbit/s, 44.1 kHz; MPEG 2 layer III, 64 kbit/s, 16 kHz.
        let frame = mpeg_frame(&[0xff, 0xfb, 0x90, 0x00]).unwrap();
        assert_eq!((frame.size, frame.samples, frame.rate), (417, 1152, 44_100));
        let frame = mpeg_frame(&[0xff, 0xf3, 0x88, 0xc4]).unwrap();
        assert_eq!((frame.size, frame.samples, frame.rate), (288, 576, 16_000));
        assert_eq!(mpeg_frame(&[0xff, 0xfb, 0xf0, 0x00]), None);
        assert_eq!(mpeg_frame(&[0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn noise_is_no_stream() {
        let mut state = 1u32;
        for _ in 0..50 {
            let noise: Vec<u8> = (0..64 * 1024)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            assert_eq!(find(&noise, true), None);
        }
    }
}
