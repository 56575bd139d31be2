//! Drafts of answers, on what a step has left.

use super::Scheduler;
use crate::draft::{Candidate, share};

impl Scheduler {
    /// Adds drafts to the answers of a step that has rows to spare, on blocks that nobody holds.
    pub(super) fn draft(&mut self) {
        let (Some(pace), Some(bounds)) = (&self.pace, &self.speculation) else { return };
        let n_rows: usize = self.planned.iter().map(|p| p.n_tokens).sum();
        let only_answers = self.planned.iter().all(|p| p.writes);
        let room = match only_answers && self.planned.len() < bounds.max_sequences {
            true => bounds.max_rows.saturating_sub(n_rows).min(self.budget_left()),
            false => 0,
        };
        let mut drafts = Vec::new();
        for (index, planned) in self.planned.iter().enumerate().filter(|(_, p)| p.writes) {
            let Ok(at) = self.running.binary_search_by_key(&planned.ticket, |s| s.ticket) else { continue };
            // Looked up even where there is no room: what is chosen instead tells how good it would have been.
            let tokens = self.running[at].look_up_draft(planned.end, bounds, &self.limits);
            if room > 0 && !tokens.is_empty() {
                drafts.push((index, at, tokens));
            }
        }
        let candidates: Vec<_> = drafts
            .iter()
            .map(|&(index, at, ref tokens)| Candidate {
                acceptance: self.running[at].acceptance(),
                length: tokens.len(),
                start: self.planned[index].end,
            })
            .collect();
        if candidates.is_empty() {
            return;
        }
        let lengths = share(&pace.costs, &self.load(), self.planned.len(), &candidates, room);
        for ((index, at, mut tokens), length) in drafts.into_iter().zip(lengths) {
            let (planned, sequence) = (&mut self.planned[index], &mut self.running[at]);
            let has_room = |&n: &usize| self.kv.has_room(&sequence.holding, planned.end + n);
            let length = (1..=length).rev().find(has_room).unwrap_or(0);
            if length > 0 && self.kv.extend(&mut sequence.holding, planned.end + length) {
                tokens.truncate(length);
                planned.n_tokens += length;
                sequence.set_draft(tokens);
            }
        }
    }
}
