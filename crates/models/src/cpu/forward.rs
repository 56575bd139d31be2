//! One step, as every thread of the team runs it: phases whose chunks the threads share, with a join after each.
//!
//! Every row is computed as if it were alone: its bits depend neither on its neighbours nor on how many threads share
//! the chunks. Attention is in `attend`.

use tsserve_engine::StepPlan;
use tsserve_kernels::attention::{KvPages, Partial};
use tsserve_kernels::elementwise::{self, Activation as KernelActivation};
use tsserve_kernels::{Level, MAX_BLOCK_ROWS, Matrix, ROW_GROUP, TILE, Worker, multiply, multiply_f32};

use super::buffers::{Buffers, GATE_TILES, ThreadScratch, Widths};
use super::layout::Layout;
use super::role_rows::{RoleWriters, has_tiles};
use super::shared::Shared;
use super::weights::{Linear, PackedLayer, PackedModel};
use crate::architecture::{Activation, Architecture};
use crate::candle::rope::RopeFrequencies;

/// Bytes of weights in one chunk of a linear layer, about: they stay in the nearest caches while the rows pass.
const CHUNK_BYTES: usize = 48 << 10;

/// Chunks per thread that a linear layer is cut into at least, so that a thread that is held up costs little.
const CHUNKS_PER_THREAD: usize = 3;

/// What a step reads.
pub(super) struct Constants<'r> {
    pub architecture: &'r Architecture,
    pub model: &'r PackedModel,
    pub ropes: &'r [RopeFrequencies],
    /// One cache per layer.
    pub caches: &'r [KvPages],
    /// The cache group of each layer.
    pub groups: &'r [usize],
    pub level: Level,
    /// Bytes ahead of the weight stream to prefetch, for steps of few rows.
    pub prefetch: usize,
    pub plan: &'r StepPlan,
    pub layout: &'r Layout,
}

/// What a step writes, shared by the threads.
pub(super) struct Parts<'r> {
    pub widths: Widths,
    x: Shared<'r, f32>,
    float: Shared<'r, f32>,
    pub qkv: Shared<'r, f32>,
    pub attended: Shared<'r, f32>,
    y: Shared<'r, f32>,
    inner: Shared<'r, f32>,
    qkv_rows: RoleWriters<'r>,
    pub attended_rows: RoleWriters<'r>,
    mlp_rows: RoleWriters<'r>,
    inner_rows: RoleWriters<'r>,
    pub ropes: [Option<(Shared<'r, f32>, Shared<'r, f32>)>; MAX_ROPES],
    pub partials: Shared<'r, Partial>,
    pub partial_values: Shared<'r, f32>,
    pub max_pieces: usize,
    pub threads: Shared<'r, ThreadScratch>,
}

/// Rope tables that an architecture may have.
pub(super) const MAX_ROPES: usize = 4;

impl<'r> Parts<'r> {
    pub(super) fn new(buffers: &'r mut Buffers, layout: &Layout) -> Self {
        let widths = buffers.widths;
        let mut tables = buffers.ropes.iter_mut();
        Self {
            widths,
            x: Shared::new(&mut buffers.x),
            float: Shared::new(&mut buffers.float),
            qkv: Shared::new(&mut buffers.qkv),
            attended: Shared::new(&mut buffers.attended),
            y: Shared::new(&mut buffers.y),
            inner: Shared::new(&mut buffers.inner),
            qkv_rows: buffers.qkv_rows.writers(layout, widths.hidden),
            mlp_rows: buffers.mlp_rows.writers(layout, widths.hidden),
            attended_rows: buffers.attended_rows.writers(layout, widths.attended),
            inner_rows: buffers.inner_rows.writers(layout, widths.inner),
            ropes: std::array::from_fn(|_| tables.next().map(|(cos, sin)| (Shared::new(cos), Shared::new(sin)))),
            partials: Shared::new(&mut buffers.partials),
            partial_values: Shared::new(&mut buffers.partial_values),
            max_pieces: buffers.max_pieces,
            threads: Shared::new(&mut buffers.threads),
        }
    }
}

/// Where a linear layer's input rows are, quantised and not.
pub(super) struct Input<'a, 'r> {
    rows: &'a RoleWriters<'r>,
    /// `[rows][stride]`
    float: &'a Shared<'r, f32>,
    stride: usize,
}

/// A layer, its place, and all that a step needs for it.
pub(super) struct Forward<'a, 'r> {
    pub constants: &'a Constants<'r>,
    pub parts: &'a Parts<'r>,
    pub worker: &'a Worker<'a>,
}

