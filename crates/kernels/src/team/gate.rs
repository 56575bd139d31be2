//! Waiting for a value to change: first spinning, then yielding the core, then asleep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 64;

/// How often a waiter gives its core away before it sleeps.
const YIELDS: u32 = 64;

/// A value that threads wait on. Each waiter has a place of its own, numbered from 0.
#[derive(Debug)]
pub(super) struct Gate {
    value: AtomicU64,
    places: Vec<Place>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Place {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Gate {
    pub(super) fn new(n_places: usize) -> Self {
        Self { value: AtomicU64::new(0), places: (0..n_places).map(|_| Place::default()).collect() }
    }

    /// What is there now; to be passed to [`Gate::wait`].
    pub(super) fn value(&self) -> u64 {
        self.value.load(Ordering::Acquire)
    }

    /// Sets another value and wakes who sleeps. What the caller wrote before is seen by the waiters.
    pub(super) fn set(&self, value: u64) {
        // Sequentially consistent with the sleeper's flag: either it sees the value or this sees its flag.
        self.value.store(value, Ordering::SeqCst);
        for place in &self.places {
            if place.asleep.load(Ordering::SeqCst)
                && let Some(thread) = &*place.thread.lock().unwrap_or_else(PoisonError::into_inner)
            {
                thread.unpark();
            }
        }
    }

    /// Waits until the value is no longer `seen`, spinning for `spin` at first. Answers for how long it waited beyond
    /// spinning. No two threads wait at one place at the same time.
    pub(super) fn wait(&self, place: usize, seen: u64, spin: Duration) -> Duration {
        if self.spins(seen) {
            return Duration::ZERO;
        }
        let started = Instant::now();
        while started.elapsed() < spin {
            if self.spins(seen) {
                return Duration::ZERO;
            }
        }
        let mut yields = 0;
        while self.value() == seen {
            if yields < YIELDS {
                yields += 1;
                thread::yield_now();
            } else {
                self.sleep(&self.places[place], seen);
            }
        }
        started.elapsed()
    }

    /// Did the value change within a few spins?
    fn spins(&self, seen: u64) -> bool {
        for _ in 0..SPINS_PER_LOOK {
            if self.value() != seen {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn sleep(&self, place: &Place, seen: u64) {
        *place.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        place.asleep.store(true, Ordering::SeqCst);
        if self.value.load(Ordering::SeqCst) == seen {
            thread::park();
        }
        place.asleep.store(false, Ordering::SeqCst);
    }
}
