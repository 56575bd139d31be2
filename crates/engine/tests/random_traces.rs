//! Random requests, aborts, credits, failures and steps against a runner that answers from what its blocks hold. What
//! a request answers must be what it answers alone, whatever else happens, and in the end every block is free.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tsserve_engine::testing::{
    Failure, FailureSwitch, FakeModel, FakeRunner, Rng, Scheduler, SeededConstraint, fake_logits, step,
};
use tsserve_engine::{
    CacheGroup, CacheKind, Constraint, EngineConfig, EventKind, FinishReason, ModelRunner, Request, RowRole,
    RunnerError, RunnerSpec, SamplingParams, SequenceId, SequencePlan, Speculation, StepCosts, StepPlan, StepResults,
    TokenOutput,
};

const VOCAB: usize = 48;
const PARK_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything one trace needs to be run again.
struct World {
    spec: RunnerSpec,
    model: FakeModel,
    costs: Option<StepCosts>,
    config: EngineConfig,
}

/// What was seen of one request.
#[derive(Debug, Default)]
struct Seen {
    started: usize,
    cached: usize,
    computed: usize,
    prompt: Vec<TokenOutput>,
    tokens: Vec<TokenOutput>,
    end: Option<Result<FinishReason, &'static str>>,
}

/// Looks at every plan on its way to the runner.
struct Watched {
    runner: FakeRunner,
    max_tokens: usize,
    max_rows: usize,
    n_prompt: HashMap<SequenceId, usize>,
    /// Where each sequence's last step ended, without its draft.
    ends: HashMap<SequenceId, usize>,
    /// Where each sequence's last step ended that had a row for its last token.
    answered: HashMap<SequenceId, usize>,
    n_restarts: usize,
    n_repeated_rows: usize,
    n_forced_runs: usize,
    n_cut_chunks: usize,
}

/// Tokens of its draft: rows of an answer are asked for one token, or for those of a draft too.
fn n_drafted(part: &SequencePlan) -> usize {
    if part.role == RowRole::Decode { part.outputs.len().saturating_sub(1) } else { 0 }
}

impl ModelRunner for Watched {
    fn spec(&self) -> &RunnerSpec {
        self.runner.spec()
    }

    fn step_costs(&self) -> Option<StepCosts> {
        self.runner.step_costs()
    }

    fn roles_differ(&self) -> bool {
        self.runner.roles_differ()
    }

    fn run(&mut self, plan: &StepPlan) -> Result<StepResults, RunnerError> {
        assert!(plan.n_tokens() <= self.max_tokens, "over budget: {plan:?}");
        let block_size = self.spec().block_size;
        for part in &plan.sequences {
            let end = part.start + part.tokens.len() - n_drafted(part);
            assert!(n_drafted(part) == 0 || plan.n_tokens() <= self.max_rows, "too many drafts: {plan:?}");
            // Positions of the prompt are computed as such whenever they are, and those behind it as an answer's.
            let n_prompt = self.n_prompt[&part.sequence];
            let role = if part.start < n_prompt { RowRole::Prompt } else { RowRole::Decode };
            assert!(part.role == role && (role == RowRole::Decode || end <= n_prompt), "roles are mixed: {part:?}");
            // An answer goes on where it stands; chunks of what was known before begin at a border.
            let known = self.answered.get(&part.sequence).is_some_and(|&answered| part.start >= answered);
            self.n_forced_runs += usize::from(known && end > part.start + 1);
            let at_border = part.start % block_size == 0 || part.start == n_prompt;
            assert!(known || part.tokens.len() == 1 || at_border, "unaligned: {part:?}");
            self.n_cut_chunks +=
                usize::from(role == RowRole::Prompt && end < n_prompt && part.tokens.len() <= block_size);
            if part.outputs.last().is_some_and(|output| output.index + 1 == part.tokens.len()) {
                self.answered.insert(part.sequence, end);
            }
            if let Some(last) = self.ends.insert(part.sequence, end) {
                self.n_restarts += usize::from(part.start + 1 < last);
                self.n_repeated_rows += usize::from(part.start + 1 == last && part.tokens.len() == 1);
            }
        }
        self.runner.run(plan)
    }
}

