//! The models of one embedder (a Node thread), by handle, and the requests that run on them, by id.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tsserve_engine::EngineStats;
use tsserve_text::Tokenizer;

use crate::error::CoreError;
use crate::generate::GenerateRequest;
use crate::hub::{CachedModel, HubConfig, scan_cache};
use crate::loader::{self, Loaded};
use crate::memory::release_freed_memory;
use crate::model::Model;
use crate::options::{LoadOptions, LoadProgress, LoadedModel};
use crate::output::{OutputEvent, OutputSink};
use crate::speech::{SpeechModel, TranscribeRequest};

/// The models of one embedder. All calls may come from any thread; `load` and `tokenize` take their time.
pub struct Service {
    sink: Arc<OutputSink>,
    models: Mutex<HashMap<u32, Handle>>,
    /// Which model a request runs on, until it is cancelled or ends.
    requests: Arc<Mutex<HashMap<u64, Handle>>>,
    next_handle: AtomicU32,
    closed: AtomicBool,
}

impl Service {
    /// A service without models that reports to `sink`.
    pub fn new(sink: impl Fn(Vec<OutputEvent>) + Send + Sync + 'static) -> Self {
        let requests: Arc<Mutex<HashMap<u64, Handle>>> = Arc::default();
        let running = Arc::clone(&requests);
        let sink = move |events: Vec<OutputEvent>| {
            let ended: Vec<u64> = events.iter().filter(|e| e.kind.is_last()).map(|e| e.id).collect();
            sink(events);
            if !ended.is_empty() {
                let mut running = lock(&running);
                let dropped: Vec<_> = ended.iter().map(|id| running.remove(id)).collect();
                drop(running);
                // The last reference to a model may go here: not under the lock, for it joins the engine's thread.
                drop(dropped);
            }
        };
        Self {
            sink: Arc::new(sink),
            models: Mutex::default(),
            requests,
            next_handle: AtomicU32::new(1),
            closed: AtomicBool::new(false),
        }
    }

    /// Loads a model: resolves its name, plans memory, reads weights, starts its engine.
    ///
    /// # Errors
    /// Every `CoreError`; a panic in a library becomes `internal`.
    pub fn load(
        &self,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
        cancel: &AtomicBool,
    ) -> Result<LoadedModel, CoreError> {
        self.check_open()?;
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let sink = Arc::clone(&self.sink);
        let model = catch_unwind(AssertUnwindSafe(|| loader::load(handle, options, sink, progress, cancel)))
            .unwrap_or_else(|panic| Err(CoreError::from_panic(&*panic)))?;
        let model = Handle::new(model);
        let info = model.info().clone();
        // What reading and tokenizer building left behind.
        release_freed_memory();
        lock(&self.models).insert(handle, model);
        // Closed meanwhile: nobody would ever unload it.
        if self.closed.load(Ordering::SeqCst) {
            let model = lock(&self.models).remove(&handle);
            drop(model);
            return Err(CoreError::Closed);
        }
        Ok(info)
    }

