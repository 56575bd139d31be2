//! For tests of this crate and of those above it: a runner whose answers are a function of what its cache blocks hold,
//! so that a wrong block, a wrong window or a wrong reuse gives a wrong token.

use std::slice;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::rng::Rng;
use crate::rng::splitmix64;
pub use crate::scheduler::{Scheduler, StepFailure};
pub use crate::step::step;
use crate::{
    CacheKind, Constraint, ConstraintError, EventSink, ModelRunner, Next, RowResult, RowRole, RowWant, RunnerError,
    RunnerSpec, SequenceEvent, SequencePlan, StepCosts, StepPlan, StepResults, TokenId, TokenSet,
};

/// A model without weights. It writes each token into the blocks that the plan names, and computes the logits of a
/// position from what it reads back: all positions of a `Full` group, those in sight of a `Window`, the state of a
/// `State` group. [`fake_logits`] says the same from the tokens alone.
#[derive(Debug)]
pub struct FakeRunner {
    spec: RunnerSpec,
    model: FakeModel,
    costs: Option<StepCosts>,
    /// Per group, per block, per slot: token and position. A state block has one slot: its state and the next position.
    cache: Vec<Vec<Vec<Cell>>>,
    next_failure: FailureSwitch,
    gate: Option<Receiver<()>>,
}

type Cell = Option<(u64, usize)>;

/// How a [`FakeRunner`] makes logits of what a position sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FakeModel {
    /// Number of different values a logit can take: few make ties. 0 is as many as f32 has.
    pub levels: u32,
    /// Tokens are written with their role: a prompt's are others than those of an answer.
    pub roles: bool,
    /// The token that followed the last one where that came before is the likeliest: texts repeat themselves.
    pub echoes: bool,
}

/// Marks a token written as an answer's.
const ANSWER: u64 = 1 << 40;

/// Makes the next step of its runner fail.
#[derive(Debug, Clone, Default)]
pub struct FailureSwitch(Arc<Mutex<Option<Failure>>>);

/// How a step fails. The blocks of the sequences that fail are left with rubbish in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Error,
    Panic,
    /// Answers one row too few.
    MissingRow,
    /// Answers NaN in every row.
    NotFinite,
}

