//! What holds whatever a network says.

use super::{plain, transcribe};
use crate::testing::{END, FIRST, Recording, Scripted};
use crate::{Chunking, Temperature, TranscribeOptions};

/// Small steps of a fixed sequence.
fn hash(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^ (x >> 29)
}

/// A network that says anything: letters, timestamps and ends, by chance.
fn noise(seed: u64) -> Scripted<'static> {
    Scripted::new(100, move |asked, logits| {
        let place =
            asked.tokens.iter().fold(seed ^ asked.start as u64, |x, &token| hash(x.wrapping_add(u64::from(token))));
        for (id, logit) in logits.iter_mut().enumerate() {
            *logit = (hash(place ^ (id as u64) << 20) % 1000) as f32 / 200.0;
        }
        // Now and then a timestamp or the end is certain.
        match hash(place ^ 1) % 6 {
            0 => logits[(FIRST + (hash(place ^ 2) % 101) as u32) as usize] += 12.0,
            1 => logits[END as usize] += 12.0,
            _ => {}
        }
    })
}

#[test]
fn any_network_gives_ordered_segments_within_the_recording_and_ends() {
    for seed in 0..160u64 {
        let n_frames = [1, 57, 199, 200, 201, 1000, 2345][(seed % 7) as usize];
        let mut recording = Recording::new(n_frames);
        recording.speech = (0..20).map(|i| i * 120..i * 120 + 30 + hash(seed + i as u64) as usize % 120).collect();
        let options = TranscribeOptions {
            word_timestamps: seed % 2 == 0,
            hallucination_silence_threshold: if seed % 4 == 0 { Some(0.3) } else { None },
            skip_silence: seed % 3 == 0,
            chunking: if seed % 5 == 0 { Chunking::Batched { batch: 3 } } else { Chunking::Sequential },
            timestamps: seed % 8 != 7,
            temperature: Temperature::Ladder(vec![if seed % 2 == 0 { 0.0 } else { 1.0 }]),
            beam_size: if seed % 6 == 0 { Some(3) } else { None },
            best_of: 2,
            seed,
            logprobs: true,
            ..plain()
        };
        let mut network = noise(seed);
        transcribe(&mut network, &mut recording, &options).unwrap();
        // Windows of 200 frames: at most four slow steps for a window's way, whatever the network says.
        assert!(network.encoded.len() <= 8 + 31 * 5 * n_frames.div_ceil(200), "{}", network.encoded.len());
        if !options.word_timestamps && options.chunking == Chunking::Sequential {
            assert!(network.encoded.is_sorted_by(|a, b| a.0 < b.0), "every window begins after the one before");
        }
    }
}
