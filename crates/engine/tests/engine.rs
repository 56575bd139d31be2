//! The engine with its thread: what callers may rely on.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tsserve_engine::testing::{ChannelSink, Failure, FakeModel, FakeRunner};
use tsserve_engine::{
    AddError, CacheGroup, CacheKind, ComputePool, Engine, EngineConfig, EventKind, EventSink, FinishReason, Request,
    RunnerSpec, SamplingParams, SequenceEvent, SequenceId, StepCosts,
};

type Batches = Receiver<Vec<SequenceEvent>>;

fn spec() -> RunnerSpec {
    let group = |kind, n_blocks| CacheGroup { kind, n_blocks };
    RunnerSpec {
        vocab_size: 100,
        block_size: 4,
        max_context: 200,
        groups: vec![group(CacheKind::Full, 40), group(CacheKind::Window(10), 30)],
    }
}

fn config() -> EngineConfig {
    EngineConfig { max_num_seqs: 4, max_batch_tokens: 32, max_queue: 2, ..EngineConfig::default() }
}

fn spawn(runner: FakeRunner, config: EngineConfig) -> (Engine, Batches) {
    let (sender, batches) = channel();
    (Engine::spawn(Box::new(runner), config, Box::new(ChannelSink(sender)), ComputePool::new()), batches)
}

fn request(id: u64, n_prompt: u32, max_new_tokens: usize) -> Request {
    Request {
        id: SequenceId(id),
        prompt: (0..n_prompt).map(|i| (i * 13 + id as u32) % 100).collect(),
        max_new_tokens,
        end_tokens: [].into(),
        sampling: SamplingParams::default(),
        constraint: None,
        logprobs: None,
        prompt_logprobs: None,
        cache_salt: 0,
        credit: u32::MAX,
    }
}

/// The events until `n` sequences have ended.
fn until_ended(batches: &Batches, n: usize) -> Vec<SequenceEvent> {
    let mut events = Vec::new();
    while events.iter().filter(|e| is_end(e)).count() < n {
        events.extend(batches.recv_timeout(Duration::from_secs(60)).expect("the engine went silent"));
    }
    events
}

fn is_end(event: &SequenceEvent) -> bool {
    matches!(event.kind, EventKind::Finished { .. } | EventKind::Failed { .. })
}

fn end_of(events: &[SequenceEvent], id: u64) -> &EventKind {
    &events.iter().find(|e| e.sequence.0 == id && is_end(e)).expect("it has ended").kind
}

fn tokens_of(events: &[SequenceEvent], id: u64) -> Vec<u32> {
    let of_event = |event: &SequenceEvent| match &event.kind {
        EventKind::Tokens { tokens } if event.sequence.0 == id => tokens.iter().map(|t| t.token).collect(),
        _ => Vec::new(),
    };
    events.iter().flat_map(of_event).collect()
}

fn failure_code(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Failed { code, .. } => code,
        other => panic!("{other:?} is not a failure"),
    }
}

#[test]
fn a_request_runs_to_its_end_and_frees_everything() {
    let (engine, batches) = spawn(FakeRunner::new(spec(), 0), config());
    engine.add(request(1, 50, 7)).unwrap();
    let events = until_ended(&batches, 1);
    assert_eq!(events[0].kind, EventKind::Started { prompt_tokens: 50, cached_tokens: 0 });
    assert_eq!(events[1].kind, EventKind::Prefill { computed: 28 });
    assert_eq!(tokens_of(&events, 1).len(), 7);
    let EventKind::Finished { reason: FinishReason::Length, timings } = *end_of(&events, 1) else {
        panic!("{events:?}")
    };
    assert!(timings.queued > 0.0 && timings.prefill > 0.0 && timings.decode > 0.0, "{timings:?}");
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.parked), (0, 0, 0));
    assert_eq!((stats.free_blocks, stats.total_blocks), (70, 70));
    assert_eq!(stats.steps, 2 + 6);
}

#[test]
fn any_of_its_end_tokens_ends_it() {
    let (engine, batches) = spawn(FakeRunner::new(spec(), 0), config());
    engine.add(request(1, 9, 20)).unwrap();
    let tokens = tokens_of(&until_ended(&batches, 1), 1);
    let n = 1 + tokens.iter().position(|&t| t == tokens[4]).unwrap();
    let with_ends = |id, end_tokens| Request { id: SequenceId(id), end_tokens, ..request(1, 9, 20) };
    // One that never comes ends nothing.
    let absent = (0..).find(|id| !tokens.contains(id)).unwrap();
    engine.add(with_ends(2, [absent, tokens[4]].into())).unwrap();
    engine.add(with_ends(3, [absent].into())).unwrap();
    let events = until_ended(&batches, 2);
    assert!(matches!(end_of(&events, 2), EventKind::Finished { reason: FinishReason::Stop, .. }));
    assert_eq!(tokens_of(&events, 2), tokens[..n]);
    assert_eq!(tokens_of(&events, 3), tokens);
}

