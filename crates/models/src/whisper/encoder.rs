//! The encoder: one window of features to its states, and those to the keys and values of the decoder's
//! cross-attention.
//!
//! A layer is three phases: norm, q, k and v of chunks of positions; attention of blocks of queries of one head; and
//! all that follows, again of chunks of positions.

use tsserve_engine::ComputePool;
use tsserve_kernels::attention::{PanelScratch, Panels, Queries, attend_panels};
use tsserve_kernels::elementwise::{self, Activation};
use tsserve_kernels::{AlignedBytes, Format, Level, Team, Worker};

use super::config::WhisperConfig;
use super::rows::{Products, RowScratch, norm_row};
use super::weights::{Decoder, Encoder, EncoderLayer, Linear};
use crate::cpu::shared::Shared;

/// Positions whose rows are computed together, at most.
const CHUNK: usize = 96;

/// Values between rows whose columns are read: at a distance of a power of two they would share a few cache lines'
/// places.
const PAD: usize = 16;

/// Chunks per thread, so that one that is held up costs little.
const CHUNKS_PER_THREAD: usize = 4;

/// Queries of one piece of attention.
const QUERIES: usize = 72;

/// What encoding writes to; sized at load.
#[derive(Debug)]
pub(super) struct EncoderBuffers {
    panels: Panels,
    /// Features by time, `[1 + frames + 1][n_mels]`, the first and last row zero.
    mel: Vec<f32>,
    /// Output of the first convolution, `[1 + frames + 1][width]`, likewise.
    conv: Vec<f32>,
    /// `[audio_context][width]`
    pub x: Vec<f32>,
    q: Vec<f32>,
    attended: Vec<f32>,
    /// Keys and values of each head.
    kv: AlignedBytes,
    threads: Vec<ThreadScratch>,
}

#[derive(Debug)]
#[repr(align(128))]
struct ThreadScratch {
    /// `[CHUNK][width]`
    normed: Vec<f32>,
    /// `[CHUNK][3 * width + PAD or inner]`
    wide: Vec<f32>,
    rows: RowScratch,
    attention: PanelScratch,
}

impl EncoderBuffers {
    pub(super) fn new(config: &WhisperConfig, level: Level, panels: Panels, threads: usize) -> Self {
        let WhisperConfig { n_mels, width, audio_context, encoder_heads, encoder_inner, .. } = *config;
        let frames = config.window_frames();
        let wide = (3 * width + PAD).max(encoder_inner);
        let states = || vec![0.0; audio_context * width];
        // The second convolution reads three positions, of which two are those of the next row.
        let (widest, conv_input) = (wide.max(3 * width), (2 * CHUNK + 1) * width.max(n_mels));
        Self {
            panels,
            mel: vec![0.0; (frames + 2) * n_mels],
            conv: vec![0.0; (frames + 2) * width],
            x: states(),
            q: states(),
            attended: states(),
            kv: AlignedBytes::zeroed(encoder_heads * panels.bytes()),
            threads: (0..threads)
                .map(|_| ThreadScratch {
                    normed: vec![0.0; CHUNK * width],
                    wide: vec![0.0; CHUNK * wide],
                    rows: RowScratch::new(level, (CHUNK * wide).max(conv_input), CHUNK, widest),
                    attention: PanelScratch::new(audio_context, width / encoder_heads),
                })
                .collect(),
        }
    }
}

/// All that encoding a window needs.
pub(super) struct Encoding<'m> {
    pub config: &'m WhisperConfig,
    pub encoder: &'m Encoder,
    pub decoder: &'m Decoder,
    pub products: Products,
    /// How cross-attention's keys and values lie.
    pub cross: Panels,
    pub team: &'m Team,
    pub pool: &'m ComputePool,
}

impl Encoding<'_> {
    /// Encodes `mel` `[n_mels][frames]`: the states are left in the buffers' x, and the decoder's keys and values
    /// written to `cross`, `[layer][head]`.
    pub(super) fn run(&self, buffers: &mut EncoderBuffers, mel: &[f32], cross: &mut [u8]) {
        let panels = buffers.panels;
        let parts = Parts {
            mel: Shared::new(&mut buffers.mel),
            conv: Shared::new(&mut buffers.conv),
            x: Shared::new(&mut buffers.x),
            q: Shared::new(&mut buffers.q),
            attended: Shared::new(&mut buffers.attended),
            kv: Shared::new(&mut buffers.kv),
            threads: Shared::new(&mut buffers.threads),
            cross: Shared::new(cross),
            panels,
        };
        // A lease for each layer: text and other windows get their turns between.
        let run = |work: &(dyn Fn(&Window<'_, '_>) + Sync)| {
            let _lease = self.pool.lease();
            self.team.run(&|worker| work(&Window { encoding: self, parts: &parts, worker }));
        };
        run(&|window| window.convolutions(mel));
        for layer in &self.encoder.layers {
            run(&|window| window.layer(layer));
        }
        run(&|window| window.final_norm());
        for (index, layer) in self.decoder.layers.iter().enumerate() {
            run(&|window| window.cross_kv(index, &layer.cross_kv));
        }
    }
}

