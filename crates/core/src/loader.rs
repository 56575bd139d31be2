//! From a model's name to a running engine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tsserve_engine::{ComputePool, Engine, EngineConfig, EventSink, SequenceEvent, Speculation};
use tsserve_models::BLOCK_SIZE;
use tsserve_models::candle::{DeviceKind, configure_threads, device};
use tsserve_models::checkpoint::{ChatTemplate, Checkpoint};
use tsserve_models::cpu::CacheType;
use tsserve_models::error::ModelError;
use tsserve_models::weights::ModelFiles;
use tsserve_text::{GgufTokenizer, Tokenizer};

use crate::error::CoreError;
use crate::hub::{HubConfig, HubProgress, ModelSpec, ResolvedModel, resolve};
use crate::machine::thread_count;
use crate::memory::{KvRequest, available_memory, check_weights, plan_kv};
use crate::model::Model;
use crate::options::{LoadOptions, LoadProgress, LoadedModel, ModelKind};
use crate::output::{self, OutputMessage, OutputSink};
use crate::runner::{LoadedRunner, RunnerChoice, RunnerSizes};
use crate::sampling::SamplingDefaults;
use crate::speech::{self, SpeechModel};

/// Defaults of the load options, all printed by the server at start.
pub const DEFAULT_MAX_NUM_SEQS: usize = 16;
pub const DEFAULT_MAX_BATCH_TOKENS: usize = 512;
pub const DEFAULT_MAX_QUEUE: usize = 64;

/// Rows of the prompt's chunk whose speed is told of a loaded model.
const PROMPT_ROWS: usize = 128;

/// How long a sequence whose client does not read may keep its memory.
const PARK_TIMEOUT: Duration = Duration::from_secs(120);

/// Hands the engine's events to the output thread.
struct ToOutput(mpsc::Sender<OutputMessage>);

impl EventSink for ToOutput {
    fn emit(&mut self, events: Vec<SequenceEvent>) {
        // The output thread ends only with its last sender, which this is one of.
        let _ = self.0.send(OutputMessage::Step(events));
    }
}

/// What a load brought.
pub(crate) enum Loaded {
    Text(Model),
    Speech(SpeechModel),
}

pub(crate) fn load(
    handle: u32,
    options: &LoadOptions,
    sink: Arc<OutputSink>,
    progress: &mut dyn FnMut(LoadProgress),
    cancel: &AtomicBool,
) -> Result<Loaded, CoreError> {
    let started = Instant::now();
    check_options(options)?;
    let spec = if options.hub_only { ModelSpec::parse_hub(&options.model) } else { ModelSpec::parse(&options.model) }?;
    let mut hub = HubConfig::from_env();
    hub.no_download |= options.no_download;
    progress(LoadProgress::Resolve);
    let resolved = resolve(
        &spec,
        &hub,
        &mut |HubProgress { file, done, total }| progress(LoadProgress::Download { file, done, total }),
        cancel,
    )?;
    check_cancel(cancel)?;
    if speech::is_speech(&resolved.path) {
        return speech::load(handle, resolved, options, started, sink, progress, cancel).map(Loaded::Speech);
    }
    load_text(handle, resolved, options, started, sink, progress, cancel).map(Loaded::Text)
}

