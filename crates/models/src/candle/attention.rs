//! Attention in candle's own operations: the way of CUDA and Metal, and on the CPU the check of our own.

use candle_core::{D, DType, Device, Result, Tensor};
use tsserve_engine::CacheKind;

use super::kv_cache::LayerCache;
use super::step::{Step, runs, slot};
use crate::architecture::Attention;
use crate::step::visible_from;

/// Scores held at once, in elements over all heads (256 MiB of f32): longer prompts go in pieces.
const MAX_SCORES: usize = 1 << 26;

/// Cache rows written run by run; more runs than this go as one scatter.
const MAX_WRITE_RUNS: usize = 4;

/// What all layers of one cache group share in a step.
#[derive(Debug)]
pub struct GroupStep {
    write: Write,
    pieces: Vec<Piece>,
}

/// Where new keys and values go.
#[derive(Debug)]
enum Write {
    /// (first cache row, first token row, length)
    Runs(Vec<(usize, usize, usize)>),
    /// `[tokens]` cache rows.
    Scatter(Tensor),
}

/// Some tokens of one sequence and the keys they see.
#[derive(Debug)]
struct Piece {
    first: usize,
    len: usize,
    keys: Keys,
    /// `[len, keys]`, 0 or -inf; `None` where every token sees every key.
    mask: Option<Tensor>,
}

#[derive(Debug)]
enum Keys {
    Run(usize, usize),
    /// `[keys]` cache rows.
    Rows(Tensor),
}

impl GroupStep {
    pub fn new(step: &Step<'_>, group: usize, kind: CacheKind, n_heads: usize, device: &Device) -> Result<Self> {
        let mut write_runs: Vec<(usize, usize, usize)> = Vec::new();
        for (row, &slot) in step.slots[group].iter().enumerate() {
            match write_runs.last_mut() {
                Some((first, _, length)) if *first + *length == slot as usize => *length += 1,
                _ => write_runs.push((slot as usize, row, 1)),
            }
        }
        let write = if write_runs.len() <= MAX_WRITE_RUNS {
            Write::Runs(write_runs)
        } else {
            Write::Scatter(Tensor::new(step.slots[group].as_slice(), device)?)
        };
        let mut pieces = Vec::new();
        for span in &step.spans {
            let table = &span.tables[group];
            let mut token = 0;
            while token < span.len {
                let most_keys = span.start + span.len - visible_from(kind, span.start + token);
                let len = (MAX_SCORES / (n_heads * most_keys)).clamp(1, span.len - token);
                let (low, high) = (visible_from(kind, span.start + token), span.start + token + len);
                let keys = match runs(table, low, high)[..] {
                    [(first, length)] => Keys::Run(first, length),
                    _ => {
                        let rows: Vec<u32> = (low..high).map(|position| slot(table, position)).collect();
                        Keys::Rows(Tensor::new(rows, device)?)
                    }
                };
                let mask = if len == 1 { None } else { Some(mask(kind, span.start + token, len, low, device)?) };
                pieces.push(Piece { first: span.first + token, len, keys, mask });
                token += len;
            }
        }
        Ok(Self { write, pieces })
    }

    /// Writes the rows of `source` `[tokens, kv_heads * head_dim]` into `cache`.
    pub fn write(&self, cache: &Tensor, source: &Tensor) -> Result<()> {
        match &self.write {
            Write::Runs(runs) => {
                for &(to, from, length) in runs {
                    cache.slice_set(&source.narrow(0, from, length)?, 0, to)?;
                }
                Ok(())
            }
            Write::Scatter(slots) => {
                let indexes = slots.unsqueeze(1)?.broadcast_as(source.shape())?.contiguous()?;
                cache.scatter_set(&indexes, source, 0)
            }
        }
    }

