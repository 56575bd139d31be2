//! Speculation by looking the answer up: where the last tokens came before, what followed them then is a draft of what
//! follows now (prompt look-up decoding). A step that streams all weights for one row computes a few more for little, so
//! that a draft which is right saves steps.
//!
//! Nothing here changes an answer. Every position of a draft is sampled from its own row by the request's own processors
//! and generator, as it would be without a draft; the draft only decides which rows exist.

use crate::costs::{StepCosts, StepLoad};
use crate::{RowRole, Speculation, TokenId};

/// Acceptance that is believed before anything was seen.
const FIRST_ACCEPTANCE: f64 = 0.3;

/// Weight of the newest observation.
const WEIGHT: f64 = 0.15;

/// What one sequence knows of its drafts.
#[derive(Debug)]
pub(crate) struct Drafter {
    /// Moving average: how often a drafted token is the right one where those before it are.
    acceptance: f64,
    /// Longest draft for now: doubled by one that was right, cut back to what was right of one that was not.
    limit: usize,
    /// The draft in the step under way.
    draft: Vec<TokenId>,
    /// The first token of a draft that was looked up and not used. What is chosen instead tells of the acceptance at no
    /// cost: so drafts begin again when the text begins to repeat itself.
    guess: Option<TokenId>,
}

impl Default for Drafter {
    fn default() -> Self {
        Self { acceptance: FIRST_ACCEPTANCE, limit: 1, draft: Vec::new(), guess: None }
    }
}

impl Drafter {
    /// Looks up what may follow `tokens`, at most `longest` of them. Empty: nothing, or there is no room.
    pub(crate) fn look_up(&mut self, tokens: &[TokenId], longest: usize, bounds: &Speculation) -> Vec<TokenId> {
        let limit = self.limit.min(bounds.max_rows.max(2) - 1);
        let mut found = look_up(tokens, longest.clamp(1, limit), bounds);
        self.guess = found.first().copied();
        found.truncate(longest);
        found
    }

    pub(crate) fn acceptance(&self) -> f64 {
        self.acceptance
    }

    /// Puts a draft into the step being planned.
    pub(crate) fn set(&mut self, draft: Vec<TokenId>) {
        self.draft = draft;
    }

    pub(crate) fn draft(&self) -> &[TokenId] {
        &self.draft
    }

    /// The draft of the step that is over.
    pub(crate) fn take(&mut self) -> Vec<TokenId> {
        std::mem::take(&mut self.draft)
    }

    /// Learns from what became of a step: `chosen` are the answer's new tokens, of which the first `n_right` are those
    /// of `draft`.
    pub(crate) fn observe(&mut self, draft: &[TokenId], n_right: usize, chosen: &[TokenId]) {
        let guess = self.guess.take();
        if draft.is_empty() {
            if let (Some(guess), Some(&first)) = (guess, chosen.first()) {
                self.learn(guess == first);
            }
            return;
        }
        (0..n_right).for_each(|_| self.learn(true));
        if n_right == draft.len() {
            self.limit = self.limit.max(2 * draft.len());
        } else if chosen.len() > n_right {
            self.learn(false);
            self.limit = n_right + 1;
        }
    }

    fn learn(&mut self, right: bool) {
        self.acceptance += WEIGHT * (f64::from(u8::from(right)) - self.acceptance);
    }
}

/// What followed the last tokens where they came before: the place where the most of them agree, of equal ones the
/// latest. Where that place runs into the end, the text repeats itself and the draft goes round. One pass over the
/// tokens, a few microseconds for thousands of them.
fn look_up(tokens: &[TokenId], longest: usize, bounds: &Speculation) -> Vec<TokenId> {
    let (least, most) = (bounds.min_ngram.max(1), bounds.max_ngram.max(1));
    let Some((&last, before)) = tokens.split_last() else { return Vec::new() };
    let mut best = (0, 0);
    for at in (0..before.len()).rev().filter(|&at| before[at] == last) {
        let same =
            before[..at].iter().rev().zip(before.iter().rev()).take(most - 1).take_while(|(a, b)| a == b).count();
        if same + 1 > best.0 {
            best = (same + 1, at + 1);
            if best.0 >= most {
                break;
            }
        }
    }
    let (n_same, follower) = best;
    if n_same < least {
        return Vec::new();
    }
    let round = tokens.len() - follower;
    (0..longest).map(|i| tokens[follower + i % round]).collect()
}

/// A draft that a step could take in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) acceptance: f64,
    /// Tokens drafted.
    pub(crate) length: usize,
    /// Position of its first token.
    pub(crate) start: usize,
}

