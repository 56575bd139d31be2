use napi_derive::napi;
use tsserve_core::{CoreError, GenerateRequest, Prompt, SamplingOptions};

use crate::BindingConstraint;

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
    /// Tokens that end the answer as the model's own end tokens do; they are not part of its text.
    pub stop_token_ids: Option<Vec<u32>>,
    pub ignore_eos: Option<bool>,
    pub sampling: Option<BindingSampling>,
    pub constraint: Option<BindingConstraint>,
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
    pub typical_p: Option<f64>,
    pub epsilon_cutoff: Option<f64>,
    pub eta_cutoff: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub logit_bias: Option<Vec<BindingBias>>,
    pub no_repeat_ngram_size: Option<u32>,
    pub bad_words: Option<Vec<Vec<u32>>>,
    pub suppress_tokens: Option<Vec<u32>>,
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// Tokens of the answer before it may end.
    pub min_tokens: Option<u32>,
    /// A whole number; its 64 bits are the seed.
    pub seed: Option<i64>,
}

/// What is added to a token's logit.
#[napi(object, object_to_js = false)]
#[derive(Debug, Clone)]
pub struct BindingBias {
    pub token: u32,
    pub bias: f64,
}

impl TryFrom<BindingGenerateRequest> for GenerateRequest {
    type Error = CoreError;

    fn try_from(request: BindingGenerateRequest) -> Result<Self, CoreError> {
        Ok(Self {
            prompt: match (request.text, request.ids) {
                (Some(text), _) => {
                    Prompt::Text { text, add_special_tokens: request.add_special_tokens.unwrap_or(true) }
                }
                (None, ids) => Prompt::Ids(ids.unwrap_or_default()),
            },
            max_tokens: request.max_tokens.map(|n| n as usize),
            stop: request.stop.unwrap_or_default(),
            stop_token_ids: request.stop_token_ids.unwrap_or_default(),
            ignore_eos: request.ignore_eos.unwrap_or(false),
            sampling: request.sampling.unwrap_or_default().into(),
            constraint: request.constraint.map(TryInto::try_into).transpose()?,
            logprobs: request.logprobs.map(|n| n as usize),
            prompt_logprobs: request.prompt_logprobs.map(|n| n as usize),
            cache_salt: request.cache_salt,
            credit: request.credit,
        })
    }
}

impl From<BindingSampling> for SamplingOptions {
    fn from(sampling: BindingSampling) -> Self {
        let number = |value: Option<f64>| value.map(|v| v as f32);
        let count = |value: Option<u32>| value.map(|n| n as usize);
        let biases = |biases: Vec<BindingBias>| biases.into_iter().map(|b| (b.token, b.bias as f32)).collect();
        Self {
            temperature: number(sampling.temperature),
            top_k: count(sampling.top_k),
            top_p: number(sampling.top_p),
            min_p: number(sampling.min_p),
            typical_p: number(sampling.typical_p),
            epsilon_cutoff: number(sampling.epsilon_cutoff),
            eta_cutoff: number(sampling.eta_cutoff),
            repetition_penalty: number(sampling.repetition_penalty),
            presence_penalty: number(sampling.presence_penalty),
            frequency_penalty: number(sampling.frequency_penalty),
            logit_bias: sampling.logit_bias.map(biases),
            no_repeat_ngram_size: count(sampling.no_repeat_ngram_size),
            bad_words: sampling.bad_words,
            suppress_tokens: sampling.suppress_tokens,
            begin_suppress_tokens: sampling.begin_suppress_tokens,
            min_tokens: count(sampling.min_tokens),
            seed: sampling.seed.map(|v| v as u64),
        }
    }
}
