//! The CPU's own operations, as candle custom ops on f32: where candle's are single-threaded or many small launches.
//! Each computes a row without regard to the rows beside it, so that batching changes no bit.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp1, InplaceOp2, Layout, Result, Shape, bail};
use rayon::prelude::*;

use super::rope::RopeTable;
use super::simd::{Level, Out, Rows, dot_rows, weighted_sum};
use super::step::{Span, runs};
use crate::architecture::{Activation, Attention};
use crate::step::visible_from;
use tsserve_engine::CacheKind;

/// Weights that one task reads: they stay in the second-level cache while all rows of x pass.
const TASK_BYTES: usize = 256 * 1024;

/// Fewer multiplications than this are not worth waking threads for.
const SERIAL_WORK: usize = 64 * 1024;

/// Values per task of an element-wise operation.
const ELEMENTWISE_CHUNK: usize = 16 * 1024;

/// Query tokens per attention task.
const ATTENTION_ROWS: usize = 16;

/// Query tokens that share one pass over the keys.
const ATTENTION_TILE: usize = 4;

fn f32_slice<'a>(storage: &'a CpuStorage, layout: &Layout, what: &str) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((from, to))) => Ok(&data[from..to]),
        _ => bail!("{what} must be contiguous f32"),
    }
}

fn f32_slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout, what: &str) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((from, to))) => Ok(&mut data[from..to]),
        _ => bail!("{what} must be contiguous f32"),
    }
}

/// `x [m, k]` times the transpose of `w [n, k]`: `[m, n]`.
pub struct LinearOp {
    pub level: Level,
}

impl CustomOp2 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((m, k), (n, wk)) = (xl.shape().dims2()?, wl.shape().dims2()?);
        if k != wk || k == 0 {
            bail!("linear of {k} columns by {wk}");
        }
        let (x, w) = (f32_slice(x, xl, "x")?, f32_slice(w, wl, "w")?);
        let mut out = vec![0f32; m * n];
        let columns = columns_per_task(m, k, n);
        let whole = Out::new(&mut out, n);
        let task = |index: usize| {
            let (from, to) = (index * columns, ((index + 1) * columns).min(n));
            // SAFETY: tasks write the columns `from..to` only, which are disjoint, and `out` outlives them.
            let mut window = unsafe { whole.window(from) };
            dot_rows(self.level, Rows::new(x, m, k, k), Rows::new(&w[from * k..], to - from, k, k), &mut window);
        };
        if m > 0 {
            match n.div_ceil(columns) {
                0 => {}
                1 => task(0),
                tasks => (0..tasks).into_par_iter().for_each(task),
            }
        }
        Ok((CpuStorage::F32(out), (m, n).into()))
    }
}

/// How many output columns make one task: few enough that their weights stay in cache while all rows of x pass, and a
/// few tasks per thread, so that a thread that is held up does not hold up the rest. Multiples of a tile's width.
fn columns_per_task(m: usize, k: usize, n: usize) -> usize {
    if m * k * n < SERIAL_WORK {
        return n.max(1);
    }
    let shared = n.div_ceil(rayon::current_num_threads() * 4);
    let cached = TASK_BYTES / (4 * k);
    shared.min(cached).next_multiple_of(12)
}

/// Adds `y` to `x [m, n]`; `y` is `[m, n]`, or one row `[n]` for all. (candle's own addition would start a pool of
/// spinning threads beside rayon's, whatever number of threads was asked for.)
pub struct AddOp;

impl InplaceOp2 for AddOp {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, xl: &Layout, y: &CpuStorage, yl: &Layout) -> Result<()> {
        let x = f32_slice_mut(x, xl, "x")?;
        let y = f32_slice(y, yl, "y")?;
        if y.is_empty() || x.len() % y.len() != 0 {
            bail!("{} values added to {}", y.len(), x.len());
        }
        let add = |(x, y): (&mut [f32], &[f32])| x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        if y.len() < x.len() {
            x.par_chunks_mut(y.len()).for_each(|x| add((x, y)));
        } else {
            x.par_chunks_mut(ELEMENTWISE_CHUNK).zip(y.par_chunks(ELEMENTWISE_CHUNK)).for_each(add);
        }
        Ok(())
    }
}

