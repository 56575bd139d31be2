//! The scheduler as traces: each file of `traces/` is a script, and behind `>` what came of each line. A new case is a
//! new file; `UPDATE_TRACES=1` writes what comes, to be read before it is committed.
//!
//! `engine seqs=2 batch=20 block=4 full=8 window6=8 context=64 cache=off` sets up (groups in the order named; `roles`,
//! `echoes`, `levels` and `vocab` say what the model is like, `costs=1:2,16:10` that a row takes 2 ms and 16 take 10),
//! `add a 10 new=3 credit=2 like=b:8 salt=1 prompt_logprobs top_k=4` adds a prompt of 10 tokens, the first 8 of them
//! those of `b`, `step [n]`, `abort a`, `grant a 2`, `wait 5` (seconds; the park timeout is 10), `fail error|panic|row|nan`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tsserve_engine::testing::{Failure, FailureSwitch, FakeModel, FakeRunner, Scheduler, StepFailure};
use tsserve_engine::{
    CacheGroup, CacheKind, EngineConfig, EventKind, ModelRunner, Request, RowRole, RowWant, RunnerSpec, SamplingParams,
    SequenceId, StepCosts, StepPlan,
};

const VOCAB: usize = 1000;

#[test]
fn traces() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().for_each(|path| check(path));
}