    /// Ends the model's generations (they fail with `closed`) and frees it.
    pub fn unload(&self, handle: u32) -> Result<(), CoreError> {
        let model = lock(&self.models).remove(&handle).ok_or(CoreError::NotLoaded)?;
        model.close();
        let dropped: Vec<_> = {
            let mut requests = lock(&self.requests);
            let ids: Vec<u64> = requests.iter().filter(|(_, m)| m.is(&model)).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| requests.remove(id)).collect()
        };
        drop(dropped);
        drop(model);
        release_freed_memory();
        Ok(())
    }

    /// Makes `id`, which the caller never uses twice, known, so that `cancel` works from now on. Does not block.
    pub fn reserve(&self, id: u64, handle: u32) -> Result<(), CoreError> {
        let model = self.loaded(handle)?;
        lock(&self.requests).insert(id, model);
        Ok(())
    }

    /// Starts the generation that `id` was reserved for. Tokenises: not for a thread that must not wait.
    ///
    /// # Errors
    /// `Cancelled` if it was cancelled meanwhile; whatever is wrong with the request.
    pub fn generate(&self, id: u64, request: GenerateRequest) -> Result<(), CoreError> {
        self.start(id, |model| model.text()?.generate(id, request))
    }

    /// Starts the transcription that `id` was reserved for.
    ///
    /// # Errors
    /// `Cancelled` if it was cancelled meanwhile; whatever is wrong with the request, but for its audio, which is read
    /// later.
    pub fn transcribe(&self, id: u64, request: TranscribeRequest) -> Result<(), CoreError> {
        self.start(id, |model| model.speech()?.transcribe(id, request))
    }

    fn start(&self, id: u64, start: impl FnOnce(&Handle) -> Result<(), CoreError>) -> Result<(), CoreError> {
        let model = lock(&self.requests).get(&id).cloned().ok_or(CoreError::Cancelled)?;
        let started = catch_unwind(AssertUnwindSafe(|| start(&model)))
            .unwrap_or_else(|panic| Err(CoreError::from_panic(&*panic)));
        if started.is_err() {
            let dropped = lock(&self.requests).remove(&id);
            drop(dropped);
        } else if !lock(&self.requests).contains_key(&id) {
            // Cancelled while its prompt was tokenised, when the engine did not know it yet. (Or ended already, which
            // makes this a second word to nobody.)
            model.cancel(id);
        }
        started
    }

    /// Stops a generation, whatever it is doing; it says no more. Unknown ids are ignored.
    pub fn cancel(&self, id: u64) {
        let model = lock(&self.requests).remove(&id);
        if let Some(model) = model {
            model.cancel(id);
        }
    }

    /// Lets a generation run for `tokens` more.
    pub fn grant(&self, id: u64, tokens: u32) {
        let model = lock(&self.requests).get(&id).cloned();
        if let Some(Handle::Text(model)) = model {
            model.grant(id, tokens);
        }
    }

    pub fn tokenize(&self, handle: u32, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, CoreError> {
        Ok(self.loaded(handle)?.tokenizer().encode(text, add_special_tokens)?)
    }

    pub fn detokenize(&self, handle: u32, ids: &[u32], skip_special_tokens: bool) -> Result<String, CoreError> {
        let model = self.loaded(handle)?;
        let vocab_size = model.info().vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(CoreError::Invalid {
                message: format!("token id {id} is not in the vocabulary of {vocab_size} tokens"),
                param: Some("ids"),
            });
        }
        Ok(model.tokenizer().decode(ids, skip_special_tokens)?)
    }

    /// Counts of the model's engine, without waiting for a step in flight. A speech model has no blocks.
    pub fn stats(&self, handle: u32) -> Option<EngineStats> {
        Some(match self.loaded(handle).ok()? {
            Handle::Text(model) => model.engine.stats(),
            Handle::Speech(model) => {
                let (running, waiting) = model.counts();
                EngineStats { running, waiting, ..EngineStats::default() }
            }
        })
    }

    /// The models of the Hugging Face cache that could be loaded.
    pub fn list_cached(&self) -> Result<Vec<CachedModel>, CoreError> {
        let mut types = tsserve_models::config::SUPPORTED_MODEL_TYPES.to_vec();
        types.push("whisper");
        Ok(scan_cache(&HubConfig::from_env(), &types))
    }

    /// Ends everything. Later calls answer `closed`.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let requests = std::mem::take(&mut *lock(&self.requests));
        let models = std::mem::take(&mut *lock(&self.models));
        models.values().for_each(Handle::close);
        drop(requests);
        drop(models);
    }

    fn loaded(&self, handle: u32) -> Result<Handle, CoreError> {
        self.check_open()?;
        lock(&self.models).get(&handle).cloned().ok_or(CoreError::NotLoaded)
    }

    fn check_open(&self) -> Result<(), CoreError> {
        if self.closed.load(Ordering::SeqCst) { Err(CoreError::Closed) } else { Ok(()) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.close();
    }
}

/// A loaded model; clones share it.
#[derive(Clone)]
enum Handle {
    Text(Arc<Model>),
    Speech(Arc<SpeechModel>),
}

impl Handle {
    fn new(loaded: Loaded) -> Self {
        match loaded {
            Loaded::Text(model) => Self::Text(Arc::new(model)),
            Loaded::Speech(model) => Self::Speech(Arc::new(model)),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Arc::ptr_eq(a, b),
            (Self::Speech(a), Self::Speech(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Text(model) => &model.tokenizer,
            Self::Speech(model) => model.tokenizer(),
        }
    }

    fn info(&self) -> &LoadedModel {
        match self {
            Self::Text(model) => &model.info,
            Self::Speech(model) => &model.info,
        }
    }

    fn text(&self) -> Result<&Model, CoreError> {
        match self {
            Self::Text(model) => Ok(model),
            Self::Speech(model) => Err(CoreError::Invalid {
                message: format!("{} transcribes speech, it answers no text", model.info.id),
                param: Some("model"),
            }),
        }
    }

    fn speech(&self) -> Result<&SpeechModel, CoreError> {
        match self {
            Self::Speech(model) => Ok(model),
            Self::Text(model) => Err(CoreError::Invalid {
                message: format!("{} is a language model, it hears nothing", model.info.id),
                param: Some("model"),
            }),
        }
    }

    /// Waits for what only this handle's holder may wait for; the rest ends with the last handle.
    fn close(&self) {
        if let Self::Speech(model) = self {
            model.close();
        }
    }

    fn cancel(&self, id: u64) {
        match self {
            Self::Text(model) => model.cancel(id),
            Self::Speech(model) => model.cancel(id),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps stay whole whatever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
