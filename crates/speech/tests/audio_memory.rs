//! What decoding may cost: memory and time, for long recordings and for thousands of broken ones.
//!
//! One test: the allocator counts for the whole process.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests fail the test")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use common::{Random, bytes, decode, input, with_ogg_checksums};
use tsserve_speech::{AudioInput, FeatureOptions, Features, RecordingFeatures, SpeechError, VadOptions, WINDOW_FRAMES};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: everything is left to the system's allocator; only sizes are counted beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `run` held at once, beyond what was there before.
fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let out = run();
    (out, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

#[test]
fn memory_and_time_are_bounded() {
    // Libraries that panic are caught; a backtrace would take more memory than they.
    std::panic::set_hook(Box::new(|info| println!("{info}")));
    an_hour_stays_flat();
    broken_files_neither_hang_nor_take_memory();
}

/// 8 kHz, 16 bits: a tone that comes and goes.
fn an_hour_stays_flat() {
    const RATE: u32 = 8000;
    const SECONDS: u32 = 3600;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&common::wav_header(RATE, 1, RATE * SECONDS * 2)).unwrap();
    for second in 0..SECONDS {
        let loud = if second % 3 == 0 { 0.0 } else { 8000.0 };
        let block: Vec<u8> = (0..RATE)
            .flat_map(|i| {
                let sample = (f64::from(i) / f64::from(RATE) * 440.0 * std::f64::consts::TAU).sin() * loud;
                (sample as i16).to_le_bytes()
            })
            .collect();
        file.write_all(&block).unwrap();
    }
    file.flush().unwrap();
    let audio = AudioInput::Path(file.path().to_owned());
    let options = FeatureOptions { n_mels: 80, vad: VadOptions::default() };
    let (features, peak) = peak_of(|| RecordingFeatures::open(&audio, &options, Arc::default()));
    let mut features = features.unwrap();
    assert_eq!(features.n_frames(), SECONDS as usize * 100);
    // The first pass keeps five minutes of samples until it knows that the recording is longer.
    assert!(peak < 64 << 20, "{peak} bytes");

    let (_, peak) = peak_of(|| {
        let mut out = vec![0.0; 80 * WINDOW_FRAMES];
        for start in (0..features.n_frames()).step_by(20 * WINDOW_FRAMES) {
            features.window(start, 0..features.n_frames(), &mut out).unwrap();
            let loudest = out.iter().copied().fold(f32::MIN, f32::max);
            assert!(loudest > 1.0, "{start}: {loudest}");
        }
    });
    assert!(peak < 16 << 20, "{peak} bytes");
    // A tone of two seconds in every three.
    let speech = features.speech().unwrap();
    assert_eq!(speech.len(), SECONDS as usize / 3);

    let cancelled = Arc::new(AtomicBool::new(true));
    let stopped = RecordingFeatures::open(&audio, &options, cancelled);
    assert!(matches!(stopped, Err(SpeechError::Cancelled)));
}

const FORMATS: [&str; 18] = [
    "16k.flac",
    "44k_mono.wav",
    "44k_stereo.mp3",
    "48k_stereo.flac",
    "48k_stereo.wav",
    "8k.wav",
    "aac.aac",
    "aac.m4a",
    "f32.wav",
    "mono.mp3",
    "mulaw.wav",
    "opus.ogg",
    "opus.webm",
    "s16.wav",
    "s24.wav",
    "short_s16.wav",
    "u8.wav",
    "vorbis.ogg",
];

/// Mutations per format; more with `TSSERVE_FUZZ=n`, for a search by hand.
fn rounds() -> usize {
    let asked = std::env::var("TSSERVE_FUZZ").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(if cfg!(debug_assertions) { 40 } else { 250 })
}

/// The fixtures, or the files of the folder `TSSERVE_FUZZ_FILES`.
fn sound_files() -> Vec<(String, Vec<u8>)> {
    let Some(folder) = std::env::var_os("TSSERVE_FUZZ_FILES") else {
        return FORMATS.map(|name| (name.to_owned(), bytes(&format!("golden/audio/files/{name}")))).to_vec();
    };
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let file = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read(&path).unwrap());
    paths.into_iter().map(file).filter(|(_, whole)| !whole.is_empty()).collect()
}

fn broken_files_neither_hang_nor_take_memory() {
    let (send, cases) = mpsc::sync_channel::<Vec<u8>>(0);
    let (done, results) = mpsc::channel();
    std::thread::spawn(move || {
        for case in cases {
            let length = case.len();
            let (result, peak) = peak_of(|| decode(&input(case)));
            let said = match result {
                Ok(samples) => format!("{} samples", samples.len()),
                Err(SpeechError::Audio(sentence)) => sentence,
                Err(other) => panic!("{other:?}"),
            };
            done.send((said, length, peak)).unwrap();
        }
    });
    let seed = std::env::var("TSSERVE_FUZZ_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(20_261_122);
    let mut random = Random(seed);
    let (mut refused, mut all) = (0, 0);
    for (name, whole) in sound_files() {
        for round in 0..rounds() {
            let mut case = mutated(&whole, &mut random);
            // A checksum that does not fit would hide all that lies behind it.
            if round % 2 == 0 {
                with_ogg_checksums(&mut case);
            }
            let keep = case.clone();
            send.send(case).unwrap();
            let answer = results.recv_timeout(Duration::from_secs(20));
            let fails = |why: &str| {
                let path = std::env::temp_dir().join("tsserve-broken-audio");
                std::fs::write(&path, &keep).unwrap();
                panic!("{name}, round {round}: {why}; kept as {}", path.display());
            };
            let Ok((said, length, peak)) = answer else { return fails("it hangs, or the thread is gone") };
            // Samples as f32, and what decoders and the resampler hold at their worst.
            if peak > (48 << 20) + 200 * length {
                fails(&format!("{peak} bytes for {length}: {said}"));
            }
            all += 1;
            refused += usize::from(!said.ends_with(" samples"));
        }
    }
    println!("{refused} of {all} refused");
    assert!(refused * 4 > all, "{refused} of {all}");
}

/// One of several kinds of harm, more often near the start, where headers are.
fn mutated(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut case = whole.to_vec();
    let place = |random: &mut Random, len: usize| {
        let end = if random.below(3) == 0 { len } else { len.min(400) };
        random.below(end)
    };
    for _ in 0..=random.below(4) {
        let at = place(random, case.len());
        match random.below(8) {
            0 => case[at] ^= 1 << random.below(8),
            1 => case[at] = random.next() as u8,
            2 => case[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
            3 => {
                // A size or a count, absurdly large or 0.
                let value = [0, 1, 0x7fff_ffff, 0xffff_ffff, 0xffff, random.next() as u32][random.below(6)];
                let bytes = if random.below(2) == 0 { value.to_le_bytes() } else { value.to_be_bytes() };
                for (to, byte) in case[at..].iter_mut().zip(bytes) {
                    *to = byte;
                }
            }
            4 => case.truncate(1 + random.below(case.len())),
            5 => {
                let part: Vec<u8> = case[at..].iter().copied().take(1 + random.below(300)).collect();
                let to = place(random, case.len());
                case.splice(to..to, part);
            }
            6 => {
                let end = (at + 1 + random.below(100)).min(case.len());
                if end - at < case.len() {
                    case.drain(at..end);
                }
            }
            _ => {
                let end = (at + 1 + random.below(64)).min(case.len());
                case[at..end].iter_mut().for_each(|byte| *byte = random.next() as u8);
            }
        }
    }
    case
}
