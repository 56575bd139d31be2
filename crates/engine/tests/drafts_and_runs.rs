//! Steps of several rows of one answer: drafts that are verified, tokens that are forced. They save steps and change
//! nothing else.

use std::time::{Duration, Instant};

use tsserve_engine::testing::{FakeModel, FakeRunner, Scheduler, SeededConstraint, step};
use tsserve_engine::{
    CacheGroup, CacheKind, Constraint, ConstraintError, EngineConfig, EventKind, FinishReason, ModelRunner, Next,
    Request, RowRole, RowWant, RunnerError, RunnerSpec, SamplingParams, SequenceId, SequencePlan, Speculation,
    StepCosts, StepPlan, StepResults, TokenId, TokenOutput, TokenSet,
};

const VOCAB: usize = 24;

/// A runner whose texts repeat themselves, and the plans it was given.
struct Recorder {
    runner: FakeRunner,
    plans: Vec<StepPlan>,
}

impl ModelRunner for Recorder {
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
        self.plans.push(plan.clone());
        self.runner.run(plan)
    }
}

struct World {
    scheduler: Scheduler,
    recorder: Recorder,
    now: Instant,
    tokens: Vec<Vec<TokenOutput>>,
    ends: Vec<Option<Result<FinishReason, &'static str>>>,
    cached: Vec<usize>,
}

/// Rows that cost next to nothing.
fn cheap() -> Option<StepCosts> {
    StepCosts::new([(1, Duration::from_millis(10)), (100, Duration::from_millis(11))])
}

impl World {
    fn new(costs: Option<StepCosts>, config: &EngineConfig) -> Self {
        let group = |kind, n_blocks| CacheGroup { kind, n_blocks };
        let spec = RunnerSpec {
            vocab_size: VOCAB,
            block_size: 4,
            max_context: 120,
            groups: vec![group(CacheKind::Full, 60), group(CacheKind::Window(9), 40)],
        };
        let model = FakeModel { levels: 9, roles: true, echoes: true };
        let recorder = Recorder { runner: FakeRunner::of_model(spec, model, costs), plans: Vec::new() };
        let scheduler = Scheduler::new(&recorder, config);
        let (tokens, ends, cached) = (Vec::new(), Vec::new(), Vec::new());
        Self { scheduler, recorder, now: Instant::now(), tokens, ends, cached }
    }

    /// A world that drafts, or one that does not.
    fn drafting(drafts: bool) -> Self {
        let speculation = drafts.then(Speculation::default);
        Self::new(cheap(), &EngineConfig { speculation, ..EngineConfig::default() })
    }

    /// Adds a request under the next id.
    fn add(&mut self, request: Request) -> usize {
        let id = self.tokens.len();
        self.tokens.push(Vec::new());
        self.ends.push(None);
        self.cached.push(0);
        self.scheduler.add(Request { id: SequenceId(id as u64), ..request }, self.now);
        id
    }

    fn step(&mut self) -> bool {
        let now = self.now;
        let stepped = step(&mut self.scheduler, &mut self.recorder, || now, |_| {});
        for event in self.scheduler.take_events() {
            let id = event.sequence.0 as usize;
            match event.kind {
                EventKind::Started { cached_tokens, .. } => self.cached[id] = cached_tokens,
                EventKind::Tokens { tokens } => self.tokens[id].extend(tokens),
                EventKind::Finished { reason, .. } => self.ends[id] = Some(Ok(reason)),
                EventKind::Failed { code, .. } => self.ends[id] = Some(Err(code)),
                EventKind::Prefill { .. } | EventKind::Prompt { .. } => {}
            }
        }
        stepped
    }

    /// Steps until nothing runs; how many there were.
    fn drain(&mut self) -> usize {
        let n = (0..1000).take_while(|_| self.step()).count();
        let (total, free) = self.scheduler.block_counts();
        assert_eq!((free, self.scheduler.is_runnable()), (total, false), "blocks leak");
        n
    }

    fn ids(&self, id: usize) -> Vec<TokenId> {
        self.tokens[id].iter().map(|output| output.token).collect()
    }

    /// The parts of all plans, the sequence's in order.
    fn parts(&self, id: usize) -> impl Iterator<Item = &SequencePlan> {
        let parts = self.recorder.plans.iter().flat_map(|plan| &plan.sequences);
        parts.filter(move |part| part.sequence.0 as usize == id)
    }
}

fn prompt(seed: u32, length: u32) -> Box<[TokenId]> {
    (0..length).map(|i| (i * (seed + 5) + i * i * seed) % VOCAB as u32).collect()
}

fn request(seed: u32) -> Request {
    Request {
        id: SequenceId(0),
        prompt: prompt(seed, 17).into(),
        max_new_tokens: 80,
        end_tokens: [].into(),
        sampling: SamplingParams::default(),
        constraint: None,
        logprobs: None,
        prompt_logprobs: None,
        cache_salt: 0,
        credit: u32::MAX,
    }
}

