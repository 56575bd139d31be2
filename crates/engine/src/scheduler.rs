//! Who runs in the next step, and on which blocks: integers only.
//!
//! A step has one budget of tokens, and where the runner has measured what its steps cost, of time. Answers being written
//! (rows of a single token, or of a run that was forced) come first, so that a long prompt never stalls them; then chunks
//! of prompts already begun; then new arrivals; then, on what is left, drafts of answers. Order of arrival decides everything
//! else: the oldest sequence is served first and can take blocks from every younger one, so it always gets on, and by
//! induction everybody does.

mod drafts;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::costs::StepLoad;
use crate::held::MaskWorker;
use crate::kv_blocks::{Holding, KvBlocks, longest_context};
use crate::pace::{self, Chunk, Pace};
use crate::sequence::{Advance, Limits, Progress, Sequence};
use crate::{
    CacheKind, EngineConfig, EventKind, FinishReason, ModelRunner, Request, RowRole, SequenceEvent, SequenceId,
    Speculation, StepPlan, StepResults,
};

/// The queues of one engine. It knows neither threads nor models: `schedule` answers a plan, `update` takes in what
/// the plan's step computed, and events come out in between.
#[derive(Debug)]
pub struct Scheduler {
    kv: KvBlocks,
    limits: Limits,
    max_num_seqs: usize,
    max_batch_tokens: usize,
    park_timeout: Duration,
    /// `None`: the runner has no cost table.
    pace: Option<Pace>,
    speculation: Option<Speculation>,
    drafts: DraftCounts,
    next_ticket: u64,
    /// All three by increasing ticket.
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    parked: Vec<Sequence>,
    /// What the step under way computes, in the order of its plan.
    planned: Vec<Planned>,
    masks: MaskWorker,
    events: Vec<SequenceEvent>,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    ticket: u64,
    /// Those of its draft included.
    n_tokens: usize,
    start: usize,
    /// Position behind its last known token.
    end: usize,
    role: RowRole,
    /// A step of an answer, not a chunk.
    writes: bool,
}

/// Tokens of drafts since they were last asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DraftCounts {
    /// Rows computed for them.
    pub drafted: u64,
    /// Those that became tokens of answers.
    pub accepted: u64,
}

/// Why a step gave no results.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StepFailure {
    /// Stable code for matching.
    pub code: &'static str,
    pub message: String,
}

impl Scheduler {
    /// Queues over fresh blocks. The limits of `config` are raised to what can work at all: one sequence, and a budget
    /// for a row of every sequence beside one block of a prompt.
    pub fn new(runner: &dyn ModelRunner, config: &EngineConfig) -> Self {
        let spec = runner.spec();
        let pace = runner.step_costs().map(|costs| Pace::new(costs, config, spec.block_size.max(1)));
        let max_num_seqs = config.max_num_seqs.max(1);
        let max_batch_tokens = config.max_batch_tokens.max(max_num_seqs + spec.block_size.max(1));
        // What is left beside a full set of answers: then the oldest prompt's next chunk always fits.
        let kv = KvBlocks::new(spec, max_batch_tokens - max_num_seqs, config.prefix_cache);
        Self {
            limits: Limits {
                vocab_size: spec.vocab_size,
                context: longest_context(spec),
                block_size: spec.block_size.max(1),
                rows_once: spec.groups.iter().any(|group| group.kind == CacheKind::State),
                roles_differ: runner.roles_differ(),
                free_borders: pace.is_some(),
                longest_run: kv.longest_run(),
            },
            kv,
            max_num_seqs,
            max_batch_tokens,
            park_timeout: config.park_timeout,
            pace,
            speculation: config.speculation.clone(),
            drafts: DraftCounts::default(),
            next_ticket: 0,
            running: Vec::new(),
            waiting: VecDeque::new(),
            parked: Vec::new(),
            planned: Vec::new(),
            masks: MaskWorker::default(),
            events: Vec::new(),
        }
    }

    /// Puts a request, which `Engine::add` has checked, at the end of the queue.
    pub fn add(&mut self, request: Request, added: Instant) {
        self.waiting.push_back(Sequence::new(self.next_ticket, request, added));
        self.next_ticket += 1;
    }

    /// Ends a sequence wherever it is. Nothing happens if it has ended already.
    pub fn abort(&mut self, id: SequenceId, now: Instant) {
        if let Some(sequence) = self.remove(id) {
            self.finish(sequence, FinishReason::Aborted, now);
        }
    }

