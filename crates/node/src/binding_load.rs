use std::collections::HashMap;

use napi_derive::napi;
use tsserve_core::{
    CacheType, CachedModel, CoreError, DeviceKind, Dtype, LoadOptions, LoadProgress, LoadedModel, ModelKind,
    Quantization,
};

/// How to load a model; unset fields are derived from the machine and the model.
#[napi(object, object_to_js = false)]
#[derive(Debug, Clone)]
pub struct BindingLoadOptions {
    /// A local folder, a local file of weights, `repo`, `repo@revision` or `repo:file.gguf`.
    pub model: String,
    /// `model` names a model of the hub even where a local path of that name exists.
    pub hub_only: Option<bool>,
    #[napi(ts_type = "'auto' | 'cpu' | 'cuda' | 'metal'")]
    pub device: Option<String>,
    #[napi(ts_type = "'auto' | 'f32' | 'f16' | 'bf16'")]
    pub dtype: Option<String>,
    #[napi(ts_type = "'q8_0' | 'q4_0' | 'q4_k'")]
    pub quantization: Option<String>,
    /// Tokens.
    pub max_model_len: Option<u32>,
    pub max_num_seqs: Option<u32>,
    pub max_queue: Option<u32>,
    pub max_batch_tokens: Option<u32>,
    /// Bytes.
    pub kv_cache_memory: Option<f64>,
    #[napi(ts_type = "'f16' | 'q8_0'")]
    pub kv_cache_type: Option<String>,
    pub threads: Option<u32>,
    pub prefix_cache: Option<bool>,
    pub speculation: Option<bool>,
    pub no_download: Option<bool>,
    pub default_seed: Option<i64>,
}

impl TryFrom<BindingLoadOptions> for LoadOptions {
    type Error = CoreError;

    fn try_from(options: BindingLoadOptions) -> Result<Self, CoreError> {
        let invalid = |param: &'static str, message: String| CoreError::Invalid { message, param: Some(param) };
        let device = match options.device.as_deref() {
            None | Some("auto") => DeviceKind::Auto,
            Some("cpu") => DeviceKind::Cpu,
            Some("cuda") => DeviceKind::Cuda,
            Some("metal") => DeviceKind::Metal,
            Some(other) => {
                return Err(invalid("device", format!("unknown device '{other}': use auto, cpu, cuda or metal")));
            }
        };
        let dtype = match options.dtype.as_deref() {
            None | Some("auto") => None,
            Some("f32") => Some(Dtype::F32),
            Some("f16") => Some(Dtype::F16),
            Some("bf16") => Some(Dtype::Bf16),
            Some(other) => {
                return Err(invalid("dtype", format!("unknown dtype '{other}': use auto, f32, f16 or bf16")));
            }
        };
        let unknown = |name: &str| {
            let names = Quantization::ALL.map(Quantization::name).join(", ");
            invalid("quantization", format!("unknown quantization '{name}': use one of {names}"))
        };
        let quantization = options.quantization.as_deref();
        let quantization =
            quantization.map(|name| Quantization::from_name(name).ok_or_else(|| unknown(name))).transpose()?;
        let unknown = |name: &str| {
            let names = CacheType::ALL.map(CacheType::name).join(", ");
            invalid("kvCacheType", format!("unknown kv-cache-type '{name}': use one of {names}"))
        };
        let cache_type = options.kv_cache_type.as_deref();
        let kv_cache_type =
            cache_type.map(|name| CacheType::from_name(name).ok_or_else(|| unknown(name))).transpose()?;
        Ok(Self {
            model: options.model,
            hub_only: options.hub_only.unwrap_or(false),
            device,
            dtype,
            quantization,
            max_model_len: options.max_model_len.map(|n| n as usize),
            max_num_seqs: options.max_num_seqs.map(|n| n as usize),
            max_queue: options.max_queue.map(|n| n as usize),
            max_batch_tokens: options.max_batch_tokens.map(|n| n as usize),
            kv_cache_memory: options.kv_cache_memory.map(|n| n as u64),
            kv_cache_type,
            threads: options.threads.map(|n| n as usize),
            prefix_cache: options.prefix_cache,
            speculation: options.speculation,
            no_download: options.no_download.unwrap_or(false),
            default_seed: options.default_seed.map(|n| n as u64),
        })
    }
}

/// How far a load is; `done` and `total` are bytes of a download or tensors read.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingLoadProgress {
    #[napi(ts_type = "'resolve' | 'download' | 'weights'")]
    pub stage: &'static str,
    pub file: Option<String>,
    pub done: f64,
    pub total: f64,
}

