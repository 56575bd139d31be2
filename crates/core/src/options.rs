//! What a load asks for and what it gives.

use std::collections::BTreeMap;

use tsserve_models::candle::{DeviceKind, Dtype};
use tsserve_models::cpu::{CacheType, Quantization};

/// How to load a model. Unset fields are derived from the machine and the model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// A local folder, a local file of weights, `repo`, `repo@revision` or `repo:file.gguf`.
    pub model: String,
    /// `model` names a model of the hub even where a local path of that name exists (a request's own words).
    pub hub_only: bool,
    pub device: DeviceKind,
    /// `None`: packed weights on the CPU (f32 where there are no kernels for them), the checkpoint's own type on a GPU.
    pub dtype: Option<Dtype>,
    /// What becomes of weights in bf16, f16 and f32 on the CPU, not with a `dtype`. `None`: they stay as they are.
    pub quantization: Option<Quantization>,
    /// Tokens.
    pub max_model_len: Option<usize>,
    /// Sequences that run at once, at least 1.
    pub max_num_seqs: Option<usize>,
    /// Requests that may wait.
    pub max_queue: Option<usize>,
    /// Tokens per step, at least 16.
    pub max_batch_tokens: Option<usize>,
    /// Bytes.
    pub kv_cache_memory: Option<u64>,
    /// How packed weights' runner on the CPU keeps keys and values. `None`: f16 there, and the computing type elsewhere.
    pub kv_cache_type: Option<CacheType>,
    pub threads: Option<usize>,
    pub prefix_cache: Option<bool>,
    /// Drafts tokens where the device has rows to spare; answers are the same. `None`: yes.
    pub speculation: Option<bool>,
    pub no_download: bool,
    pub default_seed: Option<u64>,
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq)]
pub enum LoadProgress {
    Resolve,
    /// Bytes over all files of the download.
    Download {
        file: String,
        done: u64,
        total: u64,
    },
    /// Tensors read.
    Weights {
        done: u64,
        total: u64,
    },
}

/// What a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Chats and completions.
    Text,
    /// Transcriptions.
    Speech,
}

/// What was loaded. Sizes in bytes, lengths in tokens.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    pub handle: u32,
    pub id: String,
    pub kind: ModelKind,
    /// Of a speech model: ISO codes of what it hears; empty where it knows English only.
    pub languages: Vec<String>,
    pub family: String,
    pub weight_format: String,
    pub parameters: u64,
    pub weight_bytes: u64,
    /// Bytes of weights that one token of an answer reads.
    pub bytes_per_token: u64,
    /// 8-bit multiplications and additions of one token of a prompt; `None` where it is computed in another type.
    pub operations_per_prompt_token: Option<u64>,
    /// What a token took when the load measured it, at a context of a few positions: alone in an answer, and as one of
    /// the 128 in a chunk of a prompt. `None` where the runner measures nothing.
    pub answer_token_seconds: Option<f64>,
    pub prompt_token_seconds: Option<f64>,
    pub vocab_size: usize,
    pub context_length: usize,
    pub max_model_len: usize,
    pub max_num_seqs: usize,
    pub max_batch_tokens: usize,
    pub kv_bytes: u64,
    /// How keys and values are kept, for people; `None` for a speech model.
    pub kv_cache_type: Option<String>,
    pub kv_blocks: usize,
    pub block_size: usize,
    pub device: String,
    pub dtype: String,
    pub cpu_level: String,
    pub threads: usize,
    pub load_seconds: f64,
    pub warnings: Vec<String>,
    pub chat_template: Option<String>,
    /// Named templates beside the default one.
    pub chat_templates: BTreeMap<String, String>,
    pub special_tokens: BTreeMap<String, String>,
    pub end_token_ids: Vec<u32>,
    /// generation_config.json as it is, a JSON object.
    pub generation_config: Option<String>,
}