fn load_text(
    handle: u32,
    resolved: ResolvedModel,
    options: &LoadOptions,
    started: Instant,
    sink: Arc<OutputSink>,
    progress: &mut dyn FnMut(LoadProgress),
    cancel: &AtomicBool,
) -> Result<Model, CoreError> {
    let mut warnings = resolved.warnings;
    let files = ModelFiles::discover(&resolved.path).map_err(ModelError::from)?;
    let checkpoint = Checkpoint::open(&files)?;
    let tokenizer = load_tokenizer(&checkpoint, &mut warnings)?;
    let device = device(options.device)?;
    let device_name = match device.fallback() {
        Some(reason) => format!("{} ({reason})", device.name()),
        None => device.name().to_owned(),
    };
    let threads = configure_threads(Some(options.threads.unwrap_or_else(thread_count)));
    if options.threads.is_some_and(|asked| asked != threads) {
        warnings.push(format!("{threads} compute threads are in use already: --threads has no effect any more"));
    }

    // Memory is divided before anything large is read.
    let architecture = &checkpoint.architecture;
    let available = device.free_memory().unwrap_or_else(available_memory);
    let runner = RunnerChoice::new(&checkpoint, device, options, &mut warnings)?;
    let dtype = runner.dtype_name();
    let weight_bytes = runner.weight_bytes(&checkpoint);
    let weight_format = runner.weight_format(&checkpoint);
    check_weights(&resolved.id, weight_bytes, available).map_err(CoreError::TooLarge)?;
    let groups = runner.kv_layout(&checkpoint);
    let kv_cache_type = runner.kv_cache_type(&checkpoint);
    let max_num_seqs = options.max_num_seqs.unwrap_or(DEFAULT_MAX_NUM_SEQS);
    let max_batch_tokens = options.max_batch_tokens.unwrap_or(DEFAULT_MAX_BATCH_TOKENS);
    let kv = plan_kv(&KvRequest {
        groups: &groups,
        block_size: BLOCK_SIZE,
        context_length: architecture.max_position_embeddings,
        max_model_len: options.max_model_len,
        max_num_seqs,
        max_batch_tokens,
        kv_cache_memory: options.kv_cache_memory,
        free: available.saturating_sub(weight_bytes),
    })
    .map_err(CoreError::TooLarge)?;
    warnings.extend(kv.warnings);
    check_cancel(cancel)?;

    let LoadedRunner { runner, kernels, bytes_per_token, operations_per_prompt_token } = runner.load(
        &checkpoint,
        RunnerSizes { threads, max_context: kv.max_model_len, max_batch_tokens, kv_blocks: kv.blocks.clone() },
        &mut |done, total| progress(LoadProgress::Weights { done: done as u64, total: total as u64 }),
    )?;
    check_cancel(cancel)?;

    let costs = runner.step_costs();
    let generation_config = checkpoint.generation_config_json().map(str::to_owned);
    let generation_value: serde_json::Value =
        generation_config.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    warnings.extend(unused_generation_settings(&generation_value));
    let sampling_defaults = SamplingDefaults::from_generation_config(&generation_value, architecture.vocab_size);
    let end_token_ids = checkpoint.special_ids().eos_token_ids.clone();
    if end_token_ids.is_empty() {
        warnings.push("the model names no end-of-sequence token: answers end at their token limit".into());
    }
    let (default, named): (Vec<_>, Vec<_>) =
        checkpoint.chat_templates().iter().cloned().partition(|template| template.name == "default");
    let info = LoadedModel {
        handle,
        id: resolved.id,
        kind: ModelKind::Text,
        languages: Vec::new(),
        family: architecture.family.clone(),
        weight_format,
        parameters: checkpoint.weights().n_parameters(),
        weight_bytes: if options.quantization.is_some() { weight_bytes } else { checkpoint.weights().file_bytes() },
        bytes_per_token,
        operations_per_prompt_token,
        answer_token_seconds: costs.as_ref().map(|costs| costs.rows(1)),
        prompt_token_seconds: costs.as_ref().map(|costs| costs.rows(PROMPT_ROWS) / PROMPT_ROWS as f64),
        vocab_size: architecture.vocab_size,
        context_length: architecture.max_position_embeddings,
        max_model_len: kv.max_model_len,
        max_num_seqs,
        max_batch_tokens,
        kv_bytes: kv.bytes,
        kv_cache_type: Some(kv_cache_type),
        kv_blocks: kv.blocks.iter().sum(),
        block_size: BLOCK_SIZE,
        device: device_name,
        dtype: dtype.to_owned(),
        cpu_level: kernels.to_owned(),
        threads,
        load_seconds: 0.0,
        warnings,
        chat_template: default.into_iter().next().map(|template| template.source),
        chat_templates: named.into_iter().map(|ChatTemplate { name, source }| (name, source)).collect(),
        special_tokens: checkpoint.special_tokens().clone(),
        end_token_ids: end_token_ids.clone(),
        generation_config: generation_value.is_object().then_some(generation_config).flatten(),
    };

    let (output, messages) = mpsc::channel();
    let engine = Arc::new(Engine::spawn(
        runner,
        EngineConfig {
            max_num_seqs,
            max_batch_tokens,
            max_queue: options.max_queue.unwrap_or(DEFAULT_MAX_QUEUE),
            prefix_cache: options.prefix_cache.unwrap_or(true),
            speculation: options.speculation.unwrap_or(true).then(Speculation::default),
            park_timeout: PARK_TIMEOUT,
            ..EngineConfig::default()
        },
        Box::new(ToOutput(output.clone())),
        // Steps of all models of the process take turns.
        ComputePool::process(),
    ));
    output::spawn(&info.id, messages, Arc::downgrade(&engine), sink)
        .map_err(|error| CoreError::Internal(format!("no thread could be started: {error}")))?;
    Ok(Model {
        info: LoadedModel { load_seconds: started.elapsed().as_secs_f64(), ..info },
        tokenizer,
        end_tokens: end_token_ids.into(),
        grammars: std::sync::Mutex::default(),
        sampling_defaults,
        default_seed: options.default_seed,
        engine,
        output,
    })
}

