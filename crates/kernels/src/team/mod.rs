//! The threads that compute a step together. All run the same function; between two operations they join. Joins spin,
//! since a step has hundreds of them and waking a thread takes longer than an operation; but a thread that waits long
//! gives its core away, and one without work sleeps.

mod gate;
mod pace;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gate::Gate;
use pace::Pace;

/// How long a thread spins at a join before it gives its core away.
const JOIN_SPIN: Duration = Duration::from_micros(20);

/// How long a thread spins for the next step before it sleeps.
const STEP_SPIN: Duration = Duration::from_micros(100);

/// A start's value holds the number of threads that take part in its lowest bits, and a count above them.
const ACTIVE_BITS: u32 = 16;

type Work<'w> = dyn Fn(&Worker<'_>) + Sync + 'w;

/// A fixed set of threads, the caller among them. They sleep while nothing runs.
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Held while work runs: one piece at a time.
    pace: Mutex<Pace>,
}

struct Shared {
    n_threads: usize,
    /// Changes when there is work, or when the team ends.
    start: Gate,
    /// Changes when all active threads have arrived at a join.
    joined: Gate,
    /// Changes when all active threads have left the work.
    done: Gate,
    arrived: AtomicUsize,
    left: AtomicUsize,
    ends: AtomicBool,
    /// A thread panicked in the current work: nobody waits for it any more.
    broken: AtomicBool,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
    /// Nanoseconds lost at joins in the current work, over all threads.
    stalled: AtomicU64,
    /// Set before `start` changes, read after it by the threads that take part, valid until they have left.
    work: UnsafeCell<Option<*const Work<'static>>>,
    /// Two sets of cursors, used in turn; see [`Worker::share`].
    cursors: [Vec<Cursor>; 2],
}

// SAFETY: `work` is written only by the leader while no thread takes part in work, with the gate's change between
// writing and reading; what it points to is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only followed while the caller of `run` waits.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("n_threads", &self.n_threads).finish_non_exhaustive()
    }
}

/// The next chunk of one thread's share, alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cursor(AtomicUsize);

/// One thread's view of the work that runs.
#[derive(Debug)]
pub struct Worker<'t> {
    shared: &'t Shared,
    index: usize,
    n_active: usize,
    /// Operations shared so far.
    operation: Cell<usize>,
}

/// Carried by the panic of a thread that was waiting for one that panicked.
struct Broken;