/// Replaces every value by a function of it.
pub struct MapOp<F: Fn(f32) -> f32 + Sync>(pub F);

impl<F: Fn(f32) -> f32 + Sync> InplaceOp1 for MapOp<F> {
    fn name(&self) -> &'static str {
        "map"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let x = f32_slice_mut(storage, layout, "x")?;
        x.par_chunks_mut(ELEMENTWISE_CHUNK).for_each(|x| x.iter_mut().for_each(|x| *x = self.0(*x)));
        Ok(())
    }
}

/// `x [m, 2 * i]`, gate and up beside each other: `act(gate) * up`, `[m, i]`.
pub struct GatedOp {
    pub activation: Activation,
}

impl CustomOp1 for GatedOp {
    fn name(&self) -> &'static str {
        "gated-activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (m, width) = layout.shape().dims2()?;
        let half = width / 2;
        let x = f32_slice(x, layout, "x")?;
        let mut out = vec![0f32; m * half];
        let activation = self.activation;
        // Chunks of a row, so that one row of a wide MLP is shared too.
        const CHUNK: usize = 2048;
        let row = |(x, out): (&[f32], &mut [f32])| {
            let (gate, up) = x.split_at(half);
            out.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK)).zip(up.par_chunks(CHUNK)).for_each(
                |((out, gate), up)| {
                    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = activate(activation, *gate) * up;
                    }
                },
            );
        };
        if m == 1 {
            row((x, &mut out));
        } else if half > 0 {
            x.par_chunks(width).zip(out.par_chunks_mut(half)).for_each(row);
        }
        Ok((CpuStorage::F32(out), (m, half).into()))
    }
}

fn activate(activation: Activation, x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => 0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh()),
        Activation::Gelu => 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f32(x * std::f32::consts::FRAC_1_SQRT_2)),
    }
}

/// Rotates `[m, heads * head_dim]` in place.
pub struct RopeOp<'a> {
    pub table: &'a RopeTable,
    pub head_dim: usize,
}

impl InplaceOp1 for RopeOp<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (m, width) = layout.shape().dims2()?;
        let half = self.table.half;
        if self.table.cos.len() != m * half || 2 * half > self.head_dim {
            bail!("rope table does not fit {m} rows of heads of {}", self.head_dim);
        }
        let x = f32_slice_mut(storage, layout, "x")?;
        for (row, x) in x.chunks_exact_mut(width).enumerate() {
            let cos = &self.table.cos[row * half..(row + 1) * half];
            let sin = &self.table.sin[row * half..(row + 1) * half];
            for head in x.chunks_exact_mut(self.head_dim) {
                let (first, second) = head.split_at_mut(half);
                for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        }
        Ok(())
    }
}

/// Copies row `i` of the source to row `slots[i]` of the cache.
pub struct WriteRowsOp<'a> {
    pub slots: &'a [u32],
}

impl InplaceOp2 for WriteRowsOp<'_> {
    fn name(&self) -> &'static str {
        "write-rows"
    }

    fn cpu_fwd(&self, cache: &mut CpuStorage, cl: &Layout, source: &CpuStorage, sl: &Layout) -> Result<()> {
        let ((rows, width), (m, source_width)) = (cl.shape().dims2()?, sl.shape().dims2()?);
        if m != self.slots.len() || width != source_width {
            bail!("{m} rows of {source_width} for {} cache rows of {width}", self.slots.len());
        }
        let source = f32_slice(source, sl, "source")?;
        let cache = f32_slice_mut(cache, cl, "cache")?;
        for (row, &slot) in source.chunks_exact(width).zip(self.slots) {
            let slot = slot as usize;
            if slot >= rows {
                bail!("cache row {slot} of {rows}");
            }
            cache[slot * width..(slot + 1) * width].copy_from_slice(row);
        }
        Ok(())
    }
}

/// `q [m, heads * head_dim]` over the cached keys and values of each row's sequence: `[m, heads * head_dim]`.
pub struct AttentionOp<'a> {
    pub level: Level,
    pub attention: &'a Attention,
    pub spans: &'a [Span],
    pub group: usize,
    pub kind: CacheKind,
}