/// How many tokens of each draft the step takes in: those that make the most tokens per second by the cost table, where
/// `n_answers` are chosen without drafts from a step of `load`. The `i`-th token of a draft is the answer's with
/// probability `acceptance^i`.
pub(crate) fn share(
    costs: &StepCosts,
    load: &StepLoad,
    n_answers: usize,
    candidates: &[Candidate],
    room: usize,
) -> Vec<usize> {
    let rows = candidates
        .iter()
        .enumerate()
        .flat_map(|(of, candidate)| (1..=candidate.length).map(move |i| (candidate.acceptance.powi(i as i32), of)));
    let mut rows: Vec<(f64, usize)> = rows.collect();
    // Stable: equal ones stay in the order of arrival, and a draft's tokens in theirs.
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut load, mut tokens) = (*load, n_answers as f64);
    let (mut best_rate, mut n_best) = (tokens / costs.seconds(&load), 0);
    for (n, &(probability, of)) in rows.iter().take(room).enumerate() {
        load = load.with(RowRole::Decode, candidates[of].start, 1);
        tokens += probability;
        let rate = tokens / costs.seconds(&load);
        if rate > best_rate {
            (best_rate, n_best) = (rate, n + 1);
        }
    }
    let mut lengths = vec![0; candidates.len()];
    rows[..n_best].iter().for_each(|&(_, of)| lengths[of] += 1);
    lengths
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn found(tokens: &[TokenId], longest: usize) -> Vec<TokenId> {
        look_up(tokens, longest, &Speculation::default())
    }

    #[test]
    fn the_longest_and_then_the_latest_place_is_found() {
        assert_eq!(found(&[1, 2, 3, 9, 8, 1, 2, 3], 2), [9, 8]);
        // Two tokens agree at both places: the latest. Three agree at the first: that one.
        assert_eq!(found(&[7, 2, 3, 9, 6, 2, 3, 5, 1, 2, 3], 1), [5]);
        assert_eq!(found(&[1, 2, 3, 9, 6, 2, 3, 5, 1, 2, 3], 1), [9]);
        // One token is too few, and so is nothing.
        assert!(found(&[4, 2, 3, 9, 5, 3], 3).is_empty());
        assert!(found(&[], 3).is_empty());
        assert!(found(&[1], 3).is_empty());
        // The text goes round.
        assert_eq!(found(&[5, 6, 7, 5, 6], 5), [7, 5, 6, 7, 5]);
        assert_eq!(found(&[5, 5, 5], 4), [5, 5, 5, 5]);
        let one = Speculation { min_ngram: 1, max_ngram: 1, ..Speculation::default() };
        assert_eq!(look_up(&[3, 4, 3], 3, &one), [4, 3, 4]);
    }

    #[test]
    fn drafts_grow_while_they_are_right() {
        let bounds = Speculation::default();
        let mut drafter = Drafter::default();
        let tokens = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2];
        let mut lengths = Vec::new();
        for _ in 0..5 {
            let draft = drafter.look_up(&tokens, 100, &bounds);
            lengths.push(draft.len());
            let mut chosen = draft.clone();
            chosen.push(9);
            drafter.observe(&draft, draft.len(), &chosen);
        }
        assert_eq!(lengths, [1, 2, 4, 7, 7]);
        assert!(drafter.acceptance() > 0.9);
        let draft = drafter.look_up(&tokens, 100, &bounds);
        drafter.observe(&draft, 2, &[3, 4, 9]);
        assert_eq!(drafter.look_up(&tokens, 100, &bounds), [3, 4, 1]);
        assert!(drafter.look_up(&tokens, 0, &bounds).is_empty());
        // Seen without a draft, right or wrong.
        let before = drafter.acceptance();
        drafter.observe(&[], 0, &[3]);
        assert!(drafter.acceptance() > before);
        drafter.look_up(&tokens, 0, &bounds);
        let before = drafter.acceptance();
        drafter.observe(&[], 0, &[4]);
        assert!(drafter.acceptance() < before);
    }

    #[test]
    fn the_table_says_what_pays() {
        let costs = |times: [u64; 8]| StepCosts::new((1..).zip(times.map(Duration::from_micros))).unwrap();
        // Linear layers of SmolLM2-135M: flat to four rows, then compute-bound.
        let flat = costs([1680, 1690, 1710, 1810, 1890, 2230, 2660, 3100]);
        let steep = costs([1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000]);
        let candidate = |acceptance, length| Candidate { acceptance, length, start: 100 };
        let alone = |costs: &StepCosts, acceptance| {
            let load = StepLoad::default().with(RowRole::Decode, 99, 1);
            share(costs, &load, 1, &[candidate(acceptance, 7)], 7)[0]
        };
        assert_eq!([0.0, 0.1, 0.5, 0.9].map(|a| alone(&flat, a)), [0, 1, 3, 4]);
        assert_eq!([0.1, 0.9].map(|a| alone(&steep, a)), [0, 0]);
        // A row that pays for nothing by itself is taken where the next ones are free.
        let steps = costs([1000, 1600, 1600, 1600, 1600, 1600, 1600, 1600]);
        assert_eq!([0.3, 0.5].map(|a| alone(&steps, a)), [0, 7]);
        // Two sequences share the rows by what they have shown.
        let load = StepLoad::default().with(RowRole::Decode, 99, 1).with(RowRole::Decode, 99, 1);
        assert_eq!(share(&flat, &load, 2, &[candidate(0.2, 7), candidate(0.9, 7)], 6), [0, 3]);
        assert_eq!(share(&flat, &load, 2, &[candidate(0.8, 1), candidate(0.8, 7)], 2), [1, 1]);
        assert_eq!(share(&flat, &load, 2, &[candidate(0.8, 1)], 0), [0]);
        // Context is paid for by every row.
        let deep = flat.with_context(Duration::from_millis(10), Duration::ZERO);
        let load = StepLoad::default().with(RowRole::Decode, 4000, 1);
        assert_eq!(share(&deep, &load, 1, &[Candidate { acceptance: 0.6, length: 7, start: 4000 }], 7), [0]);
    }
}