/// Requests of every kind, by name.
fn kinds(seed: u32) -> Vec<(&'static str, Request)> {
    let greedy = SamplingParams::default();
    let sampled = SamplingParams { temperature: 0.7, seed: seed.into(), ..greedy.clone() };
    let with = |sampling: &SamplingParams| Request { sampling: sampling.clone(), ..request(seed) };
    let few = |n_free, length| {
        Some(Box::new(SeededConstraint::new(seed.into(), VOCAB, n_free, length)) as Box<dyn Constraint>)
    };
    vec![
        ("greedy", with(&greedy)),
        ("sampled", with(&sampled)),
        ("top_k", with(&SamplingParams { top_k: 3, ..sampled.clone() })),
        ("top_p", with(&SamplingParams { top_p: 0.9, min_p: 0.01, ..sampled.clone() })),
        ("penalties", with(&SamplingParams { repetition_penalty: 1.1, frequency_penalty: 0.05, ..greedy.clone() })),
        ("sampled penalties", with(&SamplingParams { presence_penalty: 0.3, ..sampled.clone() })),
        ("no repeats", with(&SamplingParams { no_repeat_ngram_size: 5, ..greedy.clone() })),
        ("first token", with(&SamplingParams { begin_suppress_tokens: [1, 2, 3].into(), ..sampled.clone() })),
        ("end tokens", Request { end_tokens: [seed % 24, 7].into(), ..with(&greedy) }),
        (
            "min tokens",
            Request { end_tokens: [4, 7, 9].into(), ..with(&SamplingParams { min_new_tokens: 30, ..greedy.clone() }) },
        ),
        ("log-probabilities", Request { logprobs: Some(3), ..with(&greedy) }),
        ("sampled log-probabilities", Request { logprobs: Some(0), prompt_logprobs: Some(1), ..with(&sampled) }),
        ("constraint", Request { constraint: few(0, 1000), ..with(&greedy) }),
        ("sampled constraint", Request { constraint: few(12, 60), ..with(&sampled) }),
        (
            "constraint, penalties",
            Request {
                constraint: few(40, 1000),
                ..with(&SamplingParams { repetition_penalty: 1.2, ..greedy.clone() })
            },
        ),
        ("constraint, log-probabilities", Request { constraint: few(9, 1000), logprobs: Some(2), ..with(&greedy) }),
        ("few tokens", Request { max_new_tokens: 23, ..with(&greedy) }),
        ("whole context", Request { max_new_tokens: usize::MAX, ..with(&greedy) }),
    ]
}

#[test]
fn an_answer_is_the_same_with_and_without_drafts() {
    let (mut n_steps, mut n_without) = (0, 0);
    for seed in 1..12 {
        for (name, request) in kinds(seed) {
            let [with, without] = [true, false].map(|drafts| {
                let mut world = World::drafting(drafts);
                world.add(request.clone());
                let n = world.drain();
                (world, n)
            });
            assert_eq!(with.0.tokens, without.0.tokens, "{name}, seed {seed}");
            assert_eq!(with.0.ends, without.0.ends, "{name}, seed {seed}");
            assert!(with.0.ends[0].is_some_and(|end| end.is_ok()), "{name}: {:?}", with.0.ends);
            assert!(with.1 <= without.1, "{name}: {} steps instead of {}", with.1, without.1);
            n_steps += with.1;
            n_without += without.1;
        }
    }
    assert!(n_steps * 4 < n_without * 3, "{n_steps} steps instead of {n_without}");
}

#[test]
fn every_kind_of_request_is_drafted_for() {
    for (name, _) in kinds(0) {
        let accepted = (1..12).map(|seed| {
            let mut world = World::drafting(true);
            world.add(kinds(seed).into_iter().find(|(other, _)| *other == name).unwrap().1);
            world.drain();
            world.scheduler.take_drafts().accepted
        });
        // Not where all logits would be asked for log-probabilities under a constraint.
        let accepted: u64 = accepted.sum();
        assert_eq!(accepted > 0, name != "constraint, log-probabilities", "{name}: {accepted}");
    }
}