struct Trace<'a> {
    world: &'a World,
    scheduler: Scheduler,
    runner: Watched,
    switch: FailureSwitch,
    now: Instant,
    requests: HashMap<SequenceId, Request>,
    granted: HashMap<SequenceId, u64>,
    seen: HashMap<SequenceId, Seen>,
    aborted: HashSet<SequenceId>,
    n_failures: usize,
}

fn below(rng: &mut Rng, n: usize) -> usize {
    (rng.next_f64() * n as f64) as usize
}

fn one_of<T: Clone>(rng: &mut Rng, choices: &[T]) -> T {
    choices[below(rng, choices.len())].clone()
}

/// The constraint of a request.
fn seeded(id: u64) -> SeededConstraint {
    SeededConstraint::new(id, VOCAB, [0, 0, 4][id as usize % 3], [3, 12, 1000][id as usize / 3 % 3])
}

fn with_processors(rng: &mut Rng, sampling: SamplingParams) -> SamplingParams {
    SamplingParams {
        sequence_bias: one_of(rng, &[vec![], vec![(Box::from([5]), 2.0), (Box::from([7, 9]), -3.0)]]).into(),
        repetition_penalty: one_of(rng, &[1.0, 1.2, 0.8]),
        presence_penalty: one_of(rng, &[0.0, 0.6]),
        frequency_penalty: one_of(rng, &[0.0, -0.3]),
        no_repeat_ngram_size: one_of(rng, &[0, 2, 3]),
        bad_words: one_of(rng, &[vec![], vec![Box::from([11]), Box::from([4, 8])]]).into(),
        min_new_tokens: one_of(rng, &[0, 6]),
        suppress_tokens: one_of(rng, &[vec![], vec![0, 1]]).into(),
        begin_suppress_tokens: one_of(rng, &[vec![], vec![2, 5]]).into(),
        typical_p: one_of(rng, &[1.0, 0.8]),
        ..sampling
    }
}

impl World {
    fn random(rng: &mut Rng) -> Self {
        use CacheKind::{Full, State, Window};
        let block_size = one_of(rng, &[1, 2, 4, 16]);
        let kinds = one_of(
            rng,
            &[
                vec![Full],
                vec![Full, Window(5)],
                vec![Window(3), Full, Window(9)],
                vec![Window(6)],
                vec![Window(1), Full],
                vec![Full, State],
                vec![Full],
                vec![Window(7), Full],
            ],
        );
        let groups: Vec<_> = kinds
            .into_iter()
            .map(|kind| CacheGroup {
                kind,
                n_blocks: match kind {
                    Full => 1 + (20 + below(rng, 80)).div_ceil(block_size),
                    Window(w) => w.div_ceil(block_size) + 1 + below(rng, 40 / block_size + 2),
                    State => 1 + below(rng, 3),
                },
            })
            .collect();
        Self {
            spec: RunnerSpec { vocab_size: VOCAB, block_size, max_context: 40 + below(rng, 40), groups },
            model: FakeModel {
                levels: one_of(rng, &[0, 3, 25]),
                roles: below(rng, 2) == 0,
                echoes: below(rng, 2) == 0,
            },
            // No table; one where drafts cost nothing, one where they cost something, and chunks much.
            costs: one_of(
                rng,
                &[
                    None,
                    StepCosts::new([(1, Duration::from_millis(2)), (1000, Duration::from_millis(3))]),
                    StepCosts::new([(1, Duration::from_millis(2)), (100, Duration::from_millis(24))])
                        .map(|costs| costs.with_context(Duration::from_millis(1), Duration::from_millis(1))),
                ],
            ),
            config: EngineConfig {
                max_num_seqs: 1 + below(rng, 5),
                max_batch_tokens: 1 + below(rng, 40),
                max_queue: 0,
                prefix_cache: below(rng, 5) > 0,
                park_timeout: PARK_TIMEOUT,
                inter_token_target: one_of(rng, &[None, Some(Duration::from_millis(4))]),
                speculation: one_of(
                    rng,
                    &[
                        Some(Speculation::default()),
                        Some(Speculation { min_ngram: 1, max_ngram: 1, max_rows: 5, max_sequences: 9 }),
                    ],
                ),
            },
        }
    }

