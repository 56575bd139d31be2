//! Which runner computes a model: packed weights on the CPU where there are kernels for it, candle otherwise.

use tsserve_engine::ModelRunner;
use tsserve_models::KvGroupLayout;
use tsserve_models::candle::{self, CandleRunner, Dtype, RunnerDevice, RunnerOptions};
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::cpu::{self, CacheType, CpuOptions, CpuRunner, Level, Quantization};
use tsserve_models::error::ModelError;

use crate::error::CoreError;
use crate::options::LoadOptions;

/// Environment variable that forces the CPU kernels' instruction set, for tests and measurements.
const LEVEL_VARIABLE: &str = "TSSERVE_CPU";

/// How a model will be computed.
#[derive(Debug)]
pub(crate) enum RunnerChoice {
    /// Packed weights, as they are stored or quantised.
    Packed { level: Level, quantization: Option<Quantization>, cache_type: CacheType },
    /// Tensors of one type.
    Candle { device: RunnerDevice, dtype: Dtype },
}

/// A runner, and what is said of it.
pub(crate) struct LoadedRunner {
    pub runner: Box<dyn ModelRunner>,
    /// Which kernels compute.
    pub kernels: &'static str,
    /// Bytes of weights that one token of an answer reads.
    pub bytes_per_token: u64,
    /// 8-bit operations of one token of a prompt, if there are any.
    pub operations_per_prompt_token: Option<u64>,
}

/// Sizes that a runner is made for.
#[derive(Debug, Clone)]
pub(crate) struct RunnerSizes {
    pub threads: usize,
    pub max_context: usize,
    pub max_batch_tokens: usize,
    /// Per cache group.
    pub kv_blocks: Vec<usize>,
}