struct Parts<'r> {
    mel: Shared<'r, f32>,
    conv: Shared<'r, f32>,
    x: Shared<'r, f32>,
    q: Shared<'r, f32>,
    attended: Shared<'r, f32>,
    kv: Shared<'r, u8>,
    threads: Shared<'r, ThreadScratch>,
    cross: Shared<'r, u8>,
    panels: Panels,
}

/// One thread's part in a window.
struct Window<'a, 'r> {
    encoding: &'a Encoding<'a>,
    parts: &'a Parts<'r>,
    worker: &'a Worker<'a>,
}

impl<'r> Window<'_, 'r> {
    fn scratch(&self) -> &'r mut ThreadScratch {
        let index = self.worker.index();
        // SAFETY: each thread takes its own.
        unsafe { &mut self.parts.threads.part(index..index + 1)[0] }
    }

    /// Has `rows(first, n)` compute chunks of `0..total`.
    fn chunks(&self, total: usize, rows: impl Fn(usize, usize)) {
        // Multiples of the kernels' blocks of rows, and of the groups in which keys are packed.
        let even = total.div_ceil(self.worker.n_active() * CHUNKS_PER_THREAD).next_multiple_of(CHUNK / 2);
        let chunk = even.min(CHUNK);
        self.worker.share(total.div_ceil(chunk), |i| rows(i * chunk, chunk.min(total - i * chunk)));
    }

    /// # Safety
    /// As of [`Products::multiply`].
    #[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
    unsafe fn linear(
        &self,
        linear: &Linear,
        x: &[f32],
        x_stride: usize,
        n_rows: usize,
        out: *mut f32,
        stride: usize,
        rows: &mut RowScratch,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.encoding.products.multiply(linear, x, x_stride, n_rows, out, stride, rows) }
    }

    /// Features to the first layer's input.
    fn convolutions(&self, mel: &[f32]) {
        let Encoding { config, encoder, products: Products { level, .. }, .. } = *self.encoding;
        let WhisperConfig { n_mels, width, audio_context, .. } = *config;
        let frames = config.window_frames();
        self.chunks(frames, |first, n| {
            // SAFETY: these rows are the chunk's alone.
            let rows = unsafe { self.parts.mel.part((1 + first) * n_mels..(1 + first + n) * n_mels) };
            for (time, row) in rows.chunks_exact_mut(n_mels).enumerate() {
                for (bin, value) in row.iter_mut().enumerate() {
                    *value = mel[bin * frames + first + time];
                }
            }
        });
        // Output row t reads input times t - 1 to t + 1, which are rows t to t + 2 of the padded input.
        self.chunks(frames, |first, n| {
            // SAFETY: the features were written before the last join; the output rows are the chunk's alone.
            unsafe {
                let x = self.parts.mel.read(first * n_mels..(first + n + 2) * n_mels);
                let out = self.parts.conv.part((1 + first) * width..(1 + first + n) * width);
                self.linear(&encoder.conv1, x, n_mels, n, out.as_mut_ptr(), width, &mut self.scratch().rows);
                elementwise::activate(level, Activation::Gelu, out);
            }
        });
        self.chunks(audio_context, |first, n| {
            // SAFETY: as above; output row t reads rows 2 t to 2 t + 2.
            unsafe {
                let x = self.parts.conv.read(2 * first * width..(2 * (first + n) + 1) * width);
                let out = self.parts.x.part(first * width..(first + n) * width);
                self.linear(&encoder.conv2, x, 2 * width, n, out.as_mut_ptr(), width, &mut self.scratch().rows);
                elementwise::activate(level, Activation::Gelu, out);
                elementwise::add(level, out, &encoder.positions[first * width..(first + n) * width]);
            }
        });
    }

    fn layer(&self, layer: &EncoderLayer) {
        let config = self.encoding.config;
        self.chunks(config.audio_context, |first, n| self.qkv(layer, first, n));
        let n_blocks = config.audio_context.div_ceil(QUERIES);
        self.worker.share(config.encoder_heads * n_blocks, |i| self.attend(i / n_blocks, i % n_blocks * QUERIES));
        self.chunks(config.audio_context, |first, n| self.after_attention(layer, first, n));
    }

    fn qkv(&self, layer: &EncoderLayer, first: usize, n: usize) {
        let Encoding { config, products: Products { level, .. }, .. } = *self.encoding;
        let (width, heads) = (config.width, config.encoder_heads);
        let head_dim = width / heads;
        let ThreadScratch { normed, wide, rows, .. } = self.scratch();
        // SAFETY: x is only read in this phase; the rows of q and the positions of keys and values are the chunk's
        // alone.
        unsafe {
            let x = self.parts.x.read(first * width..(first + n) * width);
            for (x, out) in x.chunks_exact(width).zip(normed.chunks_exact_mut(width)) {
                norm_row(level, &layer.attn_norm, x, out);
            }
            let stride = 3 * width + PAD;
            self.linear(&layer.qkv, normed, width, n, wide.as_mut_ptr(), stride, rows);
            let q = self.parts.q.part(first * width..(first + n) * width);
            for (q, row) in q.chunks_exact_mut(width).zip(wide.chunks_exact(stride)) {
                q.copy_from_slice(&row[..width]);
                elementwise::scale(level, q, (head_dim as f32).powf(-0.5));
            }
            for head in 0..heads {
                let memory = self.parts.kv.at(head * self.parts.panels.bytes());
                let (k, v) = (&wide[width + head * head_dim..], &wide[2 * width + head * head_dim..]);
                self.parts.panels.write(level, memory, first, n, k, v, stride);
            }
        }
    }

    fn attend(&self, head: usize, first: usize) {
        let Encoding { config, products: Products { level, .. }, .. } = *self.encoding;
        let WhisperConfig { width, audio_context, encoder_heads, .. } = *config;
        let (head_dim, bytes) = (width / encoder_heads, self.parts.panels.bytes());
        let n = QUERIES.min(audio_context - first);
        let at = first * width + head * head_dim;
        // SAFETY: queries, keys and values were written before the last join; these outputs are the chunk's alone.
        unsafe {
            let memory = self.parts.kv.read(head * bytes..(head + 1) * bytes);
            let q = self.parts.q.read(at..at + (n - 1) * width + head_dim);
            let queries = Queries {
                q,
                stride: width,
                n,
                seen: audio_context,
                causal: false,
                dots: self.parts.panels.format() == Format::BF16,
            };
            let out = self.parts.attended.at(at);
            let scratch = &mut self.scratch().attention;
            attend_panels(level, &self.parts.panels, memory, &queries, scratch, out, width, None);
        }
    }

    fn after_attention(&self, layer: &EncoderLayer, first: usize, n: usize) {
        let Encoding { config, products: Products { level, .. }, .. } = *self.encoding;
        let (width, inner) = (config.width, config.encoder_inner);
        let ThreadScratch { normed, wide, rows, .. } = self.scratch();
        // SAFETY: these rows of x are the chunk's alone; what was attended was written before the last join.
        unsafe {
            let x = self.parts.x.part(first * width..(first + n) * width);
            let attended = self.parts.attended.read(first * width..(first + n) * width);
            let sums = &mut normed[..n * width];
            self.linear(&layer.out, attended, width, n, sums.as_mut_ptr(), width, rows);
            elementwise::add(level, x, sums);
            for (x, out) in x.chunks_exact(width).zip(sums.chunks_exact_mut(width)) {
                norm_row(level, &layer.mlp_norm, x, out);
            }
            let wide = &mut wide[..n * inner];
            self.linear(&layer.fc1, sums, width, n, wide.as_mut_ptr(), inner, rows);
            elementwise::activate(level, Activation::Gelu, wide);
            self.linear(&layer.fc2, wide, inner, n, sums.as_mut_ptr(), width, rows);
            elementwise::add(level, x, sums);
        }
    }

    fn final_norm(&self) {
        let Encoding { config, encoder, products: Products { level, .. }, .. } = *self.encoding;
        let width = config.width;
        self.chunks(config.audio_context, |first, n| {
            let normed = &mut self.scratch().normed;
            // SAFETY: these rows are the chunk's alone.
            let x = unsafe { self.parts.x.part(first * width..(first + n) * width) };
            for x in x.chunks_exact_mut(width) {
                norm_row(level, &encoder.norm, x, &mut normed[..width]);
                x.copy_from_slice(&normed[..width]);
            }
        });
    }

    /// Keys and values of one decoder layer's cross-attention.
    fn cross_kv(&self, index: usize, kv: &Linear) {
        let config = self.encoding.config;
        let (width, heads) = (config.width, config.decoder_heads);
        let (head_dim, cross, level) = (width / heads, self.encoding.cross, self.encoding.products.level);
        self.chunks(config.audio_context, |first, n| {
            let ThreadScratch { wide, rows, .. } = self.scratch();
            // SAFETY: x is only read in this phase; these positions are the chunk's alone.
            unsafe {
                let x = self.parts.x.read(first * width..(first + n) * width);
                let stride = 2 * width + PAD;
                self.linear(kv, x, width, n, wide.as_mut_ptr(), stride, rows);
                for head in 0..heads {
                    let memory = self.parts.cross.at((index * heads + head) * cross.bytes());
                    cross.write(
                        level,
                        memory,
                        first,
                        n,
                        &wide[head * head_dim..],
                        &wide[width + head * head_dim..],
                        stride,
                    );
                }
            }
        });
    }
}
