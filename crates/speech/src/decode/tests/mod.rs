mod fallback;
mod rules;
mod search;
mod softmax;

use super::rules::LogitRules;
use crate::TranscribeOptions;
use crate::network::WhisperNetwork;
use crate::testing::{Scripted, Words, special_tokens};

/// Rules for the scripted network of 100 positions.
fn rules(change: impl FnOnce(&mut TranscribeOptions)) -> LogitRules {
    let mut options = TranscribeOptions::default();
    change(&mut options);
    let network = Scripted::new(100, |_, _| {});
    LogitRules::new(network.shape(), &special_tokens(), &Words(Vec::new()), &options)
}

/// Logits that look random and are the same each time.
fn noise(rng: &mut super::rng::Rng, count: usize, spread: f32) -> Vec<f32> {
    (0..count).map(|_| (rng.unit() as f32 - 0.5) * spread).collect()
}