fn check_options(options: &LoadOptions) -> Result<(), CoreError> {
    let at_least = |value: Option<usize>, least: usize, param: &'static str, name: &str| match value {
        Some(n) if n < least => {
            Err(CoreError::Invalid { message: format!("{name} must be at least {least}"), param: Some(param) })
        }
        _ => Ok(()),
    };
    if options.quantization.is_some() && options.dtype.is_some() {
        let message = "quantization and dtype exclude each other: quantised weights have no such type".to_owned();
        return Err(CoreError::Invalid { message, param: Some("quantization") });
    }
    check_cache_type(options)?;
    at_least(options.max_num_seqs, 1, "maxNumSeqs", "max-num-seqs")?;
    at_least(options.max_batch_tokens, BLOCK_SIZE, "maxBatchTokens", "max-batch-tokens")?;
    at_least(options.max_model_len, BLOCK_SIZE, "maxModelLen", "max-model-len")?;
    at_least(options.threads, 1, "threads", "threads")
}

/// Refuses a type of cache that cannot be had, where the options alone say so: before anything is downloaded.
fn check_cache_type(options: &LoadOptions) -> Result<(), CoreError> {
    let Some(asked) = options.kv_cache_type else { return Ok(()) };
    let refuse = |what: &str| {
        let message = format!("kv-cache-type {asked} is for packed weights on the CPU, not for {what}");
        Err(CoreError::Invalid { message, param: Some("kvCacheType") })
    };
    match (options.dtype, options.device) {
        (Some(dtype), _) if dtype.name() != asked.name() => refuse(&format!("dtype {}", dtype.name())),
        (None, DeviceKind::Cuda) if asked != CacheType::F16 => refuse("device cuda"),
        (None, DeviceKind::Metal) if asked != CacheType::F16 => refuse("device metal"),
        _ => Ok(()),
    }
}

pub(crate) fn check_cancel(cancel: &AtomicBool) -> Result<(), CoreError> {
    if cancel.load(Ordering::Relaxed) { Err(CoreError::Cancelled) } else { Ok(()) }
}

fn load_tokenizer(checkpoint: &Checkpoint, warnings: &mut Vec<String>) -> Result<Tokenizer, CoreError> {
    if let Some(path) = checkpoint.tokenizer_json() {
        return Ok(Tokenizer::from_json_file(path)?);
    }
    let Some(data) = checkpoint.gguf_tokenizer() else {
        return Err(CoreError::NoTokenizer);
    };
    let tokenizer = Tokenizer::from_gguf(&GgufTokenizer {
        model: data.model,
        pre: data.pre,
        tokens: data.tokens,
        scores: data.scores,
        token_types: data.token_types,
        merges: data.merges,
        bos_id: data.bos_token_id,
        eos_id: data.eos_token_id,
        unk_id: data.unk_token_id,
        pad_id: data.pad_token_id,
        add_bos: data.add_bos,
        add_eos: data.add_eos,
        add_space_prefix: data.add_space_prefix,
    })?;
    warnings.extend(tokenizer.warnings().iter().cloned());
    Ok(tokenizer)
}

/// Settings of generation_config.json that change answers in transformers and are not applied here.
fn unused_generation_settings(config: &serde_json::Value) -> Option<String> {
    let neutral = |key: &str, value: f64| {
        config.get(key).and_then(serde_json::Value::as_f64).is_some_and(|v| (v - value).abs() > f64::EPSILON)
    };
    let is_set = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
    let mut names = Vec::new();
    if neutral("num_beams", 1.0) {
        names.push("num_beams");
    }
    names.extend(["forced_eos_token_id", "exponential_decay_length_penalty"].into_iter().filter(|key| is_set(key)));
    (!names.is_empty()).then(|| format!("generation_config.json sets {}, which is not applied here", names.join(", ")))
}