fn check(path: &Path) {
    let expected = std::fs::read_to_string(path).unwrap();
    let mut script = Script::default();
    let mut actual = String::new();
    for line in expected.lines().filter(|line| !line.starts_with('>')) {
        writeln!(actual, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with('#') {
            let output = script.obey(line);
            output.lines().for_each(|line| writeln!(actual, "> {line}").unwrap());
        }
    }
    if std::env::var_os("UPDATE_TRACES").is_some() {
        std::fs::write(path, actual).unwrap();
    } else {
        assert_eq!(actual, expected, "{}", path.display());
    }
}

#[derive(Default)]
struct Script {
    engine: Option<EngineUnderTest>,
    names: Vec<String>,
    prompts: HashMap<String, Vec<u32>>,
}

struct EngineUnderTest {
    scheduler: Scheduler,
    runner: FakeRunner,
    switch: FailureSwitch,
    now: Instant,
}

impl Script {
    fn obey(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let options: HashMap<&str, &str> = words[1..].iter().filter_map(|word| word.split_once('=')).collect();
        if words[0] == "engine" {
            self.engine = Some(set_up(&words[1..], &options));
            return String::new();
        }
        if words[0] == "add" {
            let request = self.request(&words, &options);
            let engine = self.engine.as_mut().unwrap();
            engine.scheduler.add(request, engine.now);
            return String::new();
        }
        let id = |name: &str| SequenceId(self.names.iter().position(|n| n == name).unwrap() as u64);
        let engine = self.engine.as_mut().unwrap();
        let mut output = String::new();
        match words[0] {
            "step" => {
                for _ in 0..words.get(1).map_or(1, |n| n.parse().unwrap()) {
                    step(engine, &self.names, &mut output);
                }
                return output;
            }
            "abort" => engine.scheduler.abort(id(words[1]), engine.now),
            "grant" => engine.scheduler.grant(id(words[1]), words[2].parse().unwrap()),
            "wait" => {
                engine.now += Duration::from_secs(words[1].parse().unwrap());
                engine.scheduler.expire(engine.now);
            }
            "fail" => engine.switch.set(match words[1] {
                "error" => Failure::Error,
                "row" => Failure::MissingRow,
                "nan" => Failure::NotFinite,
                other => panic!("fail {other}"),
            }),
            other => panic!("{other}"),
        }
        report(engine, &self.names, &mut output);
        output
    }

    fn request(&mut self, words: &[&str], options: &HashMap<&str, &str>) -> Request {
        let (name, length): (_, usize) = (words[1], words[2].parse().unwrap());
        let id = self.names.len() as u64;
        let number = |key: &str, default: u64| options.get(key).map_or(default, |value| value.parse().unwrap());
        let mut prompt = Vec::new();
        if let Some((other, shared)) = options.get("like").and_then(|like| like.split_once(':')) {
            prompt.extend_from_slice(&self.prompts[other][..shared.parse().unwrap()]);
        }
        prompt.extend((prompt.len()..length).map(|i| (i as u32 * 31 + id as u32 * 101) % VOCAB as u32));
        self.names.push(name.into());
        self.prompts.insert(name.into(), prompt.clone());
        let top_k = number("top_k", 0) as usize;
        Request {
            id: SequenceId(id),
            prompt: prompt.into(),
            max_new_tokens: number("new", 100) as usize,
            end_tokens: [].into(),
            sampling: SamplingParams {
                temperature: if top_k > 0 { 1.0 } else { 0.0 },
                top_k,
                ..SamplingParams::default()
            },
            constraint: None,
            logprobs: None,
            prompt_logprobs: words.contains(&"prompt_logprobs").then_some(0),
            cache_salt: number("salt", 0),
            credit: number("credit", u32::MAX.into()) as u32,
        }
    }
}

fn set_up(words: &[&str], options: &HashMap<&str, &str>) -> EngineUnderTest {
    let number = |key: &str, default: usize| options.get(key).map_or(default, |value| value.parse().unwrap());
    let groups = words.iter().filter_map(|word| {
        let (kind, n_blocks) = word.split_once('=')?;
        let kind = match kind {
            "full" => CacheKind::Full,
            "state" => CacheKind::State,
            _ => CacheKind::Window(kind.strip_prefix("window")?.parse().unwrap()),
        };
        Some(CacheGroup { kind, n_blocks: n_blocks.parse().unwrap() })
    });
    let spec = RunnerSpec {
        vocab_size: number("vocab", VOCAB),
        block_size: number("block", 4),
        max_context: number("context", 1000),
        groups: groups.collect(),
    };
    let config = EngineConfig {
        max_num_seqs: number("seqs", 4),
        max_batch_tokens: number("batch", 100),
        max_queue: 100,
        prefix_cache: options.get("cache") != Some(&"off"),
        park_timeout: Duration::from_secs(10),
        inter_token_target: Some(Duration::from_millis(number("target", 50) as u64)),
        ..EngineConfig::default()
    };
    let model = FakeModel {
        levels: number("levels", 0) as u32,
        roles: words.contains(&"roles"),
        echoes: words.contains(&"echoes"),
    };
    let runner = FakeRunner::of_model(spec, model, options.get("costs").map(|costs| step_costs(costs)));
    EngineUnderTest {
        scheduler: Scheduler::new(&runner, &config),
        switch: runner.failure_switch(),
        runner,
        now: Instant::now(),
    }
}

fn step_costs(points: &str) -> StepCosts {
    let point = |point: &str| {
        let (rows, ms) = point.split_once(':').unwrap();
        (rows.parse().unwrap(), Duration::from_millis(ms.parse().unwrap()))
    };
    StepCosts::new(points.split(',').map(point)).unwrap()
}

fn step(engine: &mut EngineUnderTest, names: &[String], output: &mut String) {
    let EngineUnderTest { scheduler, runner, now, .. } = engine;
    let plan = scheduler.schedule(*now);
    print_plan(&plan, names, output);
    if !plan.sequences.is_empty() {
        match runner.run(&plan) {
            Ok(results) => scheduler.update(&plan, &results, *now),
            Err(e) => scheduler.fail_step(&plan, &StepFailure { code: e.code(), message: e.to_string() }),
        }
    }
    report(engine, names, output);
}

/// One line per sequence: positions, a table per group (`.` is out of sight), rows asked for.
fn print_plan(plan: &StepPlan, names: &[String], output: &mut String) {
    for part in &plan.sequences {
        let name = &names[part.sequence.0 as usize];
        let end = part.start + part.tokens.len();
        let tables: Vec<_> = part.block_tables.iter().map(|table| format!("{table:?}")).collect();
        let role = if part.role == RowRole::Decode { "" } else { "prompt " };
        write!(output, "{name} {role}{}..{end} {}", part.start, tables.join(" ")).unwrap();
        for row in &part.outputs {
            let want = match &row.want {
                RowWant::ArgMax => "best".into(),
                RowWant::TopK { k, chosen } if chosen.is_empty() => format!("top{k}"),
                RowWant::TopK { k, .. } => format!("top{k}+1"),
                RowWant::Allowed(ids) => format!("allowed{}", ids.len()),
                RowWant::Full => "full".into(),
            };
            write!(output, " {}:{want}", part.start + row.index).unwrap();
        }
        output.push('\n');
    }
    if plan.sequences.is_empty() {
        output.push_str("nothing to run\n");
    }
}

fn report(engine: &mut EngineUnderTest, names: &[String], output: &mut String) {
    let events = engine.scheduler.take_events();
    let told: Vec<String> = events
        .iter()
        .filter_map(|event| {
            let name = &names[event.sequence.0 as usize];
            Some(match &event.kind {
                EventKind::Started { cached_tokens, .. } => format!("{name} started, {cached_tokens} cached"),
                EventKind::Prefill { .. } => return None,
                EventKind::Prompt { tokens } => format!("{name} prompt +{}", tokens.len()),
                EventKind::Tokens { tokens } => format!("{name} +{}", tokens.len()),
                EventKind::Finished { reason, .. } => format!("{name} finished: {reason:?}"),
                EventKind::Failed { code, .. } => format!("{name} failed: {code}"),
            })
        })
        .collect();
    let (total, free) = engine.scheduler.block_counts();
    let scheduler = &engine.scheduler;
    let (running, waiting, parked) = (scheduler.n_running(), scheduler.n_waiting(), scheduler.n_parked());
    writeln!(
        output,
        "= {running} running, {waiting} waiting, {parked} parked, {free}/{total} free; {}",
        told.join("; ")
    )
    .unwrap();
}