/// Some tokens of one sequence in one head.
struct Task<'a> {
    span: &'a Span,
    head: usize,
    /// Tokens of the span.
    from: usize,
    to: usize,
}

impl CustomOp3 for AttentionOp<'_> {
    fn name(&self) -> &'static str {
        "paged-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        ql: &Layout,
        k: &CpuStorage,
        kl: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (m, width) = ql.shape().dims2()?;
        let heads = self.attention.n_heads;
        if width != heads * self.attention.head_dim || self.spans.iter().any(|span| span.first + span.len > m) {
            bail!("attention of {heads} heads over rows of {width}");
        }
        let (q, k, v) = (f32_slice(q, ql, "q")?, f32_slice(k, kl, "k")?, f32_slice(v, vl, "v")?);
        let mut tasks = Vec::new();
        for span in self.spans {
            for from in (0..span.len).step_by(ATTENTION_ROWS) {
                let to = (from + ATTENTION_ROWS).min(span.len);
                tasks.extend((0..heads).map(|head| Task { span, head, from, to }));
            }
        }
        let mut out = vec![0f32; m * width];
        let whole = Out::new(&mut out, width);
        tasks.par_iter().for_each(|task| {
            // SAFETY: a task writes the rows of its tokens in the columns of its head only, and `out` outlives it.
            let mut window = unsafe { whole.window(task.head * self.attention.head_dim) };
            self.task(task, q, k, v, &mut window);
        });
        Ok((CpuStorage::F32(out), (m, width).into()))
    }
}

impl AttentionOp<'_> {
    fn task(&self, task: &Task<'_>, q: &[f32], k: &[f32], v: &[f32], out: &mut Out) {
        let Attention { n_heads, n_kv_heads, head_dim, scale, softcap, .. } = *self.attention;
        let (width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let kv_column = task.head / (n_heads / n_kv_heads) * head_dim;
        let span = task.span;
        let table = &span.tables[self.group];
        let mut scores = Vec::new();
        let mut sum_of_values = vec![0f32; head_dim];
        for first in (task.from..task.to).step_by(ATTENTION_TILE) {
            let last = (first + ATTENTION_TILE).min(task.to) - 1;
            // Keys that any token of the tile sees.
            let (low, high) = (visible_from(self.kind, span.start + first), span.start + last + 1);
            let n_keys = high - low;
            let key_runs = runs(table, low, high);
            scores.clear();
            scores.resize((last + 1 - first) * n_keys, 0f32);
            let queries =
                Rows::new(&q[(span.first + first) * width + task.head * head_dim..], last + 1 - first, head_dim, width);
            let whole = Out::new(&mut scores, n_keys);
            let mut column = 0;
            for &(row, length) in &key_runs {
                let keys = Rows::new(&k[row * kv_width + kv_column..], length, head_dim, kv_width);
                // SAFETY: the windows are used one after the other, while `scores` is not touched otherwise.
                dot_rows(self.level, queries, keys, &mut unsafe { whole.window(column) });
                column += length;
            }
            for token in first..=last {
                let position = span.start + token;
                let own_low = visible_from(self.kind, position);
                let scores = &mut scores[(token - first) * n_keys..][own_low - low..position + 1 - low];
                softmax(scores, scale, softcap);
                sum_of_values.fill(0.0);
                let mut done = 0;
                for (row, length) in runs(table, own_low, position + 1) {
                    let values = Rows::new(&v[row * kv_width + kv_column..], length, head_dim, kv_width);
                    weighted_sum(self.level, &scores[done..done + length], values, &mut sum_of_values);
                    done += length;
                }
                out.set_row(span.first + token, &sum_of_values);
            }
        }
    }
}

/// Raw scores to weights that sum to 1.
fn softmax(scores: &mut [f32], scale: f32, softcap: Option<f32>) {
    let mut max = f32::NEG_INFINITY;
    for score in scores.iter_mut() {
        *score *= scale;
        if let Some(cap) = softcap {
            *score = (*score / cap).tanh() * cap;
        }
        max = max.max(*score);
    }
    let mut sum = 0f64;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += f64::from(*score);
    }
    let inverse = (1.0 / sum) as f32;
    for score in scores {
        *score *= inverse;
    }
}
