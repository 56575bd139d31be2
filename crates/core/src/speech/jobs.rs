//! Which transcriptions of a model run: a few at a time, the others wait in order.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::CoreError;

/// A client that is told to come back is told to wait so long: about a window of speech.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What a job is told while it runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// For those who look at it themselves.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs on a thread of its own; it looks at `Stop` often.
type Work = Box<dyn FnOnce(&Stop) + Send>;

struct Job {
    id: u64,
    stop: Stop,
    work: Work,
}

#[derive(Default)]
struct State {
    running: Vec<(u64, Stop)>,
    waiting: VecDeque<Job>,
    closed: bool,
}

/// The jobs of one model. Clones share them.
#[derive(Clone)]
pub(super) struct Jobs {
    shared: Arc<(Mutex<State>, Condvar)>,
    max_running: usize,
    max_waiting: usize,
}

impl Jobs {
    pub(super) fn new(max_running: usize, max_waiting: usize) -> Self {
        Self { shared: Arc::default(), max_running, max_waiting }
    }

    /// Starts a job, or lets it wait for its turn.
    ///
    /// # Errors
    /// `QueueFull`, `Closed`, or the system gives no thread.
    pub(super) fn add(&self, id: u64, work: Work) -> Result<(), CoreError> {
        let job = Job { id, stop: Stop::default(), work };
        let mut state = self.lock();
        if state.closed {
            return Err(CoreError::Closed);
        }
        if state.running.len() < self.max_running {
            state.running.push((id, job.stop.clone()));
            drop(state);
            return self.spawn(job);
        }
        if state.waiting.len() >= self.max_waiting {
            return Err(CoreError::QueueFull { waiting: state.waiting.len(), retry_after: RETRY_AFTER });
        }
        state.waiting.push_back(job);
        Ok(())
    }

    /// Tells a job to stop; one that waits is forgotten. Unknown ids are ignored.
    pub(super) fn stop(&self, id: u64) {
        let mut state = self.lock();
        if let Some(at) = state.waiting.iter().position(|job| job.id == id) {
            let job = state.waiting.remove(at);
            drop(state);
            // What it holds may be large, or have a say of its own when it is dropped.
            drop(job);
        } else if let Some((_, stop)) = state.running.iter().find(|(running, _)| *running == id) {
            stop.set();
        }
    }

    /// Running and waiting jobs.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.running.len(), state.waiting.len())
    }

    /// Stops all, for good. The ids of those that had not begun.
    pub(super) fn stop_all(&self) -> Vec<u64> {
        let mut state = self.lock();
        state.closed = true;
        state.running.iter().for_each(|(_, stop)| stop.set());
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().map(|job| job.id).collect()
    }

    /// Returns when none runs.
    pub(super) fn wait(&self) {
        let mut state = self.lock();
        while !state.running.is_empty() {
            state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn spawn(&self, job: Job) -> Result<(), CoreError> {
        let (jobs, id) = (self.clone(), job.id);
        let thread = std::thread::Builder::new().name("tsserve-speech".to_owned());
        let started = thread.spawn(move || {
            let mut next = Some(job);
            while let Some(Job { id, stop, work }) = next {
                // A panic ends the job, not those that wait behind it; what is to be said of it the work has said.
                let _ = catch_unwind(AssertUnwindSafe(|| work(&stop)));
                jobs.ended(id);
                next = jobs.next();
            }
        });
        started.map(drop).map_err(|error| {
            self.ended(id);
            CoreError::Internal(format!("no thread could be started: {error}"))
        })
    }

    /// The job whose turn it is, running from now on.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        if state.closed || state.running.len() >= self.max_running {
            return None;
        }
        let job = state.waiting.pop_front()?;
        state.running.push((job.id, job.stop.clone()));
        Some(job)
    }

    fn ended(&self, id: u64) {
        self.lock().running.retain(|(running, _)| *running != id);
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Lists that are whole whatever panicked while holding them.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn they_run_in_order_a_few_at_a_time() {
        let jobs = Jobs::new(1, 2);
        let (sender, done) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let first = sender.clone();
        jobs.add(
            1,
            Box::new(move |_| {
                wait.recv().unwrap();
                first.send(1).unwrap()
            }),
        )
        .unwrap();
        for id in [2, 3] {
            let sender = sender.clone();
            jobs.add(id, Box::new(move |_| sender.send(id).unwrap())).unwrap();
        }
        assert_eq!(jobs.counts(), (1, 2));
        let full = jobs.add(4, Box::new(|_| {})).unwrap_err();
        assert!(matches!(full, CoreError::QueueFull { waiting: 2, .. }));
        jobs.stop(2);
        go.send(()).unwrap();
        drop(sender);
        assert_eq!(done.iter().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn closing_stops_what_runs_and_names_what_waits() {
        let jobs = Jobs::new(1, 8);
        let (began, begin) = mpsc::channel();
        jobs.add(
            1,
            Box::new(move |stop| {
                began.send(()).unwrap();
                while !stop.is_set() {
                    std::thread::yield_now();
                }
            }),
        )
        .unwrap();
        jobs.add(2, Box::new(|_| panic!("it was closed before its turn"))).unwrap();
        begin.recv().unwrap();
        assert_eq!(jobs.stop_all(), [2]);
        jobs.wait();
        assert_eq!(jobs.counts(), (0, 0));
        assert!(matches!(jobs.add(3, Box::new(|_| {})), Err(CoreError::Closed)));
    }

    #[test]
    fn a_panic_does_not_stop_those_that_wait() {
        let jobs = Jobs::new(1, 8);
        let (sender, done) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        jobs.add(
            1,
            Box::new(move |_| {
                wait.recv().unwrap();
                panic!("on purpose")
            }),
        )
        .unwrap();
        jobs.add(2, Box::new(move |_| sender.send(()).unwrap())).unwrap();
        go.send(()).unwrap();
        done.recv().unwrap();
    }
}
