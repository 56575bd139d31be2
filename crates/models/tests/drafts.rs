//! Drafts on a real runner: a row that verifies a drafted token has the bits of the step that it saves, so that texts are
//! the same with and without them, and however prompts are cut beside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not seen as tests")]

mod runner;

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use runner::{Golden, TINY, fixtures, open};
use tsserve_engine::{
    ComputePool, Engine, EngineConfig, EngineStats, EventKind, EventSink, ModelRunner, Request, RunnerError,
    RunnerSpec, SamplingParams, SequenceEvent, SequenceId, Speculation, StepCosts, StepPlan, StepResults, TokenId,
};
use tsserve_models::candle::{CandleRunner, Dtype, RunnerDevice, RunnerOptions, kv_layout};

/// A runner that says its rows cost little beside its steps.
struct Costed(CandleRunner);

impl ModelRunner for Costed {
    fn spec(&self) -> &RunnerSpec {
        self.0.spec()
    }

    fn step_costs(&self) -> Option<StepCosts> {
        StepCosts::new([
            (1, Duration::from_millis(10)),
            (8, Duration::from_millis(11)),
            (48, Duration::from_millis(40)),
        ])
    }

    fn run(&mut self, plan: &StepPlan) -> Result<StepResults, RunnerError> {
        self.0.run(plan)
    }
}

struct Sink(Sender<Vec<SequenceEvent>>);

impl EventSink for Sink {
    fn emit(&mut self, events: Vec<SequenceEvent>) {
        let _ = self.0.send(events);
    }
}

/// The texts of the prompts, all added at once.
fn answers(
    name: &str,
    prompts: &[(Vec<TokenId>, SamplingParams)],
    drafts: bool,
) -> (HashMap<u64, Vec<TokenId>>, EngineStats) {
    let checkpoint = open(&fixtures().join("models").join(name));
    let options = RunnerOptions {
        device: RunnerDevice::cpu(),
        dtype: Dtype::F32,
        max_context: 512,
        max_batch_tokens: 64,
        kv_blocks: vec![64; kv_layout(&checkpoint.architecture, Dtype::F32).len()],
        plain_ops: false,
    };
    let runner = CandleRunner::load(&checkpoint, options, &mut |_, _| {}).unwrap();
    let (sender, batches) = channel();
    let config = EngineConfig {
        max_batch_tokens: 64,
        speculation: drafts.then(Speculation::default),
        inter_token_target: drafts.then_some(EngineConfig::INTER_TOKEN_TARGET),
        ..EngineConfig::default()
    };
    let engine = Engine::spawn(Box::new(Costed(runner)), config, Box::new(Sink(sender)), ComputePool::new());
    for (id, (prompt, sampling)) in prompts.iter().enumerate() {
        let request = Request {
            id: SequenceId(id as u64),
            prompt: prompt.as_slice().into(),
            max_new_tokens: 60 + id,
            end_tokens: [].into(),
            sampling: sampling.clone(),
            constraint: None,
            logprobs: None,
            prompt_logprobs: None,
            cache_salt: 0,
            credit: u32::MAX,
        };
        engine.add(request).unwrap();
    }
    let (mut texts, mut n_left) = (HashMap::<_, Vec<_>>::new(), prompts.len());
    while n_left > 0 {
        for event in batches.recv_timeout(Duration::from_secs(60)).unwrap() {
            match event.kind {
                EventKind::Tokens { tokens } => {
                    texts.entry(event.sequence.0).or_default().extend(tokens.iter().map(|output| output.token));
                }
                EventKind::Finished { .. } => n_left -= 1,
                EventKind::Failed { code, message } => panic!("{name}: {code}: {message}"),
                _ => {}
            }
        }
    }
    (texts, engine.stats())
}

#[test]
fn texts_are_the_same_with_and_without_drafts() {
    let mut n_accepted = 0;
    for name in TINY {
        let golden = Golden::load(&format!("golden/{name}.safetensors"));
        let prompt = |prompt: &str| -> Vec<TokenId> {
            // Twice: a text that has said before what it says.
            golden.ids(&format!("{prompt}.input_ids")).repeat(2)
        };
        let greedy = SamplingParams::default();
        let sampled = SamplingParams { temperature: 0.4, top_k: 20, seed: 7, ..greedy.clone() };
        let penalised = SamplingParams { frequency_penalty: 0.1, ..greedy.clone() };
        let prompts = [(prompt("a"), greedy), (prompt("b"), sampled), (prompt("c"), penalised)];
        let (with, stats) = answers(name, &prompts, true);
        let (without, none) = answers(name, &prompts, false);
        assert_eq!(with, without, "{name}");
        assert_eq!((none.drafted_tokens, none.accepted_tokens), (0, 0));
        assert!(stats.accepted_tokens <= stats.drafted_tokens, "{name}: {stats:?}");
        n_accepted += stats.accepted_tokens;
    }
    assert!(n_accepted > 50, "{n_accepted} drafted tokens were right");
}
