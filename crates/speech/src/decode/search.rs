//! Hypotheses of one window: each step they say which tokens they want appended, and choose from the logits that come
//! back.

use super::beam::Beams;
use super::rng::Rng;
use super::rules::LogitRules;
use crate::error::SpeechError;
use crate::network::CacheId;
use crate::session::Session;

/// Tokens of a window, without those of the prompt and without the end of text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub tokens: Vec<u32>,
    /// ln of each token's probability among those that the rules allowed.
    pub logprobs: Vec<f32>,
    /// Their sum, with that of the end of text.
    pub sum: f64,
    /// Whether it came to its end of text.
    pub ended: bool,
}

impl Answer {
    fn append(&mut self, token: u32, logprob: f32, end_of_text: u32) {
        self.sum += f64::from(logprob);
        if token == end_of_text {
            self.ended = true;
        } else {
            self.tokens.push(token);
            self.logprobs.push(logprob);
        }
    }
}

/// Logits of a step, one row for each hypothesis, or one for all of them (after the prompt).
pub(crate) struct Rows<'a> {
    pub logits: &'a mut [f32],
    pub vocab_size: usize,
    pub shared: bool,
}

impl Rows<'_> {
    pub fn row(&mut self, index: usize) -> &mut [f32] {
        let start = if self.shared { 0 } else { index * self.vocab_size };
        &mut self.logits[start..start + self.vocab_size]
    }
}

/// How a window is decoded.
#[derive(Debug)]
pub(crate) enum Search {
    Draws(Draws),
    Beams(Beams),
}

impl Search {
    /// Calls `row` with the cache and the last token of each hypothesis that goes on, in the order in which
    /// [`Self::advance`] expects their logits.
    pub fn open(&self, row: &mut dyn FnMut(CacheId, u32)) {
        match self {
            Self::Draws(draws) => draws.open().for_each(|(cache, token)| row(cache, token)),
            Self::Beams(beams) => beams.open().for_each(|(cache, token)| row(cache, token)),
        }
    }

    pub fn advance(
        &mut self,
        session: &mut Session<'_>,
        rules: &LogitRules,
        rows: &mut Rows<'_>,
    ) -> Result<(), SpeechError> {
        match self {
            Self::Draws(draws) => draws.advance(session, rules, rows),
            Self::Beams(beams) => beams.advance(session, rules, rows),
        }
    }

    /// The best answer, and the caches that are free again.
    pub fn finish(self) -> (Answer, Vec<CacheId>) {
        let (answers, caches) = match self {
            Self::Draws(draws) => draws.finish(),
            Self::Beams(beams) => beams.finish(),
        };
        (likeliest(answers), caches)
    }
}

/// The answer of the highest log-probability per token, of equals the first (MaximumLikelihoodRanker without a length
/// penalty: the end of text counts in the sum but not in the length).
fn likeliest(answers: Vec<Answer>) -> Answer {
    let score = |answer: &Answer| answer.sum / answer.tokens.len().max(1) as f64;
    let mut answers = answers.into_iter();
    let first = answers.next().unwrap_or_default();
    answers.fold(first, |best, next| if score(&next) > score(&best) { next } else { best })
}

/// Independent hypotheses: one greedy one, or several drawn ones.
#[derive(Debug)]
pub(crate) struct Draws {
    temperature: f32,
    limit: usize,
    hypotheses: Vec<Hypothesis>,
}

#[derive(Debug)]
struct Hypothesis {
    cache: CacheId,
    answer: Answer,
    rng: Rng,
}

impl Draws {
    /// One hypothesis for each cache, which hold the prompt; at most `limit` tokens. `keys` (window, attempt) choose
    /// the random numbers; at temperature 0 none are drawn.
    pub fn new(caches: Vec<CacheId>, temperature: f32, limit: usize, seed: u64, keys: [u64; 2]) -> Self {
        let hypotheses = caches.into_iter().zip(0u64..).map(|(cache, index)| {
            let rng = Rng::new(seed, [keys[0], keys[1], index]);
            Hypothesis { cache, answer: Answer::default(), rng }
        });
        Self { temperature, limit, hypotheses: hypotheses.collect() }
    }

    fn open(&self) -> impl Iterator<Item = (CacheId, u32)> + '_ {
        let open = self.hypotheses.iter().filter(|hypothesis| hypothesis.goes_on(self.limit));
        open.filter_map(|hypothesis| Some((hypothesis.cache, *hypothesis.answer.tokens.last()?)))
    }

    fn advance(
        &mut self,
        session: &mut Session<'_>,
        rules: &LogitRules,
        rows: &mut Rows<'_>,
    ) -> Result<(), SpeechError> {
        let open = self.hypotheses.iter_mut().filter(|hypothesis| hypothesis.goes_on(self.limit));
        for (index, hypothesis) in open.enumerate() {
            let logits = rows.row(index);
            let allowed = rules.apply(&hypothesis.answer.tokens, logits)?;
            let token = if self.temperature > 0.0 {
                allowed.draw(logits, self.temperature, hypothesis.rng.unit())
            } else {
                allowed.best
            };
            let logprob = allowed.logprob(logits[token as usize]);
            hypothesis.answer.append(token, logprob, rules.end_of_text());
            session.decoded_tokens += 1;
        }
        Ok(())
    }

    fn finish(self) -> (Vec<Answer>, Vec<CacheId>) {
        self.hypotheses.into_iter().map(|hypothesis| (hypothesis.answer, hypothesis.cache)).unzip()
    }
}

impl Hypothesis {
    fn goes_on(&self, limit: usize) -> bool {
        !self.answer.ended && self.answer.tokens.len() < limit
    }
}
