//! A loaded model: its engine, its tokenizer, its output thread.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use tsserve_engine::{Constraint, Engine, Request, SequenceId, TokenId};
use tsserve_text::{GrammarCompiler, Tokenizer};

use crate::constraint::{ConstraintRequest, GrammarConstraint};
use crate::error::CoreError;
use crate::generate::{GenerateRequest, Prompt, check, end_tokens, hash_salt, invalid};
use crate::options::LoadedModel;
use crate::output::{AnswerEnds, OutputMessage, Registration};
use crate::sampling::SamplingDefaults;

/// A loaded model. Dropping it ends its generations and frees everything.
pub(crate) struct Model {
    pub info: LoadedModel,
    pub tokenizer: Tokenizer,
    pub end_tokens: Arc<[TokenId]>,
    /// Made by the first request with a grammar: it takes up to a second and a tenth of a gigabyte.
    pub grammars: Mutex<Option<GrammarCompiler>>,
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

    /// The model's compiler of grammars.
    pub(crate) fn grammars(&self) -> Result<GrammarCompiler, CoreError> {
        // Whoever comes second waits for the first one's; a panic left nothing half made.
        let mut grammars = self.grammars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiler) = &*grammars {
            return Ok(compiler.clone());
        }
        let compiler = GrammarCompiler::new(&self.tokenizer, self.info.vocab_size, &self.end_tokens)?;
        Ok(grammars.insert(compiler).clone())
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
    check(&request, model.info.vocab_size)?;
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
    let end_tokens = end_tokens(&request, &model.end_tokens);
    let ends = AnswerEnds { own: &model.end_tokens, of_request: &end_tokens };
    let registration = Registration::new(&model.tokenizer, ends, &request, Arc::clone(&prompt))?;
    let sampling = model.sampling_defaults.resolve(&request.sampling, prompt.len(), model.default_seed);
    let request = Request {
        id: SequenceId(id),
        prompt,
        max_new_tokens,
        end_tokens,
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
