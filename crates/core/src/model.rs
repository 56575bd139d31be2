//! A loaded model: its engine, its tokenizer, its output thread.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use tsserve_engine::{Engine, SequenceId, TokenId};
use tsserve_text::{GrammarCompiler, Tokenizer};

use crate::error::CoreError;
use crate::generate::{GenerateRequest, prepare};
use crate::options::LoadedModel;
use crate::output::OutputMessage;
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
