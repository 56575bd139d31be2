//! From a row of logits to a token.
//!
//! Processors change logits (penalties, forbidden tokens), a mask leaves what must be matched, filters cut what is
//! improbable: transformers' `generate` in its order. A token is drawn from what is left, laid out by token id: then a
//! logit that differs in its last bit moves a border of the draw by that little, where an order by probability could
//! swap two tokens. Log-probabilities are those of the raw row, whatever was done to it for the choice.

use crate::constraint::{ConstraintError, Next};
use crate::held::Mask;
use crate::rng::Rng;
use crate::{RowResult, RowWant, SamplingParams, TokenId, TokenOutput};

mod filters;
mod history;
mod processors;
mod row;

use filters::{draw, filter, scale};
pub(crate) use history::History;
pub(crate) use processors::Context;
use row::Row;

/// Up to this `top_k` a row asks for candidates instead of all logits.
const SMALL_TOP_K: usize = 256;

/// Candidates asked for beyond `top_k`, since ties with the k-th stay in.
const TIE_SLACK: usize = 16;

/// Why a row gave no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SampleError {
    #[error("the model's logits are not finite")]
    NotFinite,
    #[error("the runner's row does not hold what was asked for")]
    RowMismatch,
    #[error("no token is left to choose: suppressed tokens, bad words and repetition limits forbid them all")]
    NothingLeft,
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

impl SampleError {
    /// Stable code for matching.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotFinite => "logits_not_finite",
            Self::RowMismatch => "runner_results",
            Self::NothingLeft => "nothing_left",
            Self::Constraint(_) => "constraint_failed",
        }
    }
}

/// What a row must answer so that [`sample`] can choose from it. `whole_row` asks for all logits where candidates
/// would usually do: after [`sample`] answered `None`, or where a row cannot be computed twice.
///
/// A penalty can lift any token above all others (or push any number below), so no number of candidates is enough for
/// a row that processors change: it asks for all logits. So does one of many allowed tokens. Of few allowed ones it asks
/// for theirs, whatever is done to them; only log-probabilities need the rest of the row too, and of that no more than
/// the best and the sum.
pub(crate) fn want(context: &Context<'_>, next: &Next, logprobs: Option<usize>, whole_row: bool) -> RowWant {
    let params = context.params;
    let alternatives = logprobs.unwrap_or(0);
    let top_k = |k| RowWant::TopK { k, chosen: Vec::new() };
    match next {
        Next::Few(tokens) if logprobs.is_none() => return RowWant::Allowed(tokens.clone()),
        Next::Few(tokens) => return RowWant::TopK { k: alternatives.max(1), chosen: tokens.to_vec() },
        Next::Many => return RowWant::Full,
        Next::Free | Next::Done => {}
    }
    if processors::are_active(context) {
        RowWant::Full
    } else if params.temperature == 0.0 {
        if logprobs.is_none() { RowWant::ArgMax } else { top_k(alternatives.max(1)) }
    } else if params.top_k == 1 && logprobs.is_none() && !whole_row {
        top_k(1 + TIE_SLACK)
    } else if (1..=SMALL_TOP_K).contains(&params.top_k) && !whole_row {
        top_k((params.top_k + TIE_SLACK).max(alternatives))
    } else {
        RowWant::Full
    }
}

