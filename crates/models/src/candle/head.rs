//! From hidden rows to what each output row asked for. Full logits exist only for a few rows at a time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use rayon::prelude::*;
use tsserve_engine::{RowResult, RowWant, TokenId};

use super::cpu_ops::MapOp;
use super::layers::{Linear, Ops};

/// Bytes of f32 logits that exist at once.
const MAX_LOGIT_BYTES: usize = 32 * 1024 * 1024;

/// An allowed set of at most one in this many tokens gets only its own rows of the head computed.
const FEW_ALLOWED: usize = 8;

/// Values per partial sum of a log-sum-exp: fixed, so that the sum does not depend on the number of threads.
const SUM_CHUNK: usize = 8192;

/// The output matrix of a decoder.
#[derive(Debug)]
pub struct Head {
    pub linear: Linear,
    /// tanh soft cap on the logits.
    pub softcap: Option<f32>,
    pub ops: Ops,
}

impl Head {
    /// `hidden [rows, hidden]`, normed, with one want per row: results in the same order.
    pub fn answer(&self, hidden: &Tensor, wants: &[&RowWant]) -> Result<Vec<RowResult>> {
        let vocab_size = self.linear.weight.dim(0)?;
        let (few, whole): (Vec<usize>, Vec<usize>) = (0..wants.len())
            .partition(|&row| matches!(wants[row], RowWant::Allowed(ids) if ids.len() * FEW_ALLOWED <= vocab_size));
        let mut results = vec![RowResult::default(); wants.len()];
        for row in few {
            if let RowWant::Allowed(ids) = wants[row] {
                results[row].log_sum_exp = f32::NAN;
                results[row].chosen = self.allowed(&hidden.narrow(0, row, 1)?, ids)?;
            }
        }
        let at_once = (MAX_LOGIT_BYTES / (4 * vocab_size)).max(1);
        for rows in whole.chunks(at_once) {
            let logits = self.logits(&select_rows(hidden, rows)?, &self.linear)?;
            let answers: Vec<RowResult> = on_host(&logits, |logits| {
                logits.par_chunks(vocab_size).zip(rows).map(|(logits, &row)| reduce(logits, wants[row])).collect()
            })?;
            for (&row, answer) in rows.iter().zip(answers) {
                results[row] = answer;
            }
        }
        Ok(results)
    }

    fn allowed(&self, hidden: &Tensor, ids: &[TokenId]) -> Result<Vec<f32>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = Tensor::new(ids, hidden.device())?;
        let part = |t: &Tensor| t.index_select(&rows, 0);
        let linear =
            Linear { weight: part(&self.linear.weight)?, bias: self.linear.bias.as_ref().map(part).transpose()? };
        on_host(&self.logits(hidden, &linear)?, <[f32]>::to_vec)
    }

    /// `[rows, hidden] -> [rows, out]` in f32.
    fn logits(&self, hidden: &Tensor, linear: &Linear) -> Result<Tensor> {
        let logits = linear.forward(hidden, self.ops)?.to_dtype(DType::F32)?;
        match (self.softcap, self.ops) {
            (None, _) => Ok(logits),
            (Some(cap), Ops::Cpu(_)) => logits.inplace_op1(&MapOp(|x: f32| (x / cap).tanh() * cap)).map(|()| logits),
            (Some(cap), Ops::Candle) => (logits / f64::from(cap))?.tanh()? * f64::from(cap),
        }
    }
}

/// The rows of `t` in the order given.
pub fn select_rows(t: &Tensor, rows: &[usize]) -> Result<Tensor> {
    match rows {
        [first, ..] if rows.iter().enumerate().all(|(i, row)| *row == first + i) => {
            t.narrow(0, *first, rows.len())?.contiguous()
        }
        _ => {
            let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
            t.index_select(&Tensor::new(rows, t.device())?, 0)
        }
    }
}

/// Gives `read` the values of a contiguous f32 tensor, copied to the host where they are not there yet.
pub fn on_host<R>(t: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let t = t.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) => Ok(read(&data[from..to])),
        _ => bail!("expected f32 values"),
    }
}

/// One row of logits to what it was asked for.
pub fn reduce(logits: &[f32], want: &RowWant) -> RowResult {
    let gather = |ids: &[TokenId]| ids.iter().map(|id| logits[*id as usize]).collect();
    let mut result = RowResult { log_sum_exp: f32::NAN, ..RowResult::default() };
    match want {
        RowWant::ArgMax => result.candidates.push(arg_max(logits)),
        RowWant::TopK { k, chosen } => {
            result.candidates = if *k == 1 { vec![arg_max(logits)] } else { top_k(logits, *k) };
            result.log_sum_exp = log_sum_exp(logits, result.candidates[0].1);
            result.chosen = gather(chosen);
        }
        RowWant::Allowed(ids) => result.chosen = gather(ids),
        RowWant::Full => result.logits = logits.to_vec(),
    }
    result
}