    /// A request that fits. Prompts share their beginnings, so that there is something to reuse.
    fn request(&self, rng: &mut Rng, id: u64, context: usize) -> Request {
        let length = 1 + below(rng, (context - 1).min(45));
        let (family, shared) = (below(rng, 3) as u32, below(rng, length + 1));
        let own = rng.next_u64();
        let token =
            |i: usize| if i < shared { (i as u32 * 7 + family) % VOCAB as u32 } else { (own >> (i % 48)) as u32 % 32 };
        let sampling = match below(rng, 3) {
            0 => SamplingParams::default(),
            _ => SamplingParams {
                temperature: one_of(rng, &[0.3, 1.0]),
                top_k: one_of(rng, &[0, 1, 4, 40]),
                top_p: one_of(rng, &[1.0, 0.7]),
                min_p: one_of(rng, &[0.0, 0.1]),
                seed: rng.next_u64(),
                ..SamplingParams::default()
            },
        };
        let sampling = if below(rng, 3) == 0 { with_processors(rng, sampling) } else { sampling };
        let constrained = below(rng, 3) == 0;
        Request {
            id: SequenceId(id),
            prompt: (0..length).map(token).collect(),
            max_new_tokens: one_of(rng, &[0, 1, 5, 20, usize::MAX]),
            end_tokens: if below(rng, 4) == 0 { [].into() } else { [3].into() },
            sampling,
            constraint: constrained.then(|| Box::new(seeded(id)) as Box<dyn Constraint>),
            logprobs: one_of(rng, &[None, None, Some(0), Some(3)]),
            prompt_logprobs: one_of(rng, &[None, None, None, Some(2)]),
            cache_salt: one_of(rng, &[0, 0, 0, 1]),
            credit: one_of(rng, &[u32::MAX, u32::MAX, 0, 3]),
        }
    }
}

impl<'a> Trace<'a> {
    fn new(world: &'a World, config: &EngineConfig) -> Self {
        let runner = FakeRunner::of_model(world.spec.clone(), world.model, world.costs.clone());
        Self {
            world,
            scheduler: Scheduler::new(&runner, config),
            switch: runner.failure_switch(),
            runner: Watched {
                runner,
                max_tokens: config.max_batch_tokens.max(config.max_num_seqs + world.spec.block_size),
                max_rows: config.speculation.as_ref().map_or(0, |speculation| speculation.max_rows),
                n_prompt: HashMap::new(),
                ends: HashMap::new(),
                answered: HashMap::new(),
                n_restarts: 0,
                n_repeated_rows: 0,
                n_forced_runs: 0,
                n_cut_chunks: 0,
            },
            now: Instant::now(),
            requests: HashMap::new(),
            granted: HashMap::new(),
            seen: HashMap::new(),
            aborted: HashSet::new(),
            n_failures: 0,
        }
    }

    fn add(&mut self, request: Request) {
        self.granted.insert(request.id, request.credit.into());
        self.seen.insert(request.id, Seen::default());
        self.requests.insert(request.id, request.clone());
        self.runner.n_prompt.insert(request.id, request.prompt.len());
        self.scheduler.add(request, self.now);
    }

    fn grant(&mut self, id: SequenceId, credit: u32) {
        *self.granted.get_mut(&id).unwrap() += u64::from(credit);
        self.scheduler.grant(id, credit);
    }

    fn step(&mut self) -> bool {
        let now = self.now;
        let stepped = step(&mut self.scheduler, &mut self.runner, || now, |_| {});
        assert!(self.scheduler.n_running() <= self.world.config.max_num_seqs);
        let (total, free) = self.scheduler.block_counts();
        assert!(free <= total);
        self.collect();
        stepped
    }

