//! Attempts at rising temperatures until an answer passes the thresholds (`decode_with_fallback` of openai/whisper).

use super::beam::Beams;
use super::prompt::Prompt;
use super::ratio::compression_ratio;
use super::rules::LogitRules;
use super::search::{Answer, Draws, Search};
use super::{Prefilled, prefill, run};
use crate::error::SpeechError;
use crate::network::{AudioId, NetworkShape};
use crate::session::Session;
use crate::vocabulary::{SpecialTokens, Vocabulary};
use crate::{Rules, Temperature, TranscribeOptions};

/// A window to decode.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub audio: AudioId,
    pub prompt: Prompt,
    /// Frame at which it begins: chooses its random numbers.
    pub seek: usize,
}

/// What a window became.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decoded {
    /// With timestamps, without the end of text.
    pub tokens: Vec<u32>,
    /// Of each token.
    pub logprobs: Vec<f32>,
    pub avg_logprob: f32,
    pub no_speech_prob: f32,
    pub compression_ratio: f32,
    pub temperature: f32,
    /// Whether the end of text was reached.
    pub ended: bool,
}

/// What decoding a window needs to know of the transcription.
pub(crate) struct Decoder<'a> {
    pub tokens: &'a SpecialTokens,
    pub vocabulary: &'a dyn Vocabulary,
    pub options: &'a TranscribeOptions,
    rules: LogitRules,
}

impl<'a> Decoder<'a> {
    pub fn new(
        shape: &NetworkShape,
        tokens: &'a SpecialTokens,
        vocabulary: &'a dyn Vocabulary,
        options: &'a TranscribeOptions,
    ) -> Self {
        let rules = LogitRules::new(shape, tokens, vocabulary, options);
        Self { tokens, vocabulary, options, rules }
    }

    /// Decodes windows together, each as often as it needs. The answers are in the windows' order and do not depend on
    /// which windows come together.
    pub fn decode(&self, session: &mut Session<'_>, windows: &[Window]) -> Result<Vec<Decoded>, SpeechError> {
        let mut prefilled = prefill(session, windows, self.tokens.no_speech)?;
        let mut answers: Vec<Option<Decoded>> = vec![None; windows.len()];
        let mut pending: Vec<usize> = (0..windows.len()).collect();
        let Temperature::Ladder(ladder) = &self.options.temperature;
        for (attempt, &temperature) in ladder.iter().enumerate() {
            let count = self.options.hypotheses(temperature);
            for group in pending.chunks(self.options.together(temperature)) {
                let mut jobs = Vec::with_capacity(group.len());
                for (index, own) in prefilled.iter_mut().enumerate().filter(|(index, _)| group.contains(index)) {
                    let keys = [windows[index].seek as u64, attempt as u64];
                    let search = self.search(session, own, temperature, count, keys)?;
                    jobs.push((own, search));
                }
                run(session, &self.rules, &mut jobs)?;
                for (&index, (own, search)) in group.iter().zip(jobs) {
                    let (answer, caches) = search.finish();
                    caches.into_iter().filter(|&cache| cache != own.cache).for_each(|cache| session.give_back(cache));
                    answers[index] = Some(self.rate(session.shape(), answer, own.no_speech_prob, temperature));
                }
            }
            pending.retain(|&index| answers[index].as_ref().is_none_or(|decoded| self.is_doubtful(decoded)));
            if pending.is_empty() {
                break;
            }
        }
        prefilled.iter().for_each(|own| session.give_back(own.cache));
        Ok(answers.into_iter().flatten().collect())
    }

    /// Whether the window is taken for silence: no text of it is kept.
    pub fn is_silence(&self, decoded: &Decoded) -> bool {
        let quiet = self.is_quiet(decoded);
        match (self.options.rules, self.options.logprob_threshold) {
            (Rules::Openai, Some(threshold)) => quiet && decoded.avg_logprob <= threshold,
            (Rules::Openai, None) => quiet,
            (Rules::Transformers, threshold) => quiet && threshold.is_some_and(|least| decoded.avg_logprob < least),
        }
    }

    /// Whether the network thinks that nobody speaks.
    pub fn is_quiet(&self, decoded: &Decoded) -> bool {
        self.options.no_speech_threshold.is_some_and(|threshold| decoded.no_speech_prob > threshold)
    }

    fn is_doubtful(&self, decoded: &Decoded) -> bool {
        let options = self.options;
        let repetitive = options.compression_ratio_threshold.is_some_and(|most| decoded.compression_ratio > most);
        let unlikely = options.logprob_threshold.is_some_and(|least| decoded.avg_logprob < least);
        (repetitive || unlikely) && !(self.is_quiet(decoded) && unlikely)
    }

    fn search(
        &self,
        session: &mut Session<'_>,
        own: &Prefilled,
        temperature: f32,
        count: usize,
        keys: [u64; 2],
    ) -> Result<Search, SpeechError> {
        session.truncate_cache(own.cache, own.len);
        let limit = self.limit(session.shape().text_context, own.len);
        let others = (1..count).map(|_| session.take_cache()).collect::<Result<Vec<_>, _>>()?;
        if temperature == 0.0 && count > 1 {
            return Ok(Search::Beams(Beams::new(own.cache, others, self.options.patience, limit)));
        }
        others.iter().for_each(|&cache| session.copy_cache(own.cache, cache));
        let caches = std::iter::once(own.cache).chain(others).collect();
        Ok(Search::Draws(Draws::new(caches, temperature, limit, self.options.seed, keys)))
    }

    /// Tokens that may be written after a prompt: the last one is not read again, so that openai/whisper lets it stand
    /// beyond the context.
    fn limit(&self, text_context: usize, prompt: usize) -> usize {
        match self.options.rules {
            Rules::Openai => (text_context / 2).min((text_context + 1).saturating_sub(prompt)).max(1),
            Rules::Transformers => text_context.saturating_sub(prompt).max(1),
        }
    }

    fn rate(&self, shape: &NetworkShape, answer: Answer, no_speech_prob: f32, temperature: f32) -> Decoded {
        // openai/whisper counts an end of text also where none was reached.
        let ends = usize::from(answer.ended || self.options.rules == Rules::Openai);
        let avg_logprob = (answer.sum / (answer.tokens.len() + ends).max(1) as f64) as f32;
        let compression_ratio = match self.options.rules {
            Rules::Openai => compression_ratio(self.vocabulary.decode(&answer.tokens).trim().as_bytes()),
            Rules::Transformers => compression_ratio(&self.packed(shape, &answer)),
        };
        let Answer { tokens, logprobs, ended, .. } = answer;
        Decoded { tokens, logprobs, avg_logprob, no_speech_prob, compression_ratio, temperature, ended }
    }

    /// The token ids, each in as many bytes as the vocabulary needs: what transformers compresses.
    fn packed(&self, shape: &NetworkShape, answer: &Answer) -> Vec<u8> {
        let width = ((shape.vocab_size as f64).log2() / 8.0) as usize + 1;
        let end = Some(&self.tokens.end_of_text).filter(|_| answer.ended);
        answer.tokens.iter().chain(end).flat_map(|token| token.to_le_bytes().into_iter().take(width)).collect()
    }
}
