//! What the processors must know of the tokens so far, kept up to date token by token.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{SamplingParams, TokenId};

/// Facts of one sequence's tokens; only those that its parameters need.
#[derive(Debug, Default)]
pub(crate) struct History {
    seen: Option<Seen>,
    counts: Option<HashMap<TokenId, u32>>,
    ngrams: Option<NGrams>,
}

#[derive(Debug, Default)]
struct Seen {
    set: HashSet<TokenId>,
    /// The same by first appearance.
    list: Vec<TokenId>,
}

/// Where each run of `size - 1` tokens was followed by another token.
#[derive(Debug)]
struct NGrams {
    size: usize,
    /// By hash of the run: positions of the followers.
    followers: HashMap<u64, Vec<u32>>,
}

impl History {
    pub(crate) fn new(params: &SamplingParams, prompt: &[TokenId]) -> Self {
        let mut history = Self {
            seen: (params.repetition_penalty != 1.0).then(Seen::default),
            counts: (params.presence_penalty != 0.0 || params.frequency_penalty != 0.0).then(HashMap::new),
            ngrams: (params.no_repeat_ngram_size > 0)
                .then(|| NGrams { size: params.no_repeat_ngram_size, followers: HashMap::new() }),
        };
        if let Some(seen) = &mut history.seen {
            prompt.iter().for_each(|&token| seen.push(token));
        }
        if let Some(ngrams) = &mut history.ngrams {
            (1..=prompt.len()).for_each(|n| ngrams.push(&prompt[..n]));
        }
        history
    }

    /// Takes in the last of `tokens`, which was generated.
    pub(crate) fn push(&mut self, tokens: &[TokenId]) {
        let Some(&token) = tokens.last() else { return };
        if let Some(seen) = &mut self.seen {
            seen.push(token);
        }
        if let Some(counts) = &mut self.counts {
            *counts.entry(token).or_insert(0) += 1;
        }
        if let Some(ngrams) = &mut self.ngrams {
            ngrams.push(tokens);
        }
    }

    /// The different tokens of prompt and answer. Empty if no parameter asks for them, as the others.
    pub(super) fn seen(&self) -> &[TokenId] {
        self.seen.as_ref().map_or(&[], |seen| &seen.list)
    }

    /// How often the answer holds each token.
    pub(super) fn counts(&self) -> impl Iterator<Item = (TokenId, u32)> {
        self.counts.iter().flatten().map(|(&token, &count)| (token, count))
    }

    /// What followed the last tokens wherever they came before. May name a token twice.
    pub(super) fn repeats(&self, tokens: &[TokenId]) -> impl Iterator<Item = TokenId> {
        let run = self.ngrams.as_ref().and_then(|ngrams| Some((ngrams, tokens.len().checked_sub(ngrams.size - 1)?)));
        run.into_iter().flat_map(move |(ngrams, start)| {
            let run = &tokens[start..];
            let followers = ngrams.followers.get(&hash(run)).map_or(&[][..], Vec::as_slice);
            // Two runs may have one hash.
            let same = move |at: &&u32| tokens[..**at as usize].ends_with(run);
            followers.iter().filter(same).map(|&at| tokens[at as usize])
        })
    }
}

impl Seen {
    fn push(&mut self, token: TokenId) {
        if self.set.insert(token) {
            self.list.push(token);
        }
    }
}

impl NGrams {
    fn push(&mut self, tokens: &[TokenId]) {
        if let Some(start) = tokens.len().checked_sub(self.size) {
            let at = tokens.len() - 1;
            self.followers.entry(hash(&tokens[start..at])).or_default().push(at as u32);
        }
    }
}

fn hash(run: &[TokenId]) -> u64 {
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_however_long_they_are() {
        let tokens = [5, 7, 5, 9, 11, 7, 5, 3, 7, 5];
        for (size, mut expected) in
            [(1, tokens.to_vec()), (2, vec![7, 9, 3]), (3, vec![9, 3]), (4, vec![]), (40, vec![])]
        {
            let params = SamplingParams { no_repeat_ngram_size: size, ..SamplingParams::default() };
            // All as a prompt, and all but one token as an answer.
            let whole = History::new(&params, &tokens);
            let mut grown = History::new(&params, &tokens[..1]);
            (2..=tokens.len()).for_each(|n| grown.push(&tokens[..n]));
            expected.sort_unstable();
            for history in [whole, grown] {
                let mut found: Vec<_> = history.repeats(&tokens).collect();
                found.sort_unstable();
                assert_eq!(found, expected, "size {size}");
            }
        }
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let mut history = History::new(&SamplingParams::default(), &[1, 2]);
        history.push(&[1, 2, 3]);
        assert!(history.seen().is_empty() && history.counts().next().is_none());
        assert!(history.repeats(&[1, 2, 3]).next().is_none());
    }
}