    fn collect(&mut self) {
        for event in self.scheduler.take_events() {
            let request = &self.requests[&event.sequence];
            let seen = self.seen.get_mut(&event.sequence).unwrap();
            assert_eq!(seen.end, None, "{event:?} after the end");
            match event.kind {
                EventKind::Started { prompt_tokens, cached_tokens } => {
                    seen.started += 1;
                    seen.cached = cached_tokens;
                    assert_eq!(prompt_tokens, request.prompt.len());
                    assert!(cached_tokens < prompt_tokens);
                    assert!(cached_tokens == 0 || request.prompt_logprobs.is_none());
                }
                EventKind::Prefill { computed } => {
                    assert!(computed > seen.computed && computed <= request.prompt.len());
                    seen.computed = computed;
                }
                EventKind::Prompt { tokens } => seen.prompt.extend(tokens),
                EventKind::Tokens { tokens } => {
                    assert_eq!(seen.computed, request.prompt.len());
                    seen.tokens.extend(tokens);
                    assert!(seen.tokens.len() as u64 <= self.granted[&event.sequence]);
                }
                EventKind::Finished { reason, .. } => seen.end = Some(Ok(reason)),
                EventKind::Failed { code, .. } => seen.end = Some(Err(code)),
            }
            assert!(seen.started <= 1);
        }
    }

    fn random_action(&mut self, rng: &mut Rng, next_id: &mut u64) {
        let known = |rng: &mut Rng| SequenceId(below(rng, *next_id as usize + 1) as u64);
        match below(rng, 100) {
            0..15 => {
                let request = self.world.request(rng, *next_id, self.scheduler.context());
                self.add(request);
                *next_id += 1;
            }
            15..18 => {
                let id = known(rng);
                self.scheduler.abort(id, self.now);
                self.aborted.insert(id);
            }
            18..28 => {
                let id = known(rng);
                if self.requests.contains_key(&id) {
                    self.grant(id, one_of(rng, &[0, 1, 4, u32::MAX]));
                }
            }
            28..30 => {
                self.switch.set(one_of(rng, &[Failure::Error, Failure::MissingRow, Failure::NotFinite]));
                self.n_failures += 1;
            }
            30..33 => {
                self.now += PARK_TIMEOUT / 4;
                self.scheduler.expire(self.now);
            }
            _ => {
                self.step();
            }
        }
        self.collect();
    }

    /// Grants everybody everything and steps until all have ended.
    fn drain(&mut self) {
        let ids: Vec<_> = self.requests.keys().copied().collect();
        ids.iter().for_each(|&id| self.grant(id, u32::MAX));
        let mut n_steps = 0;
        while self.step() {
            n_steps += 1;
            assert!(n_steps < 100_000, "somebody starves: {:?}", self.scheduler);
        }
        assert!(!self.scheduler.is_runnable() && self.scheduler.n_parked() == 0, "stuck: {:?}", self.scheduler);
    }
}

/// What a request answers when nothing else runs, nothing is reused and nothing is drafted.
fn alone(world: &World, request: &Request) -> Seen {
    let config = EngineConfig {
        prefix_cache: false,
        max_batch_tokens: 1000,
        speculation: None,
        inter_token_target: None,
        ..world.config.clone()
    };
    let mut trace = Trace::new(world, &config);
    trace.add(Request { credit: u32::MAX, ..request.clone() });
    trace.drain();
    trace.seen.remove(&request.id).unwrap()
}

/// What a greedy request without processors answers by the model's own definition, without any engine.
fn greedy_by_definition(world: &World, request: &Request, n: usize) -> Vec<u32> {
    let mut tokens = request.prompt.to_vec();
    let mut constraint = request.constraint.is_some().then(|| seeded(request.id.0));
    for _ in 0..n {
        let logits = fake_logits(&world.spec, world.model, &tokens, request.prompt.len());
        let allowed = constraint.as_ref().map_or((0..VOCAB as u32).collect(), SeededConstraint::allowed);
        let best = allowed.iter().map(|&id| logits[id as usize]).fold(f32::NEG_INFINITY, f32::max);
        tokens.push(*allowed.iter().find(|&&id| logits[id as usize] == best).unwrap());
        if let Some(constraint) = &mut constraint {
            constraint.accept(tokens[tokens.len() - 1]).unwrap();
        }
    }
    tokens.split_off(request.prompt.len())
}