    /// Lets a sequence generate `credit` more tokens. A parked one queues again, at the place of its arrival.
    pub fn grant(&mut self, id: SequenceId, credit: u32) {
        if let Some(at) = self.parked.iter().position(|s| s.id() == id) {
            self.parked[at].grant(credit);
            if credit > 0 {
                let mut sequence = self.parked.remove(at);
                sequence.parked_at = None;
                self.requeue(sequence);
            }
        } else if let Some(sequence) = self.running.iter_mut().chain(&mut self.waiting).find(|s| s.id() == id) {
            sequence.grant(credit);
        }
    }

    /// Fails the parked sequences whose client has not read for too long.
    pub fn expire(&mut self, now: Instant) {
        let timeout = self.park_timeout;
        let stalled = |s: &Sequence| s.parked_at.is_some_and(|at| now.saturating_duration_since(at) >= timeout);
        while let Some(at) = self.parked.iter().position(stalled) {
            let sequence = self.parked.remove(at);
            let message = format!("the client took no token for {} s", timeout.as_secs_f64());
            self.fail(sequence, "client_stalled", message);
        }
    }

    /// When the next parked sequence expires.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.parked.iter().filter_map(|s| s.parked_at).min()?.checked_add(self.park_timeout)
    }

    /// Plans the next step and takes its blocks. An empty plan means that nothing can run before a command or an
    /// expiry. Every other plan is answered by `update` or `fail_step` before the next call.
    pub fn schedule(&mut self, now: Instant) -> StepPlan {
        self.planned.clear();
        self.park_running(now);
        let n_running = self.running.len();
        self.schedule_running(true);
        self.schedule_running(false);
        // After a preemption memory is short: nobody new before those who had to give way.
        if self.running.len() == n_running {
            self.admit(now);
        }
        self.draft();
        let Self { running, planned, limits, masks, .. } = self;
        let sequences = planned.iter().filter_map(|p| {
            let at = running.binary_search_by_key(&p.ticket, |s| s.ticket).ok()?;
            Some(running[at].plan(p.end, limits, masks))
        });
        StepPlan { sequences: sequences.collect() }
    }

    /// Takes in the results of the plan's step: tokens are chosen, full blocks registered, ended sequences freed.
    pub fn update(&mut self, plan: &StepPlan, results: &StepResults, now: Instant) {
        let asked: usize = plan.sequences.iter().map(|s| s.outputs.len()).sum();
        if asked != results.rows.len() {
            let message = format!("the runner answered {} rows, {asked} were asked for", results.rows.len());
            return self.fail_step(plan, &StepFailure { code: "runner_results", message });
        }
        let mut rows = results.rows.as_slice();
        for (part, planned) in plan.sequences.iter().zip(std::mem::take(&mut self.planned)) {
            let (mine, others) = rows.split_at(part.outputs.len());
            rows = others;
            let Ok(at) = self.running.binary_search_by_key(&planned.ticket, |s| s.ticket) else { continue };
            let sequence = &mut self.running[at];
            let Advance { progress, n_right } =
                sequence.advance(planned.end, mine, &self.limits, now, &mut self.events);
            self.drafts.drafted += (planned.start + planned.n_tokens - planned.end) as u64;
            self.drafts.accepted += n_right as u64;
            if !matches!(progress, Progress::Failed(_)) {
                sequence.keep_blocks(&mut self.kv, &self.limits);
            }
            match progress {
                Progress::GoesOn => {}
                Progress::Finished(reason) => {
                    let sequence = self.running.remove(at);
                    self.finish(sequence, reason, now);
                }
                Progress::Failed(error) => {
                    let sequence = self.running.remove(at);
                    self.fail(sequence, error.code(), error.to_string());
                }
            }
        }
    }

    /// Fails every sequence of a step that gave no results. What the step may have written is never reused.
    pub fn fail_step(&mut self, plan: &StepPlan, failure: &StepFailure) {
        self.planned.clear();
        for part in &plan.sequences {
            if let Some(sequence) = self.remove(part.sequence) {
                self.fail(sequence, failure.code, failure.message.clone());
            }
        }
    }

    /// Fails everything that lives.
    pub fn fail_all(&mut self, failure: &StepFailure) {
        let Self { running, waiting, parked, .. } = self;
        let all: Vec<_> = running.drain(..).chain(waiting.drain(..)).chain(parked.drain(..)).collect();
        all.into_iter().for_each(|sequence| self.fail(sequence, failure.code, failure.message.clone()));
    }

    /// The events since the last call, in order.
    pub fn take_events(&mut self) -> Vec<SequenceEvent> {
        std::mem::take(&mut self.events)
    }

    /// The counts since the last call.
    pub fn take_drafts(&mut self) -> DraftCounts {
        std::mem::take(&mut self.drafts)
    }

    /// Whether a step may find something to do.
    pub fn is_runnable(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn n_parked(&self) -> usize {
        self.parked.len()
    }

    /// Number of all blocks and of those that no sequence holds, over all cache groups.
    pub fn block_counts(&self) -> (usize, usize) {
        self.kv.counts()
    }

    /// Longest sequence, prompt and answer, that can be computed alone.
    #[cfg(any(test, feature = "testing"))]
    pub fn context(&self) -> usize {
        self.limits.context
    }

    fn park_running(&mut self, now: Instant) {
        let (chunk, limits) = (self.kv.chunk_tokens(), self.limits);
        while let Some(at) = self.running.iter().position(|s| s.lacks_credit(s.chunk_end(s.n_computed, chunk, &limits)))
        {
            let sequence = self.running.remove(at);
            self.park(sequence, now);
        }
    }

    /// Plans what fits of the running sequences: steps of answers first, then chunks.
    fn schedule_running(&mut self, answers: bool) {
        let mut spare = self.spare_rows();
        let mut at = 0;
        // Making room may shorten the list, but only behind the one it is made for.
        while at < self.running.len() {
            let sequence = &mut self.running[at];
            if answers {
                sequence.in_step = false;
            }
            let start = sequence.n_computed;
            let whole = sequence.chunk_end(start, self.kv.chunk_tokens(), &self.limits);
            let fits_now = if answers {
                let is_short = whole == start + 1 || (sequence.writes(start) && whole - start - 1 <= spare);
                (is_short && whole - start <= self.budget_left()).then_some(whole)
            } else if sequence.in_step {
                None
            } else {
                self.chunk_end(&self.running[at], start)
            };
            if let Some(end) = fits_now
                && self.make_room(at, end)
            {
                self.take(at, end);
                spare = spare.saturating_sub(end - start - 1);
            }
            at += 1;
        }
    }

    /// Rows that forced runs may take beyond one for each answer, so that the oldest prompt's chunk still fits.
    fn spare_rows(&self) -> usize {
        let is_chunk = |s: &Sequence| !s.writes(s.n_computed);
        let chunk = match &self.pace {
            _ if !self.running.iter().any(is_chunk) => 0,
            Some(_) => self.limits.block_size,
            None => self.kv.chunk_tokens(),
        };
        self.max_batch_tokens.saturating_sub(self.max_num_seqs + chunk)
    }

    /// Where the sequence's chunk from `start` on ends in this step. `None`: it has to wait.
    fn chunk_end(&self, sequence: &Sequence, start: usize) -> Option<usize> {
        let end = sequence.chunk_end(start, self.kv.chunk_tokens(), &self.limits);
        let budget = self.budget_left();
        match &self.pace {
            None => (end - start <= budget).then_some(end),
            Some(pace) => {
                let planned = pace::Planned {
                    load: self.load(),
                    answers: self.planned.iter().any(|p| p.writes).then(|| self.load_of(|p| p.writes)),
                    has_chunk: self.planned.iter().any(|p| !p.writes),
                    budget,
                };
                pace.cut(&planned, Chunk { role: sequence.role_at(start), start, end })
            }
        }
    }

    /// What is in the step so far.
    fn load(&self) -> StepLoad {
        self.load_of(|_| true)
    }

    fn load_of(&self, wanted: impl Fn(&&Planned) -> bool) -> StepLoad {
        let parts = self.planned.iter().filter(wanted);
        parts.fold(StepLoad::default(), |load, p| load.with(p.role, p.start, p.n_tokens))
    }

    /// Brings arrivals in, oldest first, while there is a place, budget, and memory for all of their known tokens.
    fn admit(&mut self, now: Instant) {
        while self.running.len() < self.max_num_seqs {
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            // One that was parked may have kept its blocks; else cached blocks may serve its start.
            let resumes = !sequence.holding.is_empty();
            let chain = sequence.reusable_chain(&mut self.kv, &self.limits);
            let hit = if resumes { Default::default() } else { self.kv.find(chain) };
            let n_computed = if resumes { sequence.n_computed } else { hit.n_tokens };
            if sequence.lacks_credit(sequence.chunk_end(n_computed, self.kv.chunk_tokens(), &self.limits)) {
                self.park(sequence, now);
                continue;
            }
            let end = self.chunk_end(&sequence, n_computed);
            // One token more than is known, so that the first answer token does not at once ask for a block.
            let n_tokens = (sequence.n_tokens() + 1).min(self.limits.context);
            let fits = end.is_some()
                && loop {
                    let others = self.running.iter().map(|s| (&s.holding, s.n_tokens()));
                    if self.kv.can_admit(&sequence.holding, &hit, n_tokens, others) {
                        break true;
                    }
                    if !self.preempt_idle() {
                        break false;
                    }
                };
            let Some(end) = end.filter(|_| fits) else { return self.waiting.push_front(sequence) };
            if !resumes {
                let holding = self.kv.acquire(&hit);
                sequence.start(holding, hit.n_tokens, &self.limits, now, &mut self.events);
            }
            let at = self.running.partition_point(|s| s.ticket < sequence.ticket);
            self.running.insert(at, sequence);
            self.take(at, end);
        }
    }

    /// Puts the sequence's chunk up to `end` into the plan. There is room for it.
    fn take(&mut self, at: usize, end: usize) {
        let sequence = &mut self.running[at];
        if self.kv.extend(&mut sequence.holding, end) {
            sequence.in_step = true;
            let start = sequence.n_computed;
            self.planned.push(Planned {
                ticket: sequence.ticket,
                n_tokens: end - start,
                start,
                end,
                role: sequence.role_at(start),
                writes: sequence.writes(start),
            });
        }
    }

    fn budget_left(&self) -> usize {
        let used: usize = self.planned.iter().map(|p| p.n_tokens).sum();
        self.max_batch_tokens.saturating_sub(used)
    }

    /// Frees blocks until the running sequence at `at` can be extended to `end`: first from those that do not run,
    /// then from the youngest. False if only older ones are left; then it skips this step.
    fn make_room(&mut self, at: usize, end: usize) -> bool {
        while !self.kv.has_room(&self.running[at].holding, end) {
            if self.preempt_idle() {
                continue;
            }
            if self.running.len() == at + 1 {
                return false;
            }
            let Some(mut youngest) = self.running.pop() else { return false };
            // It may be in the plan already, since single rows are planned before chunks.
            self.planned.retain(|p| p.ticket != youngest.ticket);
            youngest.preempt();
            self.requeue(youngest);
        }
        true
    }

    /// Takes the blocks of the youngest sequence that holds some without running: a parked one before one that was
    /// resumed and waits for its place.
    fn preempt_idle(&mut self) -> bool {
        let holds = |s: &&mut Sequence| !s.holding.is_empty();
        let victim = match self.parked.iter_mut().rev().find(holds) {
            Some(parked) => Some(parked),
            None => self.waiting.iter_mut().rev().find(holds),
        };
        victim.map(Sequence::preempt).is_some()
    }

    fn park(&mut self, mut sequence: Sequence, now: Instant) {
        sequence.parked_at = Some(now);
        let at = self.parked.partition_point(|s| s.ticket < sequence.ticket);
        self.parked.insert(at, sequence);
    }

    fn requeue(&mut self, sequence: Sequence) {
        let at = self.waiting.partition_point(|s| s.ticket < sequence.ticket);
        self.waiting.insert(at, sequence);
    }

    fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let is_it = |s: &Sequence| s.id() == id;
        if let Some(at) = self.running.iter().position(is_it) {
            Some(self.running.remove(at))
        } else if let Some(at) = self.waiting.iter().position(is_it) {
            self.waiting.remove(at)
        } else {
            let at = self.parked.iter().position(is_it)?;
            Some(self.parked.remove(at))
        }
    }

    /// Frees the sequence, then says so.
    fn finish(&mut self, mut sequence: Sequence, reason: FinishReason, now: Instant) {
        sequence.holding = Holding::default();
        self.events.push(sequence.event(EventKind::Finished { reason, timings: sequence.timings(now) }));
    }

    fn fail(&mut self, mut sequence: Sequence, code: &'static str, message: String) {
        sequence.holding = Holding::default();
        self.events.push(sequence.event(EventKind::Failed { code, message }));
    }
}
