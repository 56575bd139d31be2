//! The decoder: tokens of several hypotheses, each over its own cache and its window's keys and values, to logits.
//!
//! A pass is one piece of work for the team, in phases with a join after each. Linear layers see all rows as one
//! matrix; attention goes cache by cache and window by window. Every row is computed as if it were alone.

mod head;

use std::ops::Range;

use tsserve_kernels::attention::{PanelScratch, Panels, Queries, ScoresTap, attend_panels};
use tsserve_kernels::elementwise::{self, Activation};
use tsserve_kernels::{
    Level, MAX_BLOCK_ROWS, Matrix, Planes, QuantizedRows, ROW_GROUP, RowsWriter, TILE, Worker, multiply, multiply_f32,
    quantize_tiles,
};

pub(super) use self::head::Head;
use super::config::WhisperConfig;
use super::rows::norm_row;
use super::step::{MAX_ROWS, Run, Step, Unit};
use super::weights::{Decoder, DecoderLayer, Linear, Norm};
use crate::cpu::padded;
use crate::cpu::shared::Shared;

/// Bytes of weights in one chunk of a linear layer, about: they stay in the nearest caches while the rows pass.
const CHUNK_BYTES: usize = 48 << 10;

/// Chunks per thread that a linear layer is cut into at least, so that a thread that is held up costs little.
const CHUNKS_PER_THREAD: usize = 3;

/// Columns of the MLP's inner values that are computed at once.
const INNER_COLUMNS: usize = 2 * TILE;

/// Rows that linear layers read: as floats, or quantised where their matrix is.
#[derive(Debug)]
struct InputRows {
    /// `[rows][width]`
    float: Vec<f32>,
    quantized: QuantizedRows,
    width: usize,
}

impl InputRows {
    fn new(rows: usize, width: usize) -> Self {
        Self {
            float: vec![0.0; rows * width],
            quantized: QuantizedRows::with_capacity(rows, width, Planes::Two),
            width,
        }
    }

    fn writer(&mut self, n_rows: usize) -> InputWriter<'_> {
        self.quantized.reshape(n_rows, self.width / TILE * TILE, Planes::Two);
        InputWriter { float: Shared::new(&mut self.float), quantized: self.quantized.writer(), width: self.width }
    }
}

/// What decoding writes to; sized at load.
#[derive(Debug)]
pub(super) struct DecoderBuffers {
    /// The residual stream, `[rows][width]`.
    x: Vec<f32>,
    /// `[rows][3 * width]`
    qkv: Vec<f32>,
    /// What is added to the stream, `[rows][width]`.
    y: Vec<f32>,
    normed: InputRows,
    attended: InputRows,
    inner: InputRows,
    head: InputRows,
    /// `[MAX_BLOCK_ROWS][vocabulary]`
    logits: Vec<f32>,
    threads: Vec<ThreadScratch>,
}

#[derive(Debug)]
#[repr(align(128))]
struct ThreadScratch {
    /// `[MAX_BLOCK_ROWS][INNER_COLUMNS]`
    inner: Vec<f32>,
    attention: PanelScratch,
}

impl DecoderBuffers {
    pub(super) fn new(config: &WhisperConfig, threads: usize) -> Self {
        let WhisperConfig { width, audio_context, text_context, decoder_heads, decoder_inner, .. } = *config;
        let stream = || vec![0.0; MAX_ROWS * width];
        Self {
            x: stream(),
            qkv: vec![0.0; MAX_ROWS * 3 * width],
            y: stream(),
            normed: InputRows::new(MAX_ROWS, width),
            attended: InputRows::new(MAX_ROWS, width),
            inner: InputRows::new(MAX_ROWS, decoder_inner),
            head: InputRows::new(MAX_BLOCK_ROWS, width),
            logits: vec![0.0; MAX_BLOCK_ROWS * padded(config.vocab_size, ROW_GROUP)],
            threads: (0..threads)
                .map(|_| ThreadScratch {
                    inner: vec![0.0; MAX_BLOCK_ROWS * INNER_COLUMNS],
                    attention: PanelScratch::new(audio_context.max(text_context), width / decoder_heads),
                })
                .collect(),
        }
    }
}

