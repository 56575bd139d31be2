//! What of a distribution is left to draw from: transformers' filters in its order, temperature, top-k, top-p, min-p,
//! typical, epsilon, eta.

use super::SampleError;
use crate::rng::Rng;
use crate::{SamplingParams, TokenId};

/// Divides by the temperature. The greatest must be finite, so that every exponential below is; NaN is never let
/// through.
pub(super) fn scale(temperature: f32, mut row: Vec<(TokenId, f32)>) -> Result<Vec<(TokenId, f32)>, SampleError> {
    let mut max = f32::NEG_INFINITY;
    for &(_, logit) in &row {
        if logit.is_nan() {
            return Err(SampleError::NotFinite);
        }
        max = max.max(logit);
    }
    if !max.is_finite() {
        return Err(SampleError::NotFinite);
    }
    // The distance to the greatest, so that a tiny temperature cannot overflow.
    row.iter_mut().for_each(|(_, logit)| *logit = (*logit - max) / temperature);
    Ok(row)
}

/// Applies the filters behind the temperature to scaled logits (0 the greatest). Answers ids with weights, not normalised, by
/// increasing id; never empty for a row that is not.
pub(super) fn filter(params: &SamplingParams, mut row: Vec<(TokenId, f32)>) -> Vec<(TokenId, f32)> {
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
    if params.typical_p < 1.0 {
        keep_typical(f64::from(params.typical_p), &mut row);
    }
    if params.epsilon_cutoff > 0.0 {
        keep_probable(f64::from(params.epsilon_cutoff), &mut row);
    }
    if params.eta_cutoff > 0.0 {
        let eta = f64::from(params.eta_cutoff);
        keep_probable(eta.min(eta.sqrt() * (-entropy(&row)).exp()), &mut row);
    }
    row.sort_unstable_by_key(|&(id, _)| id);
    row
}

/// Keeps the tokens whose surprise, the negative log-probability, is nearest to the expected one, until `mass` is
/// reached; what is as near as the last one stays too.
fn keep_typical(mass: f64, row: &mut Vec<(TokenId, f32)>) {
    row.retain(|&(_, weight)| weight > 0.0);
    let total = total(row);
    let expected = entropy(row);
    let distance = |weight: f32| (-(f64::from(weight) / total).ln() - expected).abs();
    row.sort_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
    let mut reached = 0.0;
    let last = row.iter().position(|&(_, weight)| {
        reached += f64::from(weight) / total;
        // In f32, as transformers compares.
        reached as f32 >= mass as f32
    });
    if let Some(limit) = last.map(|at| distance(row[at].1)) {
        row.retain(|&(_, weight)| distance(weight) <= limit);
    }
}

/// Keeps the tokens of at least this probability, and in any case the best.
fn keep_probable(least: f64, row: &mut Vec<(TokenId, f32)>) {
    let total = total(row);
    let max = row.iter().map(|&(_, weight)| weight).fold(0.0, f32::max);
    row.retain(|&(_, weight)| f64::from(weight) / total >= least || weight >= max);
}

/// Of the distribution that the weights are in proportion to; natural.
fn entropy(row: &[(TokenId, f32)]) -> f64 {
    let total = total(row);
    let probabilities = row.iter().map(|&(_, weight)| f64::from(weight) / total);
    -probabilities.filter(|&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}

fn total(row: &[(TokenId, f32)]) -> f64 {
    row.iter().map(|&(_, weight)| f64::from(weight)).sum()
}

/// Removes, from the least probable up, while what was removed stays within `1 - top_p` of the whole; the most
/// probable token stays.
fn keep_top_p(top_p: f64, row: &mut Vec<(TokenId, f32)>) {
    let total = total(row);
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
pub(super) fn draw(row: &[(TokenId, f32)], rng: &mut Rng) -> Result<TokenId, SampleError> {
    let total = total(row);
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
