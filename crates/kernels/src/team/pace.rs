//! How many threads take part: fewer while neighbours on the machine keep taking a core away in the middle of steps.
//!
//! A thread that is preempted holds up all others at the next join, so that where a core is busy for good one thread less
//! is faster, up to twice as fast with two cores. Where it is busy now and then (the server's own event loop, a client
//! on the same machine) the thread is worth more than it costs, though it stalls the others as often. Stalls alone do not
//! tell the two apart. They are a reason to try the other number for a moment, and what the callers report of their
//! steps ([`Pace::report`]) decides which number stays.

use std::time::{Duration, Instant};

/// Share of the time lost at joins, summed over the threads, beyond which a thread less is tried: half of what it costs
/// to give a thread away, `(n - 1) / n` of one thread's time.
const SUSPICIOUS: f64 = 0.5;

/// Weight of the newest piece of work in the average of stalls.
const NEWEST: f64 = 0.1;

/// How much reported time a trial takes, and how many steps at least.
const TRIAL: Duration = Duration::from_millis(40);
const TRIAL_STEPS: u32 = 6;

/// A trial about which nobody reports any more ends after this long: its number stays if nobody ever did, since then
/// stalls are all there is to judge by.
const UNJUDGED: Duration = Duration::from_millis(250);

/// How long the average of speeds reaches back.
const MEMORY: Duration = Duration::from_millis(100);

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Pace {
    n_threads: usize,
    n_active: usize,
    /// Average share of the time that was lost at joins, with the present number of threads.
    stalled: f64,
    /// Average of reported speeds with the present number of threads; `None`: not known yet.
    speed: Option<f64>,
    trial: Option<Trial>,
    /// Before this no trial begins. `None`: at once.
    next: Option<Instant>,
    /// The pause before `next`.
    pause: Duration,
}

/// Another number of threads, on probation.
#[derive(Debug)]
struct Trial {
    /// The number before it, and its speed.
    from: usize,
    speed: Option<f64>,
    /// When it began, or was reported about.
    heard: Instant,
    reported: Reported,
}

/// Steps, and how long they should have taken and took, in seconds.
#[derive(Debug, Default)]
struct Reported {
    steps: u32,
    expected: f64,
    actual: f64,
}

impl Pace {
    pub(super) fn new(n_threads: usize) -> Self {
        Self { n_threads, n_active: n_threads, stalled: 0.0, speed: None, trial: None, next: None, pause: FIRST_PAUSE }
    }

    /// Threads for a piece of work that starts now.
    pub(super) fn n_active(&mut self, now: Instant) -> usize {
        if let Some(trial) = &self.trial
            && now.saturating_duration_since(trial.heard) > UNJUDGED
        {
            self.end_trial(now, trial.reported.steps == 0);
        }
        if self.n_active < self.n_threads && self.may_try(now) {
            self.begin_trial(now, self.n_active + 1);
        }
        self.n_active
    }

    /// Notes work that ended at `now`, took `total`, and in which threads lost `stalled` at joins, all together.
    pub(super) fn record(&mut self, now: Instant, total: Duration, stalled: Duration) {
        let n = self.n_active as f64;
        let share = stalled.as_secs_f64() / total.as_secs_f64().max(1e-9);
        self.stalled += NEWEST * (share.min(n) - self.stalled);
        if self.stalled > SUSPICIOUS * (n - 1.0) / n && self.n_active > 1 && self.may_try(now) {
            self.begin_trial(now, self.n_active - 1);
        }
    }

    /// Notes a step that ended at `now`, and how long it was expected to take and took.
    pub(super) fn report(&mut self, now: Instant, expected: Duration, actual: Duration) {
        let (expected, actual) = (expected.as_secs_f64(), actual.as_secs_f64().max(1e-9));
        if let Some(trial) = &mut self.trial {
            let Trial { reported, speed, heard, .. } = trial;
            *heard = now;
            reported.steps += 1;
            reported.expected += expected;
            reported.actual += actual;
            if reported.steps >= TRIAL_STEPS && reported.actual >= TRIAL.as_secs_f64() {
                let tried = reported.expected / reported.actual;
                let better = speed.is_none_or(|before| tried > before);
                if better {
                    self.speed = Some(tried);
                }
                self.end_trial(now, better);
            }
        } else {
            let weight = (actual / MEMORY.as_secs_f64()).min(1.0);
            let speed = self.speed.get_or_insert(expected / actual);
            *speed += weight * (expected / actual - *speed);
        }
    }

    fn may_try(&self, now: Instant) -> bool {
        self.trial.is_none() && self.next.is_none_or(|next| now >= next)
    }

    fn begin_trial(&mut self, now: Instant, n: usize) {
        let (from, speed) = (self.n_active, self.speed);
        self.trial = Some(Trial { from, speed, heard: now, reported: Reported::default() });
        self.n_active = n;
        self.stalled = 0.0;
    }