impl From<LoadProgress> for BindingLoadProgress {
    fn from(progress: LoadProgress) -> Self {
        match progress {
            LoadProgress::Resolve => Self { stage: "resolve", file: None, done: 0.0, total: 0.0 },
            LoadProgress::Download { file, done, total } => {
                Self { stage: "download", file: Some(file), done: done as f64, total: total as f64 }
            }
            LoadProgress::Weights { done, total } => {
                Self { stage: "weights", file: None, done: done as f64, total: total as f64 }
            }
        }
    }
}

/// A named text, such as one of several chat templates.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingNamedText {
    pub name: String,
    pub text: String,
}

/// What was loaded. Sizes in bytes, lengths in tokens.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingLoadedModel {
    pub handle: u32,
    pub id: String,
    #[napi(ts_type = "'text' | 'speech'")]
    pub kind: &'static str,
    /// Of a speech model: ISO codes of what it hears; empty where it knows English only.
    pub languages: Vec<String>,
    pub family: String,
    pub weight_format: String,
    pub parameters: f64,
    pub weight_bytes: f64,
    /// Bytes of weights that one token of an answer reads.
    pub bytes_per_token: f64,
    /// 8-bit multiplications and additions of one token of a prompt, where it is computed in them.
    pub operations_per_prompt_token: Option<f64>,
    /// Measured by the load, at a context of a few positions.
    pub answer_token_seconds: Option<f64>,
    pub prompt_token_seconds: Option<f64>,
    pub vocab_size: u32,
    pub context_length: u32,
    pub max_model_len: u32,
    pub max_num_seqs: u32,
    pub max_batch_tokens: u32,
    pub kv_bytes: f64,
    /// How keys and values are kept: "f16", "q8_0", "q8_0, f16 in 5 of 24 layers"; of a text model.
    pub kv_cache_type: Option<String>,
    pub kv_blocks: u32,
    pub block_size: u32,
    pub device: String,
    pub dtype: String,
    pub cpu_level: String,
    pub threads: u32,
    pub load_seconds: f64,
    pub warnings: Vec<String>,
    pub chat_template: Option<String>,
    pub chat_templates: Vec<BindingNamedText>,
    pub special_tokens: HashMap<String, String>,
    pub end_token_ids: Vec<u32>,
    /// generation_config.json as it is: JSON text.
    pub generation_config: Option<String>,
}

impl From<LoadedModel> for BindingLoadedModel {
    fn from(model: LoadedModel) -> Self {
        Self {
            handle: model.handle,
            id: model.id,
            kind: match model.kind {
                ModelKind::Text => "text",
                ModelKind::Speech => "speech",
            },
            languages: model.languages,
            family: model.family,
            weight_format: model.weight_format,
            parameters: model.parameters as f64,
            weight_bytes: model.weight_bytes as f64,
            bytes_per_token: model.bytes_per_token as f64,
            operations_per_prompt_token: model.operations_per_prompt_token.map(|n| n as f64),
            answer_token_seconds: model.answer_token_seconds,
            prompt_token_seconds: model.prompt_token_seconds,
            vocab_size: model.vocab_size as u32,
            context_length: model.context_length as u32,
            max_model_len: model.max_model_len as u32,
            max_num_seqs: model.max_num_seqs as u32,
            max_batch_tokens: model.max_batch_tokens as u32,
            kv_bytes: model.kv_bytes as f64,
            kv_cache_type: model.kv_cache_type,
            kv_blocks: model.kv_blocks as u32,
            block_size: model.block_size as u32,
            device: model.device,
            dtype: model.dtype,
            cpu_level: model.cpu_level,
            threads: model.threads as u32,
            load_seconds: model.load_seconds,
            warnings: model.warnings,
            chat_template: model.chat_template,
            chat_templates: model
                .chat_templates
                .into_iter()
                .map(|(name, text)| BindingNamedText { name, text })
                .collect(),
            special_tokens: model.special_tokens.into_iter().collect(),
            end_token_ids: model.end_token_ids,
            generation_config: model.generation_config,
        }
    }
}

/// A loadable model of the Hugging Face cache.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingCachedModel {
    pub id: String,
    pub path: String,
    pub bytes: f64,
    /// Unix seconds.
    pub modified: f64,
}

impl From<CachedModel> for BindingCachedModel {
    fn from(model: CachedModel) -> Self {
        Self {
            id: model.id,
            path: model.path.display().to_string(),
            bytes: model.bytes as f64,
            modified: model.modified as f64,
        }
    }
}
