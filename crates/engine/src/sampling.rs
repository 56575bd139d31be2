//! From a row of logits to a token.
//!
//! The filters are those of transformers' `generate` in its order: temperature, top-k, top-p, min-p. A token is drawn
//! from what is left, laid out by token id: then a logit that differs in its last bit moves a border of the draw by
//! that little, where an order by probability could swap two tokens.

use crate::rng::Rng;
use crate::{RowResult, RowWant, SamplingParams, TokenId, TokenOutput};

/// Up to this `top_k` a row asks for candidates instead of all logits.
const SMALL_TOP_K: usize = 256;

/// Candidates asked for beyond `top_k`, since ties with the k-th stay in.
const TIE_SLACK: usize = 16;

/// Why a row gave no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SampleError {
    #[error("the model's logits are not finite")]
    NotFinite,
    #[error("the runner's row does not hold what was asked for")]
    RowMismatch,
}

impl SampleError {
    /// Stable code for matching.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotFinite => "logits_not_finite",
            Self::RowMismatch => "runner_results",
        }
    }
}

/// What a row must answer so that [`sample`] can choose from it. `whole_row` asks for all logits where candidates
/// would usually do: after [`sample`] answered `None`, or where a row cannot be computed twice.
pub(crate) fn want(params: &SamplingParams, logprobs: Option<usize>, whole_row: bool) -> RowWant {
    let alternatives = logprobs.unwrap_or(0);
    let top_k = |k| RowWant::TopK { k, chosen: Vec::new() };
    if params.temperature == 0.0 {
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
    params: &SamplingParams,
    logprobs: Option<usize>,
    vocab_size: usize,
    rng: &mut Rng,
    row: &RowResult,
) -> Result<Option<TokenOutput>, SampleError> {
    let token = if params.temperature == 0.0 {
        first_maximum(row)?
    } else if row.logits.is_empty() {
        let shown = &row.candidates;
        if shown.is_empty() {
            return Err(SampleError::RowMismatch);
        }
        let scaled = scale(params.temperature, shown.iter().copied())?;
        if shown.len() < vocab_size && scaled.len() > params.top_k {
            let (_, last) = scaled[scaled.len() - 1];
            if last == scaled[params.top_k.max(1) - 1].1 {
                return Ok(None);
            }
        } else if shown.len() < vocab_size {
            return Err(SampleError::RowMismatch);
        }
        draw(&filter(params, scaled), rng)?
    } else {
        let scaled = scale(params.temperature, (0..).zip(row.logits.iter().copied()))?;
        draw(&filter(params, scaled), rng)?
    };
    match logprobs {
        None => Ok(Some(TokenOutput { token, logprob: None, top: Vec::new() })),
        Some(n) => describe(token, n, row).map(Some),
    }
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
fn describe(token: TokenId, n: usize, row: &RowResult) -> Result<TokenOutput, SampleError> {
    let (logit, log_sum_exp, top) = if row.logits.is_empty() {
        let logit = row.candidates.iter().find(|(id, _)| *id == token).map(|&(_, logit)| logit);
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

/// The best token; of equal ones the first.
fn first_maximum(row: &RowResult) -> Result<TokenId, SampleError> {
    let best = match row.candidates.first() {
        Some(&best) => best,
        None => best(&row.logits, 1).first().copied().ok_or(SampleError::RowMismatch)?,
    };
    if best.1.is_finite() { Ok(best.0) } else { Err(SampleError::NotFinite) }
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

/// Divides by the temperature. The greatest must be finite, so that every exponential below is; NaN is never let
/// through.
fn scale(
    temperature: f32,
    row: impl Iterator<Item = (TokenId, f32)> + Clone,
) -> Result<Vec<(TokenId, f32)>, SampleError> {
    let mut max = f32::NEG_INFINITY;
    for (_, logit) in row.clone() {
        if logit.is_nan() {
            return Err(SampleError::NotFinite);
        }
        max = max.max(logit);
    }
    if !max.is_finite() {
        return Err(SampleError::NotFinite);
    }
    // The distance to the greatest, so that a tiny temperature cannot overflow.
    Ok(row.map(|(id, logit)| (id, (logit - max) / temperature)).collect())
}

/// Applies top-k, top-p and min-p to scaled logits (0 the greatest). Answers ids with weights, not normalised, by
/// increasing id; never empty for a row that is not.
fn filter(params: &SamplingParams, mut row: Vec<(TokenId, f32)>) -> Vec<(TokenId, f32)> {
    if (1..row.len()).contains(&params.top_k) {
        let mut scaled: Vec<f32> = row.iter().map(|&(_, x)| x).collect();
        let (_, &mut kth, _) = scaled.select_nth_unstable_by(params.top_k - 1, |a, b| b.total_cmp(a));
        row.retain(|&(_, x)| x >= kth);
    }
    row.iter_mut().for_each(|(_, x)| *x = x.exp());
    if params.top_p < 1.0 {
        keep_top_p(f64::from(params.top_p), &mut row);
    }
    if params.min_p > 0.0 {
        let max = row.iter().map(|&(_, weight)| weight).fold(0.0, f32::max);
        // Compared as probabilities are, since weights share one divisor.
        row.retain(|&(_, weight)| weight >= params.min_p * max);
    }
    row.sort_unstable_by_key(|&(id, _)| id);
    row
}

/// Removes, from the least probable up, while what was removed stays within `1 - top_p` of the whole; the most
/// probable token stays.
fn keep_top_p(top_p: f64, row: &mut Vec<(TokenId, f32)>) {
    let total: f64 = row.iter().map(|&(_, weight)| f64::from(weight)).sum();
    // All tokens below this share together weigh less than `1 - top_p`, so they go without being sorted.
    let certain = ((1.0 - top_p) * total / row.len() as f64) as f32;
    let mut below = 0.0;
    row.retain(|&(_, weight)| {
        let goes = weight < certain;
        below += if goes { f64::from(weight) } else { 0.0 };
        !goes
    });
    // Of equal ones the lower id stays longest.
    row.sort_unstable_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    let mut n_removed = 0;
    for &(_, weight) in row.iter().take(row.len().saturating_sub(1)) {
        below += f64::from(weight);
        // In f32, as transformers compares.
        if (below / total) as f32 > (1.0 - top_p) as f32 {
            break;
        }
        n_removed += 1;
    }
    row.drain(..n_removed);
}

/// One draw by weight; the first token is the first interval.
fn draw(row: &[(TokenId, f32)], rng: &mut Rng) -> Result<TokenId, SampleError> {
    let total: f64 = row.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let mut left = rng.next_f64() * total;
    for &(id, weight) in row {
        left -= f64::from(weight);
        if left < 0.0 {
            return Ok(id);
        }
    }
    // Rounding can leave a crumb behind the last interval.
    row.iter().rev().find(|&&(_, weight)| weight > 0.0).map(|&(id, _)| id).ok_or(SampleError::NotFinite)
}

#[cfg(test)]
mod tests;
