//! The decoder's head: what a pass left in the stream, to logits.

use tsserve_kernels::{Level, MAX_BLOCK_ROWS, ROW_GROUP, Team};

use super::DecoderBuffers;
use crate::cpu::padded;
use crate::cpu::shared::Shared;
use crate::whisper::config::WhisperConfig;
use crate::whisper::rows::norm_row;
use crate::whisper::weights::Decoder;

/// Row groups in one chunk.
const HEAD_GROUPS: usize = 64;

/// Logits after rows of the stream that a pass left.
pub(in crate::whisper) struct Head<'m> {
    pub config: &'m WhisperConfig,
    pub decoder: &'m Decoder,
    pub level: Level,
    pub prefetch: usize,
}

impl Head<'_> {
    /// Logits of up to [`MAX_BLOCK_ROWS`] rows, each to its place in `out`, `[places][vocab_size]`, with all threads of
    /// the team.
    pub(in crate::whisper) fn logits(
        &self,
        team: &Team,
        buffers: &mut DecoderBuffers,
        wanted: &[(usize, usize)],
        out: &mut [f32],
    ) {
        let Self { config: &WhisperConfig { width, vocab_size, .. }, decoder, level, prefetch } = *self;
        let (n, matrix) = (wanted.len(), &decoder.embedding);
        let stride = padded(vocab_size, ROW_GROUP);
        let (x, y) = (Shared::new(&mut buffers.x), Shared::new(&mut buffers.y));
        let (logits, out) = (Shared::new(&mut buffers.logits), Shared::new(out));
        let input = buffers.head.writer(n);
        let mut offsets = [0.0f32; MAX_BLOCK_ROWS];
        let offsets = Shared::new(&mut offsets);
        team.run(&|worker| {
            worker.share(n, |i| {
                // SAFETY: the stream is only read here; y's row and the input's are the chunk's alone.
                unsafe {
                    let x = x.read(wanted[i].0 * width..(wanted[i].0 + 1) * width);
                    let normed = y.part(i * width..(i + 1) * width);
                    norm_row(level, &decoder.norm, x, normed);
                    input.store(level, matrix, i, 0, normed);
                    // What the embedding's centre would have added to every logit.
                    offsets.part(i..i + 1)[0] = normed.iter().zip(&decoder.centre).map(|(x, c)| x * c).sum();
                }
            });
            let n_groups = matrix.n_groups();
            worker.share(n_groups.div_ceil(HEAD_GROUPS), |chunk| {
                let first = chunk * HEAD_GROUPS;
                let groups = first..(first + HEAD_GROUPS).min(n_groups);
                let columns = groups.start * ROW_GROUP..(groups.end * ROW_GROUP).min(vocab_size);
                // SAFETY: the input was written before the last join; these columns are the chunk's alone.
                unsafe {
                    input.multiply(level, matrix, groups, (0, n), logits.at(0), stride, prefetch);
                    for (row, (_, place)) in wanted.iter().enumerate() {
                        let from = logits.read(row * stride + columns.start..row * stride + columns.end);
                        let to = out.part(place * vocab_size + columns.start..place * vocab_size + columns.end);
                        let offset = offsets.read(row..row + 1)[0];
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = from + offset);
                    }
                }
            });
        });
    }
}