/// The first maximum.
fn arg_max(logits: &[f32]) -> (TokenId, f32) {
    let mut best = (0, logits[0]);
    for (id, &logit) in logits.iter().enumerate() {
        // NaN never wins, unless everything is NaN.
        if logit > best.1 || (best.1.is_nan() && !logit.is_nan()) {
            best = (id, logit);
        }
    }
    (best.0 as TokenId, best.1)
}

/// A candidate ordered so that the worst is the greatest: what a heap of the best keeps on top.
struct Candidate(TokenId, f32);

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_logit = match (self.1.is_nan(), other.1.is_nan()) {
            (false, false) => other.1.partial_cmp(&self.1).unwrap_or(Ordering::Equal),
            (mine, others) => mine.cmp(&others),
        };
        by_logit.then(self.0.cmp(&other.0))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

/// The `k` best, descending, ties by lower id first.
fn top_k(logits: &[f32], k: usize) -> Vec<(TokenId, f32)> {
    let k = k.min(logits.len());
    let mut heap: BinaryHeap<Candidate> =
        logits[..k].iter().enumerate().map(|(id, &logit)| Candidate(id as TokenId, logit)).collect();
    for (id, &logit) in logits.iter().enumerate().skip(k) {
        let candidate = Candidate(id as TokenId, logit);
        if let Some(mut worst) = heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }
    heap.into_sorted_vec().into_iter().map(|Candidate(id, logit)| (id, logit)).collect()
}

/// Natural log of the sum of exponentials, summed in f64; `max` is the largest logit.
fn log_sum_exp(logits: &[f32], max: f32) -> f32 {
    let partial: Vec<f64> = logits
        .par_chunks(SUM_CHUNK)
        .map(|chunk| chunk.iter().map(|logit| f64::from((logit - max).exp())).sum::<f64>())
        .collect();
    (f64::from(max) + partial.iter().sum::<f64>().ln()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_maximum_wins_and_nan_does_not() {
        assert_eq!(arg_max(&[1.0, 3.0, 3.0, 2.0]), (1, 3.0));
        assert_eq!(arg_max(&[f32::NAN, 3.0, f32::NAN]), (1, 3.0));
        assert_eq!(arg_max(&[f32::NEG_INFINITY, f32::NEG_INFINITY]).0, 0);
    }

    #[test]
    fn top_k_is_descending_with_ties_by_lower_id() {
        let logits = [1.0, 5.0, 3.0, 5.0, 3.0, 3.0];
        assert_eq!(top_k(&logits, 4), [(1, 5.0), (3, 5.0), (2, 3.0), (4, 3.0)]);
        assert_eq!(top_k(&logits, 100).len(), 6);
        assert_eq!(top_k(&[f32::NAN, 1.0, 2.0], 2), [(2, 2.0), (1, 1.0)]);
    }

    #[test]
    fn log_sum_exp_is_exact_and_does_not_overflow() {
        let logits: Vec<f32> = (0..50_000).map(|i| ((i * 37 % 1000) as f32) * 0.01 + 200.0).collect();
        let exact = logits.iter().map(|l| f64::from(l - 200.0).exp()).sum::<f64>().ln() + 200.0;
        let found = reduce(&logits, &RowWant::TopK { k: 1, chosen: vec![7] });
        assert!((f64::from(found.log_sum_exp) - exact).abs() < 1e-4, "{} {exact}", found.log_sum_exp);
        assert_eq!(found.chosen, [logits[7]]);
        assert!(found.logits.is_empty());
    }

    #[test]
    fn every_want_gets_only_what_it_asked_for() {
        let logits = [0.5, 2.0, 1.0];
        assert_eq!(reduce(&logits, &RowWant::Full).logits, logits);
        let allowed = reduce(&logits, &RowWant::Allowed(vec![2, 0].into()));
        assert_eq!(allowed.chosen, [1.0, 0.5]);
        assert!(allowed.candidates.is_empty() && allowed.log_sum_exp.is_nan());
        let best = reduce(&logits, &RowWant::ArgMax);
        assert_eq!(best.candidates, [(1, 2.0)]);
        assert!(best.log_sum_exp.is_nan());
    }
}