impl Team {
    /// Starts `n_threads - 1` threads (the caller of [`Team::run`] is the last one).
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(n_threads: usize) -> std::io::Result<Self> {
        let n_threads = n_threads.clamp(1, (1 << ACTIVE_BITS) - 1);
        let cursors = || (0..n_threads).map(|_| Cursor::default()).collect();
        let shared = Arc::new(Shared {
            n_threads,
            start: Gate::new(n_threads),
            joined: Gate::new(n_threads),
            done: Gate::new(1),
            arrived: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            payload: Mutex::new(None),
            stalled: AtomicU64::new(0),
            work: UnsafeCell::new(None),
            cursors: [cursors(), cursors()],
        });
        let mut team = Self { shared: shared.clone(), threads: Vec::new(), pace: Mutex::new(Pace::new(n_threads)) };
        for index in 1..n_threads {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("tsserve-cpu-{index}"));
            team.threads.push(builder.spawn(move || shared.serve(index))?);
        }
        Ok(team)
    }

    pub fn n_threads(&self) -> usize {
        self.shared.n_threads
    }

    /// Runs `work` on the threads of the team, this one included, and returns when all are done. One piece of work
    /// runs at a time; others wait. How many threads take part may vary ([`Worker::n_active`]). All of them must call
    /// [`Worker::share`] and [`Worker::join`] in the same order.
    ///
    /// # Panics
    /// If `work` panics on any thread, with that panic, after all threads have left it.
    pub fn run(&self, work: &(dyn Fn(&Worker<'_>) + Sync)) {
        let mut pace = lock(&self.pace);
        let shared = &*self.shared;
        let started = Instant::now();
        let n_active = pace.n_active(started);
        let worker = Worker { shared, index: 0, n_active, operation: Cell::new(0) };
        for cursor in shared.cursors.iter().flatten() {
            cursor.0.store(0, Ordering::Relaxed);
        }
        if n_active == 1 {
            work(&worker);
            let now = Instant::now();
            return pace.record(now, now - started, Duration::ZERO);
        }
        // SAFETY: only the lifetime changes. The pointer is followed by threads that take part in this work only, and
        // they have all left it before this function returns or unwinds.
        let erased = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        // SAFETY: nobody takes part in work: the previous one was left by all, and the lock is held.
        unsafe { *shared.work.get() = Some(erased) };
        shared.stalled.store(0, Ordering::Relaxed);
        let done = shared.done.value();
        shared.start.set((((shared.start.value() >> ACTIVE_BITS) + 1) << ACTIVE_BITS) | n_active as u64);
        shared.attempt(|| work(&worker));
        shared.leave(n_active);
        shared.done.wait(0, done, JOIN_SPIN);
        shared.left.store(0, Ordering::Relaxed);
        shared.arrived.store(0, Ordering::Relaxed);
        let now = Instant::now();
        pace.record(now, now - started, Duration::from_nanos(shared.stalled.load(Ordering::Relaxed)));
        if shared.broken.swap(false, Ordering::Relaxed) {
            let payload = lock(&shared.payload).take();
            drop(pace);
            resume_unwind(payload.unwrap_or_else(|| Box::new(Broken)));
        }
    }

    /// Tells how long a step, of one piece of work or several, was expected to take on the quiet machine and took: what
    /// the number of threads is judged by. Expectations need to be right in proportion to each other only.
    pub fn report(&self, expected: Duration, actual: Duration) {
        lock(&self.pace).report(Instant::now(), expected, actual);
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.shared.start.set(((self.shared.start.value() >> ACTIVE_BITS) + 1) << ACTIVE_BITS);
        for thread in self.threads.drain(..) {
            // It catches the panics of work; there is nothing to be done about another one here.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The life of a thread of the team.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        loop {
            self.start.wait(index, seen, STEP_SPIN);
            // If this thread takes part, the next start waits for it to leave. If not, it may miss starts.
            seen = self.start.value();
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            let n_active = (seen & ((1 << ACTIVE_BITS) - 1)) as usize;
            if index >= n_active {
                continue;
            }
            let worker = Worker { shared: self, index, n_active, operation: Cell::new(0) };
            // SAFETY: written before the start that this thread takes part in, and valid until it has left.
            let work = unsafe { (*self.work.get()).map(|work| &*work) };
            if let Some(work) = work {
                self.attempt(|| work(&worker));
            }
            self.leave(n_active);
        }
    }

    /// Runs `work`; a panic breaks the work for everybody instead of leaving them waiting.
    fn attempt(&self, work: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
            // The first panic is the cause, others are its consequence.
            lock(&self.payload).get_or_insert(payload);
            self.broken.store(true, Ordering::SeqCst);
            self.joined.set(self.joined.value() + 1);
        }
    }

    fn leave(&self, n_active: usize) {
        if self.left.fetch_add(1, Ordering::AcqRel) + 1 == n_active {
            self.done.set(self.done.value() + 1);
        }
    }
}

impl Worker<'_> {
    /// Number of this thread, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Threads that take part.
    pub fn n_active(&self) -> usize {
        self.n_active
    }

    /// Waits until all threads are here; what they wrote before is seen after it.
    pub fn join(&self) {
        if self.n_active == 1 {
            return;
        }
        let shared = self.shared;
        let seen = shared.joined.value();
        if shared.broken.load(Ordering::SeqCst) {
            resume_unwind(Box::new(Broken));
        }
        if shared.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.n_active {
            shared.arrived.store(0, Ordering::Relaxed);
            shared.joined.set(seen + 1);
            return;
        }
        let stalled = shared.joined.wait(self.index, seen, JOIN_SPIN);
        if !stalled.is_zero() {
            shared.stalled.fetch_add(stalled.as_nanos() as u64, Ordering::Relaxed);
        }
        if shared.broken.load(Ordering::SeqCst) {
            resume_unwind(Box::new(Broken));
        }
    }

    /// Computes chunks `0..n_chunks` together with the other threads, each chunk once, and joins. Every thread begins
    /// with its own part, then takes from the others what they have not begun.
    pub fn share(&self, n_chunks: usize, mut chunk: impl FnMut(usize)) {
        if self.n_active == 1 {
            return (0..n_chunks).for_each(chunk);
        }
        let operation = self.operation.get();
        self.operation.set(operation + 1);
        let cursors = &self.shared.cursors[operation % 2];
        // Nobody touches the other set before this operation's join.
        self.shared.cursors[(operation + 1) % 2][self.index].0.store(0, Ordering::Relaxed);
        for victim in (0..self.n_active).map(|i| (self.index + i) % self.n_active) {
            let first = n_chunks * victim / self.n_active;
            let len = n_chunks * (victim + 1) / self.n_active - first;
            let cursor = &cursors[victim].0;
            while cursor.load(Ordering::Relaxed) < len {
                let taken = cursor.fetch_add(1, Ordering::Relaxed);
                if taken >= len {
                    break;
                }
                chunk(first + taken);
            }
        }
        self.join();
    }
}

/// What the locks hold cannot be half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
