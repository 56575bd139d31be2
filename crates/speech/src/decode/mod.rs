//! One window, or several at once: encoded audio and a prompt in, tokens out. After `decoding.py` of openai/whisper.

mod beam;
mod fallback;
mod language;
mod non_speech;
mod prompt;
mod ratio;
mod rng;
mod rules;
mod search;
mod softmax;
#[cfg(test)]
mod tests;

pub(crate) use fallback::{Decoded, Decoder, Window};
pub(crate) use language::detect_language;
pub use non_speech::non_speech_tokens;
pub(crate) use prompt::{Prompt, prompt_text};
pub(crate) use softmax::{exp, log_sum_exp};

use rules::LogitRules;
use search::{Rows, Search};

use crate::error::SpeechError;
use crate::network::{AudioId, CacheId, DecodeRow};
use crate::session::Session;

/// A window whose prompt is in a cache: every attempt starts from here.
#[derive(Debug)]
struct Prefilled {
    audio: AudioId,
    cache: CacheId,
    /// Tokens of the prompt.
    len: usize,
    /// Logits after the prompt.
    logits: Vec<f32>,
    /// Probability of `<|nospeech|>` after the start of the transcript, among all tokens.
    no_speech_prob: f32,
}

/// Reads the windows' prompts in one call.
fn prefill(session: &mut Session<'_>, windows: &[Window], no_speech: u32) -> Result<Vec<Prefilled>, SpeechError> {
    let vocab_size = session.shape().vocab_size;
    let caches = windows.iter().map(|_| session.take_cache()).collect::<Result<Vec<_>, _>>()?;
    let wanted: Vec<Vec<usize>> = windows
        .iter()
        .map(|window| {
            let last = window.prompt.tokens.len() - 1;
            if window.prompt.start == last { vec![last] } else { vec![window.prompt.start, last] }
        })
        .collect();
    let rows: Vec<DecodeRow<'_>> = windows
        .iter()
        .zip(&caches)
        .zip(&wanted)
        .map(|((window, &cache), wanted)| DecodeRow {
            audio: window.audio,
            cache,
            tokens: &window.prompt.tokens,
            wanted,
        })
        .collect();
    let mut logits = Vec::new();
    session.decode(&rows, &mut logits)?;
    let mut rest = logits.as_slice();
    let prefilled = windows.iter().zip(caches).zip(&wanted).map(|((window, cache), wanted)| {
        let (own, others) = rest.split_at(wanted.len() * vocab_size);
        rest = others;
        let at_start = &own[..vocab_size];
        let no_speech_prob =
            at_start.get(no_speech as usize).map_or(0.0, |logit| (logit - log_sum_exp(at_start)).exp());
        let logits = own[own.len() - vocab_size..].to_vec();
        Prefilled { audio: window.audio, cache, len: window.prompt.tokens.len(), logits, no_speech_prob }
    });
    Ok(prefilled.collect())
}

/// Runs searches to their ends, the open hypotheses of all of them in one call per step.
fn run(
    session: &mut Session<'_>,
    rules: &LogitRules,
    jobs: &mut [(&mut Prefilled, Search)],
) -> Result<(), SpeechError> {
    let vocab_size = session.shape().vocab_size;
    for (prefilled, search) in jobs.iter_mut() {
        let mut rows = Rows { logits: &mut prefilled.logits, vocab_size, shared: true };
        search.advance(session, rules, &mut rows)?;
    }
    let mut logits = Vec::new();
    // (audio, cache, last token) of each open hypothesis, and how many each job has of them.
    let mut open: Vec<(AudioId, CacheId, [u32; 1])> = Vec::new();
    let mut counts: Vec<usize> = Vec::new();
    loop {
        open.clear();
        counts.clear();
        for (prefilled, search) in jobs.iter() {
            let before = open.len();
            search.open(&mut |cache, token| open.push((prefilled.audio, cache, [token])));
            counts.push(open.len() - before);
        }
        if open.is_empty() {
            return Ok(());
        }
        let rows: Vec<DecodeRow<'_>> = open
            .iter()
            .map(|(audio, cache, token)| DecodeRow { audio: *audio, cache: *cache, tokens: token, wanted: &[0] })
            .collect();
        session.decode(&rows, &mut logits)?;
        let mut rest = logits.as_mut_slice();
        for ((_, search), count) in jobs.iter_mut().zip(&counts) {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(count * vocab_size);
            rest = others;
            if *count > 0 {
                search.advance(session, rules, &mut Rows { logits: own, vocab_size, shared: false })?;
            }
        }
    }
}
