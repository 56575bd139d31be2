//! Times of single tokens as transformers computes them (`_extract_token_timestamps`): for tests against its goldens.

use super::align::{Matrix, heads};
use crate::error::SpeechError;
use crate::network::AudioId;
use crate::session::Session;
use crate::time::{FRAMES_PER_POSITION, seconds};
use crate::vocabulary::SpecialTokens;

/// Seconds in the window at which each of `text` begins. Weights are those of the tokens while they were decoded: the
/// last one was never read and takes the time of the one before. `frames`: content that weights are cropped to.
pub(crate) fn token_times(
    session: &mut Session<'_>,
    tokens: &SpecialTokens,
    prompt: &[u32],
    text: &[u32],
    audio: AudioId,
    frames: usize,
) -> Result<Vec<f64>, SpeechError> {
    let Some((_, read)) = text.split_last().filter(|(_, read)| !read.is_empty()) else {
        return Ok(vec![0.0; text.len()]);
    };
    let all = [prompt, read].concat();
    let (positions, heads) = (session.shape().audio_context, heads(tokens, session.shape()));
    let mut scores = Vec::new();
    session.align(audio, &all, &heads, &mut scores, &mut |_, _| {})?;
    let mut matrix = Matrix::new(read.len(), positions, frames).cropping_late();
    for head in scores.chunks_exact_mut(all.len() * positions) {
        matrix.add(&mut head[prompt.len() * positions..]);
    }
    let mut times: Vec<f64> =
        matrix.begins(0..read.len()).into_iter().map(|at| seconds(at * FRAMES_PER_POSITION)).collect();
    times.extend(times.last().copied());
    Ok(times)
}