impl RunnerChoice {
    /// Packed on the CPU unless a type was asked for or there are no kernels, which `warnings` is told.
    ///
    /// # Errors
    /// The environment forces an instruction set that is unknown or not there; a quantisation or a type of cache is asked
    /// for of what is not packed.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        device: RunnerDevice,
        options: &LoadOptions,
        warnings: &mut Vec<String>,
    ) -> Result<Self, CoreError> {
        let &LoadOptions { dtype, quantization, kv_cache_type, .. } = options;
        let refuse = |why: String| CoreError::Invalid { message: why, param: Some("quantization") };
        if quantization.is_some() && !device.is_cpu() {
            let device = device.name();
            return Err(refuse(format!("quantization packs weights for the CPU, and the device is {device}: use cpu")));
        }
        if device.is_cpu() && dtype.is_none() {
            let level = level()?;
            match cpu::unsupported(checkpoint) {
                None => {
                    if let Some(asked) = quantization
                        && cpu::packed_size(checkpoint, quantization).quantized.is_empty()
                    {
                        let asked = asked.name();
                        warnings
                            .push(format!("quantization {asked} has no effect: no matrix of the model can take it"));
                    }
                    let cache_type = kv_cache_type.unwrap_or_default();
                    return Ok(Self::Packed { level, quantization, cache_type });
                }
                Some(why) if quantization.is_some() => {
                    return Err(refuse(format!("this model cannot be quantised at load: {why}")));
                }
                Some(why) if let Some(asked) = kv_cache_type => return Err(refuse_cache(asked, why)),
                Some(why) => warnings.push(format!("computed in f32 by the slower general path: {why}")),
            }
        }
        let dtype = dtype.unwrap_or_else(|| device.default_dtype());
        if let Some(asked) = kv_cache_type.filter(|asked| asked.name() != dtype.name()) {
            let (device, dtype) = (device.name(), dtype.name());
            return Err(refuse_cache(asked, format!("keys and values are kept in {dtype} on {device}")));
        }
        Ok(Self::Candle { device, dtype })
    }

    /// Memory that the weights will take.
    pub(crate) fn weight_bytes(&self, checkpoint: &Checkpoint) -> u64 {
        match self {
            Self::Packed { quantization: None, .. } => checkpoint.weights().file_bytes(),
            Self::Packed { quantization, .. } => cpu::packed_size(checkpoint, *quantization).bytes,
            Self::Candle { dtype, .. } => checkpoint.loaded_bytes(dtype.size_in_bytes()),
        }
    }

    pub(crate) fn kv_layout(&self, checkpoint: &Checkpoint) -> Vec<KvGroupLayout> {
        match self {
            Self::Packed { cache_type, .. } => cpu::kv_layout(checkpoint, *cache_type),
            Self::Candle { dtype, .. } => candle::kv_layout(&checkpoint.architecture, *dtype),
        }
    }

    /// How keys and values are kept, for people.
    pub(crate) fn kv_cache_type(&self, checkpoint: &Checkpoint) -> String {
        match self {
            Self::Packed { cache_type, .. } => cpu::cache_summary(checkpoint, *cache_type),
            Self::Candle { dtype, .. } => dtype.name().to_owned(),
        }
    }

    /// How matrices are stored, and what they are quantised to: "BF16 (safetensors) as Q4_K x210 + Q8_0".
    pub(crate) fn weight_format(&self, checkpoint: &Checkpoint) -> String {
        let stored = checkpoint.weights().format_summary();
        let Self::Packed { quantization, .. } = self else { return stored };
        let mut formats: Vec<_> = cpu::packed_size(checkpoint, *quantization).quantized.into_iter().collect();
        formats.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        if formats.is_empty() {
            return stored;
        }
        let with_counts = formats.len() > 1;
        let formats = formats
            .into_iter()
            .map(|(format, count)| if with_counts && count > 1 { format!("{format} x{count}") } else { format });
        format!("{stored} as {}", formats.collect::<Vec<_>>().join(" + "))
    }

    /// The number format that is computed in, for people: "packed", or the tensors' type.
    pub(crate) fn dtype_name(&self) -> &'static str {
        match self {
            Self::Packed { .. } => "packed",
            Self::Candle { dtype, .. } => dtype.name(),
        }
    }

    /// Loads the model.
    pub(crate) fn load(
        self,
        checkpoint: &Checkpoint,
        sizes: RunnerSizes,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<LoadedRunner, ModelError> {
        let RunnerSizes { threads, max_context, max_batch_tokens, kv_blocks } = sizes;
        match self {
            Self::Packed { level, quantization, cache_type } => {
                let options =
                    CpuOptions { level, threads, quantization, cache_type, max_context, max_batch_tokens, kv_blocks };
                let runner = CpuRunner::load(checkpoint, options, progress)?;
                let operations = runner.operations_per_prompt_token() as u64;
                Ok(LoadedRunner {
                    kernels: level.name(),
                    bytes_per_token: runner.bytes_per_token() as u64,
                    operations_per_prompt_token: (operations > 0).then_some(operations),
                    runner: Box::new(runner),
                })
            }
            Self::Candle { device, dtype } => {
                let options =
                    RunnerOptions { device, dtype, max_context, max_batch_tokens, kv_blocks, plain_ops: false };
                let runner = CandleRunner::load(checkpoint, options, progress)?;
                Ok(LoadedRunner {
                    kernels: runner.kernels(),
                    bytes_per_token: tensor_bytes_per_token(checkpoint, dtype),
                    operations_per_prompt_token: None,
                    runner: Box::new(runner),
                })
            }
        }
    }
}

/// A type of cache that is asked for where weights are not packed, and why they are not.
fn refuse_cache(asked: CacheType, why: String) -> CoreError {
    let message = format!("kv-cache-type {asked} is for packed weights on the CPU: {why}");
    CoreError::Invalid { message, param: Some("kvCacheType") }
}

/// Bytes of tensors of `dtype` that one token of an answer goes through: all but an embedding that is not the head.
fn tensor_bytes_per_token(checkpoint: &Checkpoint, dtype: Dtype) -> u64 {
    let all = checkpoint.loaded_bytes(dtype.size_in_bytes());
    let architecture = &checkpoint.architecture;
    let embedding = architecture.vocab_size * architecture.hidden_size * dtype.size_in_bytes();
    if architecture.tied_head { all } else { all.saturating_sub(embedding as u64) }
}

/// The instruction set of the CPU kernels: what the environment forces, or the best there is.
pub(crate) fn level() -> Result<Level, CoreError> {
    let Some(name) = std::env::var_os(LEVEL_VARIABLE).filter(|name| !name.is_empty()) else {
        return Ok(Level::detect());
    };
    let invalid = |message: String| CoreError::Invalid { message, param: None };
    let name = name.to_string_lossy();
    let names = || Level::available().iter().map(|level| level.name()).collect::<Vec<_>>().join(", ");
    let level = Level::from_name(&name)
        .ok_or_else(|| invalid(format!("{LEVEL_VARIABLE}={name} names no instruction set: use {}", names())))?;
    if !level.is_available() {
        return Err(invalid(format!("{LEVEL_VARIABLE}={name}: this machine has {}", names())));
    }
    Ok(level)
}