struct InputWriter<'r> {
    float: Shared<'r, f32>,
    quantized: RowsWriter<'r>,
    width: usize,
}

impl InputWriter<'_> {
    /// Stores columns from `column` on of a row as `matrix` will read them.
    ///
    /// # Safety
    /// The columns are the caller's alone; they are whole tiles if the matrix is quantised.
    unsafe fn store(&self, level: Level, matrix: &Matrix, row: usize, column: usize, values: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            if matrix.format().is_quantized() {
                quantize_tiles(level, values, row, &self.quantized, column / TILE);
            } else {
                let first = row * self.width + column;
                self.float.part(first..first + values.len()).copy_from_slice(values);
            }
        }
    }

    /// Rows `first..first + n`, which lie in one block, times some row groups of a matrix.
    ///
    /// # Safety
    /// The rows are not being written, and the outputs the caller's alone.
    #[expect(clippy::too_many_arguments, reason = "three matrices and a place in each")]
    unsafe fn multiply(
        &self,
        level: Level,
        matrix: &Matrix,
        groups: Range<usize>,
        (first, n): (usize, usize),
        out: *mut f32,
        stride: usize,
        prefetch: usize,
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            if matrix.format().is_quantized() {
                let block = self.quantized.block(first / MAX_BLOCK_ROWS);
                multiply(level, matrix, groups, &block, out, stride, prefetch);
            } else {
                let from = first * self.width;
                let x = self.float.read(from..from + n * self.width);
                multiply_f32(level, matrix, groups, x, self.width, n, out, stride, prefetch);
            }
        }
    }
}

/// The scores that are wanted of a pass.
pub(super) struct Tap<'t> {
    pub heads: &'t [(usize, usize)],
    /// `[heads][tokens][audio_context]`
    pub scores: Shared<'t, f32>,
    pub n_tokens: usize,
}

/// All that a pass reads.
pub(super) struct Pass<'m> {
    pub config: &'m WhisperConfig,
    pub decoder: &'m Decoder,
    pub level: Level,
    pub prefetch: usize,
    pub step: &'m Step,
    /// How self-attention's caches lie, and those of all places: `[layer][head]`.
    pub panels: Panels,
    pub caches: &'m [Option<Shared<'m, u8>>],
    /// The same of cross-attention.
    pub cross: Panels,
    pub windows: &'m [&'m [u8]],
    pub tap: Option<&'m Tap<'m>>,
}

/// What a pass writes.
pub(super) struct Parts<'r> {
    x: Shared<'r, f32>,
    qkv: Shared<'r, f32>,
    y: Shared<'r, f32>,
    normed: InputWriter<'r>,
    attended: InputWriter<'r>,
    inner: InputWriter<'r>,
    threads: Shared<'r, ThreadScratch>,
}

impl<'r> Parts<'r> {
    pub(super) fn new(buffers: &'r mut DecoderBuffers, n_rows: usize) -> Self {
        Self {
            x: Shared::new(&mut buffers.x),
            qkv: Shared::new(&mut buffers.qkv),
            y: Shared::new(&mut buffers.y),
            normed: buffers.normed.writer(n_rows),
            attended: buffers.attended.writer(n_rows),
            inner: buffers.inner.writer(n_rows),
            threads: Shared::new(&mut buffers.threads),
        }
    }
}

/// One thread's part in a pass.
pub(super) struct Forward<'a, 'r> {
    pub pass: &'a Pass<'a>,
    pub parts: &'a Parts<'r>,
    pub worker: &'a Worker<'a>,
}

