//! Window after window, each from where the text before ended. After `transcribe.py` of openai/whisper.

use super::Run;
use super::regions::Regions;
use super::window::Progress;
use crate::decode::{Prompt, Window, prompt_text};
use crate::error::SpeechError;

/// Above this temperature an answer is no context for the next window.
const MAX_CONTEXT_TEMPERATURE: f32 = 0.5;

pub(super) fn transcribe(run: &mut Run<'_>) -> Result<(), SpeechError> {
    let regions = if run.options().skip_silence { run.speech()?.clone() } else { Regions::whole(run.n_frames) };
    let mut context = Context::new(run);
    let mut progress = Progress::default();
    let mut seek = 0;
    while let Some(range) = regions.window(seek, run.window_frames()) {
        let Some(audio) = run.encode(range.clone())? else {
            seek = range.end;
            run.progress(seek);
            continue;
        };
        run.know_language(audio)?;
        let prompt = context.prompt(run);
        let window = Window { audio, prompt, seek: range.start };
        let decoded = run.decoder.decode(&mut run.session, &[window])?;
        for decoded in decoded {
            let outcome = run.finish(&decoded, audio, range.clone(), run.n_frames, &mut progress)?;
            if !outcome.skipped {
                context.extend(outcome.drafts.iter().flat_map(|draft| draft.tokens.iter().copied()));
                if decoded.temperature > MAX_CONTEXT_TEMPERATURE {
                    context.reset();
                }
            }
            run.tell(outcome.drafts, &decoded, range.start);
            seek = outcome.next;
        }
        run.session.release(audio);
        run.progress(seek);
    }
    Ok(())
}

/// The text before a window.
struct Context {
    /// Of the caller.
    initial: Vec<u32>,
    /// All that was decoded.
    tokens: Vec<u32>,
    /// What of it counts.
    since: usize,
    conditioned: bool,
    carried: bool,
}

impl Context {
    fn new(run: &Run<'_>) -> Self {
        let prompt = run.options().prompt.as_deref().filter(|prompt| !prompt.trim().is_empty());
        let initial = prompt.map_or_else(Vec::new, |prompt| run.decoder.vocabulary.encode(&prompt_text(prompt)));
        let tokens = if run.options().carry_prompt { Vec::new() } else { initial.clone() };
        let conditioned = run.options().condition_on_previous_text;
        Self { initial, tokens, since: 0, conditioned, carried: run.options().carry_prompt }
    }

    fn prompt(&self, run: &Run<'_>) -> Prompt {
        let text_context = run.session.shape().text_context;
        let before = &self.tokens[self.since..];
        let start = run.window_start();
        if !self.carried {
            return Prompt::new(run.decoder.tokens, before, &start, text_context);
        }
        // The caller's prompt whole, and as much of the text before as there is room for.
        let room = (text_context / 2).saturating_sub(1 + self.initial.len());
        let previous = [&self.initial, &before[before.len().saturating_sub(room)..]].concat();
        Prompt::new(run.decoder.tokens, &previous, &start, text_context)
    }

    fn extend(&mut self, tokens: impl Iterator<Item = u32>) {
        self.tokens.extend(tokens);
        if !self.conditioned {
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.since = self.tokens.len();
    }
}
