//! One request while it lives: its tokens, how far they are computed, and what it holds.

use std::rc::Rc;
use std::time::Instant;

use crate::draft::Drafter;
use crate::held::{Held, Mask, MaskWorker};
use crate::kv_blocks::{Holding, KvBlocks, Prefix};
use crate::rng::Rng;
use crate::sampling::{self, Context, History, SampleError};
use crate::{
    ConstraintError, EventKind, FinishReason, Next, OutputRow, Request, RowResult, RowRole, RowWant, SequenceEvent,
    SequenceId, SequencePlan, Speculation, Timings, TokenId, TokenOutput,
};

/// One rule drives it: `n_computed` has to catch up with `tokens.len()`. Prefill, chunks, prefix hits, decode and
/// computing again after preemption are all the same.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Order of arrival; who came first is served first and preempted last.
    pub(crate) ticket: u64,
    request: Request,
    /// The prompt and what was generated.
    tokens: Vec<TokenId>,
    /// Positions whose keys and values are in the blocks of `holding`.
    pub(crate) n_computed: usize,
    pub(crate) holding: Holding,
    /// The prefixes of the first full blocks of `tokens`, as far as they were needed.
    chain: Vec<Rc<Prefix>>,
    /// Blocks known by content: found cached, or registered after their step.
    n_registered: usize,
    rng: Rng,
    history: History,
    constraint: Option<Held>,
    /// Tokens that may still be generated; `u32::MAX` is no limit.
    credit: u32,
    /// Prompt positions already reported, by `Prefill` and `Prompt` events: computing again reports nothing twice.
    n_prefill_reported: usize,
    n_prompt_reported: usize,
    /// The next row has to show all logits, since candidates could not tell.
    whole_row: bool,
    /// Its answer is being computed again, behind a preemption: what is left to compute is more than a step of an answer.
    catches_up: bool,
    /// It has its place in the step being planned.
    pub(crate) in_step: bool,
    drafter: Drafter,
    /// Since when it waits for credit.
    pub(crate) parked_at: Option<Instant>,
    clock: Clock,
}

#[derive(Debug)]
struct Clock {
    added: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// What becomes of a sequence after a step.
#[derive(Debug, PartialEq)]
pub(crate) enum Progress {
    GoesOn,
    Finished(FinishReason),
    Failed(SampleError),
}

/// What a step did to a sequence.
#[derive(Debug, PartialEq)]
pub(crate) struct Advance {
    pub(crate) progress: Progress,
    /// Tokens of its draft that are in the answer now.
    pub(crate) n_right: usize,
}

impl From<Progress> for Advance {
    fn from(progress: Progress) -> Self {
        Self { progress, n_right: 0 }
    }
}

/// Facts of the engine that a sequence's rows depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) vocab_size: usize,
    /// Longest sequence, prompt and answer.
    pub(crate) context: usize,
    pub(crate) block_size: usize,
    /// A row must not be computed twice: a recurrent state would move twice.
    pub(crate) rows_once: bool,
    /// Keys and values depend on the role of their token.
    pub(crate) roles_differ: bool,
    /// Chunks are cut by what steps cost, so that they begin at any block.
    pub(crate) free_borders: bool,
    /// Tokens that a chunk may have where it does not begin at a border: no more than its blocks hold.
    pub(crate) longest_run: usize,
}

impl Sequence {
    pub(crate) fn new(ticket: u64, mut request: Request, added: Instant) -> Self {
        Self {
            history: History::new(&request.sampling, &request.prompt),
            constraint: request.constraint.take().map(Held::new),
            ticket,
            tokens: request.prompt.to_vec(),
            n_computed: 0,
            holding: Holding::default(),
            chain: Vec::new(),
            n_registered: 0,
            rng: Rng::new(request.sampling.seed),
            credit: request.credit,
            n_prefill_reported: 0,
            n_prompt_reported: 0,
            whole_row: false,
            catches_up: false,
            in_step: false,
            drafter: Drafter::default(),
            parked_at: None,
            clock: Clock { added, started: None, first_token: None, last_token: None },
            request,
        }
    }

