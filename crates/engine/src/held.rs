//! A sequence's constraint between its steps, and the thread that computes masks while a step runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::TokenId;
use crate::constraint::{Constraint, ConstraintError, Next, TokenSet};
use crate::step::panic_message;

/// What one position's row has to show.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mask {
    /// Every token may be chosen.
    Free,
    /// One of these, by increasing id.
    Few(Arc<[TokenId]>),
    /// One of these.
    Many(Arc<TokenSet>),
    /// No token: the answer is complete.
    Done,
}

/// A constraint and what it said of the next token.
#[derive(Debug)]
pub(crate) struct Held {
    /// Away while its mask is computed.
    constraint: Option<Box<dyn Constraint>>,
    next: Option<Result<Next, ConstraintError>>,
    away: Option<Receiver<Answer>>,
    /// The position's mask, once it is known. It stays until a token is accepted: a row may be computed twice.
    mask: Option<Arc<TokenSet>>,
}

/// A constraint whose mask is wanted, and who wants it.
type Job = (Box<dyn Constraint>, Sender<Answer>);
type Answer = (Box<dyn Constraint>, Result<TokenSet, ConstraintError>);

impl Held {
    pub(crate) fn new(constraint: Box<dyn Constraint>) -> Self {
        Self { constraint: Some(constraint), next: None, away: None, mask: None }
    }

    /// What is known of the next token before its row is computed. An error is `Free` here and told by [`Held::mask`],
    /// when the step is over.
    pub(crate) fn next(&mut self) -> Next {
        self.told().unwrap_or(Next::Free)
    }

    fn told(&mut self) -> Result<Next, ConstraintError> {
        let Self { constraint, next, .. } = self;
        let next = next.get_or_insert_with(|| match constraint {
            Some(constraint) => guarded(|| constraint.next()),
            None => Err(lost()),
        });
        next.clone()
    }

    /// Begins with the mask, if this position needs one.
    pub(crate) fn begin_mask(&mut self, worker: &mut MaskWorker) {
        if self.mask.is_none()
            && self.away.is_none()
            && self.next() == Next::Many
            && let Some(constraint) = self.constraint.take()
        {
            self.away = Some(worker.begin(constraint));
        }
    }

    /// What may be chosen now; waits for a mask that is being computed, and computes one that was not begun: behind a
    /// drafted token nobody knew before that it would be asked for.
    pub(crate) fn mask(&mut self) -> Result<Mask, ConstraintError> {
        if let Some(away) = self.away.take() {
            let (constraint, mask) = away.recv().map_err(|_| lost())?;
            self.constraint = Some(constraint);
            match mask {
                Ok(mask) => self.mask = Some(Arc::new(mask)),
                Err(error) => self.next = Some(Err(error)),
            }
        }
        let next = self.told()?;
        if next == Next::Many && self.mask.is_none() {
            let constraint = self.constraint.as_mut().ok_or_else(lost)?;
            self.mask = Some(Arc::new(guarded(|| constraint.mask())?));
        }
        match next {
            Next::Free => Ok(Mask::Free),
            Next::Done => Ok(Mask::Done),
            Next::Few(tokens) => Ok(Mask::Few(tokens)),
            Next::Many => Ok(Mask::Many(self.mask.clone().ok_or_else(lost)?)),
        }
    }

    pub(crate) fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        self.next = None;
        self.mask = None;
        let constraint = self.constraint.as_mut().ok_or_else(lost)?;
        guarded(|| constraint.accept(token))
    }

    pub(crate) fn forced(&mut self) -> Result<Vec<TokenId>, ConstraintError> {
        let constraint = self.constraint.as_mut().ok_or_else(lost)?;
        guarded(|| constraint.forced())
    }
}

fn lost() -> ConstraintError {
    ConstraintError { message: "the thread that follows the constraint has died".into() }
}

/// A constraint that panics fails its own sequence only.
fn guarded<T>(call: impl FnOnce() -> Result<T, ConstraintError>) -> Result<T, ConstraintError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        Err(ConstraintError { message: format!("the constraint panicked: {}", panic_message(panic.as_ref())) })
    })
}

/// A thread beside the engine's: it computes masks while the step they belong to is computed. Started by the first
/// mask. What a mask holds does not depend on when it is ready, so neither does an answer.
#[derive(Debug, Default)]
pub(crate) struct MaskWorker {
    jobs: Option<Sender<Job>>,
}

impl MaskWorker {
    fn begin(&mut self, constraint: Box<dyn Constraint>) -> Receiver<Answer> {
        let (answer, receiver) = channel();
        let jobs = self.jobs.take().or_else(spawn);
        let unsent = match &jobs {
            Some(jobs) => jobs.send((constraint, answer)).err().map(|error| error.0),
            None => Some((constraint, answer)),
        };
        // Without a thread the mask is computed here, before the step instead of beside it.
        match unsent {
            Some((constraint, answer)) => compute(constraint, &answer),
            None => self.jobs = jobs,
        }
        receiver
    }
}

fn spawn() -> Option<Sender<Job>> {
    let (jobs, receiver) = channel::<Job>();
    let body = move || receiver.into_iter().for_each(|(constraint, answer)| compute(constraint, &answer));
    std::thread::Builder::new().name("tsserve-masks".into()).spawn(body).ok()?;
    Some(jobs)
}

fn compute(mut constraint: Box<dyn Constraint>, answer: &Sender<Answer>) {
    let mask = guarded(|| constraint.mask());
    // Nobody waits for a sequence that was aborted meanwhile.
    let _ = answer.send((constraint, mask));
}
