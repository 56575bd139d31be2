use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use napi::Status;
use napi::bindgen_prelude::AsyncTask;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use tsserve_core::{OutputEvent, Service, measure_machine};

use crate::tasks::{Work, off_loop};
use crate::{
    BindingCachedModel, BindingEvent, BindingGenerateRequest, BindingLoadOptions, BindingLoadProgress,
    BindingLoadedModel, BindingMachineReport, BindingTranscriptionRequest,
};

/// Receives one message per engine step. Weak: it does not keep the process alive.
type EventFunction = ThreadsafeFunction<Vec<BindingEvent>, (), Vec<BindingEvent>, Status, false, true>;
type ProgressFunction = ThreadsafeFunction<BindingLoadProgress, (), BindingLoadProgress, Status, false, true>;

/// All models of one JavaScript thread. Expected failures are values (`BindingError`), never rejections.
#[napi]
pub struct NativeEngine {
    service: Arc<Service>,
    loads: Arc<Mutex<HashMap<u32, Arc<AtomicBool>>>>,
}

#[napi]
impl NativeEngine {
    /// `onEvents` is called once per engine step, with the events of all generations in it.
    #[napi(constructor)]
    pub fn new(#[napi(ts_arg_type = "(events: BindingEvent[]) => void")] on_events: EventFunction) -> Self {
        let service = Service::new(move |events: Vec<OutputEvent>| {
            let events = events.into_iter().map(BindingEvent::from).collect();
            // A closing environment takes no more events; there is nobody left to tell.
            let _ = on_events.call(events, ThreadsafeFunctionCallMode::NonBlocking);
        });
        Self { service: Arc::new(service), loads: Arc::default() }
    }

    /// Loads a model. `token` names the load for `cancelLoad` and is chosen by the caller.
    #[napi(ts_return_type = "Promise<BindingLoadedModel | BindingError>")]
    pub fn load(
        &self,
        token: u32,
        options: BindingLoadOptions,
        #[napi(ts_arg_type = "(progress: BindingLoadProgress) => void")] on_progress: ProgressFunction,
    ) -> AsyncTask<Work<BindingLoadedModel>> {
        let service = Arc::clone(&self.service);
        let loads = Arc::clone(&self.loads);
        let cancel = Arc::new(AtomicBool::new(false));
        lock(&loads).insert(token, Arc::clone(&cancel));
        off_loop(move || {
            let result = options.try_into().and_then(|options| {
                service.load(
                    &options,
                    &mut |progress| {
                        let _ = on_progress.call(progress.into(), ThreadsafeFunctionCallMode::NonBlocking);
                    },
                    &cancel,
                )
            });
            lock(&loads).remove(&token);
            result.map(Into::into)
        })
    }

    /// Stops a load at its next chance; it then answers `cancelled`. Unknown tokens are ignored.
    #[napi]
    pub fn cancel_load(&self, token: u32) {
        if let Some(cancel) = lock(&self.loads).get(&token) {
            cancel.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the model's generations and frees it.
    #[napi(ts_return_type = "Promise<undefined | BindingError>")]
    pub fn unload(&self, model: u32) -> AsyncTask<Work<()>> {
        let service = Arc::clone(&self.service);
        off_loop(move || service.unload(model))
    }

    /// Starts a generation under `id`, chosen by the caller and never used twice. Its events begin after this.
    #[napi(ts_return_type = "Promise<undefined | BindingError>")]
    pub fn generate(&self, id: i64, model: u32, request: BindingGenerateRequest) -> AsyncTask<Work<()>> {
        let service = Arc::clone(&self.service);
        // Here and not in the task: a `cancel` right after this call must find it.
        let reserved = service.reserve(id as u64, model);
        off_loop(move || {
            reserved?;
            // What never starts has no end that would forget the id.
            let request = request.try_into().inspect_err(|_| service.cancel(id as u64))?;
            service.generate(id as u64, request)
        })
    }

    /// Starts a transcription under `id`, chosen by the caller and never used twice. Its events begin after this.
    #[napi(ts_return_type = "Promise<undefined | BindingError>")]
    pub fn transcribe(&self, id: i64, model: u32, request: BindingTranscriptionRequest) -> AsyncTask<Work<()>> {
        let service = Arc::clone(&self.service);
        // Here and not in the task: a `cancel` right after this call must find it, and bytes belong to JavaScript.
        let reserved = service.reserve(id as u64, model);
        let request = request.into_request();
        off_loop(move || {
            reserved?;
            let request = request.inspect_err(|_| service.cancel(id as u64))?;
            service.transcribe(id as u64, request)
        })
    }

    /// Stops a generation or transcription, whatever it is doing. Unknown ids are ignored.
    #[napi]
    pub fn cancel(&self, id: i64) {
        self.service.cancel(id as u64);
    }

    /// Lets a generation run for `tokens` more.
    #[napi]
    pub fn grant(&self, id: i64, tokens: u32) {
        self.service.grant(id as u64, tokens);
    }

    #[napi(ts_return_type = "Promise<number[] | BindingError>")]
    pub fn tokenize(&self, model: u32, text: String, add_special_tokens: bool) -> AsyncTask<Work<Vec<u32>>> {
        let service = Arc::clone(&self.service);
        off_loop(move || service.tokenize(model, &text, add_special_tokens))
    }

    #[napi(ts_return_type = "Promise<string | BindingError>")]
    pub fn detokenize(&self, model: u32, ids: Vec<u32>, skip_special_tokens: bool) -> AsyncTask<Work<String>> {
        let service = Arc::clone(&self.service);
        off_loop(move || service.detokenize(model, &ids, skip_special_tokens))
    }

    /// Counts of the model's engine, without waiting for a step in flight.
    #[napi]
    pub fn stats(&self, model: u32) -> Option<BindingStats> {
        self.service.stats(model).map(|stats| BindingStats {
            running: stats.running as u32,
            waiting: stats.waiting as u32,
            free_blocks: stats.free_blocks as u32,
            total_blocks: stats.total_blocks as u32,
            drafted_tokens: stats.drafted_tokens as f64,
            accepted_tokens: stats.accepted_tokens as f64,
        })
    }

    /// The loadable models of the Hugging Face cache.
    #[napi(ts_return_type = "Promise<BindingCachedModel[] | BindingError>")]
    pub fn list_cached(&self) -> AsyncTask<Work<Vec<BindingCachedModel>>> {
        let service = Arc::clone(&self.service);
        off_loop(move || Ok(service.list_cached()?.into_iter().map(Into::into).collect()))
    }

    /// What the CPU can do, measured for about a second.
    #[napi(ts_return_type = "Promise<BindingMachineReport | BindingError>")]
    pub fn measure_machine(&self) -> AsyncTask<Work<BindingMachineReport>> {
        off_loop(|| Ok(measure_machine()?.into()))
    }

    /// Ends all generations and frees all models. Later calls answer `closed`.
    #[napi(ts_return_type = "Promise<undefined | BindingError>")]
    pub fn close(&self) -> AsyncTask<Work<()>> {
        for cancel in lock(&self.loads).values() {
            cancel.store(true, Ordering::Relaxed);
        }
        let service = Arc::clone(&self.service);
        off_loop(move || {
            service.close();
            Ok(())
        })
    }
}

/// Counts of one model's engine.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingStats {
    /// Sequences that run.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// KV blocks over all cache groups.
    pub free_blocks: u32,
    pub total_blocks: u32,
    /// Tokens drafted and verified since the load, and those of them that are in answers.
    pub drafted_tokens: f64,
    pub accepted_tokens: f64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The maps stay whole whatever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