    pub(crate) fn id(&self) -> SequenceId {
        self.request.id
    }

    pub(crate) fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn grant(&mut self, credit: u32) {
        self.credit = self.credit.saturating_add(credit);
    }

    /// Where the next chunk ends, if it is not cut: at a multiple of `chunk_tokens` (or, where chunks are cut, so many
    /// tokens on), at the prompt's end, where the role of its tokens changes, or at the last known token. An answer's forced tokens are one chunk wherever they begin.
    pub(crate) fn chunk_end(&self, n_computed: usize, chunk_tokens: usize, limits: &Limits) -> usize {
        let known = match self.role_at(n_computed) {
            RowRole::Prompt => self.request.prompt.len(),
            RowRole::Decode => self.tokens.len(),
        };
        if self.writes(n_computed) && known - n_computed <= limits.longest_run {
            return known;
        }
        known.min(match limits.free_borders {
            true => (n_computed + chunk_tokens) / limits.block_size * limits.block_size,
            false => (n_computed / chunk_tokens + 1) * chunk_tokens,
        })
    }

    pub(crate) fn role_at(&self, position: usize) -> RowRole {
        if position < self.request.prompt.len() { RowRole::Prompt } else { RowRole::Decode }
    }

    /// Whether its next chunk is a step of its answer: the last token, and those that were forced behind it.
    pub(crate) fn writes(&self, n_computed: usize) -> bool {
        self.role_at(n_computed) == RowRole::Decode && !self.catches_up
    }

    /// Whether computing up to `end` would generate a token that nobody has granted.
    pub(crate) fn lacks_credit(&self, end: usize) -> bool {
        self.credit == 0 && self.generates_at(end)
    }

    fn generates_at(&self, end: usize) -> bool {
        end == self.tokens.len() && self.request.max_new_tokens > 0
    }

    /// The prefixes that cached blocks may serve. The last token is always computed, since its row is wanted; with
    /// prompt log-probabilities every row is.
    pub(crate) fn reusable_chain(&mut self, kv: &mut KvBlocks, limits: &Limits) -> &[Rc<Prefix>] {
        let n_blocks = match self.request.prompt_logprobs {
            Some(_) => 0,
            None => (self.tokens.len() - 1) / limits.block_size,
        };
        let n_prompt = self.n_prompt_of_blocks(limits);
        kv.extend_chain(&mut self.chain, n_blocks, self.request.cache_salt, n_prompt, &self.tokens);
        &self.chain[..n_blocks.min(self.chain.len())]
    }

    fn n_prompt_of_blocks(&self, limits: &Limits) -> usize {
        if limits.roles_differ { self.request.prompt.len() } else { usize::MAX }
    }

    /// Starts on the blocks of a prefix hit of `n_cached` positions. Says so the first time.
    pub(crate) fn start(
        &mut self,
        holding: Holding,
        n_cached: usize,
        limits: &Limits,
        now: Instant,
        events: &mut Vec<SequenceEvent>,
    ) {
        self.holding = holding;
        self.n_computed = n_cached;
        self.n_registered = n_cached / limits.block_size;
        if self.clock.started.is_none() {
            self.clock.started = Some(now);
            let kind = EventKind::Started { prompt_tokens: self.request.prompt.len(), cached_tokens: n_cached };
            events.push(self.event(kind));
        }
    }

    /// Gives all blocks back; everything will be computed again.
    pub(crate) fn preempt(&mut self) {
        self.holding = Holding::default();
        self.n_computed = 0;
        self.n_registered = 0;
        self.catches_up = true;
        self.in_step = false;
    }

