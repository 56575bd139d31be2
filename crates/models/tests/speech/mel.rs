//! Log-mel features as openai/whisper defines them, written for clearness only: what the network's tests need without
//! the crate that makes features.

use std::f64::consts::PI;

const RATE: f64 = 16_000.0;
const FFT: usize = 400;
const HOP: usize = 160;
const BINS: usize = FFT / 2 + 1;

/// Mono PCM of 16 bits from a WAV file whose data chunk comes last.
pub fn read_wav(bytes: &[u8]) -> Vec<f64> {
    let data = bytes.windows(4).position(|name| name == b"data").unwrap() + 8;
    bytes[data..]
        .chunks_exact(2)
        .map(|sample| f64::from(i16::from_le_bytes([sample[0], sample[1]])) / 32768.0)
        .collect()
}

/// `[n_mels][frames]` of a window of `frames` frames that begins with `pcm` and goes on in silence.
pub fn log_mel(pcm: &[f64], n_mels: usize, frames: usize) -> Vec<f32> {
    let mut window = vec![0.0; frames * HOP];
    let n = pcm.len().min(window.len());
    window[..n].copy_from_slice(&pcm[..n]);
    let filters = filters(n_mels);
    let turns: Vec<(f64, f64)> = (0..FFT).map(|i| (2.0 * PI * i as f64 / FFT as f64).sin_cos()).collect();
    let mut mel = vec![0.0; n_mels * frames];
    for frame in 0..frames {
        // Centred on the frame's first sample; mirrored at the ends.
        let sample = |i: usize| {
            let at = (frame * HOP + i) as isize - FFT as isize / 2;
            let last = window.len() as isize - 1;
            window[if at < 0 {
                -at
            } else if at > last {
                2 * last - at
            } else {
                at
            } as usize]
        };
        let windowed: Vec<f64> = (0..FFT).map(|i| sample(i) * 0.5 * (1.0 - turns[i].1)).collect();
        if windowed.iter().all(|&x| x == 0.0) {
            continue;
        }
        let power: Vec<f64> = (0..BINS)
            .map(|bin| {
                let (mut re, mut im) = (0.0, 0.0);
                for (i, x) in windowed.iter().enumerate() {
                    let (sin, cos) = turns[i * bin % FFT];
                    re += x * cos;
                    im += x * sin;
                }
                re * re + im * im
            })
            .collect();
        for (m, filter) in filters.iter().enumerate() {
            mel[m * frames + frame] = filter.iter().zip(&power).map(|(f, p)| f * p).sum::<f64>();
        }
    }
    mel.iter_mut().for_each(|x| *x = x.max(1e-10).log10());
    let floor = mel.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(x)) - 8.0;
    mel.into_iter().map(|x| ((x.max(floor) + 4.0) / 4.0) as f32).collect()
}

/// Triangles on Slaney's mel scale, of equal area.
pub fn filters(n_mels: usize) -> Vec<Vec<f64>> {
    let to_hz =
        |mel: f64| if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() };
    let top = 15.0 + (RATE / 2.0 / 1000.0).ln() * 27.0 / 6.4f64.ln();
    let edges: Vec<f64> = (0..n_mels + 2).map(|i| to_hz(top * i as f64 / (n_mels + 1) as f64)).collect();
    let triangle = |edges: &[f64]| {
        let hz = |bin: usize| bin as f64 * RATE / FFT as f64;
        let height = 2.0 / (edges[2] - edges[0]);
        let up = |bin| (hz(bin) - edges[0]) / (edges[1] - edges[0]);
        let down = |bin| (edges[2] - hz(bin)) / (edges[2] - edges[1]);
        (0..BINS).map(|bin| height * f64::min(up(bin), down(bin)).max(0.0)).collect()
    };
    edges.windows(3).map(triangle).collect()
}
