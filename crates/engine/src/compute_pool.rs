//! Who may compute now: one lease for the whole process, handed out in the order of asking.

use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

/// A fair lease on the machine's cores, taken for one step at a time. Two models, or text and Whisper windows, take
/// turns instead of starting more threads than there are cores. Clones share the lease.
#[derive(Debug, Clone, Default)]
pub struct ComputePool {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tickets: Mutex<Tickets>,
    turn: Condvar,
}

/// Like the numbers drawn at a counter: holder of `serving` computes, `next` is the number to draw.
#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    serving: u64,
}

impl ComputePool {
    /// A pool of its own, which shares nothing with other pools.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pool of the process: what every engine should be given unless a test wants its own.
    pub fn process() -> Self {
        static PROCESS: LazyLock<ComputePool> = LazyLock::new(ComputePool::new);
        PROCESS.clone()
    }

    /// Waits for its turn, first come, first served. The lease ends when the value is dropped, also by a panic.
    /// Do not ask for a second one while holding one.
    pub fn lease(&self) -> Lease<'_> {
        let mut tickets = self.inner.lock();
        let mine = tickets.next;
        tickets.next = tickets.next.wrapping_add(1);
        while tickets.serving != mine {
            tickets = self.inner.turn.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
        Lease { inner: &self.inner }
    }
}

/// The right to compute, until dropped.
#[must_use = "the lease ends when it is dropped"]
#[derive(Debug)]
pub struct Lease<'a> {
    inner: &'a Inner,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut tickets = self.inner.lock();
        tickets.serving = tickets.serving.wrapping_add(1);
        let others_wait = tickets.serving != tickets.next;
        drop(tickets);
        if others_wait {
            self.inner.turn.notify_all();
        }
    }
}

impl Inner {
    /// Two counters cannot be half changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn leases_are_served_in_the_order_of_asking() {
        let pool = ComputePool::new();
        let (sender, order) = mpsc::channel();
        let first = pool.lease();
        std::thread::scope(|scope| {
            for i in 0..8u64 {
                let (asking, sender) = (pool.clone(), sender.clone());
                scope.spawn(move || {
                    let _lease = asking.lease();
                    sender.send(i).unwrap();
                });
                // The next one asks only after this one has drawn its number.
                while pool.inner.lock().next != i + 2 {
                    std::thread::yield_now();
                }
            }
            drop(first);
        });
        drop(sender);
        assert_eq!(order.iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_gives_the_lease_back() {
        let pool = ComputePool::new();
        let broken = pool.clone();
        let joined = std::thread::spawn(move || {
            let _lease = broken.lease();
            panic!("on purpose");
        })
        .join();
        assert!(joined.is_err());
        drop(pool.lease());
    }
}