#[test]
fn seeds_decide_and_company_does_not() {
    let sampled = |id, seed| Request {
        id: SequenceId(id),
        sampling: SamplingParams { temperature: 1.0, top_p: 0.9, seed, ..SamplingParams::default() },
        ..request(1, 30, 12)
    };
    let (engine, batches) = spawn(FakeRunner::new(spec(), 0), config());
    engine.add(sampled(1, 7)).unwrap();
    let alone = tokens_of(&until_ended(&batches, 1), 1);
    (2..=4).for_each(|id| engine.add(sampled(id, 5 + id)).unwrap());
    engine.add(request(5, 44, 30)).unwrap();
    let events = until_ended(&batches, 4);
    assert_eq!(tokens_of(&events, 2), alone);
    assert_ne!(tokens_of(&events, 3), alone);
}

#[test]
fn what_can_never_run_is_refused_at_once() {
    let (engine, _batches) = spawn(FakeRunner::new(spec(), 0), config());
    // 40 blocks of 4 positions hold less than the runner could compute.
    assert_eq!(engine.max_context(), 160);
    let context = |prompt_tokens| Err(AddError::ContextLength { prompt_tokens, max_context: 160 });
    assert_eq!(engine.add(request(1, 160, 1)), context(160));
    assert_eq!(engine.add(request(1, 161, 0)), context(161));
    assert_eq!(engine.add(request(1, 0, 1)), Err(AddError::EmptyPrompt));
    let outside = Request { prompt: [5, 100].into(), ..request(1, 1, 1) };
    assert_eq!(engine.add(outside), Err(AddError::TokenOutOfVocab { token: 100, vocab_size: 100 }));
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    let refused = |sampling| match engine.add(Request { sampling, ..request(1, 1, 1) }) {
        Err(AddError::InvalidParameter { param, .. }) => param,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(SamplingParams { temperature: f32::NAN, ..sampling.clone() }), "temperature");
    assert_eq!(refused(SamplingParams { temperature: -1.0, ..sampling.clone() }), "temperature");
    assert_eq!(refused(SamplingParams { top_p: 0.0, ..sampling.clone() }), "top_p");
    assert_eq!(refused(SamplingParams { min_p: 1.5, ..sampling.clone() }), "min_p");
    let codes =
        [AddError::EmptyPrompt, AddError::Closed, AddError::QueueFull { waiting: 0, retry_after: Duration::ZERO }];
    assert_eq!(codes.map(|e| e.code()), ["empty_prompt", "closed", "queue_full"]);
    assert_eq!(context(1).unwrap_err().code(), "context_length_exceeded");
}

#[test]
fn a_full_queue_refuses_and_takes_again() {
    let mut runner = FakeRunner::new(spec(), 0);
    let gate = runner.gate();
    let (engine, batches) = spawn(runner, config());
    // Four places and a queue of two.
    (0..6).for_each(|id| engine.add(request(id, 5, 3)).unwrap());
    let Err(AddError::QueueFull { waiting, retry_after }) = engine.add(request(6, 5, 3)) else { panic!("accepted") };
    assert_eq!(waiting, 2);
    assert!(retry_after >= Duration::from_secs(1) && retry_after <= Duration::from_secs(60));
    let stats = engine.stats();
    assert_eq!(stats.running + stats.waiting, 6);
    drop(gate);
    until_ended(&batches, 6);
    engine.add(request(7, 5, 3)).unwrap();
    until_ended(&batches, 1);
}

#[test]
fn an_abort_during_a_step_ends_the_sequence_with_it() {
    let mut runner = FakeRunner::new(spec(), 0);
    let gate = runner.gate();
    let (engine, batches) = spawn(runner, config());
    engine.add(request(1, 90, 50)).unwrap();
    engine.add(request(2, 5, 2)).unwrap();
    // The first step may or may not have request 2 in it; the abort is seen before the second.
    gate.send(()).unwrap();
    batches.recv().unwrap();
    engine.abort(SequenceId(1));
    engine.abort(SequenceId(99));
    drop(gate);
    let events = until_ended(&batches, 2);
    assert!(matches!(end_of(&events, 1), EventKind::Finished { reason: FinishReason::Aborted, .. }));
    assert_eq!(tokens_of(&events, 1), []);
    assert_eq!(engine.stats().free_blocks, 70);
}

