//! Boxes of MP4 and QuickTime (ISO 14496-12): whether all fit into the file, and the edit that starts a sound track.

use std::io::{Read, Seek, SeekFrom};

use super::source::Source;
use super::{Result, cut_off, damaged, refuse, unreadable};

/// Bytes of a track's header boxes that are looked at; an edit list has a few entries.
const MAX_BOX: u64 = 64 * 1024;
/// Boxes of one level.
const MAX_BOXES: usize = 100_000;

/// What a sound track's edit list keeps of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Edit {
    pub track: u32,
    /// Seconds of the track that precede the recording: an encoder's delay, or what was cut away.
    pub skip: f64,
    /// Seconds of the track at which the recording ends.
    pub end: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Box {
    kind: [u8; 4],
    body: u64,
    end: u64,
}

/// Walks the boxes of the file, then those that lead to edit lists.
pub(super) fn check(mut source: Source) -> Result<Vec<Edit>> {
    let boxes = children(&mut source, 0, None)?;
    let movie = boxes.iter().find(|found| &found.kind == b"moov");
    let Some(movie) = movie else {
        return Err(if boxes.iter().any(|found| &found.kind == b"mdat") {
            cut_off("the index of the MP4 file is missing, which is often written last", None)
        } else {
            refuse("the MP4 file has no tracks")
        });
    };
    let mut edits = Vec::new();
    let inside = within(&mut source, *movie)?;
    let movie_scale = match inside.iter().find(|found| &found.kind == b"mvhd") {
        Some(header) => timescale(&read(&mut source, *header)?),
        None => None,
    };
    for track in inside.iter().filter(|found| &found.kind == b"trak") {
        if let Some(edit) = edit(&mut source, *track, movie_scale)? {
            edits.push(edit);
        }
    }
    Ok(edits)
}

/// The edit of a sound track. Only lists with one edit are followed: others put a recording together anew.
fn edit(source: &mut Source, track: Box, movie_scale: Option<u32>) -> Result<Option<Edit>> {
    let inside = within(source, track)?;
    let find = |boxes: &[Box], kind: &[u8; 4]| boxes.iter().find(|found| &found.kind == kind).copied();
    let (Some(header), Some(media), Some(edits)) =
        (find(&inside, b"tkhd"), find(&inside, b"mdia"), find(&inside, b"edts"))
    else {
        return Ok(None);
    };
    let (media, edits) = (within(source, media)?, within(source, edits)?);
    let (Some(media_header), Some(list)) = (find(&media, b"mdhd"), find(&edits, b"elst")) else { return Ok(None) };
    let header = read(source, header)?;
    let scale = timescale(&read(source, media_header)?);
    let list = read(source, list)?;
    let parts =
        (header.first().and_then(|version| field(&header, if *version == 1 { 20 } else { 12 })), scale, movie_scale);
    let (Some(track), Some(scale), Some(movie_scale)) = parts else { return Ok(None) };

    let wide = list.first() == Some(&1);
    let (Some(count), entry) = (field(&list, 4), if wide { 20 } else { 12 }) else { return Ok(None) };
    let kept: Vec<(u64, i64)> = list
        .get(8..)
        .unwrap_or_default()
        .chunks_exact(entry)
        .take(count as usize)
        .filter_map(|entry| {
            let (duration, start) = if wide {
                (u64::from_be_bytes(*entry.first_chunk()?), i64::from_be_bytes(*entry.get(8..)?.first_chunk()?))
            } else {
                (u64::from(field(entry, 0)?), i64::from(i32::from_be_bytes(*entry.get(4..)?.first_chunk()?)))
            };
            // An empty edit is silence before the recording: its start is -1.
            (start >= 0).then_some((duration, start))
        })
        .collect();
    let [(duration, start)] = kept[..] else { return Ok(None) };
    let skip = start as f64 / f64::from(scale);
    // Fragmented files have no duration here.
    let end = (duration > 0).then(|| skip + duration as f64 / f64::from(movie_scale));
    Ok(Some(Edit { track, skip, end }))
}

/// Units per second of a movie's or a track's header.
fn timescale(body: &[u8]) -> Option<u32> {
    field(body, if *body.first()? == 1 { 20 } else { 12 }).filter(|scale| *scale > 0)
}

fn field(body: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*body.get(at..)?.first_chunk()?))
}

fn read(source: &mut Source, found: Box) -> Result<Vec<u8>> {
    let len = (found.end - found.body).min(MAX_BOX) as usize;
    source.peek(found.body, len).map_err(|error| unreadable(&error))
}

fn within(source: &mut Source, parent: Box) -> Result<Vec<Box>> {
    children(source, parent.body, Some(parent.end))
}

/// Boxes from `at` on, in the parent that ends at `end` or in the file.
fn children(source: &mut Source, mut at: u64, end: Option<u64>) -> Result<Vec<Box>> {
    let limit = end.unwrap_or(source.len());
    let mut found = Vec::new();
    while limit.saturating_sub(at) >= 8 {
        let mut head = [0; 16];
        let len = (limit - at).min(16) as usize;
        source.seek(SeekFrom::Start(at)).map_err(|error| unreadable(&error))?;
        source.read_exact(&mut head[..len]).map_err(|error| unreadable(&error))?;
        let kind = [head[4], head[5], head[6], head[7]];
        if kind == [0; 4] {
            // QuickTime ends lists of boxes with zeros.
            break;
        }
        let (size, header) = match field(&head, 0).unwrap_or(0) {
            0 => (limit - at, 8),
            1 => {
                (u64::from_be_bytes([head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15]]), 16)
            }
            size => (u64::from(size), 8),
        };
        if size < header || found.len() == MAX_BOXES {
            return Err(damaged("a box of the MP4 file is broken", None));
        }
        if size > limit - at {
            let name = kind.map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte) } else { '?' });
            let name: String = name.iter().collect();
            return Err(cut_off(&format!("its box \"{name}\" promises {size} bytes, {} are there", limit - at), None));
        }
        found.push(Box { kind, body: at + header, end: at + size });
        at += size;
    }
    if end.is_none() && at < limit && limit - at < 8 {
        let rest = source.peek(at, 8).map_err(|error| unreadable(&error))?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(cut_off("a box of the MP4 file is incomplete", None));
        }
    }
    Ok(found)
}
