//! When each token is heard: the cross-attention of some heads, smoothed, and the cheapest way through it. After
//! `find_alignment` in `timing.py` of openai/whisper.

use super::dtw::{dynamic_time_warping, median_filter};
use crate::error::SpeechError;
use crate::network::{AudioId, NetworkShape};
use crate::session::Session;
use crate::vocabulary::SpecialTokens;

/// Heads whose scores are held at a time: with large models each takes about 1.4 MB.
const HEADS_AT_ONCE: usize = 32;

/// How a window's tokens lie in time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alignment {
    /// Position (of 20 ms) in the window at which each token begins, and where the last one ends.
    pub begins: Vec<usize>,
    /// Probability of each token among text tokens, given those before.
    pub probabilities: Vec<f32>,
}

/// Aligns text with a window of `frames` mel frames. `start_sequence` is that of the window without `<|notimestamps|>`.
/// `None` without text, or where it is longer than the network reads.
pub(crate) fn align(
    session: &mut Session<'_>,
    tokens: &SpecialTokens,
    start_sequence: &[u32],
    text: &[u32],
    audio: AudioId,
    frames: usize,
) -> Result<Option<Alignment>, SpeechError> {
    let mut all = Vec::with_capacity(start_sequence.len() + text.len() + 2);
    all.extend_from_slice(start_sequence);
    all.push(tokens.no_timestamps);
    all.extend_from_slice(text);
    all.push(tokens.end_of_text);
    if text.is_empty() || all.len() > session.shape().text_context {
        return Ok(None);
    }
    let mut probabilities = vec![0.0; text.len()];
    let first = start_sequence.len();
    let end_of_text = tokens.end_of_text as usize;
    let mut matrix = Matrix::new(all.len(), session.shape().audio_context, frames);
    let heads = heads(tokens, session.shape());
    let mut scores = Vec::new();
    for group in heads.chunks(HEADS_AT_ONCE) {
        let mut note = |index: usize, logits: &[f32]| {
            let next = index.checked_sub(first).and_then(|i| Some((i, *text.get(i)?)));
            if let Some((i, token)) = next {
                let among = &logits[..end_of_text.min(logits.len())];
                let sum = crate::decode::log_sum_exp(among);
                probabilities[i] = among.get(token as usize).map_or(0.0, |logit| (logit - sum).exp());
            }
        };
        session.align(audio, &all, group, &mut scores, &mut note)?;
        matrix.add(&mut scores);
    }
    // The rows of `<|notimestamps|>` and of the text: where attention is while the next token is chosen.
    let begins = matrix.begins(first..all.len() - 1);
    Ok(Some(Alignment { begins, probabilities }))
}

/// The heads that follow the words: the checkpoint's, or all of the upper half of the layers.
pub(super) fn heads(tokens: &SpecialTokens, shape: &NetworkShape) -> Vec<(usize, usize)> {
    let exists = |&(layer, head): &(usize, usize)| layer < shape.decoder_layers && head < shape.decoder_heads;
    let known: Vec<(usize, usize)> = tokens.alignment_heads.iter().copied().filter(exists).collect();
    if !known.is_empty() {
        return known;
    }
    let layers = shape.decoder_layers / 2..shape.decoder_layers;
    layers.flat_map(|layer| (0..shape.decoder_heads).map(move |head| (layer, head))).collect()
}

/// The sum over heads of their smoothed attention, `[rows][columns]`.
pub(super) struct Matrix {
    rows: usize,
    /// Positions of a row of scores.
    positions: usize,
    /// Those that are content.
    columns: usize,
    sum: Vec<f32>,
    heads: usize,
    padded: Vec<f32>,
    /// Softmax over all positions before cropping, over the content otherwise.
    before_cropping: bool,
}

impl Matrix {
    /// For scores of `rows` tokens over `positions`, of which the first half of `frames` counts.
    pub fn new(rows: usize, positions: usize, frames: usize) -> Self {
        let columns = (frames / 2).clamp(1, positions);
        let sum = vec![0.0; rows * columns];
        Self { rows, positions, columns, sum, heads: 0, padded: Vec::new(), before_cropping: false }
    }

    /// With the softmax over all positions: transformers crops weights, not scores.
    pub fn cropping_late(mut self) -> Self {
        self.before_cropping = true;
        self
    }

    /// Adds heads: scores before softmax, `[heads][rows][positions]`, which are overwritten.
    pub fn add(&mut self, scores: &mut [f32]) {
        for head in scores.chunks_exact_mut(self.rows * self.positions) {
            let width = if self.before_cropping { self.positions } else { self.columns };
            for row in head.chunks_exact_mut(self.positions) {
                softmax(&mut row[..width]);
            }
            self.normalise(head);
            for (sum, row) in self.sum.chunks_exact_mut(self.columns).zip(head.chunks_exact_mut(self.positions)) {
                let row = &mut row[..self.columns];
                median_filter(row, &mut self.padded);
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += *value);
            }
            self.heads += 1;
        }
    }

    /// Each column to mean 0 and deviation 1 over the tokens. A column without deviation says nothing: 0.
    fn normalise(&self, head: &mut [f32]) {
        let (mut mean, mut square) = (vec![0.0f64; self.columns], vec![0.0f64; self.columns]);
        let n = self.rows as f64;
        for row in head.chunks_exact(self.positions) {
            mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value) / n);
        }
        for row in head.chunks_exact(self.positions) {
            for ((square, mean), &value) in square.iter_mut().zip(&mean).zip(row) {
                *square += (f64::from(value) - mean).powi(2) / n;
            }
        }
        for row in head.chunks_exact_mut(self.positions) {
            for ((value, mean), square) in row.iter_mut().zip(&mean).zip(&square) {
                let deviation = square.sqrt();
                *value = if deviation > 0.0 { ((f64::from(*value) - mean) / deviation) as f32 } else { 0.0 };
            }
        }
    }

    /// The column at which the path through some rows comes to each of them.
    pub fn begins(self, rows: std::ops::Range<usize>) -> Vec<usize> {
        let heads = self.heads.max(1) as f32;
        let chosen = &self.sum[rows.start * self.columns..rows.end * self.columns];
        let cost: Vec<f32> = chosen.iter().map(|sum| -(sum / heads)).collect();
        let path = dynamic_time_warping(&cost, self.columns);
        let mut begins = Vec::with_capacity(rows.len());
        for (row, column) in path {
            if begins.len() == row {
                begins.push(column);
            }
        }
        begins
    }
}

fn softmax(row: &mut [f32]) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = crate::decode::exp(*value - top));
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}
