//! How many threads take part: fewer while neighbours on the machine keep taking a core away in the middle of steps.
//!
//! A thread that is preempted holds up all others at the next join. Where joins stall for much of the time, one thread
//! less is faster: the last one alone never waits.

use std::time::{Duration, Instant};

/// Share of the time stalled at joins beyond which a thread is dropped.
const TOO_MUCH: f64 = 0.4;

/// Weight of the newest step in the average.
const NEWEST: f64 = 0.1;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Pace {
    n_threads: usize,
    n_active: usize,
    /// Average share of a step's time that was lost at joins.
    stalled: f64,
    /// When one more thread is tried again, and how long the pause before that was.
    retry: Option<Instant>,
    pause: Duration,
}

impl Pace {
    pub(super) fn new(n_threads: usize) -> Self {
        Self { n_threads, n_active: n_threads, stalled: 0.0, retry: None, pause: FIRST_PAUSE }
    }

    /// Threads for a step that starts now.
    pub(super) fn n_active(&mut self, now: Instant) -> usize {
        if self.retry.is_some_and(|retry| now >= retry) {
            self.n_active += 1;
            self.retry = (self.n_active < self.n_threads).then(|| now + self.pause);
            // On probation: a few bad steps end it.
            self.stalled = TOO_MUCH / 2.0;
        }
        self.n_active
    }

    /// Notes a step that ended at `now`, took `total`, and in which threads lost `stalled` at joins.
    pub(super) fn record(&mut self, now: Instant, total: Duration, stalled: Duration) {
        if self.n_active == 1 {
            return;
        }
        let share = (stalled.as_secs_f64() / total.as_secs_f64().max(1e-9)).min(1.0);
        self.stalled += NEWEST * (share - self.stalled);
        if self.stalled > TOO_MUCH {
            self.n_active -= 1;
            self.stalled = 0.0;
            self.retry = Some(now + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else if self.stalled < TOO_MUCH / 8.0 && self.n_active == self.n_threads {
            self.pause = FIRST_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(2);

    #[test]
    fn stalls_drop_a_thread_and_calm_brings_it_back() {
        let mut pace = Pace::new(2);
        let mut now = Instant::now();
        for _ in 0..5 {
            now += STEP;
            pace.record(now, STEP, STEP.mul_f64(0.9));
        }
        assert_eq!(pace.n_active(now), 2, "a short disturbance is borne");
        for _ in 0..5 {
            now += STEP;
            pace.record(now, STEP, STEP.mul_f64(0.9));
        }
        assert_eq!(pace.n_active(now), 1);
        assert_eq!(pace.n_active(now + FIRST_PAUSE), 2);
        // Still bad: the second pause is longer.
        now += FIRST_PAUSE;
        for _ in 0..5 {
            now += STEP;
            pace.record(now, STEP, STEP);
        }
        assert_eq!(pace.n_active(now + FIRST_PAUSE), 1);
        assert_eq!(pace.n_active(now + 2 * FIRST_PAUSE), 2);
        for _ in 0..60 {
            now += STEP;
            pace.record(now, STEP, Duration::ZERO);
        }
        assert_eq!((pace.n_active(now), pace.pause), (2, FIRST_PAUSE));
    }

    #[test]
    fn one_thread_stays() {
        let mut pace = Pace::new(1);
        let now = Instant::now();
        (0..100).for_each(|_| pace.record(now, STEP, STEP));
        assert_eq!(pace.n_active(now), 1);
    }
}
