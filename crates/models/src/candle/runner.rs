//! The candle runner: loads a checkpoint and computes steps.

use candle_core::{Device, Tensor};
use tsserve_engine::{CacheGroup, ModelRunner, RunnerError, RunnerSpec, StepPlan, StepResults};

use super::attention::GroupStep;
use super::cpu_ops::MapOp;
use super::device::{Dtype, RunnerDevice};
use super::head::{Head, on_host, select_rows};
use super::kv_cache::{LayerCache, allocate, kv_layout};
use super::layers::{DecoderLayer, Linear, Ops, RmsNorm, StepContext};
use super::load::{Loader, refused_on_device};
use super::rope::RopeFrequencies;
use super::simd::Level;
use super::step::Step;
use crate::architecture::Architecture;
use crate::checkpoint::{Checkpoint, TensorRole};
use crate::config::ConfigError;
use crate::error::ModelError;
use crate::step::BLOCK_SIZE;

/// How a model is to run. All sizes are final: nothing grows afterwards.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    pub device: RunnerDevice,
    /// Type of weights, activations and cache. The CPU computes in f32 only.
    pub dtype: Dtype,
    /// Longest sequence, in tokens.
    pub max_context: usize,
    /// Most tokens in one step.
    pub max_batch_tokens: usize,
    /// Blocks per cache group, in the order of `kv_layout`.
    pub kv_blocks: Vec<usize>,
    /// Use candle's operations on the CPU too, as on other devices, instead of our own. Slower; for tests.
    pub plain_ops: bool,
}

/// Where a hidden state was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenPoint {
    /// The input of layer 0.
    Embedding,
    /// The output of a layer, before the final norm.
    Layer(usize),
}

/// Receives hidden states, each flat `[tokens, hidden]` in f32.
pub type HiddenTap<'t> = &'t mut dyn FnMut(HiddenPoint, &[f32]);

/// Computes a decoder with candle on any device.
#[derive(Debug)]
pub struct CandleRunner {
    spec: RunnerSpec,
    max_batch_tokens: usize,
    device: Device,
    dtype: Dtype,
    ops: Ops,
    /// `[vocab, hidden]`
    embedding: Tensor,
    embedding_scale: f32,
    ropes: Vec<RopeFrequencies>,
    layers: Vec<DecoderLayer>,
    caches: Vec<LayerCache>,
    final_norm: RmsNorm,
    head: Head,
    most_heads: usize,
}

impl CandleRunner {
    /// Reads all weights onto the device and allocates the KV cache. `progress` hears how many of how many parts are
    /// loaded, from (0, n) to (n, n).
    ///
    /// # Errors
    /// `ModelError` where a tensor is missing, broken or does not fit the device, or the options do not fit the model.
    pub fn load(
        checkpoint: &Checkpoint,
        options: RunnerOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let architecture = &checkpoint.architecture;
        let layout = kv_layout(architecture, options.dtype);
        check(architecture, &options, layout.len())?;
        let device = options.device.candle().clone();
        let dtype = options.dtype.candle();
        let ops = if device.is_cpu() && !options.plain_ops { Ops::Cpu(Level::detect()) } else { Ops::Candle };
        let caches = allocate(architecture, &layout, &options.kv_blocks, dtype, &device)
            .map_err(|e| refused_on_device("of the KV cache", e))?;
        let total = architecture.layers.len() + 2;
        progress(0, total);
        let loader = Loader { checkpoint, dtype, device: &device };
        let embedding = loader.matrix(TensorRole::Embedding)?;
        progress(1, total);
        let mut layers = Vec::with_capacity(architecture.layers.len());
        for index in 0..architecture.layers.len() {
            layers.push(loader.layer(index)?);
            progress(2 + index, total);
        }
        let final_norm = loader.norm(TensorRole::FinalNorm)?;
        let head = if architecture.tied_head { embedding.clone() } else { loader.matrix(TensorRole::Head)? };
        // Each host thread has its own stream on CUDA, and another thread than this one will compute.
        device.synchronize().map_err(|e| refused_on_device("of the model", e))?;
        progress(total, total);
        let groups = layout.iter().zip(&options.kv_blocks);
        Ok(Self {
            spec: RunnerSpec {
                vocab_size: architecture.vocab_size,
                block_size: BLOCK_SIZE,
                max_context: options.max_context,
                groups: groups.map(|(group, &n_blocks)| CacheGroup { kind: group.kind, n_blocks }).collect(),
            },
            max_batch_tokens: options.max_batch_tokens,
            dtype: options.dtype,
            ops,
            embedding,
            embedding_scale: architecture.embedding_scale,
            ropes: architecture.ropes.iter().map(RopeFrequencies::new).collect(),
            layers,
            caches,
            final_norm,
            head: Head { linear: Linear { weight: head, bias: None }, softcap: architecture.final_logit_softcap, ops },
            most_heads: architecture.layers.iter().map(|layer| layer.attention.n_heads).max().unwrap_or(1),
            device,
        })
    }