    /// Looks up a draft of what follows the row at the end of its step. Empty: there is none, or no use for it. It is
    /// never longer than what could be told of it: credit, the answer's length and the context end it.
    ///
    /// A constraint does not stand in the way: its masks behind a drafted token are computed one after the other when
    /// the token has been accepted, so that nothing is ever taken back. That costs far less than a step. With
    /// log-probabilities it would need all logits where it otherwise needs few, and then the last bit could differ.
    pub(crate) fn look_up_draft(&mut self, end: usize, bounds: &Speculation, limits: &Limits) -> Vec<TokenId> {
        let drafts = self.generates_at(end) && self.writes(self.n_computed) && !self.whole_row && !limits.rows_once;
        if !drafts || (self.constraint.is_some() && self.request.logprobs.is_some()) {
            return Vec::new();
        }
        let n_generated = self.tokens.len() - self.request.prompt.len();
        let answer_left = self.request.max_new_tokens.saturating_sub(n_generated);
        let credit = if self.credit == u32::MAX { usize::MAX } else { self.credit as usize };
        let n_tokens = credit.min(answer_left).min(limits.context - self.tokens.len());
        // The last of them is chosen, not drafted.
        self.drafter.look_up(&self.tokens, n_tokens.saturating_sub(1), bounds)
    }

    /// How often a drafted token was the right one.
    pub(crate) fn acceptance(&self) -> f64 {
        self.drafter.acceptance()
    }

    /// Adds a draft to its part of the step being planned.
    pub(crate) fn set_draft(&mut self, draft: Vec<TokenId>) {
        self.drafter.set(draft);
    }

    /// Its part of a step that computes up to `end`, and its draft behind that.
    pub(crate) fn plan(&mut self, end: usize, limits: &Limits, masks: &mut MaskWorker) -> SequencePlan {
        let start = self.n_computed;
        let prompt = &self.request.prompt;
        let mut outputs = Vec::new();
        if let Some(n) = self.request.prompt_logprobs {
            for position in start.max(self.n_prompt_reported)..end.min(prompt.len() - 1) {
                let want = RowWant::TopK { k: n.max(1), chosen: vec![prompt[position + 1]] };
                outputs.push(OutputRow { index: position - start, want });
            }
        }
        if self.generates_at(end) {
            let whole_row = self.whole_row || limits.rows_once;
            let next = self.constraint.as_mut().map_or(Next::Free, Held::next);
            if let Some(constraint) = &mut self.constraint {
                constraint.begin_mask(masks);
            }
            let want = sampling::want(&self.context(), &next, self.request.logprobs, whole_row);
            outputs.push(OutputRow { index: end - 1 - start, want });
            for behind in 1..=self.drafter.draft().len() {
                let want = match &self.constraint {
                    // What it says there is not known yet.
                    Some(_) => RowWant::Full,
                    None => {
                        let here = self.context();
                        let context = Context { n_generated: here.n_generated + behind, ..here };
                        sampling::want(&context, &Next::Free, self.request.logprobs, false)
                    }
                };
                outputs.push(OutputRow { index: end - 1 - start + behind, want });
            }
        }
        let mut tokens = self.tokens[start..end].to_vec();
        tokens.extend_from_slice(self.drafter.draft());
        SequencePlan {
            sequence: self.request.id,
            role: self.role_at(start),
            tokens,
            start,
            block_tables: self.holding.snapshots(),
            outputs,
        }
    }

    /// Takes in what a successful step computed for it: `rows` answer the outputs of its plan, which ended at `end` and a
    /// draft behind it.
    pub(crate) fn advance(
        &mut self,
        end: usize,
        rows: &[RowResult],
        limits: &Limits,
        now: Instant,
        events: &mut Vec<SequenceEvent>,
    ) -> Advance {
        let draft = self.drafter.take();
        let generates = self.generates_at(end);
        let n_token_rows = if generates { 1 + draft.len() } else { 0 };
        let (prompt_rows, token_rows) = rows.split_at(rows.len().saturating_sub(n_token_rows));
        self.n_computed = end;
        self.report_prefill(end, events);
        if let Err(error) = self.report_prompt(prompt_rows, events) {
            return Progress::Failed(error).into();
        }
        if !generates {
            return match end == self.tokens.len() {
                true => Progress::Finished(FinishReason::Length).into(),
                false => Progress::GoesOn.into(),
            };
        }
        self.catches_up = false;
        let mut tokens = Vec::new();
        let advance = self.choose_along(&draft, token_rows, limits, &mut tokens);
        if !tokens.is_empty() {
            self.clock.first_token.get_or_insert(now);
            self.clock.last_token = Some(now);
            events.push(self.event(EventKind::Tokens { tokens }));
        }
        advance
    }