    /// `q [tokens, heads * head_dim]` over the cache: `[tokens, heads * head_dim]`.
    pub fn attend(&self, q: &Tensor, cache: &LayerCache, attention: &Attention) -> Result<Tensor> {
        let mut outputs = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            outputs.push(piece.attend(q, cache, attention)?);
        }
        if let [one] = &outputs[..] { Ok(one.clone()) } else { Tensor::cat(&outputs, 0) }
    }
}

impl Piece {
    fn attend(&self, q: &Tensor, cache: &LayerCache, attention: &Attention) -> Result<Tensor> {
        let Attention { n_heads, n_kv_heads, head_dim, scale, softcap, .. } = *attention;
        let group = n_heads / n_kv_heads;
        let (k, v) = (self.gather(&cache.k)?, self.gather(&cache.v)?);
        let n_keys = k.dim(0)?;
        // [keys, kv_heads * head_dim] -> [kv_heads, keys, head_dim]
        let by_head = |t: Tensor| t.reshape((n_keys, n_kv_heads, head_dim))?.transpose(0, 1)?.contiguous();
        let (k, v) = (by_head(k)?, by_head(v)?);
        // [len, heads * head_dim] -> [kv_heads, group * len, head_dim]
        let q = q
            .narrow(0, self.first, self.len)?
            .reshape((self.len, n_kv_heads, group, head_dim))?
            .permute((1, 2, 0, 3))?
            .contiguous()?
            .reshape((n_kv_heads, group * self.len, head_dim))?;
        // [kv_heads, group * len, keys]
        let scores = q.matmul(&k.t()?)?.to_dtype(DType::F32)?;
        let mut scores = (scores * f64::from(scale))?;
        if let Some(cap) = softcap {
            scores = ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?;
        }
        if let Some(mask) = &self.mask {
            scores = scores.reshape((n_kv_heads * group, self.len, n_keys))?.broadcast_add(mask)?.reshape((
                n_kv_heads,
                group * self.len,
                n_keys,
            ))?;
        }
        let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
        // [kv_heads, group * len, head_dim] -> [len, heads * head_dim]
        weights
            .matmul(&v)?
            .reshape((n_kv_heads, group, self.len, head_dim))?
            .permute((2, 0, 1, 3))?
            .contiguous()?
            .reshape((self.len, n_heads * head_dim))
    }

    fn gather(&self, cache: &Tensor) -> Result<Tensor> {
        match &self.keys {
            Keys::Run(first, length) => cache.narrow(0, *first, *length),
            Keys::Rows(rows) => cache.index_select(rows, 0),
        }
    }
}

/// Which of the keys from position `low` on each of `len` tokens from position `start` on sees.
fn mask(kind: CacheKind, start: usize, len: usize, low: usize, device: &Device) -> Result<Tensor> {
    let n_keys = start + len - low;
    let mut mask = vec![f32::NEG_INFINITY; len * n_keys];
    for token in 0..len {
        let from = visible_from(kind, start + token) - low;
        let to = start + token + 1 - low;
        mask[token * n_keys..][from..to].fill(0.0);
    }
    Tensor::from_vec(mask, (1, len, n_keys), device)
}

/// Rotates `x [tokens, heads * head_dim]` by `(cos, sin)`, each `[tokens, rotary_dim / 2]`.
pub fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor), head_dim: usize) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let rotary_dim = 2 * cos.dim(1)?;
    // [1, tokens, heads, head_dim]
    let heads = x.reshape((1, tokens, width / head_dim, head_dim))?;
    let rotated = if rotary_dim == head_dim {
        candle_nn::rotary_emb::rope_thd(&heads.contiguous()?, cos, sin)?
    } else {
        let turning = heads.narrow(D::Minus1, 0, rotary_dim)?.contiguous()?;
        let staying = heads.narrow(D::Minus1, rotary_dim, head_dim - rotary_dim)?;
        Tensor::cat(&[&candle_nn::rotary_emb::rope_thd(&turning, cos, sin)?, &staying], D::Minus1)?
    };
    rotated.reshape((tokens, width))
}