/// Chooses a token from the answer to [`want`]. `None`: more tokens tie with the `top_k`-th than the row shows, so the
/// whole row is needed. The generator moves only if a token is drawn.
pub(crate) fn sample(
    context: &Context<'_>,
    mask: &Mask,
    logprobs: Option<usize>,
    vocab_size: usize,
    rng: &mut Rng,
    row: &RowResult,
) -> Result<Option<TokenOutput>, SampleError> {
    let params = context.params;
    let token = if *mask != Mask::Free || processors::are_active(context) {
        let left = left_over(context, mask, row)?;
        // A token without a choice leaves the generator alone, as a forced one does: whether it was forced may depend
        // on how much the client has read.
        let one_allowed = matches!(mask, Mask::Few(tokens) if tokens.len() == 1);
        match params.temperature {
            temperature if temperature > 0.0 && !one_allowed => draw(&filter(params, scale(temperature, left)?), rng)?,
            _ => first_maximum(&left)?,
        }
    } else if params.temperature == 0.0 {
        let best = match row.candidates.first() {
            Some(&best) => vec![best],
            None => best(&row.logits, 1),
        };
        first_maximum(&best)?
    } else if row.logits.is_empty() {
        let shown = &row.candidates;
        if shown.is_empty() {
            return Err(SampleError::RowMismatch);
        }
        let mut scaled = scale(params.temperature, shown.clone())?;
        if shown.len() < vocab_size && scaled.len() > params.top_k {
            let (_, last) = scaled[scaled.len() - 1];
            if last == scaled[params.top_k.max(1) - 1].1 {
                return Ok(None);
            }
        } else if shown.len() < vocab_size {
            return Err(SampleError::RowMismatch);
        }
        // As they stand in a whole row: then sums have the same last bit, whichever of the two was asked for.
        scaled.sort_unstable_by_key(|&(id, _)| id);
        draw(&filter(params, scaled), rng)?
    } else {
        let left = match params.shortlist() {
            Some(k) => best_with_ties(&row.logits, k, params.temperature)?,
            None => (0..).zip(row.logits.iter().copied()).collect(),
        };
        draw(&filter(params, scale(params.temperature, left)?), rng)?
    };
    match logprobs {
        None => Ok(Some(TokenOutput { token, logprob: None, top: Vec::new() })),
        Some(n) => describe(token, mask, n, row).map(Some),
    }
}

/// The logits that may be chosen from, by increasing id: after the processors, within the mask. What must be matched
/// goes before what was asked to be avoided: where the mask leaves forbidden tokens only, they are allowed.
fn left_over(context: &Context<'_>, mask: &Mask, row: &RowResult) -> Result<Vec<(TokenId, f32)>, SampleError> {
    let mut start = match mask {
        Mask::Few(tokens) if row.logits.is_empty() && tokens.len() == row.chosen.len() => {
            Row::Few(tokens.iter().copied().zip(row.chosen.iter().copied()).collect())
        }
        Mask::Few(tokens) => {
            let logits = tokens.iter().map(|&id| Some((id, *row.logits.get(id as usize)?)));
            Row::Few(logits.collect::<Option<_>>().ok_or(SampleError::RowMismatch)?)
        }
        Mask::Free | Mask::Many(_) if row.logits.is_empty() => return Err(SampleError::RowMismatch),
        Mask::Free | Mask::Many(_) => Row::Whole(row.logits.clone()),
        Mask::Done => return Err(SampleError::RowMismatch),
    };
    if let Mask::Many(set) = mask {
        start.keep(set);
    }
    let attempts: &[bool] = if *mask == Mask::Free { &[true] } else { &[true, false] };
    for &may_forbid in attempts {
        let mut changed = start.clone();
        processors::apply(context, may_forbid, &mut changed);
        let left = match (&changed, context.params.shortlist()) {
            (Row::Whole(logits), Some(k)) => best_with_ties(logits, k, context.params.temperature)?,
            _ => changed.left(),
        };
        if !left.is_empty() {
            return Ok(left);
        }
    }
    // Whose fault it is: that of the model if no token had a chance to begin with.
    if start.left().is_empty() { Err(SampleError::NotFinite) } else { Err(SampleError::NothingLeft) }
}

/// What a row says about the prompt's own next token, which it was asked for as the only `chosen` one.
pub(crate) fn describe_prompt(token: TokenId, n: usize, row: &RowResult) -> Result<TokenOutput, SampleError> {
    let &[logit] = row.chosen.as_slice() else { return Err(SampleError::RowMismatch) };
    if !(logit - row.log_sum_exp).is_finite() {
        return Err(SampleError::NotFinite);
    }
    let top = row.candidates.iter().take(n).map(|&(id, logit)| (id, logit - row.log_sum_exp)).collect();
    Ok(TokenOutput { token, logprob: Some(logit - row.log_sum_exp), top })
}