#[test]
fn a_panic_fails_its_step_and_the_engine_lives_on() {
    let runner = FakeRunner::new(spec(), 0);
    let switch = runner.failure_switch();
    let (engine, batches) = spawn(runner, config());
    engine.add(request(1, 20, 4)).unwrap();
    let expected = tokens_of(&until_ended(&batches, 1), 1);
    for (failure, code) in [
        (Failure::Panic, "runner_panic"),
        (Failure::Error, "runner_device"),
        (Failure::MissingRow, "runner_results"),
        (Failure::NotFinite, "logits_not_finite"),
    ] {
        switch.set(failure);
        engine.add(Request { cache_salt: 1, ..request(2, 20, 4) }).unwrap();
        assert_eq!(failure_code(end_of(&until_ended(&batches, 1), 2)), code);
        assert_eq!(engine.stats().free_blocks, 70);
        // The same prompt again: what the failed step left in its blocks must not be reused.
        engine.add(Request { id: SequenceId(3), cache_salt: 1, ..request(1, 20, 4) }).unwrap();
        assert_eq!(tokens_of(&until_ended(&batches, 1), 3), expected);
    }
}

#[test]
fn without_credit_it_waits_and_then_times_out() {
    let park_timeout = Duration::from_millis(30);
    let (engine, batches) = spawn(FakeRunner::new(spec(), 0), EngineConfig { park_timeout, ..config() });
    engine.add(Request { credit: 2, ..request(1, 9, 20) }).unwrap();
    let events = until_ended(&batches, 1);
    assert_eq!(tokens_of(&events, 1).len(), 2);
    assert_eq!(failure_code(end_of(&events, 1)), "client_stalled");

    let (engine, batches) = spawn(FakeRunner::new(spec(), 0), config());
    engine.add(Request { credit: 2, ..request(1, 9, 5) }).unwrap();
    let mut events = Vec::new();
    while tokens_of(&events, 1).len() < 2 {
        events.extend(batches.recv().unwrap());
    }
    // Others run on meanwhile.
    engine.add(request(2, 9, 5)).unwrap();
    until_ended(&batches, 1);
    assert_eq!(engine.stats().parked, 1);
    engine.grant(SequenceId(1), 3);
    events.extend(until_ended(&batches, 1));
    assert_eq!(tokens_of(&events, 1).len(), 5);
}

#[test]
fn dropping_the_engine_fails_what_runs() {
    let (engine, batches) = spawn(FakeRunner::new(spec(), 0), config());
    // Neither can end by itself: one is parked after a token, the other computes its prompt and has no credit then.
    engine.add(Request { credit: 1, ..request(1, 9, 100) }).unwrap();
    batches.recv().unwrap();
    engine.add(Request { credit: 0, ..request(2, 150, 5) }).unwrap();
    drop(engine);
    let events: Vec<_> = batches.iter().flatten().collect();
    let codes: Vec<_> = events.iter().filter(|e| is_end(e)).map(|e| failure_code(&e.kind)).collect();
    assert_eq!(codes, ["closed", "closed"]);
}

#[test]
fn two_engines_take_turns_on_one_pool() {
    let pool = ComputePool::new();
    let engines: Vec<_> = (0..2)
        .map(|_| {
            let (sender, batches) = channel();
            let runner = Box::new(FakeRunner::new(spec(), 0));
            (Engine::spawn(runner, config(), Box::new(ChannelSink(sender)), pool.clone()), batches)
        })
        .collect();
    engines.iter().for_each(|(engine, _)| engine.add(request(1, 50, 60)).unwrap());
    let answers: Vec<_> = engines.iter().map(|(_, batches)| tokens_of(&until_ended(batches, 1), 1)).collect();
    assert_eq!(answers[0].len(), 60);
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn drafts_are_counted_and_save_steps() {
    let costs = StepCosts::new([(1, Duration::from_millis(10)), (100, Duration::from_millis(11))]);
    let model = FakeModel { levels: 3, echoes: true, ..FakeModel::default() };
    let (engine, batches) = spawn(FakeRunner::of_model(spec(), model, costs), config());
    engine.add(request(1, 9, 100)).unwrap();
    assert_eq!(tokens_of(&until_ended(&batches, 1), 1).len(), 100);
    let stats = engine.stats();
    assert!(stats.accepted_tokens > 0 && stats.accepted_tokens <= stats.drafted_tokens, "{stats:?}");
    assert_eq!(stats.steps + stats.accepted_tokens, 100);
}

/// A sink that panics once.
struct BrokenOnce(AtomicBool, ChannelSink);

impl EventSink for BrokenOnce {
    fn emit(&mut self, events: Vec<SequenceEvent>) {
        assert!(self.0.swap(true, Ordering::Relaxed), "on purpose");
        self.1.emit(events);
    }
}

#[test]
fn a_panic_of_the_receiver_does_not_end_the_engine() {
    let (sender, batches) = channel();
    let sink = Box::new(BrokenOnce(AtomicBool::new(false), ChannelSink(sender)));
    let engine = Engine::spawn(Box::new(FakeRunner::new(spec(), 0)), config(), sink, ComputePool::new());
    engine.add(request(1, 5, 3)).unwrap();
    until_ended(&batches, 1);
    engine.add(request(2, 5, 3)).unwrap();
    assert_eq!(tokens_of(&until_ended(&batches, 1), 2).len(), 3);
}