    /// The number that was tried stays, or the one before it comes back. The more often trials fail, the rarer they get.
    fn end_trial(&mut self, now: Instant, stays: bool) {
        let Some(trial) = self.trial.take() else { return };
        if stays {
            self.pause = FIRST_PAUSE;
            if trial.reported.steps == 0 {
                self.speed = None;
            }
        } else {
            self.n_active = trial.from;
            self.speed = trial.speed;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        self.stalled = 0.0;
        self.next = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(2);

    /// A machine on which a step of `n` threads takes `time(n)` and loses `stalled(n)` of it at joins.
    struct Machine<'m> {
        pace: Pace,
        now: Instant,
        time: &'m dyn Fn(usize) -> Duration,
        stalled: &'m dyn Fn(usize) -> f64,
        reports: bool,
    }

    impl Machine<'_> {
        /// Runs for `span`; answers the share of it that was run with each number of threads, from 1.
        fn run(&mut self, span: Duration) -> Vec<f64> {
            let (end, mut shares) = (self.now + span, vec![0.0; self.pace.n_threads]);
            while self.now < end {
                let n = self.pace.n_active(self.now);
                let total = (self.time)(n);
                self.now += total;
                shares[n - 1] += total.as_secs_f64() / span.as_secs_f64();
                self.pace.record(self.now, total, total.mul_f64((self.stalled)(n)));
                if self.reports {
                    self.pace.report(self.now, STEP, total);
                }
            }
            shares
        }
    }

    fn machine<'m>(
        n_threads: usize,
        time: &'m dyn Fn(usize) -> Duration,
        stalled: &'m dyn Fn(usize) -> f64,
    ) -> Machine<'m> {
        Machine { pace: Pace::new(n_threads), now: Instant::now(), time, stalled, reports: true }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_core_that_is_busy_for_good_is_given_away_and_tried_again_ever_less_often() {
        let time = |n| if n == 2 { 3 * STEP } else { 2 * STEP };
        let stalled = |n| if n == 2 { 0.7 } else { 0.0 };
        let mut machine = machine(2, &time, &stalled);
        machine.run(SECOND);
        let shares = machine.run(20 * SECOND);
        assert!(shares[0] > 0.95, "{shares:?}");
    }

    #[test]
    fn a_core_that_is_busy_now_and_then_is_kept() {
        // As many stalls, but one thread alone is slower still.
        let time = |n| if n == 2 { STEP.mul_f64(1.5) } else { 2 * STEP };
        let stalled = |n| if n == 2 { 0.7 } else { 0.0 };
        let mut machine = machine(2, &time, &stalled);
        machine.run(SECOND);
        let shares = machine.run(20 * SECOND);
        assert!(shares[1] > 0.95, "{shares:?}");
    }

    #[test]
    fn a_core_that_is_free_again_is_taken_back() {
        let (busy_time, free_time) = (|n| if n == 2 { 4 * STEP } else { 2 * STEP }, |n| 2 * STEP / n as u32);
        let mut pace = {
            let mut machine = machine(2, &busy_time, &|_| 0.8);
            machine.run(2 * SECOND);
            assert_eq!(machine.pace.n_active, 1);
            machine.pace
        };
        let now = Instant::now() + 60 * SECOND;
        pace.next = Some(now);
        let mut machine = Machine { pace, now, time: &free_time, stalled: &|_| 0.01, reports: true };
        let shares = machine.run(SECOND);
        assert!(shares[1] > 0.9, "{shares:?}");
    }

    #[test]
    fn where_nobody_reports_stalls_decide() {
        let mut machine = machine(2, &|_| STEP, &|n| if n == 2 { 0.9 } else { 0.0 });
        machine.reports = false;
        let shares = machine.run(4 * SECOND);
        assert!(shares[0] > 0.3, "{shares:?}");
    }

    #[test]
    fn a_trial_that_reports_leave_unfinished_is_given_up() {
        let (time, stalled) = (|_| STEP, |n| if n == 2 { 0.9 } else { 0.0 });
        let mut machine = machine(2, &time, &stalled);
        while machine.pace.trial.is_none() {
            machine.run(STEP);
        }
        machine.run(2 * STEP);
        assert_eq!(machine.pace.n_active, 1);
        // From now on somebody else works, who reports nothing and stalls nobody.
        machine.reports = false;
        machine.stalled = &|_| 0.0;
        machine.run(SECOND);
        let shares = machine.run(SECOND);
        assert!(shares[1] > 0.99, "{shares:?}");
    }

    #[test]
    fn calm_changes_nothing_and_one_thread_stays() {
        for n_threads in [1, 2, 8] {
            let mut machine = machine(n_threads, &|_| STEP, &|_| 0.05);
            let shares = machine.run(SECOND);
            assert!(shares[n_threads - 1] > 0.999, "{shares:?}");
        }
    }
}