/// Log-probabilities under the raw distribution, from the same row that the token was chosen from.
fn describe(token: TokenId, mask: &Mask, n: usize, row: &RowResult) -> Result<TokenOutput, SampleError> {
    let (logit, log_sum_exp, top) = if row.logits.is_empty() {
        let logit = match mask {
            Mask::Few(tokens) => tokens.binary_search(&token).ok().and_then(|at| row.chosen.get(at).copied()),
            _ => row.candidates.iter().find(|(id, _)| *id == token).map(|&(_, logit)| logit),
        };
        (logit, row.log_sum_exp, row.candidates.iter().take(n).copied().collect())
    } else {
        (row.logits.get(token as usize).copied(), log_sum_exp(&row.logits), best(&row.logits, n))
    };
    let logit = logit.ok_or(SampleError::RowMismatch)?;
    if !(logit - log_sum_exp).is_finite() {
        return Err(SampleError::NotFinite);
    }
    let top = top.into_iter().map(|(id, logit)| (id, logit - log_sum_exp)).collect();
    Ok(TokenOutput { token, logprob: Some(logit - log_sum_exp), top })
}

/// The best token; of equal ones the first. NaN never is the best.
fn first_maximum(row: &[(TokenId, f32)]) -> Result<TokenId, SampleError> {
    let mut best: Option<(TokenId, f32)> = None;
    for &(id, logit) in row {
        if best.is_none_or(|(_, least)| logit > least || least.is_nan()) {
            best = Some((id, logit));
        }
    }
    let (id, logit) = best.ok_or(SampleError::RowMismatch)?;
    if logit.is_finite() { Ok(id) } else { Err(SampleError::NotFinite) }
}

impl SamplingParams {
    /// How many of the best tokens, with those that tie with the last of them, are all that can be chosen; `None` where
    /// that is not worth knowing.
    fn shortlist(&self) -> Option<usize> {
        match (self.temperature, self.top_k) {
            (0.0, _) => Some(1),
            (_, k @ 1..=SMALL_TOP_K) => Some(k),
            _ => None,
        }
    }
}

/// What top-k leaves of a row, by increasing id: far less work than to sort out all of a large vocabulary. Ties are
/// those of the logits divided by the temperature, as the filter sees them.
fn best_with_ties(logits: &[f32], k: usize, temperature: f32) -> Result<Vec<(TokenId, f32)>, SampleError> {
    if logits.iter().any(|&logit| logit.is_nan() || logit == f32::INFINITY) {
        return Err(SampleError::NotFinite);
    }
    let best = best(logits, k);
    let (Some(&(_, max)), Some(&(_, kth))) = (best.first(), best.last()) else { return Ok(best) };
    let scaled = |logit: f32| if temperature == 0.0 { logit } else { (logit - max) / temperature };
    let least = scaled(kth);
    let stays = |&(_, logit): &(TokenId, f32)| logit != f32::NEG_INFINITY && scaled(logit) >= least;
    Ok((0..).zip(logits.iter().copied()).filter(stays).collect())
}

/// The `n` best of a row, logits descending, ties by lower id first. Meant for small `n`: most tokens cost one
/// comparison.
fn best(logits: &[f32], n: usize) -> Vec<(TokenId, f32)> {
    let mut best: Vec<(TokenId, f32)> = Vec::with_capacity(n + 1);
    for (id, &logit) in (0..).zip(logits) {
        if best.len() < n || best.last().is_some_and(|&(_, least)| logit > least) {
            let at = best.partition_point(|&(_, other)| other >= logit);
            best.insert(at, (id, logit));
            best.truncate(n);
        }
    }
    best
}

/// Natural log of the sum of exponentials, summed in f64.
fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from((l - max).exp())).sum();
    (f64::from(max) + sum.ln()) as f32
}

#[cfg(test)]
mod tests;