/// Rows are asked for by what the position needs, as if there were no draft.
#[test]
fn drafted_rows_show_no_more_than_others() {
    for (name, request) in kinds(3).into_iter().filter(|(_, request)| request.constraint.is_none()) {
        let mut world = World::drafting(true);
        world.add(request);
        world.drain();
        for part in world.parts(0).filter(|part| part.role == RowRole::Decode && part.outputs.len() > 1) {
            let wants: Vec<_> = part.outputs.iter().map(|output| output.want.clone()).collect();
            if name == "greedy" {
                assert!(wants.iter().all(|want| *want == RowWant::ArgMax), "{wants:?}");
            }
            let indices: Vec<_> = part.outputs.iter().map(|output| output.index).collect();
            assert_eq!(indices, (0..part.tokens.len()).collect::<Vec<_>>(), "{name}");
            // Min tokens and first tokens end to matter in the middle of a draft or before it.
            let full = wants.iter().rposition(|want| *want == RowWant::Full);
            assert!(name != "min tokens" || full.is_none_or(|last| wants[..last].iter().all(|w| *w == RowWant::Full)));
        }
    }
}

#[test]
fn nothing_is_drafted_without_a_table_or_in_a_full_batch() {
    let drafted = |costs, n: u32, speculation| {
        let mut world = World::new(costs, &EngineConfig { speculation, ..EngineConfig::default() });
        (0..n).for_each(|seed| _ = world.add(Request { max_new_tokens: 60, ..request(seed) }));
        world.drain();
        // While that many run.
        let full = |plan: &&StepPlan| plan.sequences.len() == n as usize;
        let plans = world.recorder.plans.iter().filter(full);
        plans.filter(|plan| plan.sequences.iter().any(|part| part.outputs.len() > 1)).count()
    };
    let usual = || Some(Speculation::default());
    assert_eq!(drafted(None, 1, usual()), 0);
    assert_eq!(drafted(cheap(), 1, None), 0);
    // Rows that cost what a step costs.
    let dear = StepCosts::new([(1, Duration::from_millis(1)), (8, Duration::from_millis(8))]);
    assert_eq!(drafted(dear, 1, usual()), 0);
    assert!((1..4).all(|n| drafted(cheap(), n, usual()) > 0));
    assert_eq!(drafted(cheap(), 4, usual()), 0);
    assert!(drafted(cheap(), 4, Some(Speculation { max_sequences: 5, ..Speculation::default() })) > 0);
}

#[test]
fn rows_of_a_step_with_drafts_are_bounded() {
    let mut world = World::drafting(true);
    (0..3).for_each(|seed| _ = world.add(request(seed)));
    // Prompts come in while others are drafted for.
    (0..30).for_each(|_| _ = world.step());
    world.add(request(9));
    world.drain();
    let drafts = |plan: &&StepPlan| plan.sequences.iter().any(|s| s.role == RowRole::Decode && s.outputs.len() > 1);
    let drafting: Vec<_> = world.recorder.plans.iter().filter(drafts).collect();
    assert!(drafting.iter().any(|plan| plan.n_tokens() == 8));
    assert!(drafting.iter().all(|plan| plan.n_tokens() <= 8));
    assert!(drafting.iter().all(|plan| plan.sequences.iter().all(|part| part.role == RowRole::Decode)));
}

#[test]
fn a_draft_is_not_longer_than_the_credit() {
    let alone = {
        let mut world = World::drafting(false);
        world.add(request(2));
        world.drain();
        world.ids(0)
    };
    let mut world = World::drafting(true);
    let id = world.add(Request { credit: 3, ..request(2) });
    let mut granted = 3;
    while world.ends[id].is_none() {
        let n_steps = (0..200).take_while(|_| world.step()).count();
        assert!(n_steps < 200);
        assert_eq!(world.tokens[id].len(), granted.min(alone.len()), "neither more nor less than was granted");
        let more = 1 + granted % 7;
        world.scheduler.grant(SequenceId(id as u64), more as u32);
        granted += more;
    }
    assert_eq!(world.ids(id), alone);
    assert!(world.scheduler.take_drafts().accepted > 0);
}

/// What is computed for a draft is never found as anybody's prefix, and an abort in its middle frees its blocks.
#[test]
fn only_what_was_right_is_cached() {
    let mut world = World::drafting(true);
    world.add(request(2));
    while world.tokens[0].len() < 50 {
        assert!(world.step(), "it has ended: {:?}", world.ends);
    }
    world.scheduler.abort(SequenceId(0), world.now);
    world.drain();
    assert!(world.scheduler.take_drafts().accepted > 0);
    // The same again, and one whose prompt goes on as the answer did and then differs: both answer as in a world
    // without drafts and without a cache.
    let answer = world.ids(0);
    let longer = |n: usize| -> Request {
        let tokens: Vec<_> = request(2).prompt.iter().copied().chain(answer[..n].iter().copied()).chain([1]).collect();
        Request { prompt: tokens.into(), ..request(2) }
    };
    for (other, n_cached) in [(request(2), 16), (longer(13), 16), (longer(30), 28)] {
        let mut fresh =
            World::new(None, &EngineConfig { prefix_cache: false, speculation: None, ..EngineConfig::default() });
        fresh.add(other.clone());
        fresh.drain();
        // Blocks of prompts are found, the last time those of the prompt before, but none of the answer: they were computed
        // in another role.
        let id = world.add(other);
        world.drain();
        assert_eq!(world.cached[id], n_cached);
        assert_eq!(world.ids(id), fresh.ids(0));
    }
}

