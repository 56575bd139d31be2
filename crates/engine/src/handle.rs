//! The engine as its callers see it: a handle to the thread that steps one model.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::check_request;
use crate::kv_blocks::longest_context;
use crate::scheduler::{Scheduler, StepFailure};
use crate::step::{panic_message, step};
use crate::{
    AddError, ComputePool, EngineConfig, EventKind, EventSink, ModelRunner, Request, RunnerSpec, SequenceEvent,
    SequenceId,
};

/// One loaded model, stepped by a thread of its own. Dropping it fails what still runs with code `closed` and waits
/// for the step under way.
#[derive(Debug)]
pub struct Engine {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    spec: RunnerSpec,
    max_context: usize,
    max_live: usize,
    max_num_seqs: usize,
    thread: Option<JoinHandle<()>>,
}

/// What an engine does at the moment. The figures are read one by one, while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Sequences taking part in steps.
    pub running: usize,
    /// Accepted, but not started or waiting to go on.
    pub waiting: usize,
    /// Waiting for their client to read.
    pub parked: usize,
    /// KV blocks that no sequence holds, over all cache groups; cached content counts as free.
    pub free_blocks: usize,
    pub total_blocks: usize,
    /// Steps run so far, failed ones included.
    pub steps: u64,
    /// Tokens that were drafted and verified so far, and those of them that became tokens of answers.
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
}

/// The closed set of what the thread is told.
#[derive(Debug)]
enum Command {
    Add(Box<Request>, Instant),
    Abort(SequenceId),
    Grant(SequenceId, u32),
    Close,
}

#[derive(Debug, Default)]
struct Shared {
    /// Accepted and not yet ended. Raised by `add`, lowered by the thread before it tells the end.
    live: AtomicUsize,
    running: AtomicUsize,
    parked: AtomicUsize,
    free_blocks: AtomicUsize,
    total_blocks: AtomicUsize,
    steps: AtomicU64,
    drafted_tokens: AtomicU64,
    accepted_tokens: AtomicU64,
    /// Moving average of how long a request takes from its start to its end, in microseconds; 0 is unknown.
    request_micros: AtomicU64,
    closed: AtomicBool,
}