#[derive(Debug, Default)]
struct Totals {
    completed: usize,
    reused: usize,
    stalled: usize,
    failed: usize,
    tokens: usize,
    restarts: usize,
    repeated_rows: usize,
    constrained: usize,
    forced_runs: usize,
    cut_chunks: usize,
    drafted: u64,
    accepted: u64,
}

fn run_trace(seed: u64, totals: &mut Totals) {
    let mut rng = Rng::new(seed);
    let world = World::random(&mut rng);
    let mut trace = Trace::new(&world, &world.config);
    let mut next_id = 0;
    for _ in 0..150 {
        trace.random_action(&mut rng, &mut next_id);
    }
    trace.drain();
    let (total, free) = trace.scheduler.block_counts();
    assert_eq!(free, total, "blocks leak");
    totals.restarts += trace.runner.n_restarts;
    totals.repeated_rows += trace.runner.n_repeated_rows;
    totals.forced_runs += trace.runner.n_forced_runs;
    totals.cut_chunks += trace.runner.n_cut_chunks;
    let drafts = trace.scheduler.take_drafts();
    assert!(drafts.accepted <= drafts.drafted && (drafts.drafted == 0 || world.costs.is_some()));
    totals.drafted += drafts.drafted;
    totals.accepted += drafts.accepted;
    for (id, seen) in &trace.seen {
        let request = &trace.requests[id];
        let expected = alone(&world, request);
        totals.reused += usize::from(seen.cached > 0);
        totals.tokens += expected.tokens.len();
        assert!(expected.end.is_some_and(|end| end.is_ok()), "{request:?} alone: {expected:?}");
        let plain = SamplingParams { seed: request.sampling.seed, ..SamplingParams::default() };
        totals.constrained += usize::from(request.constraint.is_some());
        if request.sampling == plain {
            let ids: Vec<_> = expected.tokens.iter().map(|t| t.token).collect();
            assert_eq!(ids, greedy_by_definition(&world, request, ids.len()));
        }
        assert!(expected.tokens.starts_with(&seen.tokens), "{request:?}\n{seen:?}\nalone {expected:?}");
        assert!(expected.prompt.starts_with(&seen.prompt), "{request:?}\n{seen:?}\nalone {expected:?}");
        match seen.end.unwrap_or_else(|| panic!("{request:?} never ended")) {
            Ok(FinishReason::Aborted) => assert!(trace.aborted.contains(id)),
            Ok(_) => {
                assert_eq!(seen.end, expected.end);
                assert_eq!(seen.tokens, expected.tokens, "{request:?}");
                assert_eq!(seen.prompt, expected.prompt, "{request:?}");
                totals.completed += 1;
            }
            Err("client_stalled") => {
                assert_ne!(request.credit, u32::MAX);
                totals.stalled += 1;
            }
            Err("runner_device" | "runner_results" | "logits_not_finite") => {
                assert!(trace.n_failures > 0);
                totals.failed += 1;
            }
            Err(code) => panic!("{request:?} failed: {code}"),
        }
    }
}

#[test]
fn every_answer_is_the_one_given_alone() {
    let mut totals = Totals::default();
    for seed in 0..1200 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_trace(seed, &mut totals)));
        assert!(done.is_ok(), "the trace of seed {seed} fails");
    }
    // The traces do reach what they are meant to reach.
    let reached = [
        (totals.completed, 6000),
        (totals.reused, 1500),
        (totals.stalled, 100),
        (totals.failed, 200),
        (totals.tokens, 30_000),
        (totals.restarts, 100),
        (totals.repeated_rows, 100),
        (totals.constrained, 2000),
        (totals.forced_runs, 500),
        (totals.cut_chunks, 500),
        (totals.drafted as usize, 5000),
        (totals.accepted as usize, 2000),
    ];
    assert!(reached.iter().all(|(n, least)| n >= least), "{reached:?}");
}
