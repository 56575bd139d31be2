//! From a caller's request to the engine's: text to ids, defaults filled in, everything checked.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tsserve_engine::{Constraint, Request, SequenceId, TokenId};

use crate::constraint::{ConstraintRequest, GrammarConstraint};
use crate::error::CoreError;
use crate::model::Model;
use crate::output::Registration;
use crate::sampling::SamplingOptions;

/// Most stop strings of a request, and most bytes of one.
pub const MAX_STOP_STRINGS: usize = 16;
pub const MAX_STOP_BYTES: usize = 1024;

/// Most alternatives of a token that a request may ask for.
pub const MAX_LOGPROBS: usize = 20;

/// What a caller asks of a loaded model.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    /// `None`: the rest of the context.
    pub max_tokens: Option<usize>,
    pub stop: Vec<String>,
    pub ignore_eos: bool,
    pub sampling: SamplingOptions,
    pub constraint: Option<ConstraintRequest>,
    /// Alternatives per generated token, 0..=20; `None`: no log-probabilities.
    pub logprobs: Option<usize>,
    /// The same for the prompt's tokens.
    pub prompt_logprobs: Option<usize>,
    /// Prefix blocks are shared only between requests of equal salt.
    pub cache_salt: Option<String>,
    /// Tokens that may be generated before `grant`.
    pub credit: u32,
}

#[derive(Debug, Clone)]
pub enum Prompt {
    Text { text: String, add_special_tokens: bool },
    Ids(Vec<TokenId>),
}

/// A request that the engine may get, and what the output side must know of it.
pub(crate) fn prepare(model: &Model, id: u64, request: GenerateRequest) -> Result<(Request, Registration), CoreError> {
    check(&request)?;
    request.sampling.check(model.info.vocab_size)?;
    let prompt: Arc<[TokenId]> = match &request.prompt {
        Prompt::Text { text, add_special_tokens } => model.tokenizer.encode(text, *add_special_tokens)?.into(),
        Prompt::Ids(ids) => ids.as_slice().into(),
    };
    if prompt.is_empty() {
        return Err(invalid("prompt", "the prompt is empty: it must hold at least one token"));
    }
    if let Some(&id) = prompt.iter().find(|&&id| id as usize >= model.info.vocab_size) {
        return Err(invalid(
            "prompt",
            &format!("token id {id} is not in the vocabulary of {} tokens", model.info.vocab_size),
        ));
    }
    let max_context = model.info.max_model_len;
    let least_new = usize::from(request.max_tokens != Some(0));
    if prompt.len() + least_new > max_context {
        return Err(CoreError::ContextLength { prompt_tokens: prompt.len(), max_context });
    }
    let room = max_context - prompt.len();
    let max_new_tokens = request.max_tokens.unwrap_or(room).min(room);
    check_least(&request, max_new_tokens)?;
    // What takes long comes last, and still before the request is queued.
    let constraint = request.constraint.as_ref().map(|wanted| compile(model, wanted)).transpose()?;
    let registration = Registration::new(model, &request, Arc::clone(&prompt))?;
    let sampling = model.sampling_defaults.resolve(&request.sampling, prompt.len(), model.default_seed);
    let request = Request {
        id: SequenceId(id),
        prompt,
        max_new_tokens,
        end_tokens: Arc::clone(&model.end_tokens),
        ignore_eos: request.ignore_eos,
        sampling,
        constraint,
        logprobs: request.logprobs,
        prompt_logprobs: request.prompt_logprobs,
        cache_salt: request.cache_salt.as_deref().map_or(0, hash_salt),
        credit: request.credit,
    };
    Ok((request, registration))
}

/// A request's own least number of tokens must fit; a checkpoint's is only a wish.
fn check_least(request: &GenerateRequest, max_new_tokens: usize) -> Result<(), CoreError> {
    match request.sampling.min_tokens {
        Some(least) if least > max_new_tokens => {
            let message = format!("min_tokens is {least}, but there is room for {max_new_tokens} tokens");
            Err(invalid("minTokens", &message))
        }
        _ => Ok(()),
    }
}

fn compile(model: &Model, wanted: &ConstraintRequest) -> Result<Box<dyn Constraint>, CoreError> {
    let ids = wanted.trigger.iter().flat_map(|trigger| &trigger.token_ids);
    if let Some(id) = ids.copied().find(|&id| id as usize >= model.info.vocab_size) {
        return Err(invalid("constraint", &format!("the trigger's token id {id} is not in the vocabulary")));
    }
    let matcher = model.grammars()?.compile(&wanted.grammar, wanted.trigger.clone())?;
    Ok(Box::new(GrammarConstraint(matcher)))
}

fn check(request: &GenerateRequest) -> Result<(), CoreError> {
    if request.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
        return Err(invalid("logprobs", &format!("at most {MAX_LOGPROBS} alternatives per token can be reported")));
    }
    if request.prompt_logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
        return Err(invalid(
            "promptLogprobs",
            &format!("at most {MAX_LOGPROBS} alternatives per token can be reported"),
        ));
    }
    if request.stop.len() > MAX_STOP_STRINGS {
        return Err(invalid("stop", &format!("at most {MAX_STOP_STRINGS} stop strings are possible")));
    }
    if request.stop.iter().any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
        return Err(invalid("stop", &format!("a stop string must have 1 to {MAX_STOP_BYTES} bytes")));
    }
    Ok(())
}

fn invalid(param: &'static str, message: &str) -> CoreError {
    CoreError::Invalid { message: message.to_owned(), param: Some(param) }
}

fn hash_salt(salt: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    salt.hash(&mut hasher);
    // 0 is "no salt".
    hasher.finish() | 1
}