    /// Chooses a token from the first row, and from each next one while the answer is what was drafted: the rows behind
    /// a wrong token belong to another text. What was computed for wrong tokens is written over later.
    fn choose_along(
        &mut self,
        draft: &[TokenId],
        rows: &[RowResult],
        limits: &Limits,
        told: &mut Vec<TokenOutput>,
    ) -> Advance {
        let end = self.tokens.len();
        let mut n_right = 0;
        let progress = loop {
            let Some(row) = rows.get(n_right) else { break Progress::Failed(SampleError::RowMismatch) };
            let chosen = match self.constraint.as_mut().map_or(Ok(Mask::Free), Held::mask) {
                Ok(Mask::Done) => break Progress::Finished(FinishReason::Stop),
                Ok(mask) => self.choose(&mask, row, limits),
                Err(error) => Err(error.into()),
            };
            let progress = match chosen {
                Ok(Some(output)) => self.append(output, limits, told),
                Ok(None) if self.whole_row || limits.rows_once => break Progress::Failed(SampleError::RowMismatch),
                Ok(None) => {
                    // Compute the last token once more, which writes the same keys and values, and see the whole row.
                    self.whole_row = true;
                    break Progress::GoesOn;
                }
                Err(error) => break Progress::Failed(error),
            };
            let new = &self.tokens[end + n_right..];
            let n_same = draft[n_right..].iter().zip(new).take_while(|(drafted, token)| drafted == token).count();
            let all_same = n_same == new.len();
            n_right += n_same;
            if progress != Progress::GoesOn || !all_same || self.credit == 0 {
                break progress;
            }
        };
        self.n_computed = end + n_right - usize::from(self.whole_row);
        self.drafter.observe(draft, n_right, &self.tokens[end..]);
        Advance { progress, n_right }
    }

    fn choose(&mut self, mask: &Mask, row: &RowResult, limits: &Limits) -> Result<Option<TokenOutput>, SampleError> {
        // Taken out while the rest is looked at.
        let mut rng = self.rng.clone();
        let chosen = sampling::sample(&self.context(), mask, self.request.logprobs, limits.vocab_size, &mut rng, row);
        self.rng = rng;
        chosen
    }