impl<'r> Forward<'_, 'r> {
    /// Embeds the step's tokens and computes `n_layers` layers: the stream then holds the last one's output.
    pub(super) fn run(&self, n_layers: usize) {
        let layers = &self.constants.model.layers[..n_layers];
        self.embed();
        for (index, layer) in layers.iter().enumerate() {
            self.norm(index.checked_sub(1).map(|before| &layers[before]), layer);
            self.linear(&layer.qkv, &self.normed(&self.parts.qkv_rows), &self.parts.qkv, self.parts.widths.qkv);
            self.rope_and_cache(index, layer);
            self.attend(index, layer);
            self.quantize_attended(layer);
            let attended = Input {
                rows: &self.parts.attended_rows,
                float: &self.parts.attended,
                stride: self.parts.widths.attended,
            };
            self.linear(&layer.o, &attended, &self.parts.y, self.parts.widths.hidden);
            self.norm_after_attention(layer);
            self.gate_up(layer);
            let inner =
                Input { rows: &self.parts.inner_rows, float: &self.parts.inner, stride: self.parts.widths.inner };
            self.linear(&layer.down, &inner, &self.parts.y, self.parts.widths.hidden);
        }
        if let Some(last) = layers.last() {
            self.worker.share(self.constants.layout.n_rows(), |row| self.add_mlp(row, last));
        }
    }

    fn normed<'s>(&'s self, rows: &'s RoleWriters<'r>) -> Input<'s, 'r> {
        Input { rows, float: &self.parts.float, stride: self.parts.widths.hidden }
    }

    /// This thread's scratch.
    pub(super) fn scratch(&self) -> &'r mut ThreadScratch {
        let index = self.worker.index();
        // SAFETY: each thread takes its own.
        unsafe { &mut self.parts.threads.part(index..index + 1)[0] }
    }

    fn embed(&self) {
        let Constants { architecture, model, layout, ropes, .. } = self.constants;
        let (hidden, level) = (self.parts.widths.hidden, self.constants.level);
        self.worker.share(layout.n_rows(), |row| {
            // SAFETY: this row's alone.
            let x = unsafe { self.parts.x.part(row * hidden..row * hidden + model.embedding.n_cols()) };
            model.embedding.dequantize_row(layout.tokens[row] as usize, x);
            if architecture.embedding_scale != 1.0 {
                elementwise::scale(level, x, architecture.embedding_scale);
            }
            for (frequencies, tables) in ropes.iter().zip(self.parts.ropes.iter().flatten()) {
                let half = frequencies.half();
                // SAFETY: this row's alone.
                let (cos, sin) = unsafe {
                    (tables.0.part(row * half..(row + 1) * half), tables.1.part(row * half..(row + 1) * half))
                };
                frequencies.fill(layout.positions[row], cos, sin);
            }
        });
    }

    /// Adds the MLP of the layer before to the stream, norms it, and quantises it for `layer`'s first matrices.
    fn norm(&self, before: Option<&PackedLayer>, layer: &PackedLayer) {
        self.worker.share(self.constants.layout.n_rows(), |row| {
            if let Some(before) = before {
                self.add_mlp(row, before);
            }
            self.norm_row(row, &layer.attn_norm, &layer.qkv, &self.parts.qkv_rows);
        });
    }

    /// Adds what a layer's MLP left in y to the stream.
    fn add_mlp(&self, row: usize, layer: &PackedLayer) {
        self.add_to_stream(row, layer.down.parts[0].bias.as_deref(), layer.post_mlp_norm.as_deref());
    }

    fn norm_after_attention(&self, layer: &PackedLayer) {
        let bias = layer.o.parts[0].bias.as_deref();
        self.worker.share(self.constants.layout.n_rows(), |row| {
            self.add_to_stream(row, bias, layer.post_attn_norm.as_deref());
            self.norm_row(row, &layer.mlp_norm, &layer.gate_up, &self.parts.mlp_rows);
        });
    }

    /// x += norm(y + bias)
    fn add_to_stream(&self, row: usize, bias: Option<&[f32]>, post_norm: Option<&[f32]>) {
        let Constants { architecture, level, .. } = *self.constants;
        let (first, len) = (row * self.parts.widths.hidden, architecture.hidden_size);
        // SAFETY: this row's alone.
        let (x, y) = unsafe { (self.parts.x.part(first..first + len), self.parts.y.part(first..first + len)) };
        if let Some(bias) = bias {
            elementwise::add(level, y, bias);
        }
        if let Some(weight) = post_norm {
            elementwise::rms_norm_in_place(level, y, weight, architecture.norm_eps);
        }
        elementwise::add(level, x, y);
    }

    /// The normed stream of a row as the input of `next`.
    fn norm_row(&self, row: usize, weight: &[f32], next: &Linear, rows: &RoleWriters<'r>) {
        let Constants { architecture, level, .. } = *self.constants;
        let (width, len) = (self.parts.widths.hidden, architecture.hidden_size);
        let first = row * width;
        // SAFETY: this row's alone.
        let x = unsafe { self.parts.x.read(first..first + len) };
        let tiled = self.is_tiled(row);
        let normed = if next.reads_floats(tiled) {
            // SAFETY: this row's alone.
            unsafe { self.parts.float.part(first..first + width) }
        } else {
            &mut self.scratch().row[..width]
        };
        elementwise::rms_norm(level, x, weight, architecture.norm_eps, &mut normed[..len]);
        normed[len..].fill(0.0);
        if next.reads_rows(tiled) {
            self.quantize(rows, row, normed);
        }
    }

    /// Is the row multiplied in tiles of bf16 by all matrices that have them?
    pub(super) fn is_tiled(&self, row: usize) -> bool {
        has_tiles(self.constants.level) && row >= self.constants.layout.n_decode
    }

    /// A whole row as matrices read it: quantised or rounded.
    pub(super) fn quantize(&self, rows: &RoleWriters<'r>, row: usize, values: &[f32]) {
        // SAFETY: this row's alone.
        unsafe { rows.write(self.constants.level, row, 0, values) };
    }

    /// `out[row] = linear(input[row])` for all rows, without biases.
    fn linear(&self, linear: &Linear, input: &Input<'_, 'r>, out: &Shared<'r, f32>, stride: usize) {
        let per_chunk = |matrix: &Matrix| {
            let group_bytes = matrix.bytes() / matrix.n_groups().max(1);
            let by_threads = matrix.n_groups().div_ceil(self.worker.n_active() * CHUNKS_PER_THREAD);
            let groups = (CHUNK_BYTES / group_bytes.max(1)).clamp(1, by_threads.max(1));
            // Tiles are multiplied two groups at a time.
            if has_tiles(self.constants.level) { groups.next_multiple_of(2) } else { groups }
        };
        let n_chunks = |matrix: &Matrix| matrix.n_groups().div_ceil(per_chunk(matrix));
        let total = linear.parts.iter().map(|part| n_chunks(&part.matrix)).sum();
        self.worker.share(total, |chunk| {
            let mut chunk = chunk;
            for part in &linear.parts {
                let (matrix, n) = (&part.matrix, n_chunks(&part.matrix));
                if chunk < n {
                    let first = chunk * per_chunk(matrix);
                    let groups = first..(first + per_chunk(matrix)).min(matrix.n_groups());
                    self.multiply_all(matrix, groups, input, &|row| out.at(row * stride + part.offset), stride);
                    return;
                }
                chunk -= n;
            }
        });
    }

    /// All rows of the step times some row groups of a matrix. `out(row)`: where column 0 of a row goes.
    fn multiply_all(
        &self,
        matrix: &Matrix,
        groups: std::ops::Range<usize>,
        input: &Input<'_, 'r>,
        out: &dyn Fn(usize) -> *mut f32,
        stride: usize,
    ) {
        for (first, len) in self.row_blocks() {
            self.multiply_block(matrix, groups.clone(), input, (first, len), out(first), stride);
        }
        if let Some(rows) = input.rows.tiles() {
            self.multiply_tiled(matrix, groups, input, rows, out, stride);
        }
    }

    /// The blocks of all rows but those that are multiplied in tiles.
    fn row_blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let layout = self.constants.layout;
        row_blocks(layout.n_decode, if has_tiles(self.constants.level) { layout.n_decode } else { layout.n_rows() })
    }

    /// Rows `first..first + len`, which lie in one block, times some row groups of a matrix.
    pub(super) fn multiply_block(
        &self,
        matrix: &Matrix,
        groups: std::ops::Range<usize>,
        input: &Input<'_, 'r>,
        (first, len): (usize, usize),
        out: *mut f32,
        stride: usize,
    ) {
        let level = self.constants.level;
        let prefetch = if self.constants.layout.n_rows() <= MAX_BLOCK_ROWS { self.constants.prefetch } else { 0 };
        if let Some((rows, row)) = input.rows.quantized(first).filter(|_| matrix.format().is_quantized()) {
            // SAFETY: the rows were filled before the last join. The output columns are this chunk's alone.
            unsafe {
                let block = rows.block(row / MAX_BLOCK_ROWS);
                multiply(level, matrix, groups, &block, out, stride, prefetch);
            }
        } else {
            let from = first * input.stride;
            // SAFETY: as above.
            unsafe {
                let x = input.float.read(from..from + (len - 1) * input.stride + matrix.n_cols());
                multiply_f32(level, matrix, groups, x, input.stride, len, out, stride, prefetch);
            }
        }
    }

    /// `inner = activation(gate) * up`, quantised where it is computed.
    fn gate_up(&self, layer: &PackedLayer) {
        let [gate, up] = &layer.gate_up.parts[..] else { return };
        let input = self.normed(&self.parts.mlp_rows);
        let width = GATE_TILES * TILE;
        let groups_per_chunk = width / ROW_GROUP;
        self.worker.share(gate.matrix.n_groups().div_ceil(groups_per_chunk), |chunk| {
            let first_group = chunk * groups_per_chunk;
            let groups = first_group..(first_group + groups_per_chunk).min(gate.matrix.n_groups());
            let column = chunk * width;
            let ThreadScratch { gate: gates, up: ups, .. } = self.scratch();
            for block in self.row_blocks() {
                for (part, values) in [(gate, &mut *gates), (up, &mut *ups)] {
                    if groups.len() < groups_per_chunk {
                        // The last chunk's missing columns are zeros of the padded row.
                        values.fill(0.0);
                    }
                    // Column `column` of the output lies at the scratch's start; nothing before it is written.
                    let out = values.as_mut_ptr().wrapping_sub(column);
                    self.multiply_block(&part.matrix, groups.clone(), &input, block, out, width);
                }
                self.store_gated(layer, block, column, gates, ups);
            }
            if let Some(rows) = input.rows.tiles() {
                self.gate_up_tiled(layer, groups, column, &input, rows);
            }
        });
    }

    /// Activates gate and up, `[rows][GATE_TILES * TILE]` from column `column` on, of a block of rows.
    pub(super) fn store_gated(
        &self,
        layer: &PackedLayer,
        (first, len): (usize, usize),
        column: usize,
        gates: &mut [f32],
        ups: &mut [f32],
    ) {
        let [gate, up] = &layer.gate_up.parts[..] else { return };
        let (level, inner_size) = (self.constants.level, layer.shape.mlp.intermediate_size);
        let activation = match layer.shape.mlp.activation {
            Activation::Silu => KernelActivation::Silu,
            Activation::GeluTanh => KernelActivation::GeluTanh,
            Activation::Gelu => KernelActivation::Gelu,
        };
        let width = GATE_TILES * TILE;
        let rows = gates.chunks_exact_mut(width).zip(ups.chunks_exact_mut(width));
        for (row, (gates, ups)) in (first..first + len).zip(rows) {
            for (part, values) in [(gate, &mut *gates), (up, &mut *ups)] {
                if let Some(bias) = &part.bias {
                    let n = width.min(inner_size - column);
                    elementwise::add(level, &mut values[..n], &bias[column..column + n]);
                }
            }
            elementwise::gated_in_place(level, activation, gates, ups);
            self.store_inner(layer, row, column, gates);
        }
    }

    /// Columns from `column` on of a row of the MLP's inner values.
    fn store_inner(&self, layer: &PackedLayer, row: usize, column: usize, values: &[f32]) {
        let width = self.parts.widths.inner;
        let n = values.len().min(width - column);
        if layer.down.reads_rows(self.is_tiled(row)) {
            // SAFETY: these tiles are this chunk's alone.
            unsafe { self.parts.inner_rows.write(self.constants.level, row, column, &values[..n]) };
        }
        if layer.down.reads_floats(self.is_tiled(row)) {
            // SAFETY: these columns are this chunk's alone.
            unsafe { self.parts.inner.part(row * width + column..row * width + column + n) }
                .copy_from_slice(&values[..n]);
        }
    }
}

/// Blocks of rows that kernels take at once, `(first, length)`: none holds rows of both kinds.
pub(super) fn row_blocks(n_fine: usize, n_rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = |from: usize, to: usize| {
        (from..to).step_by(MAX_BLOCK_ROWS).map(move |first| (first, MAX_BLOCK_ROWS.min(to - first)))
    };
    blocks(0, n_fine).chain(blocks(n_fine, n_rows))
}