/// Tokens by number: `Some` is the only one allowed, `None` leaves the choice.
#[derive(Debug, Clone)]
struct Scripted {
    script: Vec<Option<TokenId>>,
    at: usize,
}

impl Scripted {
    fn left(&self) -> &[Option<TokenId>] {
        &self.script[self.at..]
    }
}

impl Constraint for Scripted {
    fn next(&mut self) -> Result<Next, ConstraintError> {
        Ok(match self.left() {
            [] => Next::Done,
            [Some(token), ..] => Next::Few([*token].into()),
            [None, ..] => Next::Many,
        })
    }

    fn mask(&mut self) -> Result<TokenSet, ConstraintError> {
        Ok((0..VOCAB as u32).collect())
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        match self.left() {
            [Some(only), ..] if *only != token => Err(ConstraintError { message: format!("{token} is not {only}") }),
            [] => Err(ConstraintError { message: "nothing is left".into() }),
            _ => {
                self.at += 1;
                Ok(())
            }
        }
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, ConstraintError> {
        Ok(self.left().iter().map_while(|token| *token).collect())
    }

    fn clone_box(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

fn script(runs: &[usize]) -> Vec<Option<TokenId>> {
    let run = |(n, &length): (usize, &usize)| {
        std::iter::once(None).chain((0..length).map(move |i| Some(((i * 7 + n * 3) % VOCAB) as TokenId)))
    };
    runs.iter().enumerate().flat_map(run).collect()
}

#[test]
fn a_forced_run_is_one_step() {
    // Runs across borders of blocks and of chunks, and longer than a draft may be.
    let runs = [5, 0, 1, 21, 3];
    for costs in [None, cheap()] {
        let mut world = World::new(costs, &EngineConfig { speculation: None, ..EngineConfig::default() });
        let constraint = Scripted { script: script(&runs), at: 0 };
        world.add(Request { constraint: Some(Box::new(constraint)), ..request(4) });
        // One step for each token that is chosen. What follows the last one is not computed.
        assert_eq!(world.drain(), runs.len());
        assert_eq!(world.ends[0], Some(Ok(FinishReason::Stop)));
        assert_eq!(world.tokens[0].len(), runs.len() + runs.iter().sum::<usize>());
        let rows: Vec<_> = world.parts(0).map(|part| (part.role, part.tokens.len(), part.outputs.len())).collect();
        let decode = |n_forced: usize| (RowRole::Decode, 1 + n_forced, 1);
        assert_eq!(rows, [(RowRole::Prompt, 17, 1), decode(5), decode(0), decode(1), decode(21)]);
    }
}

/// A run goes with the single rows, before a prompt that would take the whole step.
#[test]
fn a_forced_run_does_not_wait_for_a_prompt() {
    let config = EngineConfig { max_num_seqs: 2, max_batch_tokens: 26, speculation: None, ..EngineConfig::default() };
    let mut world = World::new(cheap(), &config);
    // The prompt is older than the answer's runs.
    let arriving = world.add(Request { prompt: prompt(3, 100).into(), max_new_tokens: 1, ..request(3) });
    world.step();
    let constraint = Scripted { script: script(&[2, 4, 1]), at: 0 };
    let answering =
        world.add(Request { constraint: Some(Box::new(constraint)), prompt: prompt(4, 2).into(), ..request(4) });
    world.drain();
    let rows = |plan: &StepPlan, id: usize| {
        let part = plan.sequences.iter().find(|part| part.sequence.0 as usize == id);
        part.map_or(0, |part| part.tokens.len())
    };
    let rows: Vec<_> = world.recorder.plans.iter().map(|plan| (rows(plan, arriving), rows(plan, answering))).collect();
    assert_eq!(rows, [(24, 0), (24, 2), (20, 3), (20, 5), (12, 0)]);
}

#[test]
fn drafts_and_forced_runs_go_together() {
    // What is forced repeats itself, and so does what is chosen between.
    let runs = [3, 3, 3, 3, 3, 3, 3, 3];
    let cycle = script(&runs[..1]);
    let constraint = Scripted { script: cycle.iter().copied().cycle().take(32).collect(), at: 0 };
    let wanted = Request { constraint: Some(Box::new(constraint)), ..request(4) };
    let [with, without] = [true, false].map(|drafts| {
        let mut world = World::drafting(drafts);
        world.add(wanted.clone());
        let n = world.drain();
        (world.ids(0), n)
    });
    assert_eq!(with.0, without.0);
    assert_eq!(without.1, runs.len());
    assert!(with.1 < without.1, "{} steps", with.1);
}
