//! Pages of Ogg (RFC 3533): whether all are there and whole.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use super::source::Source;
use super::{Result, cut_off, damaged, refuse, unreadable};

const HEADER: usize = 27;
/// Streams that one file may hold at once or one after the other.
const MAX_STREAMS: usize = 256;

/// How streams that are decoded begin.
const CODECS: [&[u8]; 3] = [b"OpusHead", b"\x01vorbis", b"\x7fFLAC"];

struct Stream {
    sequence: u32,
    /// Granules per second, if the codec is known.
    rate: Option<u32>,
    granule: u64,
}

/// Walks all pages: capture pattern, checksum, numbering. A stream may end without being marked as ended.
pub(super) fn check(source: Source) -> Result<()> {
    let len = source.len();
    let mut file = BufReader::with_capacity(64 * 1024, source);
    let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
    let mut seconds = None;
    let mut page = Vec::with_capacity(HEADER + 255 + 255 * 255);
    let (mut at, mut codecs) = (0, 0);
    while at < len {
        page.clear();
        let mut read = |page: &mut Vec<u8>, bytes: usize| -> Result<()> {
            let before = page.len();
            file.by_ref().take(bytes as u64).read_to_end(page).map_err(|error| unreadable(&error))?;
            if page.len() - before < bytes {
                return Err(cut_off("its last Ogg page is incomplete", seconds));
            }
            Ok(())
        };
        read(&mut page, HEADER)?;
        if !page.starts_with(b"OggS\0") {
            return Err(damaged("an Ogg page is missing or broken", seconds));
        }
        let segments = usize::from(page[26]);
        read(&mut page, segments)?;
        let body = page[HEADER..].iter().map(|&len| usize::from(len)).sum::<usize>();
        let body_at = page.len();
        read(&mut page, body)?;
        at += page.len() as u64;

        let [granule, serial, sequence, crc] = fields(&page);
        page[22..26].fill(0);
        if u64::from(crc32(&page)) != crc {
            return Err(damaged("the checksum of an Ogg page does not fit", seconds));
        }
        let serial = serial as u32;
        let sequence = sequence as u32;
        if page[5] & 2 != 0 {
            if streams.len() == MAX_STREAMS {
                return Err(damaged("it has too many Ogg streams", seconds));
            }
            let head = &page[body_at..];
            codecs += usize::from(CODECS.iter().any(|codec| head.starts_with(codec)));
            streams.insert(serial, Stream { sequence, rate: rate(head), granule: 0 });
        } else if let Some(stream) = streams.get_mut(&serial) {
            if sequence != stream.sequence.wrapping_add(1) {
                return Err(damaged("Ogg pages are missing", seconds));
            }
            stream.sequence = sequence;
            // All ones: no packet ends in this page.
            if granule != u64::MAX {
                stream.granule = granule;
            }
            seconds = stream.rate.map(|rate| stream.granule as f64 / f64::from(rate)).or(seconds);
        }
    }
    match codecs {
        0 => Err(refuse("the Ogg file has no audio track in a codec that is decoded here (Opus, Vorbis, FLAC)")),
        _ => Ok(()),
    }
}

/// Granule position, serial number, sequence number and checksum.
fn fields(page: &[u8]) -> [u64; 4] {
    [6..14, 14..18, 18..22, 22..26]
        .map(|range| page[range].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

fn rate(packet: &[u8]) -> Option<u32> {
    if packet.starts_with(b"OpusHead") {
        return Some(48_000);
    }
    let rate = packet.strip_prefix(b"\x01vorbis")?.get(5..9)?;
    let rate = u32::from_le_bytes(*rate.first_chunk()?);
    (rate > 0).then_some(rate)
}

/// CRC-32 with polynomial 0x04c11db7, most significant bit first, without inversion.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = (i as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                value = value << 1 ^ if value >> 31 == 1 { 0x04c1_1db7 } else { 0 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, &byte| crc << 8 ^ TABLE[(crc >> 24) as usize ^ usize::from(byte)])
}
