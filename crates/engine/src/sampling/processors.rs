//! What changes logits before a token is chosen: transformers' processors in its order, with OpenAI's penalties behind
//! the repetition penalty.

use super::history::History;
use super::row::Row;
use crate::{SamplingParams, TokenId};

/// What the processors of one position look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) params: &'a SamplingParams,
    pub(crate) history: &'a History,
    /// Prompt and answer so far.
    pub(crate) tokens: &'a [TokenId],
    pub(crate) n_generated: usize,
    /// Empty where they do not end the answer.
    pub(crate) end_tokens: &'a [TokenId],
}

pub(super) struct Processor {
    /// transformers' name; OpenAI's penalties have none there.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests find the golden steps by it"))]
    pub(super) name: &'static str,
    /// It forbids tokens. Where what must be matched leaves nothing else, it is not applied.
    pub(super) forbids: bool,
    pub(super) is_active: fn(&Context<'_>) -> bool,
    pub(super) apply: fn(&Context<'_>, &mut Row),
}

/// In the order of application.
pub(super) const PROCESSORS: [Processor; 8] = [
    Processor {
        name: "SequenceBiasLogitsProcessor",
        forbids: false,
        is_active: |c| !c.params.sequence_bias.is_empty(),
        apply: |c, row| {
            for (run, bias) in c.params.sequence_bias.iter() {
                if let Some(token) = completed(run, c.tokens) {
                    row.change(token, |logit| logit + bias);
                }
            }
        },
    },
    Processor {
        name: "RepetitionPenaltyLogitsProcessor",
        forbids: false,
        is_active: |c| c.params.repetition_penalty != 1.0,
        apply: |c, row| {
            let penalty = c.params.repetition_penalty;
            for &token in c.history.seen() {
                row.change(token, |logit| if logit < 0.0 { logit * penalty } else { logit / penalty });
            }
        },
    },
    Processor {
        name: "openai_penalties",
        forbids: false,
        is_active: |c| c.params.presence_penalty != 0.0 || c.params.frequency_penalty != 0.0,
        apply: |c, row| {
            for (token, count) in c.history.counts() {
                let penalty = c.params.frequency_penalty * count as f32 + c.params.presence_penalty;
                row.change(token, |logit| logit - penalty);
            }
        },
    },
    Processor {
        name: "NoRepeatNGramLogitsProcessor",
        forbids: true,
        is_active: |c| c.params.no_repeat_ngram_size > 0,
        apply: |c, row| c.history.repeats(c.tokens).for_each(|token| row.forbid(token)),
    },
    Processor {
        name: "NoBadWordsLogitsProcessor",
        forbids: true,
        is_active: |c| !c.params.bad_words.is_empty(),
        apply: |c, row| {
            for run in c.params.bad_words.iter() {
                let ends_answer = matches!(**run, [token] if c.end_tokens.contains(&token));
                if let (Some(token), false) = (completed(run, c.tokens), ends_answer) {
                    row.forbid(token);
                }
            }
        },
    },
    Processor {
        name: "MinNewTokensLengthLogitsProcessor",
        forbids: true,
        is_active: |c| c.n_generated < c.params.min_new_tokens && !c.end_tokens.is_empty(),
        apply: |c, row| c.end_tokens.iter().for_each(|&token| row.forbid(token)),
    },
    Processor {
        name: "SuppressTokensLogitsProcessor",
        forbids: true,
        is_active: |c| !c.params.suppress_tokens.is_empty(),
        apply: |c, row| c.params.suppress_tokens.iter().for_each(|&token| row.forbid(token)),
    },
    Processor {
        name: "SuppressTokensAtBeginLogitsProcessor",
        forbids: true,
        is_active: |c| c.n_generated == 0 && !c.params.begin_suppress_tokens.is_empty(),
        apply: |c, row| c.params.begin_suppress_tokens.iter().for_each(|&token| row.forbid(token)),
    },
];

/// Whether any processor has something to do at this position.
pub(super) fn are_active(context: &Context<'_>) -> bool {
    PROCESSORS.iter().any(|processor| (processor.is_active)(context))
}

/// Applies them all, or all that do not forbid.
pub(super) fn apply(context: &Context<'_>, may_forbid: bool, row: &mut Row) {
    for processor in &PROCESSORS {
        if (may_forbid || !processor.forbids) && (processor.is_active)(context) {
            (processor.apply)(context, row);
        }
    }
}

/// The token that would complete the run, if the tokens end with its others.
fn completed(run: &[TokenId], tokens: &[TokenId]) -> Option<TokenId> {
    let (&last, others) = run.split_last()?;
    tokens.ends_with(others).then_some(last)
}
