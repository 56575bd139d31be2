//! A loaded model: its engine, its tokenizer, its output thread.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use tsserve_engine::{Engine, Request, SequenceId, TokenId};
use tsserve_text::Tokenizer;

use crate::error::CoreError;
use crate::generate::{GenerateRequest, Prompt, SamplingDefaults, check, hash_salt, invalid};
use crate::options::LoadedModel;
use crate::output::{OutputMessage, Registration};

/// A loaded model. Dropping it ends its generations and frees everything.
pub(crate) struct Model {
    pub info: LoadedModel,
    pub tokenizer: Tokenizer,
    pub end_tokens: Arc<[TokenId]>,
    pub sampling_defaults: SamplingDefaults,
    pub default_seed: Option<u64>,
    /// Only the model holds the engine for long; the output thread has a weak reference.
    pub engine: Arc<Engine>,
    pub output: Sender<OutputMessage>,
}

impl Model {
    /// Starts a generation; its events go to the service's sink.
    pub(crate) fn generate(&self, id: u64, request: GenerateRequest) -> Result<(), CoreError> {
        let (request, registration) = prepare(self, id, request)?;
        // The output side must know the sequence before its first event; the channel keeps this order.
        let register = OutputMessage::Register { id, registration: Box::new(registration) };
        self.output.send(register).map_err(|_| CoreError::Closed)?;
        self.engine.add(request).map_err(|error| {
            let _ = self.output.send(OutputMessage::Forget { id });
            error.into()
        })
    }

    pub(crate) fn cancel(&self, id: u64) {
        // Nobody listens any more: nothing of what is still on its way is to be said.
        let _ = self.output.send(OutputMessage::Forget { id });
        self.engine.abort(SequenceId(id));
    }

    pub(crate) fn grant(&self, id: u64, tokens: u32) {
        self.engine.grant(SequenceId(id), tokens);
    }
}

/// A request that the engine may get, and what the output side must know of it.
fn prepare(model: &Model, id: u64, request: GenerateRequest) -> Result<(Request, Registration), CoreError> {
    check(&request)?;
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
    let registration = Registration::new(&model.tokenizer, &model.end_tokens, &request, Arc::clone(&prompt))?;
    let request = Request {
        id: SequenceId(id),
        prompt,
        max_new_tokens: request.max_tokens.unwrap_or(room).min(room),
        end_tokens: Arc::clone(&model.end_tokens),
        ignore_eos: request.ignore_eos,
        sampling: model.sampling_defaults.resolve(&request.sampling, model.default_seed),
        logprobs: request.logprobs,
        prompt_logprobs: request.prompt_logprobs,
        cache_salt: request.cache_salt.as_deref().map_or(0, hash_salt),
        credit: request.credit,
    };
    Ok((request, registration))
}
