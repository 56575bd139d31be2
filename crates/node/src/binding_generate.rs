use napi_derive::napi;
use tsserve_core::{GenerateRequest, Prompt, SamplingOptions};

/// A generation request. Exactly one of `text` and `ids` is set.
#[napi(object, object_to_js = false)]
#[derive(Debug, Clone)]
pub struct BindingGenerateRequest {
    pub text: Option<String>,
    /// With `text`: add what the tokenizer adds (BOS, …).
    pub add_special_tokens: Option<bool>,
    pub ids: Option<Vec<u32>>,
    /// Unset: the rest of the context.
    pub max_tokens: Option<u32>,
    pub stop: Option<Vec<String>>,
    pub ignore_eos: Option<bool>,
    pub sampling: Option<BindingSampling>,
    /// 0..20 alternatives per generated token.
    pub logprobs: Option<u32>,
    /// The same for the prompt's tokens.
    pub prompt_logprobs: Option<u32>,
    pub cache_salt: Option<String>,
    /// Tokens that may be generated before `grant`.
    pub credit: u32,
}

/// Unset fields come from the model's generation_config.json.
#[napi(object, object_to_js = false)]
#[derive(Debug, Clone, Default)]
pub struct BindingSampling {
    pub temperature: Option<f64>,
    pub top_k: Option<u32>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    /// A whole number; its 64 bits are the seed.
    pub seed: Option<i64>,
}

impl From<BindingGenerateRequest> for GenerateRequest {
    fn from(request: BindingGenerateRequest) -> Self {
        let sampling = request.sampling.unwrap_or_default();
        Self {
            prompt: match (request.text, request.ids) {
                (Some(text), _) => {
                    Prompt::Text { text, add_special_tokens: request.add_special_tokens.unwrap_or(true) }
                }
                (None, ids) => Prompt::Ids(ids.unwrap_or_default()),
            },
            max_tokens: request.max_tokens.map(|n| n as usize),
            stop: request.stop.unwrap_or_default(),
            ignore_eos: request.ignore_eos.unwrap_or(false),
            sampling: SamplingOptions {
                temperature: sampling.temperature.map(|v| v as f32),
                top_k: sampling.top_k.map(|v| v as usize),
                top_p: sampling.top_p.map(|v| v as f32),
                min_p: sampling.min_p.map(|v| v as f32),
                seed: sampling.seed.map(|v| v as u64),
            },
            logprobs: request.logprobs.map(|n| n as usize),
            prompt_logprobs: request.prompt_logprobs.map(|n| n as usize),
            cache_salt: request.cache_salt,
            credit: request.credit,
        }
    }
}
