//! What is refused, and in which words. The rules stand at the head of `src/audio/mod.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::time::{Duration, Instant};

use common::{Random, bytes, decode, fixture, input, json, wav, wav_header};
use tsserve_speech::{AudioInput, SpeechError};

fn file(name: &str) -> Vec<u8> {
    bytes(&format!("golden/audio/files/{name}"))
}

fn refusal(name: &str, bytes: Vec<u8>) -> String {
    let started = Instant::now();
    let sentence = match decode(&input(bytes)) {
        Err(SpeechError::Audio(sentence)) => sentence,
        other => panic!("{name}: {other:?}", other = other.map(|samples| samples.len())),
    };
    assert!(started.elapsed() < Duration::from_secs(10), "{name}");
    // One sentence for who sent it: no library's paths, no Rust.
    assert!(sentence.len() < 200 && !sentence.contains("::") && !sentence.contains('\n'), "{name}: {sentence}");
    sentence
}

fn replaced(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn the_broken_fixtures() {
    let said = [
        ("empty.wav", "it has no bytes"),
        ("header_cut.wav", "its WAV header is incomplete"),
        ("no_samples.wav", "no samples"),
        ("random.ogg", "not audio in a format that is known"),
        ("text.mp3", "this is text"),
        ("truncated.flac", "cut off at 1.2 s"),
        ("truncated.m4a", "cut off"),
        ("truncated.mp3", "cut off at 0.3 s"),
        ("truncated.wav", "cut off at 0.6 s: its WAV header promises 3.0 s"),
        ("wav_named.mp3", "cut off at 0.9 s"),
    ];
    for (name, part) in said {
        let sentence = refusal(name, bytes(&format!("golden/audio/broken/{name}")));
        assert!(sentence.contains(part), "{name}: {sentence}");
    }
    // The first is a placeholder of tools that write to a pipe, the second sound under a wrong name.
    let golden = json("golden/audio/audio.json");
    for name in ["data_size_lies.wav", "flac_named.wav"] {
        let samples = decode(&AudioInput::Path(fixture(&format!("golden/audio/broken/{name}")))).unwrap();
        assert_eq!(samples.len() as u64, golden["broken"][name]["samples"].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn cut_files() {
    let mut count = 0;
    for name in [
        "16k.flac",
        "44k_stereo.mp3",
        "48k_stereo.wav",
        "aac.m4a",
        "mono.mp3",
        "mulaw.wav",
        "opus.ogg",
        "opus.webm",
        "vorbis.ogg",
    ] {
        let whole = file(name);
        for share in [1, 5, 20, 40, 60, 80, 90, 97] {
            refusal(&format!("{name} cut at {share} %"), whole[..whole.len() * share / 100].to_vec());
            count += 1;
        }
    }
    assert!(count >= 50);
}

#[test]
fn flipped_bytes_under_a_checksum() {
    let mut random = Random(5);
    for name in ["16k.flac", "opus.ogg", "vorbis.ogg"] {
        let whole = file(name);
        for _ in 0..10 {
            // Behind FLAC's header, whose text is not checked.
            let at = 9000 + random.below(whole.len() - 9000);
            let harmed = replaced(whole.clone(), at, &[whole[at] ^ 0x10]);
            let sentence = refusal(&format!("{name} with byte {at} flipped"), harmed);
            // A page's size may be hit.
            let named = sentence.contains("damaged at ") || sentence.contains("cut off at ");
            assert!(named, "{name}: {sentence}");
        }
    }
}

#[test]
fn bytes_between_frames() {
    for name in ["mono.mp3", "44k_stereo.mp3", "aac.aac"] {
        let mut harmed = file(name);
        let middle = harmed.len() / 2;
        harmed[middle..middle + 3000].fill(0x55);
        let sentence = refusal(name, harmed);
        assert!(sentence.contains("damaged at 1."), "{name}: {sentence}");
    }
}

#[test]
fn headers_of_nonsense() {
    let sound: Vec<i16> = (0..16_000).map(|i| (i % 100 * 100) as i16).collect();
    let good = wav(16_000, 1, &sound);
    assert_eq!(decode(&input(good.clone())).unwrap().len(), 16_000);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no channels", replaced(good.clone(), 22, &[0, 0]), ""),
        ("65535 channels", replaced(good.clone(), 22, &[0xff, 0xff]), ""),
        ("1000 channels", replaced(replaced(good.clone(), 22, &[0xe8, 3]), 32, &[0xd0, 7]), "1000 channels"),
        ("rate 0", replaced(good.clone(), 24, &[0; 4]), "0 samples per second"),
        ("rate 1", replaced(good.clone(), 24, &[1, 0, 0, 0]), "1 samples per second"),
        ("rate 4 GHz", replaced(good.clone(), 24, &[0xff; 4]), "4294967295 samples per second"),
        ("0 bits", replaced(good.clone(), 34, &[0, 0]), ""),
        ("77 bits", replaced(good.clone(), 34, &[77, 0]), ""),
        ("a codec in WAV that is none", replaced(good.clone(), 20, &[0x99, 0x99]), "codec 0x9999"),
        ("MP3 in WAV", replaced(good.clone(), 20, &[0x55, 0]), "codec 0x0055"),
        ("a format chunk of 2 GB", replaced(good.clone(), 16, &[0, 0, 0, 0x70]), "cut off"),
        ("no data chunk", replaced(good.clone(), 36, b"dada"), "cut off"),
        ("data twice as long", replaced(good.clone(), 40, &64_000u32.to_le_bytes()), "promises 2.0 s"),
        ("a header alone", wav_header(16_000, 1, 32_000), "cut off at 0.0 s"),
        ("an open header alone", wav_header(16_000, 1, u32::MAX), "no samples"),
        ("RIFF without WAVE", replaced(good.clone(), 8, b"AVI "), "without WAVE"),
        ("only a box of MP4", b"\0\0\0\x14ftypM4A \0\0\0\0M4A ".to_vec(), "no tracks"),
        ("a box larger than the file", b"\x7f\xff\xff\xffmoov".to_vec(), "cut off"),
        ("a box of 2^60 bytes", b"\0\0\0\x01moov\x10\0\0\0\0\0\0\0".to_vec(), "cut off"),
        ("a box smaller than its header", b"\0\0\0\x04moov\0\0\0\0".to_vec(), "broken"),
        ("sound without index", b"\0\0\0\x10mdat12345678".to_vec(), "index"),
        ("only EBML's mark", b"\x1a\x45\xdf\xa3".to_vec(), "cut off"),
        ("an element of 2^56 bytes", b"\x1a\x45\xdf\xa3\x01\0\xff\xff\xff\xff\xff\xff".to_vec(), "cut off"),
        ("FLAC's mark alone", b"fLaC".to_vec(), ""),
        ("FLAC with a block too long", b"fLaC\x80\xff\xff\xff".to_vec(), ""),
        ("an Ogg page of nothing", b"OggS".to_vec(), "incomplete"),
        ("an ID3 tag longer than the file", b"ID3\x04\0\0\x7f\x7f\x7f\x7f".to_vec(), "ID3"),
        ("an ID3 tag alone", b"ID3\x04\0\0\0\0\0\x02ab".to_vec(), "ID3"),
        ("zeros", vec![0; 100_000], "not audio"),
        ("all ones", vec![0xff; 100_000], "not audio"),
        ("JSON", br#"{"error":{"message":"not found"}}"#.repeat(50), "text"),
        ("HTML", b"<!doctype html><title>404</title>".to_vec(), "text"),
        ("a PNG", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), "PNG"),
        ("a ZIP", b"PK\x03\x04\x14\0".to_vec(), "ZIP"),
        ("a PDF", b"%PDF-1.7\n".to_vec(), "PDF"),
        ("one byte", vec![b'R'], ""),
        ("AIFF that is cut", b"FORM\0\0\x10\0AIFFCOMM\0\0\0\x12".to_vec(), "AIFF"),
    ];
    for (name, bytes, part) in cases {
        let sentence = refusal(name, bytes);
        assert!(sentence.contains(part), "{name}: {sentence}");
    }
    for (name, sample) in [("NaN", f32::NAN), ("infinity", f32::INFINITY), ("far too loud", 1e30)] {
        let whole = file("f32.wav");
        let middle = whole.len() / 8 * 4;
        let sentence = refusal(name, replaced(whole, middle, &sample.to_le_bytes()));
        assert!(sentence.contains("no numbers"), "{name}: {sentence}");
    }
}

#[test]
fn sizes_that_were_left_open_are_read() {
    let sound: Vec<i16> = (0..16_000).map(|i| (i % 100 * 100) as i16).collect();
    let whole = wav(16_000, 1, &sound);
    // (size of all, size of the data): ffmpeg, sox and browsers that write to a pipe.
    let open = [
        (u32::MAX, u32::MAX),
        (0x7fff_ffff, 0x7fff_ffff - 36),
        (0x7fff_f024, 0x7fff_f000),
        (0, 0),
        (36, 0),
        (u32::MAX, 0),
    ];
    for (all, data) in open {
        let mut wav = whole.clone();
        wav[4..8].copy_from_slice(&all.to_le_bytes());
        wav[40..44].copy_from_slice(&data.to_le_bytes());
        assert_eq!(decode(&input(wav)).unwrap().len(), 16_000, "{all:x} {data:x}");
    }
    // An odd end, and a tag behind.
    let mut odd = wav(16_000, 1, &sound);
    odd.pop();
    assert_eq!(decode(&input(odd)).unwrap().len(), 15_999);
    let mut tagged = whole;
    tagged.extend(b"LIST\x04\0\0\0INFO");
    assert_eq!(decode(&input(tagged)).unwrap().len(), 16_000);
}

#[test]
fn streams_may_end_anywhere() {
    // ADTS promises nothing.
    let whole = file("aac.aac");
    for share in [30, 50, 90] {
        let samples = decode(&input(&whole[..whole.len() * share / 100])).unwrap();
        assert!(samples.len() > 49_152 * share / 100 - 4096 && samples.len() < 49_152, "{}", samples.len());
    }
    // MP3 without a header: its first frame is 0xff, after an ID3 tag of 45 bytes and the header's frame.
    let mp3 = file("mono.mp3");
    let stream = without_lame_header(&mp3);
    let samples = decode(&input(&stream[..stream.len() / 2])).unwrap();
    assert!((20_000..28_000).contains(&samples.len()), "{}", samples.len());
    // Cut out of the middle of a stream, as a recorder of radio does.
    let samples = decode(&input(&stream[5000..])).unwrap();
    assert!((30_000..45_000).contains(&samples.len()), "{}", samples.len());
    // Ogg without a last page: pages are found from the end.
    let ogg = file("vorbis.ogg");
    let last = ogg.windows(4).rposition(|w| w == b"OggS").unwrap();
    let samples = decode(&input(&ogg[..last])).unwrap();
    assert!((16_000..47_840).contains(&samples.len()), "{}", samples.len());
}

#[test]
fn tags_around_the_sound_do_not_matter() {
    let id3v2 = [b"ID3\x03\0\0\0\0\x01\x00".to_vec(), vec![0; 128]].concat();
    let id3v1 = [b"TAG".to_vec(), vec![b' '; 125]].concat();
    // Header, one item of 8 bytes that is looked at by nobody, footer: 40 bytes are counted.
    let ends =
        |flags: u8| [b"APETAGEX\xd0\x07\0\0\x28\0\0\0\x01\0\0\0\0\0\0".to_vec(), vec![flags], vec![0; 8]].concat();
    let ape = [ends(0xa0), vec![b'x'; 8], ends(0x80)].concat();
    for name in ["16k.flac", "mono.mp3", "44k_stereo.mp3", "aac.aac", "aac.m4a", "vorbis.ogg", "s16.wav"] {
        let whole = decode(&input(file(name))).unwrap();
        let tagged = [id3v2.clone(), id3v2.clone(), file(name), ape.clone(), id3v1.clone()].concat();
        assert!(decode(&input(tagged)).unwrap() == whole, "{name}");
    }
}

fn without_lame_header(mp3: &[u8]) -> Vec<u8> {
    let info = mp3.windows(4).position(|w| w == b"Info" || w == b"Xing").unwrap();
    let next = mp3[info..].windows(2).position(|w| w == [0xff, 0xf3]).unwrap();
    mp3[info + next..].to_vec()
}

#[test]
fn half_of_the_band_is_refused() {
    // The configuration inside of "aac.m4a" (AAC-LC, 16 kHz, mono: 14 08) as that of HE-AAC.
    let m4a = file("aac.m4a");
    let at = m4a.windows(3).rposition(|w| w == [0x02, 0x14, 0x08]).map(|at| at + 1);
    let at = at.or_else(|| m4a.windows(2).rposition(|w| w == [0x14, 0x08])).unwrap();
    let sentence = refusal("explicit", replaced(m4a, at, &[0x2c, 0x08]));
    assert!(sentence.contains("HE-AAC"), "{sentence}");

    let sentence = refusal("unannounced", with_replication(&file("aac.aac")));
    assert!(sentence.contains("HE-AAC"), "{sentence}");
}

/// ADTS whose packets carry spectral band replication (of nonsense) before their end, as HE-AAC streams do.
fn with_replication(adts: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = adts;
    while rest.len() > 7 {
        let size = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5] >> 5);
        let (frame, after) = rest.split_at(size);
        let mut bits: Vec<bool> =
            frame[7..].iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
        while bits.last() == Some(&false) {
            bits.pop();
        }
        bits.truncate(bits.len() - 3);
        // Fill element of 20 bytes: 110, 15, 6; then the kind 1101 and what is not looked at; end.
        let fill = std::iter::once((0b110, 3)).chain([(15, 4), (6, 8), (0b1101, 4)]);
        let fill = fill.chain(std::iter::repeat_n((0, 4), 39)).chain([(0b111, 3)]);
        for (value, count) in fill {
            bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        }
        let payload =
            bits.chunks(8).map(|bits| bits.iter().enumerate().fold(0, |b, (i, &bit)| b | u8::from(bit) << (7 - i)));
        let payload: Vec<u8> = payload.collect();
        let size = payload.len() + 7;
        let mut header = frame[..7].to_vec();
        header[3] = header[3] & !3 | (size >> 11) as u8;
        header[4] = (size >> 3) as u8;
        header[5] = header[5] & 0x1f | (size << 5) as u8;
        out.extend(header);
        out.extend(payload);
        rest = after;
    }
    out
}
