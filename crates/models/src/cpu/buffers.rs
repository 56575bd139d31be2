//! What a step writes to: sized at load, used again by every step.

use tsserve_kernels::attention::{Partial, SPAN, Scratch as AttentionScratch};
use tsserve_kernels::{Level, MAX_BLOCK_ROWS, Planes, QuantizedRows, TILE, TilePanel};

use super::role_rows::{RoleRows, has_tiles};
use super::tiled::{GATE_ROWS, PANEL_GROUPS};
use super::weights::{PackedModel, padded};
use crate::architecture::Architecture;

/// Tiles of gate and up that are computed at once.
pub(super) const GATE_TILES: usize = 2;

/// Least number of pieces of context that attention computes before they are merged.
const MIN_PIECES: usize = 64;

/// Widths of the buffers' rows, in values; all padded to whole tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widths {
    pub hidden: usize,
    pub qkv: usize,
    pub attended: usize,
    pub inner: usize,
    pub vocab: usize,
    /// Query heads of the layer that has most, and their length.
    pub max_heads: usize,
    pub max_head_dim: usize,
}

/// All buffers of a runner.
#[derive(Debug)]
pub(super) struct Buffers {
    pub widths: Widths,
    /// The residual stream, `[rows][hidden]`.
    pub x: Vec<f32>,
    /// What a linear layer of float weights reads, `[rows][widest input]`.
    pub float: Vec<f32>,
    /// `[rows][qkv]`
    pub qkv: Vec<f32>,
    /// `[rows][attended]`
    pub attended: Vec<f32>,
    /// What attention and MLP add to the stream, `[rows][hidden]`.
    pub y: Vec<f32>,
    /// The MLP's inner values where its second matrix is of floats, `[rows][inner]`.
    pub inner: Vec<f32>,
    /// Inputs of the linear layers, quantised or rounded: of q, k and v, of o, of gate and up, and of down.
    pub qkv_rows: RoleRows,
    pub attended_rows: RoleRows,
    pub mlp_rows: RoleRows,
    pub inner_rows: RoleRows,
    /// Per rope, cosines and sines of each row, `[rows][half]`.
    pub ropes: Vec<(Vec<f32>, Vec<f32>)>,
    /// Of each piece of context and query head.
    pub partials: Vec<Partial>,
    /// `[pieces][heads][head_dim]`
    pub partial_values: Vec<f32>,
    pub max_pieces: usize,
    /// Rows whose logits are wanted, normed: [`MAX_BLOCK_ROWS`] at a time.
    pub head_float: Vec<f32>,
    pub head_rows: QuantizedRows,
    /// `[MAX_BLOCK_ROWS][vocab]`
    pub logits: Vec<f32>,
    pub threads: Vec<ThreadScratch>,
}

/// What one thread writes to.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct ThreadScratch {
    /// A row of the widest buffer.
    pub row: Vec<f32>,
    /// Gate and up, `[rows of a block][GATE_TILES * TILE]` each.
    pub gate: Vec<f32>,
    pub up: Vec<f32>,
    /// Weights unpacked for prompts' rows, of gate (or any other matrix) and of up; empty where these take no tiles.
    pub panels: [TilePanel; 2],
    pub attention: AttentionScratch,
}

impl Buffers {
    pub(super) fn new(
        level: Level,
        architecture: &Architecture,
        model: &PackedModel,
        max_rows: usize,
        max_context: usize,
        threads: usize,
    ) -> Self {
        let layers = || architecture.layers.iter();
        let most = |value: &dyn Fn(usize) -> usize| (0..architecture.layers.len()).map(value).max().unwrap_or(0);
        let attention = |i: usize| &architecture.layers[i].attention;
        let widths = Widths {
            hidden: padded(architecture.hidden_size, TILE),
            qkv: padded(most(&|i| model.layers[i].qkv.width()), TILE),
            attended: padded(most(&|i| attention(i).n_heads * attention(i).head_dim), TILE),
            inner: padded(most(&|i| architecture.layers[i].mlp.intermediate_size), TILE),
            vocab: padded(architecture.vocab_size, TILE),
            max_heads: most(&|i| attention(i).n_heads),
            max_head_dim: most(&|i| attention(i).head_dim),
        };
        let max_group = layers().map(|l| l.attention.n_heads / l.attention.n_kv_heads).max().unwrap_or(1);
        let max_pieces = MIN_PIECES.max(max_context.div_ceil(SPAN) + 1);
        let widest = widths.hidden.max(widths.attended).max(widths.inner);
        let any_float = |linear: &dyn Fn(usize) -> bool| (0..architecture.layers.len()).any(linear);
        let float_in =
            any_float(&|i| model.layers[i].qkv.reads_floats(false) || model.layers[i].gate_up.reads_floats(false));
        let float_down = any_float(&|i| model.layers[i].down.reads_floats(false));
        let (block_rows, panel_groups) = if has_tiles(level) { (GATE_ROWS, PANEL_GROUPS) } else { (MAX_BLOCK_ROWS, 0) };
        let block = GATE_TILES * TILE * block_rows;
        let role_rows = |width, prompts| RoleRows::new(level, max_rows, width, prompts);
        Self {
            widths,
            x: vec![0.0; max_rows * widths.hidden],
            float: vec![0.0; if float_in { max_rows * widths.hidden } else { 0 }],
            qkv: vec![0.0; max_rows * widths.qkv],
            attended: vec![0.0; max_rows * widths.attended],
            y: vec![0.0; max_rows * widths.hidden],
            inner: vec![0.0; if float_down { max_rows * widths.inner } else { 0 }],
            qkv_rows: role_rows(widths.hidden, Planes::Two),
            attended_rows: role_rows(widths.attended, Planes::One),
            mlp_rows: role_rows(widths.hidden, Planes::One),
            inner_rows: role_rows(widths.inner, Planes::Two),
            ropes: architecture
                .ropes
                .iter()
                .map(|rope| {
                    let half = vec![0.0; max_rows * rope.rotary_dim / 2];
                    (half.clone(), half)
                })
                .collect(),
            partials: vec![Partial::NONE; max_pieces * widths.max_heads],
            partial_values: vec![0.0; max_pieces * widths.max_heads * widths.max_head_dim],
            max_pieces,
            head_float: vec![0.0; MAX_BLOCK_ROWS * widths.hidden],
            head_rows: QuantizedRows::with_capacity(MAX_BLOCK_ROWS, widths.hidden, Planes::Two),
            logits: vec![0.0; MAX_BLOCK_ROWS * widths.vocab],
            threads: (0..threads)
                .map(|_| ThreadScratch {
                    row: vec![0.0; widest],
                    gate: vec![0.0; block],
                    up: vec![0.0; block],
                    panels: [widest, widths.hidden].map(|width| TilePanel::with_capacity(panel_groups, width)),
                    attention: AttentionScratch::new(max_group, widths.max_head_dim),
                })
                .collect(),
        }
    }
}
