//! Speed of a Whisper network alone, without audio and rules: `cargo run --release --example whisper_speed -- MODEL
//! [threads] [encode or decode]`. `TSSERVE_CPU` forces a level, `EXACT=1` the exact mode, `QUANTIZATION` the decoder's,
//! `ARITHMETIC` (floats, bf16, integers) what the encoder computes with. The best and the median of several runs:
//! neighbours on the machine only make them slower.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people")]

use std::path::Path;
use std::time::Instant;

use tsserve_engine::ComputePool;
use tsserve_models::cpu::{Level, Quantization, measure};
use tsserve_models::whisper::{Arithmetic, Precision, WhisperCheckpoint, WhisperModel, WhisperOptions, WhisperRow};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap();
    let threads = arguments.next().map_or(2, |n| n.parse().unwrap());
    let level = std::env::var("TSSERVE_CPU").map_or_else(|_| Level::detect(), |name| Level::from_name(&name).unwrap());
    let quantization =
        std::env::var("QUANTIZATION").map_or(Quantization::Q8_0, |n| Quantization::from_name(&n).unwrap());
    let exact = std::env::var_os("EXACT").is_some();
    let precision = if exact { Precision::Exact } else { Precision::Fast(quantization) };
    let arithmetic = std::env::var("ARITHMETIC").ok().map(|name| match &name[..] {
        "floats" => Arithmetic::Floats,
        "bf16" => Arithmetic::Bf16,
        _ => Arithmetic::Integers,
    });
    let checkpoint = WhisperCheckpoint::open(Path::new(&path)).unwrap();
    let pool = ComputePool::new();
    let options = WhisperOptions { level, threads, precision, arithmetic, max_windows: 8, max_caches: 8, pool };
    let started = Instant::now();
    let mut model = WhisperModel::load(&checkpoint, options, &mut |_, _| {}).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    println!("{level}, {threads} threads, {precision:?}, {:?}: loaded in {seconds:.2} s", model.arithmetic());
    let peaks = measure(level, threads).unwrap();
    println!("peaks: read {:.1} GB/s, integers {:.0} GOP/s", peaks.bandwidth / 1e9, peaks.integer_peak / 1e9);
    println!("one token reads {:.1} MB", model.bytes_per_token() as f64 / 1e6);

    let config = model.config().clone();
    let len = config.n_mels * config.window_frames();
    // Something like speech: slow waves in each bin.
    let mel: Vec<f32> = (0..len).map(|i| ((i / 7 % 61) as f32 * 0.1 + (i % 3000) as f32 * 0.01).sin() * 0.6).collect();
    let only = arguments.next();
    let wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    let runs = if wanted("encode") { 15 } else { 1 };
    report("encode a window", runs, || {
        let started = Instant::now();
        let audio = model.encode(&mel).unwrap()[0];
        let seconds = started.elapsed().as_secs_f64();
        model.release_audio(audio);
        seconds
    });

    if !wanted("decode") {
        return;
    }
    let audios: Vec<u32> = (0..8).map(|_| model.encode(&mel).unwrap()[0]).collect();
    let caches: Vec<u32> = (0..8).map(|_| model.new_cache().unwrap()).collect();
    let mut logits = Vec::new();
    for (rows, beams) in [(1, false), (5, true), (5, false), (8, false)] {
        for start in [4, 100] {
            let what = if beams { "beams of one window" } else { "windows" };
            report(&format!("decode {rows} {what} after {start} tokens"), 40, || {
                for &cache in &caches[..rows] {
                    model.truncate_cache(cache, start).unwrap();
                }
                let tokens = [start as u32; 1];
                let batch: Vec<_> = (0..rows)
                    .map(|i| {
                        let audio = audios[if beams { 0 } else { i }];
                        WhisperRow { audio, cache: caches[i], tokens: &tokens, wanted: &[0] }
                    })
                    .collect();
                let started = Instant::now();
                model.decode(&batch, &mut logits).unwrap();
                started.elapsed().as_secs_f64()
            });
            // The caches grow to the next depth.
            for (i, &cache) in caches[..rows].iter().enumerate() {
                model.truncate_cache(cache, 0).unwrap();
                let tokens = vec![7; 100];
                model
                    .decode(&[WhisperRow { audio: audios[i], cache, tokens: &tokens, wanted: &[] }], &mut logits)
                    .unwrap();
            }
        }
    }
    let tokens = vec![11; 224];
    report("a prompt of 224 tokens", 9, || {
        model.truncate_cache(caches[0], 0).unwrap();
        let row = WhisperRow { audio: audios[0], cache: caches[0], tokens: &tokens, wanted: &[223] };
        let started = Instant::now();
        model.decode(&[row], &mut logits).unwrap();
        started.elapsed().as_secs_f64()
    });
    report("a copy of a cache of 224 tokens", 9, || {
        let started = Instant::now();
        model.copy_cache(caches[0], caches[1]).unwrap();
        started.elapsed().as_secs_f64()
    });
    let (mut scores, mut n) = (Vec::new(), 0);
    let heads: Vec<_> = (0..config.decoder_heads).map(|head| (config.decoder_layers / 2, head)).collect();
    report("an alignment of 60 tokens", 9, || {
        let started = Instant::now();
        model.align(audios[0], &tokens[..60], &heads, &mut scores, &mut |_, _| n += 1).unwrap();
        started.elapsed().as_secs_f64()
    });
}

fn report(what: &str, runs: usize, mut run: impl FnMut() -> f64) {
    run();
    let mut seconds: Vec<f64> = (0..runs).map(|_| run()).collect();
    seconds.sort_by(f64::total_cmp);
    println!("{what}: best {:.2} ms, median {:.2} ms", seconds[0] * 1e3, seconds[runs / 2] * 1e3);
}