    /// What the processors of the next position look at.
    fn context(&self) -> Context<'_> {
        let Request { sampling, end_tokens, prompt, .. } = &self.request;
        Context {
            params: sampling,
            history: &self.history,
            tokens: &self.tokens,
            n_generated: self.tokens.len() - prompt.len(),
            end_tokens,
        }
    }

    /// After a step that succeeded: the blocks that are now full become known (those of a draft only where it was right),
    /// those out of sight and those behind a wrong draft are given back.
    pub(crate) fn keep_blocks(&mut self, kv: &mut KvBlocks, limits: &Limits) {
        let n_full = self.n_computed / limits.block_size;
        if n_full > self.n_registered {
            let n_prompt = self.n_prompt_of_blocks(limits);
            kv.extend_chain(&mut self.chain, n_full, self.request.cache_salt, n_prompt, &self.tokens);
            kv.register(&self.holding, &self.chain[..n_full.min(self.chain.len())], self.n_registered);
            self.n_registered = n_full;
        }
        kv.release_out_of_sight(&mut self.holding, self.n_computed);
        // A row that is computed once more keeps its block.
        kv.trim(&mut self.holding, self.n_computed + usize::from(self.whole_row));
    }

    pub(crate) fn event(&self, kind: EventKind) -> SequenceEvent {
        SequenceEvent { sequence: self.request.id, kind }
    }

    pub(crate) fn timings(&self, now: Instant) -> Timings {
        let Clock { added, started, first_token, last_token } = self.clock;
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from).as_secs_f64(),
            _ => 0.0,
        };
        Timings {
            queued: between(Some(added), started.or(Some(now))),
            prefill: between(started, first_token.or(Some(now))),
            decode: between(first_token, last_token),
        }
    }

    fn report_prefill(&mut self, end: usize, events: &mut Vec<SequenceEvent>) {
        let computed = end.min(self.request.prompt.len());
        if computed > self.n_prefill_reported {
            self.n_prefill_reported = computed;
            events.push(self.event(EventKind::Prefill { computed }));
        }
    }

    fn report_prompt(&mut self, rows: &[RowResult], events: &mut Vec<SequenceEvent>) -> Result<(), SampleError> {
        let (Some(n), false) = (self.request.prompt_logprobs, rows.is_empty()) else { return Ok(()) };
        let first = self.n_prompt_reported + 1;
        let prompt = self.request.prompt.get(first..first + rows.len()).ok_or(SampleError::RowMismatch)?;
        let described = prompt.iter().zip(rows).map(|(&token, row)| sampling::describe_prompt(token, n, row));
        let tokens = described.collect::<Result<_, _>>()?;
        self.n_prompt_reported += rows.len();
        events.push(self.event(EventKind::Prompt { tokens }));
        Ok(())
    }

    /// Takes in a chosen token, and behind it those that follow without a choice: their keys and values are computed
    /// together in the next step. `told` gets them all.
    fn append(&mut self, output: TokenOutput, limits: &Limits, told: &mut Vec<TokenOutput>) -> Progress {
        self.whole_row = false;
        let token = output.token;
        let mut progress = self.push(token, limits);
        told.push(output);
        if let Some(mut held) = self.constraint.take() {
            if progress != Progress::Finished(FinishReason::Stop) {
                progress = self
                    .follow(&mut held, token, progress, told, limits)
                    .unwrap_or_else(|error| Progress::Failed(error.into()));
            }
            self.constraint = Some(held);
        }
        progress
    }

    /// Tells the constraint of the chosen token, and appends what it forces behind it. With log-probabilities nothing is
    /// forced, since every token needs its row.
    fn follow(
        &mut self,
        held: &mut Held,
        chosen: TokenId,
        mut progress: Progress,
        told: &mut Vec<TokenOutput>,
        limits: &Limits,
    ) -> Result<Progress, ConstraintError> {
        held.accept(chosen)?;
        if progress == Progress::GoesOn && self.request.logprobs.is_none() {
            for token in held.forced()? {
                if progress != Progress::GoesOn || self.credit == 0 {
                    break;
                }
                held.accept(token)?;
                progress = self.push(token, limits);
                told.push(TokenOutput { token, logprob: None, top: Vec::new() });
            }
        }
        // An error of this is told when the next position is to be chosen.
        if held.next() == Next::Done { Ok(Progress::Finished(FinishReason::Stop)) } else { Ok(progress) }
    }

    /// Appends one token.
    fn push(&mut self, token: TokenId, limits: &Limits) -> Progress {
        self.tokens.push(token);
        self.history.push(&self.tokens);
        if self.credit != u32::MAX {
            self.credit -= 1;
        }
        let n_generated = self.tokens.len() - self.request.prompt.len();
        if self.request.end_tokens.contains(&token) {
            Progress::Finished(FinishReason::Stop)
        } else if n_generated >= self.request.max_new_tokens || self.tokens.len() >= limits.context {
            Progress::Finished(FinishReason::Length)
        } else {
            Progress::GoesOn
        }
    }
}