impl<'r> Forward<'_, 'r> {
    /// Leaves the last layer's output in the stream.
    pub(super) fn run(&self) {
        let Pass { config: &WhisperConfig { width, .. }, decoder, step, level, .. } = *self.pass;
        let layers = &decoder.layers;
        self.embed();
        for (index, layer) in layers.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| &layers[before].fc2);
            self.norm(before, &layer.attn_norm, &layer.qkv.matrix);
            self.linear(&layer.qkv.matrix, &self.parts.normed, &self.parts.qkv, 3 * width);
            let heads = self.pass.config.decoder_heads;
            self.worker.share(step.units.len() * heads, |i| {
                self.attend_self(index, layer, step.units[i / heads], i % heads);
            });
            self.linear(&layer.out.matrix, &self.parts.attended, &self.parts.y, width);
            self.norm(Some(&layer.out), &layer.cross_norm, &layer.cross_q.matrix);
            self.linear(&layer.cross_q.matrix, &self.parts.normed, &self.parts.qkv, width);
            self.worker.share(step.runs.len() * heads, |i| {
                self.attend_cross(index, layer, step.runs[i / heads], i % heads);
            });
            self.linear(&layer.cross_out.matrix, &self.parts.attended, &self.parts.y, width);
            self.norm(Some(&layer.cross_out), &layer.mlp_norm, &layer.fc1.matrix);
            self.inner(layer);
            self.linear(&layer.fc2.matrix, &self.parts.inner, &self.parts.y, width);
        }
        if let Some(last) = layers.last() {
            self.worker.share(step.n_rows(), |row| _ = self.add_to_stream(level, row, Some(&last.fc2)));
        }
    }

    fn scratch(&self) -> &'r mut ThreadScratch {
        let index = self.worker.index();
        // SAFETY: each thread takes its own.
        unsafe { &mut self.parts.threads.part(index..index + 1)[0] }
    }

    fn embed(&self) {
        let Pass { config: &WhisperConfig { width, .. }, decoder, level, step, .. } = *self.pass;
        self.worker.share(step.n_rows(), |row| {
            // SAFETY: this row's alone.
            let x = unsafe { self.parts.x.part(row * width..(row + 1) * width) };
            decoder.embedding.dequantize_row(step.tokens[row] as usize, x);
            elementwise::add(level, x, &decoder.centre);
            elementwise::add(level, x, &decoder.positions[step.positions[row] * width..][..width]);
        });
    }

    /// Adds what the layer before left in y, norms the stream, and stores it as `next` reads it.
    fn norm(&self, before: Option<&Linear>, norm: &Norm, next: &Matrix) {
        let Pass { config: &WhisperConfig { width, .. }, level, step, .. } = *self.pass;
        self.worker.share(step.n_rows(), |row| {
            let x = self.add_to_stream(level, row, before);
            // SAFETY: this row's alone; y was read.
            unsafe {
                let normed = self.parts.y.part(row * width..(row + 1) * width);
                norm_row(level, norm, x, normed);
                self.parts.normed.store(level, next, row, 0, normed);
            }
        });
    }

    /// x += y + bias
    fn add_to_stream(&self, level: Level, row: usize, before: Option<&Linear>) -> &'r mut [f32] {
        let width = self.pass.config.width;
        // SAFETY: this row's alone.
        let (x, y) = unsafe {
            let range = row * width..(row + 1) * width;
            (self.parts.x.part(range.clone()), self.parts.y.part(range))
        };
        if let Some(before) = before {
            elementwise::add(level, y, &before.bias);
            elementwise::add(level, x, y);
        }
        x
    }

    /// `out[row] = matrix(input[row])` for all rows, without bias.
    fn linear(&self, matrix: &Matrix, input: &InputWriter<'_>, out: &Shared<'r, f32>, stride: usize) {
        let n_groups = matrix.n_groups();
        let group_bytes = (matrix.bytes() / n_groups.max(1)).max(1);
        let by_threads = n_groups.div_ceil(self.worker.n_active() * CHUNKS_PER_THREAD);
        let per_chunk = (CHUNK_BYTES / group_bytes).clamp(1, by_threads.max(1));
        self.worker.share(n_groups.div_ceil(per_chunk), |chunk| {
            let first = chunk * per_chunk;
            let groups = first..(first + per_chunk).min(n_groups);
            for (row, n) in row_blocks(self.pass.step.n_rows()) {
                // SAFETY: the input was written before the last join, and these columns are the chunk's alone.
                unsafe { self.multiply(matrix, groups.clone(), input, (row, n), out.at(row * stride), stride) };
            }
        });
    }

    /// # Safety
    /// As of [`InputWriter::multiply`].
    unsafe fn multiply(
        &self,
        matrix: &Matrix,
        groups: Range<usize>,
        input: &InputWriter<'_>,
        rows: (usize, usize),
        out: *mut f32,
        stride: usize,
    ) {
        let prefetch = if self.pass.step.n_rows() <= MAX_BLOCK_ROWS { self.pass.prefetch } else { 0 };
        // SAFETY: the caller's promise.
        unsafe { input.multiply(self.pass.level, matrix, groups, rows, out, stride, prefetch) }
    }

    /// Appends one head's keys and values of a unit to its cache, and attends to them.
    fn attend_self(&self, index: usize, layer: &DecoderLayer, unit: Unit, head: usize) {
        let Pass { config: &WhisperConfig { width, decoder_heads, .. }, level, panels, caches, .. } = *self.pass;
        let Some(cache) = caches[unit.cache] else { return };
        let (d, stride) = (width / decoder_heads, 3 * width);
        let Unit { first, n, start, .. } = unit;
        for row in first..first + n {
            for (part, scale) in [(0, (d as f32).powf(-0.5)), (1, 1.0), (2, 1.0)] {
                let column = part * width + head * d;
                // SAFETY: these columns of the unit's rows are the chunk's alone.
                let values = unsafe { self.parts.qkv.part(row * stride + column..row * stride + column + d) };
                elementwise::add(level, values, &layer.qkv.bias[column..column + d]);
                if part == 0 {
                    elementwise::scale(level, values, scale);
                }
            }
        }
        // SAFETY: as above; the head's memory in the unit's cache is the chunk's alone.
        unsafe {
            let from = |part: usize| first * stride + part * width + head * d;
            let rows = |part: usize| self.parts.qkv.read(from(part)..from(part) + (n - 1) * stride + d);
            let place = (index * decoder_heads + head) * panels.bytes();
            panels.write(level, cache.at(place), start, n, rows(1), rows(2), stride);
            let memory = cache.read(place..place + panels.bytes());
            let queries = Queries { q: rows(0), stride, n, seen: start + n, causal: true, dots: false };
            self.attend(&panels, memory, &queries, &layer.out.matrix, (first, head), None);
        }
    }

    fn attend_cross(&self, index: usize, layer: &DecoderLayer, run: Run, head: usize) {
        let Pass { config, level, cross, windows, tap, .. } = *self.pass;
        let window = windows[run.audio];
        let (width, heads) = (config.width, config.decoder_heads);
        let d = width / heads;
        let Run { first, n, .. } = run;
        for row in first..first + n {
            let column = row * width + head * d;
            // SAFETY: these columns of the run's rows are the chunk's alone.
            let q = unsafe { self.parts.qkv.part(column..column + d) };
            elementwise::add(level, q, &layer.cross_q.bias[head * d..][..d]);
            elementwise::scale(level, q, (d as f32).powf(-0.5));
        }
        let at = first * width + head * d;
        let place = (index * heads + head) * cross.bytes();
        let seen = config.audio_context;
        // SAFETY: as above.
        let q = unsafe { self.parts.qkv.read(at..at + (n - 1) * width + d) };
        let queries = Queries { q, stride: width, n, seen, causal: false, dots: false };
        let mut keep = tap.and_then(|tap| {
            let number = tap.heads.iter().position(|&wanted| wanted == (index, head))?;
            Some(move |row: usize, scores: &[f32]| {
                let position = self.pass.step.positions[first + row];
                let place = (number * tap.n_tokens + position) * seen;
                // SAFETY: the scores of this head and row are the chunk's alone.
                unsafe { tap.scores.part(place..place + seen) }.copy_from_slice(scores);
            })
        });
        let keep = keep.as_mut().map(|keep| keep as ScoresTap<'_>);
        let memory = &window[place..place + cross.bytes()];
        // SAFETY: these columns of the run's rows are the chunk's alone.
        unsafe { self.attend(&cross, memory, &queries, &layer.cross_out.matrix, (first, head), keep) };
    }

    /// Attention of one head of rows from `first` on, stored as `next` reads it.
    ///
    /// # Safety
    /// The head's columns of these rows are the caller's alone.
    unsafe fn attend(
        &self,
        panels: &Panels,
        memory: &[u8],
        queries: &Queries<'_>,
        next: &Matrix,
        (first, head): (usize, usize),
        tap: Option<ScoresTap<'_>>,
    ) {
        let WhisperConfig { width, decoder_heads, .. } = *self.pass.config;
        let (d, level) = (width / decoder_heads, self.pass.level);
        let column = head * d;
        let scratch = &mut self.scratch().attention;
        let attended = &self.parts.attended;
        // SAFETY: the caller's promise, for the floats and for the quantised tiles.
        unsafe {
            let out = attended.float.at(first * width + column);
            attend_panels(level, panels, memory, queries, scratch, out, width, tap);
            if next.format().is_quantized() {
                for row in first..first + queries.n {
                    let values = attended.float.read(row * width + column..row * width + column + d);
                    quantize_tiles(level, values, row, &attended.quantized, column / TILE);
                }
            }
        }
    }

    /// `inner = gelu(fc1(normed))`, stored where it is computed.
    fn inner(&self, layer: &DecoderLayer) {
        let level = self.pass.level;
        let matrix = &layer.fc1.matrix;
        let groups_per_chunk = INNER_COLUMNS / ROW_GROUP;
        let inner_size = matrix.n_rows();
        self.worker.share(matrix.n_groups().div_ceil(groups_per_chunk), |chunk| {
            let first_group = chunk * groups_per_chunk;
            let groups = first_group..(first_group + groups_per_chunk).min(matrix.n_groups());
            let column = chunk * INNER_COLUMNS;
            let n_columns = INNER_COLUMNS.min(inner_size - column);
            let scratch = &mut self.scratch().inner;
            for (first, n) in row_blocks(self.pass.step.n_rows()) {
                // Column `column` of the output lies at the scratch's start; nothing before it is written.
                let out = scratch.as_mut_ptr().wrapping_sub(column);
                // SAFETY: the input was written before the last join, and the scratch is this thread's.
                unsafe { self.multiply(matrix, groups.clone(), &self.parts.normed, (first, n), out, INNER_COLUMNS) };
                for (r, values) in scratch.chunks_exact_mut(INNER_COLUMNS).enumerate().take(n) {
                    let values = &mut values[..n_columns];
                    elementwise::add(level, values, &layer.fc1.bias[column..column + n_columns]);
                    elementwise::activate(level, Activation::Gelu, values);
                    // SAFETY: these columns are the chunk's alone.
                    unsafe { self.parts.inner.store(level, &layer.fc2.matrix, first + r, column, values) };
                }
            }
        });
    }
}

/// Blocks of rows that kernels take at once, `(first, length)`.
fn row_blocks(n_rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n_rows).step_by(MAX_BLOCK_ROWS).map(move |first| (first, MAX_BLOCK_ROWS.min(n_rows - first)))
}