impl Engine {
    /// Starts the thread. If the system gives none, the engine is closed from the start and refuses every request.
    pub fn spawn(
        runner: Box<dyn ModelRunner>,
        config: EngineConfig,
        sink: Box<dyn EventSink>,
        pool: ComputePool,
    ) -> Self {
        let (commands, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let spec = runner.spec().clone();
        let total_blocks = spec.groups.iter().map(|group| group.n_blocks).sum();
        shared.total_blocks.store(total_blocks, Ordering::Relaxed);
        shared.free_blocks.store(total_blocks, Ordering::Relaxed);
        let max_num_seqs = config.max_num_seqs.max(1);
        let max_live = max_num_seqs.saturating_add(config.max_queue);
        let shared_there = shared.clone();
        let body = move || {
            let scheduler = Scheduler::new(runner.as_ref(), &config);
            let mut thread =
                EngineThread { scheduler, config, runner, sink, pool, commands: receiver, shared: shared_there };
            thread.run();
        };
        let thread = std::thread::Builder::new().name("tsserve-engine".into()).spawn(body).ok();
        shared.closed.store(thread.is_none(), Ordering::Relaxed);
        Self { commands, shared, max_context: longest_context(&spec), spec, max_live, max_num_seqs, thread }
    }

    /// Accepts a request or says at once why not. Its events come through the sink.
    ///
    /// # Errors
    /// See [`AddError`]; a refused request emits no events.
    pub fn add(&self, request: Request) -> Result<(), AddError> {
        check_request(&request, &self.spec, self.max_context)?;
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(AddError::Closed);
        }
        let accept = |live| (live < self.max_live).then_some(live + 1);
        if let Err(live) = self.shared.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, accept) {
            return Err(AddError::QueueFull {
                waiting: live.saturating_sub(self.max_num_seqs),
                retry_after: self.retry_after(),
            });
        }
        self.commands.send(Command::Add(Box::new(request), Instant::now())).map_err(|_| {
            self.shared.live.fetch_sub(1, Ordering::AcqRel);
            AddError::Closed
        })
    }

    /// Ends a sequence before its next step; it answers with `Finished { reason: Aborted }` once its blocks are free.
    /// Nothing happens if it has ended.
    pub fn abort(&self, id: SequenceId) {
        self.tell(Command::Abort(id));
    }

    /// Lets a sequence generate `credit` more tokens.
    pub fn grant(&self, id: SequenceId, credit: u32) {
        self.tell(Command::Grant(id, credit));
    }

    /// What the engine does, without waiting for the step under way.
    pub fn stats(&self) -> EngineStats {
        let shared = &self.shared;
        let (running, parked) = (shared.running.load(Ordering::Relaxed), shared.parked.load(Ordering::Relaxed));
        EngineStats {
            running,
            waiting: shared.live.load(Ordering::Relaxed).saturating_sub(running + parked),
            parked,
            free_blocks: shared.free_blocks.load(Ordering::Relaxed),
            total_blocks: shared.total_blocks.load(Ordering::Relaxed),
            steps: shared.steps.load(Ordering::Relaxed),
            drafted_tokens: shared.drafted_tokens.load(Ordering::Relaxed),
            accepted_tokens: shared.accepted_tokens.load(Ordering::Relaxed),
        }
    }

    /// Longest sequence, prompt and answer, in tokens: what the runner computes and its memory holds.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    fn tell(&self, command: Command) {
        // A closed engine has ended everything, so there is nobody left to tell.
        let _ = self.commands.send(command);
    }

    /// Requests end at a rate of `max_num_seqs` per mean duration; one more place is free after that.
    fn retry_after(&self) -> Duration {
        let mean = self.shared.request_micros.load(Ordering::Relaxed);
        let seconds = mean as f64 / 1e6 / self.max_num_seqs as f64;
        Duration::from_secs_f64(seconds.ceil().clamp(1.0, 60.0))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.tell(Command::Close);
        // A sink that owns the engine drops it on the engine's own thread, which cannot wait for itself.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

struct EngineThread {
    scheduler: Scheduler,
    config: EngineConfig,
    runner: Box<dyn ModelRunner>,
    sink: Box<dyn EventSink>,
    pool: ComputePool,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

impl EngineThread {
    fn run(&mut self) {
        // What a command did is told at once; what a step did, together with the commands that came meanwhile.
        while self.wait() {
            self.flush();
            let pool = self.pool.clone();
            let lease = pool.lease();
            // Others may have computed for long.
            if !self.obey_all() {
                break;
            }
            self.step();
            drop(lease);
            if !self.obey_all() {
                break;
            }
            self.flush();
        }
        self.shared.closed.store(true, Ordering::Release);
        self.obey_all();
        self.scheduler.fail_all(&StepFailure { code: "closed", message: "the engine was closed".into() });
        self.flush();
    }

    /// Sleeps until a step may find something to do. False: the engine is closed.
    fn wait(&mut self) -> bool {
        loop {
            self.scheduler.expire(Instant::now());
            if self.scheduler.is_runnable() {
                return true;
            }
            self.flush();
            let command = match self.scheduler.next_expiry() {
                None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.commands.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match command {
                Ok(command) => {
                    if !self.obey(command) || !self.obey_all() {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Obeys the commands that are there. False: the engine is closed.
    fn obey_all(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    if !self.obey(command) {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Add(request, added) => self.scheduler.add(*request, added),
            Command::Abort(id) => self.scheduler.abort(id, Instant::now()),
            Command::Grant(id, credit) => self.scheduler.grant(id, credit),
            Command::Close => return false,
        }
        true
    }

    /// One step. A panic outside the runner is a fault of ours: everything that lives fails, and the engine goes on
    /// with empty queues and blocks.
    fn step(&mut self) {
        let Self { scheduler, runner, shared, .. } = self;
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            let stepped = step(scheduler, runner.as_mut(), Instant::now, |planned| shared.publish(planned));
            shared.steps.fetch_add(u64::from(stepped), Ordering::Relaxed);
            let drafts = scheduler.take_drafts();
            shared.drafted_tokens.fetch_add(drafts.drafted, Ordering::Relaxed);
            shared.accepted_tokens.fetch_add(drafts.accepted, Ordering::Relaxed);
        }));
        if let Err(panic) = stepped {
            let message = format!("the engine panicked: {}", panic_message(panic.as_ref()));
            self.scheduler.fail_all(&StepFailure { code: "engine_panic", message });
            let events = self.scheduler.take_events();
            self.scheduler = Scheduler::new(self.runner.as_ref(), &self.config);
            self.emit(events);
        }
    }

    /// Publishes the figures, then the events: who has read of an end finds its place and its blocks free.
    fn flush(&mut self) {
        let events = self.scheduler.take_events();
        self.emit(events);
    }

    fn emit(&mut self, events: Vec<SequenceEvent>) {
        for event in &events {
            if let EventKind::Finished { .. } | EventKind::Failed { .. } = event.kind {
                self.shared.live.fetch_sub(1, Ordering::AcqRel);
            }
            if let EventKind::Finished { timings, .. } = &event.kind {
                self.shared.observe_duration(timings.prefill + timings.decode);
            }
        }
        self.shared.publish(&self.scheduler);
        if !events.is_empty() {
            // A receiver that panics loses these events; the others' sequences must not suffer for it.
            let _ = catch_unwind(AssertUnwindSafe(|| self.sink.emit(events)));
        }
    }
}

impl Shared {
    fn publish(&self, scheduler: &Scheduler) {
        let (_, free_blocks) = scheduler.block_counts();
        self.free_blocks.store(free_blocks, Ordering::Relaxed);
        self.running.store(scheduler.n_running(), Ordering::Relaxed);
        self.parked.store(scheduler.n_parked(), Ordering::Relaxed);
    }

    /// Only the engine thread writes it.
    fn observe_duration(&self, seconds: f64) {
        let micros = (seconds * 1e6) as u64;
        let mean = self.request_micros.load(Ordering::Relaxed);
        let next = if mean == 0 { micros } else { (mean * 7 + micros) / 8 };
        self.request_micros.store(next, Ordering::Relaxed);
    }
}
