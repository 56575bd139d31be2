//! Beam search with patience (Kasai et al., "A Call for Clarity in Beam Search", arXiv:2204.05424), after
//! BeamSearchDecoder of openai/whisper.

use super::rules::LogitRules;
use super::search::{Answer, Rows};
use crate::error::SpeechError;
use crate::network::CacheId;
use crate::session::Session;

/// The beams of one window.
#[derive(Debug)]
pub(crate) struct Beams {
    size: usize,
    /// The search ends when so many hypotheses came to their end.
    wanted: usize,
    limit: usize,
    live: Vec<Beam>,
    finished: Vec<Answer>,
    /// Caches that hold no beam.
    spare: Vec<CacheId>,
    candidates: Vec<Candidate>,
    top: Vec<(u32, f32)>,
}

#[derive(Debug)]
struct Beam {
    cache: CacheId,
    answer: Answer,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    beam: usize,
    token: u32,
    logprob: f32,
    sum: f64,
}

impl Beams {
    /// As many beams as there are caches, of which the first holds the prompt. At most `limit` tokens.
    pub fn new(prompt: CacheId, spare: Vec<CacheId>, patience: f32, limit: usize) -> Self {
        let size = spare.len() + 1;
        let wanted = ((size as f32 * patience).round_ties_even() as usize).max(1);
        let live = vec![Beam { cache: prompt, answer: Answer::default() }];
        Self {
            size,
            wanted,
            limit,
            live,
            finished: Vec::new(),
            spare,
            candidates: Vec::with_capacity(size * (size + 1)),
            top: Vec::with_capacity(size + 2),
        }
    }

    pub fn open(&self) -> impl Iterator<Item = (CacheId, u32)> + '_ {
        let count = if self.goes_on() { self.live.len() } else { 0 };
        self.live[..count].iter().filter_map(|beam| Some((beam.cache, *beam.answer.tokens.last()?)))
    }

    pub fn advance(
        &mut self,
        session: &mut Session<'_>,
        rules: &LogitRules,
        rows: &mut Rows<'_>,
    ) -> Result<(), SpeechError> {
        if !self.goes_on() {
            return Ok(());
        }
        self.candidates.clear();
        for (index, beam) in self.live.iter().enumerate() {
            let logits = rows.row(index);
            let allowed = rules.apply(&beam.answer.tokens, logits)?;
            allowed.top(logits, self.size + 1, &mut self.top);
            self.candidates.extend(self.top.iter().map(|&(token, logit)| {
                let logprob = allowed.logprob(logit);
                Candidate { beam: index, token, logprob, sum: beam.answer.sum + f64::from(logprob) }
            }));
        }
        // Stable: of equal ones the earlier beam's comes first.
        self.candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        self.choose(session, rules.end_of_text());
        session.decoded_tokens += self.live.len();
        Ok(())
    }

    fn goes_on(&self) -> bool {
        self.finished.len() < self.wanted && self.live.first().is_some_and(|beam| beam.answer.tokens.len() < self.limit)
    }

    /// The best candidates become the beams; those among them that end are kept apart.
    fn choose(&mut self, session: &mut Session<'_>, end_of_text: u32) {
        let mut kept: Vec<Candidate> = Vec::with_capacity(self.size);
        for candidate in &self.candidates {
            if candidate.token == end_of_text {
                if self.finished.len() < self.wanted {
                    let mut answer = self.live[candidate.beam].answer.clone();
                    (answer.sum, answer.ended) = (candidate.sum, true);
                    self.finished.push(answer);
                }
            } else {
                kept.push(*candidate);
                if kept.len() == self.size {
                    break;
                }
            }
        }
        let old = std::mem::take(&mut self.live);
        let childless = |index: usize| !kept.iter().any(|candidate| candidate.beam == index);
        self.spare.extend(old.iter().enumerate().filter(|&(index, _)| childless(index)).map(|(_, beam)| beam.cache));
        for (place, candidate) in kept.iter().enumerate() {
            let parent = &old[candidate.beam];
            let first = !kept[..place].iter().any(|earlier| earlier.beam == candidate.beam);
            // The first child goes on in its parent's cache, others in copies of it.
            let cache = if first {
                parent.cache
            } else {
                let Some(cache) = self.spare.pop() else { break };
                session.copy_cache(parent.cache, cache);
                cache
            };
            let mut answer = parent.answer.clone();
            answer.tokens.push(candidate.token);
            answer.logprobs.push(candidate.logprob);
            answer.sum = candidate.sum;
            self.live.push(Beam { cache, answer });
        }
    }

    /// The hypotheses that ended; where these are fewer than beams, the best of the others too.
    pub fn finish(self) -> (Vec<Answer>, Vec<CacheId>) {
        let (mut answers, mut caches) = (self.finished, self.spare);
        let mut live = self.live;
        live.sort_by(|a, b| b.answer.sum.total_cmp(&a.answer.sum));
        for beam in live {
            caches.push(beam.cache);
            if answers.len() < self.size {
                answers.push(beam.answer);
            }
        }
        (answers, caches)
    }
}
