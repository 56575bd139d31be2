//! Which container bytes are, by their content.

use super::source::Source;
use super::{Result, cut_off, mpeg, refuse, unreadable};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Wav,
    Aiff,
    Flac,
    Ogg,
    Mp4,
    Matroska,
    Mpeg,
    Adts,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav => "WAV",
            Self::Aiff => "AIFF",
            Self::Flac => "FLAC",
            Self::Ogg => "Ogg",
            Self::Mp4 => "MP4",
            Self::Matroska => "Matroska",
            Self::Mpeg => "MPEG audio",
            Self::Adts => "ADTS",
        }
    }
}

/// Bytes in which the first frame of a stream without header must begin: streams are often cut out of longer ones.
const SEARCHED: usize = 64 * 1024;

/// The format and the offset at which it begins, behind tags and what is left of a cut frame.
pub(super) fn recognise(source: &mut Source) -> Result<(Format, u64)> {
    if source.len() == 0 {
        return Err(refuse("the audio is empty: it has no bytes"));
    }
    let start = skip_tags(source)?;
    let head = source.peek(start, SEARCHED).map_err(|error| unreadable(&error))?;
    if let Some(format) = by_magic(&head) {
        return Ok((format, start));
    }
    let rest = source.len() - start;
    if let Some((format, offset)) = mpeg::find(&head, head.len() as u64 == rest) {
        return Ok((format, start + offset as u64));
    }
    Err(refuse(match other_kind(&head) {
        Some(kind) => format!("this is {kind}, which is not decoded here"),
        None => "this is not audio in a format that is known here".to_owned(),
    }))
}

/// ID3v2 tags stand before any format.
fn skip_tags(source: &mut Source) -> Result<u64> {
    let mut start = 0;
    loop {
        let head = source.peek(start, 10).map_err(|error| unreadable(&error))?;
        let Some(size) = id3v2_size(&head) else { return Ok(start) };
        start += size;
        if start >= source.len() {
            return Err(cut_off("its ID3 tag is longer than the file", None));
        }
    }
}

/// Where tags begin that stand behind everything else: ID3v1, and APE before it or alone.
pub(super) fn end_before_tags(source: &mut Source) -> Result<u64> {
    let mut end = source.len();
    loop {
        let tail = |source: &mut Source, bytes: u64| source.peek(end.saturating_sub(bytes), bytes as usize);
        let id3 = tail(source, 128).map_err(|error| unreadable(&error))?.starts_with(b"TAG");
        let footer = tail(source, 32).map_err(|error| unreadable(&error))?;
        let size = if id3 { Some(128) } else { ape_size(&footer) };
        match size.and_then(|size| end.checked_sub(size)) {
            Some(before) => end = before,
            None => return Ok(end),
        }
    }
}

/// Bytes of the APE tag that ends with this footer.
fn ape_size(footer: &[u8]) -> Option<u64> {
    let footer: &[u8; 32] = footer.first_chunk().filter(|footer| footer.starts_with(b"APETAGEX"))?;
    let size = u64::from(u32::from_le_bytes([footer[12], footer[13], footer[14], footer[15]]));
    // A header of the same size as the footer is not counted.
    Some(if footer[23] & 0x80 == 0 { size.max(32) } else { size.max(32) + 32 })
}

/// Bytes of the ID3v2 tag that begins here, header included.
pub(super) fn id3v2_size(head: &[u8]) -> Option<u64> {
    let head: &[u8; 10] = head.first_chunk()?;
    let [b'I', b'D', b'3', _, _, flags, size @ ..] = head else { return None };
    if size.iter().any(|byte| byte & 0x80 != 0) {
        return None;
    }
    let size = size.iter().fold(0u64, |sum, &byte| sum << 7 | u64::from(byte));
    let footer = if flags & 0x10 == 0 { 0 } else { 10 };
    Some(10 + size + footer)
}

fn by_magic(head: &[u8]) -> Option<Format> {
    let form = head.get(8..12);
    match head.get(..4)? {
        b"RIFF" | b"RF64" | b"BW64" if form == Some(b"WAVE") => return Some(Format::Wav),
        b"FORM" if form == Some(b"AIFF") || form == Some(b"AIFC") => return Some(Format::Aiff),
        b"fLaC" => return Some(Format::Flac),
        b"OggS" => return Some(Format::Ogg),
        [0x1a, 0x45, 0xdf, 0xa3] => return Some(Format::Matroska),
        _ => {}
    }
    match head.get(4..8)? {
        b"ftyp" | b"moov" | b"mdat" | b"moof" | b"styp" | b"free" | b"skip" | b"wide" | b"pnot" => Some(Format::Mp4),
        _ => None,
    }
}

/// Names for what is sent by mistake.
fn other_kind(head: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 21] = [
        (b"RIFF", "a RIFF file without WAVE audio"),
        (b"RF64", "an RF64 file without WAVE audio"),
        (b"FORM", "an IFF file without AIFF audio"),
        (b"#!AMR", "AMR audio"),
        (b"caff", "a Core Audio file"),
        (b"\x30\x26\xb2\x75", "a Windows Media file"),
        (b"FLV", "a Flash video"),
        (b"MThd", "MIDI: notes, not sound"),
        (b"wvpk", "WavPack audio"),
        (b"MAC ", "Monkey's Audio"),
        (b"TTA1", "True Audio"),
        (b"MPCK", "Musepack audio"),
        (b".snd", "an AU file"),
        (b"\x00\x00\x01\xba", "an MPEG program stream"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip file"),
        (b"%PDF", "a PDF"),
        (b"\x89PNG", "a PNG picture"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"GIF8", "a GIF picture"),
        (b"\x7fELF", "a program"),
    ];
    if let Some((_, kind)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(kind);
    }
    // The head may end inside a character.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if head.len() - error.valid_up_to() < 4 => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    text.chars().all(printable).then_some("text")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audio::AudioInput;

    fn recognise_bytes(bytes: &[u8]) -> Result<(Format, u64)> {
        let input = AudioInput::Bytes { bytes: Arc::from(bytes), name: None };
        recognise(&mut Source::open(&input)?)
    }

    #[test]
    fn what_is_sent_by_mistake_is_named() {
        let said = |bytes: &[u8]| recognise_bytes(bytes).unwrap_err().to_string();
        assert_eq!(said(b""), "the audio is empty: it has no bytes");
        assert_eq!(said(b"PK\x03\x04...."), "this is a ZIP archive, which is not decoded here");
        assert_eq!(said("grüße".as_bytes()), "this is text, which is not decoded here");
        assert_eq!(said(&[0; 100]), "this is not audio in a format that is known here");
        assert!(said(b"ID3\x04\0\0\x7f\x7f\x7f\x7fxxxx").contains("cut off"));
    }

    #[test]
    fn tags_are_passed_over() {
        let mut bytes = b"ID3\x03\0\0\0\0\x01\x02".to_vec();
        bytes.extend([0; 130]);
        bytes.extend(b"fLaC");
        assert_eq!(recognise_bytes(&bytes).unwrap(), (Format::Flac, 140));
    }
}