impl FailureSwitch {
    pub fn set(&self, failure: Failure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl FakeRunner {
    /// A runner of the model with so many `levels` and nothing else, without a cost table.
    pub fn new(spec: RunnerSpec, levels: u32) -> Self {
        Self::of_model(spec, FakeModel { levels, ..FakeModel::default() }, None)
    }

    /// A runner of this model that says its steps cost so much.
    pub fn of_model(spec: RunnerSpec, model: FakeModel, costs: Option<StepCosts>) -> Self {
        let slots = |kind| if kind == CacheKind::State { 1 } else { spec.block_size };
        let cache = spec.groups.iter().map(|g| vec![vec![None; slots(g.kind)]; g.n_blocks]).collect();
        Self { spec, model, costs, cache, next_failure: FailureSwitch::default(), gate: None }
    }

    /// The switch that makes its next step fail.
    pub fn failure_switch(&self) -> FailureSwitch {
        self.next_failure.clone()
    }

    /// From now on a step waits for a message before it computes; after the sender is dropped none waits.
    pub fn gate(&mut self) -> Sender<()> {
        let (sender, receiver) = channel();
        self.gate = Some(receiver);
        sender
    }

    /// Writes the tokens of the plan into the position-indexed groups.
    fn write(&mut self, part: &SequencePlan) -> Result<(), RunnerError> {
        let end = part.start + part.tokens.len();
        check(!part.tokens.is_empty() && end <= self.spec.max_context, || format!("bad length in {part:?}"))?;
        check(part.block_tables.len() == self.spec.groups.len(), || format!("missing tables in {part:?}"))?;
        for (g, group) in self.spec.groups.iter().enumerate() {
            let table = &part.block_tables[g];
            let n_blocks = if group.kind == CacheKind::State { 1 } else { end.div_ceil(self.spec.block_size) };
            check(table.len() == n_blocks, || format!("group {g}: {} blocks for {end} positions", table.len()))?;
            check(table.iter().all(|&id| (id as usize) < group.n_blocks), || format!("group {g}: bad id"))?;
            if group.kind == CacheKind::State {
                continue;
            }
            for (position, &token) in (part.start..).zip(&part.tokens) {
                let block = table[position / self.spec.block_size] as usize;
                self.cache[g][block][position % self.spec.block_size] =
                    Some((self.model.cell(token, part.role), position));
            }
        }
        Ok(())
    }

    /// What the token at `position` sees of a group.
    fn read(&self, g: usize, part: &SequencePlan, first: usize, position: usize) -> Result<Vec<u64>, RunnerError> {
        let mut seen = Vec::new();
        for at in first..=position {
            let block = part.block_tables[g][at / self.spec.block_size] as usize;
            match self.cache[g][block][at % self.spec.block_size] {
                Some((token, written_at)) if written_at == at => seen.push(token),
                other => return Err(RunnerError::Plan(format!("group {g}, position {at}: holds {other:?}"))),
            }
        }
        Ok(seen)
    }

    fn compute(&mut self, part: &SequencePlan, rows: &mut Vec<RowResult>) -> Result<(), RunnerError> {
        let mut outputs = part.outputs.iter().peekable();
        for (index, &token) in part.tokens.iter().enumerate() {
            let position = part.start + index;
            let mut seen = 0;
            let mut echo = None;
            let wanted = outputs.next_if(|output| output.index == index);
            for g in 0..self.spec.groups.len() {
                let kind = self.spec.groups[g].kind;
                let of_group = match kind {
                    CacheKind::Full | CacheKind::Window(_) if wanted.is_some() => {
                        let tokens = self.read(g, part, first_seen(kind, position), position)?;
                        echo = echo.or(self.model.echo(&tokens));
                        fold(&tokens)
                    }
                    CacheKind::Full | CacheKind::Window(_) => 0,
                    CacheKind::State => {
                        let cell = &mut self.cache[g][part.block_tables[g][0] as usize][0];
                        let (state, next) = if position == 0 { (0, 0) } else { cell.unwrap_or((0, usize::MAX)) };
                        check(next == position, || format!("group {g}: state at {next}, not {position}"))?;
                        cell.insert((mix(state, self.model.cell(token, part.role)), position + 1)).0
                    }
                };
                seen = mix(seen, of_group);
            }
            if let Some(output) = wanted {
                rows.push(answer(&output.want, self.model.row(seen, echo, self.spec.vocab_size)));
            }
        }
        check(outputs.next().is_none(), || format!("outputs out of order in {part:?}"))
    }

    /// What a step that fails may leave behind.
    fn scribble(&mut self, parts: &[SequencePlan]) {
        for part in parts {
            for (g, table) in part.block_tables.iter().enumerate() {
                let written = if self.spec.groups[g].kind == CacheKind::State { 0 } else { part.start };
                let mut untouched = written % self.spec.block_size;
                for &block in &table[written / self.spec.block_size..] {
                    self.cache[g][block as usize][untouched..].fill(Some((u64::MAX, usize::MAX)));
                    untouched = 0;
                }
            }
        }
    }
}

impl ModelRunner for FakeRunner {
    fn spec(&self) -> &RunnerSpec {
        &self.spec
    }

    fn step_costs(&self) -> Option<StepCosts> {
        self.costs.clone()
    }

    fn roles_differ(&self) -> bool {
        self.model.roles
    }

    fn run(&mut self, plan: &StepPlan) -> Result<StepResults, RunnerError> {
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let failure = self.next_failure.take();
        match failure {
            Some(Failure::Error) => {
                self.scribble(&plan.sequences);
                return Err(RunnerError::Device("the device was unplugged".into()));
            }
            Some(Failure::Panic) => {
                self.scribble(&plan.sequences);
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            _ => {}
        }
        // All writes before all reads, as batched attention has it.
        plan.sequences.iter().try_for_each(|part| self.write(part))?;
        let mut rows = Vec::new();
        plan.sequences.iter().try_for_each(|part| self.compute(part, &mut rows))?;
        match failure {
            Some(Failure::MissingRow) if rows.pop().is_some() => self.scribble(&plan.sequences),
            Some(Failure::NotFinite) => {
                rows.iter_mut().for_each(spoil);
                plan.sequences.iter().filter(|p| !p.outputs.is_empty()).for_each(|p| self.scribble(slice::from_ref(p)));
            }
            _ => {}
        }
        Ok(StepResults { rows })
    }
}

/// The logits behind the last of `tokens`, the first `n_prompt` of them a prompt, as a [`FakeRunner`] of this spec and
/// model computes them through its blocks.
pub fn fake_logits(spec: &RunnerSpec, model: FakeModel, tokens: &[TokenId], n_prompt: usize) -> Vec<f32> {
    let role = |at| if at < n_prompt { RowRole::Prompt } else { RowRole::Decode };
    let cells: Vec<u64> = tokens.iter().enumerate().map(|(at, &token)| model.cell(token, role(at))).collect();
    let mut echo = None;
    let groups = spec.groups.iter().map(|group| {
        let seen = &cells[first_seen(group.kind, tokens.len() - 1)..];
        if group.kind != CacheKind::State {
            echo = echo.or(model.echo(seen));
        }
        fold(seen)
    });
    let seen = groups.collect::<Vec<_>>().into_iter().fold(0, mix);
    model.row(seen, echo, spec.vocab_size)
}

impl FakeModel {
    /// What is written for a token.
    fn cell(self, token: TokenId, role: RowRole) -> u64 {
        u64::from(token) | if self.roles && role == RowRole::Decode { ANSWER } else { 0 }
    }

    /// What followed the last token where it came before, if it did.
    fn echo(self, cells: &[u64]) -> Option<TokenId> {
        let token = |cell: &u64| (cell & !ANSWER) as TokenId;
        let (last, before) = cells.split_last().filter(|_| self.echoes)?;
        let at = before.iter().rposition(|cell| token(cell) == token(last))?;
        Some(token(&cells[at + 1]))
    }

    /// Logits in -4..4 that follow from what was seen; that of an echo is 6 higher.
    fn row(self, seen: u64, echo: Option<TokenId>, vocab_size: usize) -> Vec<f32> {
        let unit = |id: usize| (mix(seen, id as u64) >> 40) as f32 / (1 << 24) as f32;
        let levels = self.levels as f32;
        let round = |x: f32| if self.levels == 0 { x } else { (x * levels).floor() / levels };
        let mut logits: Vec<f32> = (0..vocab_size).map(|id| round(unit(id)) * 8.0 - 4.0).collect();
        if let Some(logit) = echo.and_then(|token| logits.get_mut(token as usize)) {
            *logit += 6.0;
        }
        logits
    }
}

/// The first position that a token sees of a group.
fn first_seen(kind: CacheKind, position: usize) -> usize {
    match kind {
        CacheKind::Full | CacheKind::State => 0,
        CacheKind::Window(w) => (position + 1).saturating_sub(w),
    }
}

fn fold(cells: &[u64]) -> u64 {
    cells.iter().fold(0, |seen, &cell| mix(seen, cell))
}

/// Answers a row's wish from its logits, as any runner must.
pub fn answer(want: &RowWant, logits: Vec<f32>) -> RowResult {
    let best = |k: usize| {
        let mut all: Vec<_> = (0..).zip(logits.iter().copied()).collect();
        all.sort_by(|a: &(TokenId, f32), b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(k);
        all
    };
    let pick = |ids: &[TokenId]| ids.iter().map(|&id| logits[id as usize]).collect();
    let log_sum_exp = logits.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln() as f32;
    let empty = RowResult { log_sum_exp: f32::NAN, ..RowResult::default() };
    match want {
        RowWant::ArgMax => RowResult { candidates: best(1), ..empty },
        RowWant::TopK { k, chosen } => {
            RowResult { candidates: best(*k), log_sum_exp, chosen: pick(chosen), ..RowResult::default() }
        }
        RowWant::Allowed(ids) => RowResult { chosen: pick(ids), ..empty },
        RowWant::Full => RowResult { logits, ..empty },
    }
}

/// A constraint that follows from a seed: what may come next is a function of the tokens accepted so far. It is free
/// at first, allows few or many tokens, forces runs, and is done in the end.
#[derive(Debug, Clone)]
pub struct SeededConstraint {
    vocab_size: u32,
    state: u64,
    n_accepted: usize,
    n_free: usize,
    length: usize,
}

impl SeededConstraint {
    /// The first `n_free` tokens are free; it is done after `length` tokens at the latest.
    pub fn new(seed: u64, vocab_size: usize, n_free: usize, length: usize) -> Self {
        Self { vocab_size: vocab_size as u32, state: mix(seed, 1), n_accepted: 0, n_free, length }
    }

    /// The tokens that may come next, by increasing id; all of them while it is free. None: it is done.
    pub fn allowed(&self) -> Vec<TokenId> {
        let all = 0..self.vocab_size;
        let roll = |token: u32| mix(self.state, token.into());
        if self.n_accepted >= self.length {
            Vec::new()
        } else if self.n_accepted < self.n_free {
            all.collect()
        } else {
            match self.state % 4 {
                0 => vec![(roll(0) % u64::from(self.vocab_size)) as u32],
                1 => all.filter(|&token| token == 7 || roll(token) % 16 == 0).collect(),
                _ => all.filter(|&token| token == 7 || roll(token) % 4 > 0).collect(),
            }
        }
    }
}

impl Constraint for SeededConstraint {
    fn next(&mut self) -> Result<Next, ConstraintError> {
        let allowed = self.allowed();
        Ok(match allowed.len() {
            0 => Next::Done,
            _ if self.n_accepted < self.n_free => Next::Free,
            n if n <= 8 => Next::Few(allowed.into()),
            _ => Next::Many,
        })
    }

    fn mask(&mut self) -> Result<TokenSet, ConstraintError> {
        Ok(self.allowed().into_iter().collect())
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        if !self.allowed().contains(&token) {
            return Err(ConstraintError { message: format!("token {token} is not allowed") });
        }
        self.state = mix(self.state, token.into());
        self.n_accepted += 1;
        Ok(())
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, ConstraintError> {
        let (mut ahead, mut forced) = (self.clone(), Vec::new());
        while let ([token], false) = (ahead.allowed().as_slice(), ahead.n_accepted < ahead.n_free) {
            forced.push(*token);
            ahead.accept(*token)?;
        }
        Ok(forced)
    }

    fn clone_box(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// Sends every batch of events to a channel.
#[derive(Debug)]
pub struct ChannelSink(pub Sender<Vec<SequenceEvent>>);

impl EventSink for ChannelSink {
    fn emit(&mut self, events: Vec<SequenceEvent>) {
        let _ = self.0.send(events);
    }
}

fn check(holds: bool, message: impl FnOnce() -> String) -> Result<(), RunnerError> {
    if holds { Ok(()) } else { Err(RunnerError::Plan(message())) }
}

fn spoil(row: &mut RowResult) {
    row.candidates.iter_mut().for_each(|(_, logit)| *logit = f32::NAN);
    row.chosen.fill(f32::NAN);
    row.logits.fill(f32::NAN);
}

fn mix(seen: u64, token: u64) -> u64 {
    splitmix64(seen.rotate_left(7) ^ token.wrapping_add(0x9e37_79b9_7f4a_7c15))
}