    /// Which kernels compute: "avx2" and the like for our own on the CPU, "candle" for candle's.
    pub fn kernels(&self) -> &'static str {
        match self.ops {
            Ops::Cpu(level) => level.name(),
            Ops::Candle => "candle",
        }
    }

    /// As `run`, and hands every layer's hidden states to `tap`.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_tapped(&mut self, plan: &StepPlan, tap: HiddenTap<'_>) -> Result<StepResults, RunnerError> {
        self.step(plan, Some(tap))
    }

    fn step(&mut self, plan: &StepPlan, tap: Option<HiddenTap<'_>>) -> Result<StepResults, RunnerError> {
        let step = Step::new(plan, &self.spec, self.max_batch_tokens)?;
        if step.tokens.is_empty() {
            return Ok(StepResults::default());
        }
        self.forward(&step, tap).map_err(|error| RunnerError::Device(error.into()))
    }

    fn forward(&self, step: &Step<'_>, mut tap: Option<HiddenTap<'_>>) -> candle_core::Result<StepResults> {
        let mut record = |point, x: &Tensor| match &mut tap {
            Some(tap) => on_host(&x.to_dtype(candle_core::DType::F32)?, |values| tap(point, values)),
            None => Ok(()),
        };
        let context = self.context(step)?;
        // [tokens, hidden]
        let tokens = Tensor::new(step.tokens.as_slice(), &self.device)?;
        let mut x = self.embedding.index_select(&tokens, 0)?;
        if self.embedding_scale != 1.0 {
            let scale = self.embedding_scale;
            match self.ops {
                Ops::Cpu(_) => x.inplace_op1(&MapOp(|x: f32| x * scale))?,
                Ops::Candle => x = (x * f64::from(scale))?,
            }
        }
        record(HiddenPoint::Embedding, &x)?;
        for (index, (layer, cache)) in self.layers.iter().zip(&self.caches).enumerate() {
            x = layer.forward(&x, cache, &context)?;
            record(HiddenPoint::Layer(index), &x)?;
        }
        if step.outputs.is_empty() {
            return Ok(StepResults::default());
        }
        let (rows, wants): (Vec<usize>, Vec<_>) = step.outputs.iter().copied().unzip();
        let hidden = self.final_norm.forward(&select_rows(&x, &rows)?)?;
        Ok(StepResults { rows: self.head.answer(&hidden, &wants)? })
    }

    fn context<'s>(&self, step: &'s Step<'s>) -> candle_core::Result<StepContext<'s>> {
        let kinds: Vec<_> = self.spec.groups.iter().map(|group| group.kind).collect();
        let ropes: Vec<_> = self.ropes.iter().map(|rope| rope.table(&step.positions)).collect();
        let mut device_ropes = Vec::new();
        let mut groups = Vec::new();
        if self.ops == Ops::Candle {
            for table in &ropes {
                device_ropes.push(table.to_device(&self.device, self.dtype.candle())?);
            }
            for (group, &kind) in kinds.iter().enumerate() {
                groups.push(GroupStep::new(step, group, kind, self.most_heads, &self.device)?);
            }
        }
        Ok(StepContext { ops: self.ops, step, kinds, ropes, device_ropes, groups })
    }
}

impl ModelRunner for CandleRunner {
    fn spec(&self) -> &RunnerSpec {
        &self.spec
    }

    fn run(&mut self, plan: &StepPlan) -> Result<StepResults, RunnerError> {
        self.step(plan, None)
    }
}

fn check(architecture: &Architecture, options: &RunnerOptions, n_groups: usize) -> Result<(), ModelError> {
    let refuse = |what: String| Err(ConfigError::Unsupported { what }.into());
    if options.device.is_cpu() && options.dtype != Dtype::F32 {
        return refuse(format!("computing in {} on the CPU (f32 is)", options.dtype.name()));
    }
    if options.kv_blocks.len() != n_groups {
        return refuse(format!("a cache of {} groups for a model of {n_groups}", options.kv_blocks.len()));
    }
    for (index, layer) in architecture.layers.iter().enumerate() {
        let attention = &layer.attention;
        if attention.n_kv_heads == 0 || attention.n_heads % attention.n_kv_heads != 0 {
            return refuse(format!(
                "layer {index} with {} heads for {} key-value heads",
                attention.n_heads, attention.n_kv_heads
            ));
        }
    }
    Ok(())
}
