//! The loop of Hugging Face transformers (`generation_whisper.py`), temperature after temperature as there: for tests,
//! whose goldens it computes. It keeps empty segments, and both timestamps of the last pair.

use super::Run;
use super::cut::Draft;
use crate::decode::{Decoded, Prompt, Window, prompt_text};
use crate::error::SpeechError;
use crate::network::AudioId;
use crate::time::{FRAMES_PER_POSITION, seconds};
use crate::transcript::Word;
use crate::words::token_times;

/// From this temperature on an answer is no context for the next window.
const CONTEXT_TEMPERATURE: f32 = 0.5;

pub(super) fn transcribe(run: &mut Run<'_>) -> Result<(), SpeechError> {
    let conditioned = run.options().condition_on_previous_text;
    let prompt = run.options().prompt.as_deref().map(|prompt| run.decoder.vocabulary.encode(&prompt_text(prompt)));
    let mut before: Vec<Vec<u32>> = Vec::new();
    if !run.options().carry_prompt {
        before.extend(prompt.clone());
    }
    let mut condition = conditioned;
    let mut seek = 0;
    while seek < run.n_frames {
        let range = seek..run.n_frames.min(seek + run.window_frames());
        let Some(audio) = run.encode(range.clone())? else { break };
        run.know_language(audio)?;
        let own_prompt = self::prompt(run, prompt.as_deref(), &before, condition);
        let window = Window { audio, prompt: own_prompt.clone(), seek };
        let decoded = run.decoder.decode(&mut run.session, &[window])?;
        for decoded in decoded {
            condition = conditioned && decoded.temperature < CONTEXT_TEMPERATURE;
            if run.decoder.is_silence(&decoded) {
                seek = range.end;
                continue;
            }
            let times = times(run, &own_prompt, &decoded, audio, seek)?;
            let (drafts, advance) = cut(run, &decoded, &times, seek, range.len());
            before.extend(drafts.iter().map(|draft| draft.tokens.clone()));
            run.tell(drafts, &decoded, seek);
            seek += if advance == 0 { range.len() } else { advance };
        }
        run.session.release(audio);
        run.progress(seek);
    }
    Ok(())
}

fn prompt(run: &Run<'_>, prompt: Option<&[u32]>, before: &[Vec<u32>], condition: bool) -> Prompt {
    let tokens = run.decoder.tokens;
    let start = run.window_start();
    let mark = Some(tokens.start_of_previous);
    if condition && !before.is_empty() {
        let is_stamp = |token: &u32| *token >= tokens.first_timestamp;
        // Of two timestamps at the end of a segment one is left out.
        let kept = |segment: &[u32]| match segment {
            [.., _, stamp, _] if is_stamp(stamp) => segment.len() - 1,
            _ => segment.len(),
        };
        let all: Vec<u32> = before.iter().flat_map(|segment| &segment[..kept(segment)]).copied().collect();
        let room = (run.session.shape().text_context / 2).saturating_sub(1);
        let mut previous = match prompt {
            Some(prompt) if run.options().carry_prompt => prompt.to_vec(),
            _ => Vec::new(),
        };
        previous.extend_from_slice(&all[all.len().saturating_sub(room)..]);
        return Prompt::joined(mark, &previous, &start);
    }
    match prompt {
        Some(prompt) => Prompt::joined(mark, prompt, &start),
        None => Prompt::joined(None, &[], &start),
    }
}

/// Segments, and how far the window was understood.
fn cut(run: &Run<'_>, decoded: &Decoded, times: &[f64], seek: usize, frames: usize) -> (Vec<Draft>, usize) {
    let tokens = &decoded.tokens;
    let first = run.decoder.tokens.first_timestamp;
    let is_stamp = |token: u32| token >= first;
    // In frames of the window.
    let stamp = |token: u32| token.saturating_sub(first) as usize * FRAMES_PER_POSITION;
    let (offset, time) = (seconds(seek), |token: u32| seconds(seek + stamp(token)));
    let draft = |range: std::ops::Range<usize>, start: f64, end: f64| Draft {
        start,
        end,
        tokens: tokens[range.clone()].into(),
        logprobs: decoded.logprobs[range.clone()].into(),
        words: range.filter_map(|at| times.get(at)).map(|time| word(offset + time)).collect(),
    };
    let closed = matches!(tokens[..], [.., before, last] if !is_stamp(before) && is_stamp(last));
    let pairs = tokens.windows(2).enumerate().filter(|(_, pair)| is_stamp(pair[0]) && is_stamp(pair[1]));
    let mut ends: Vec<usize> = pairs.map(|(index, _)| index + 1).collect();
    let Some(last) = ends.last_mut() else {
        let last = tokens.iter().rev().find(|&&token| is_stamp(token)).filter(|&&token| token != first);
        // Whole positions; in f32, as a tensor of frames times a number is.
        let whole = (frames as f32 * 0.01 / 0.02) as usize * FRAMES_PER_POSITION;
        let end = last.map_or(seconds(seek + whole), |&token| time(token));
        return (vec![draft(0..tokens.len(), offset, end)], frames);
    };
    let advance = if closed { frames } else { stamp(tokens[*last - 1]) };
    if closed {
        ends.push(tokens.len());
    } else {
        *last += 1;
    }
    let mut begin = 0;
    let count = ends.len();
    let drafts = ends.into_iter().enumerate().map(|(index, end)| {
        let range = begin..end;
        begin = end;
        let ends_at = if index + 1 == count && !closed { end - 2 } else { end - 1 };
        draft(range.clone(), time(tokens[range.start]), time(tokens[ends_at]))
    });
    (drafts.collect(), advance)
}

/// Token times stand in the words: one for each token.
fn word(time: f64) -> Word {
    Word { text: String::new(), start: time, end: time, probability: 0.0 }
}

/// Seconds of the window for each token, if they are wanted.
fn times(
    run: &mut Run<'_>,
    prompt: &Prompt,
    decoded: &Decoded,
    audio: AudioId,
    seek: usize,
) -> Result<Vec<f64>, SpeechError> {
    if !run.options().word_timestamps {
        return Ok(Vec::new());
    }
    let mut text = decoded.tokens.clone();
    text.extend(Some(run.decoder.tokens.end_of_text).filter(|_| decoded.ended));
    // A recording of one window comes without a mask: nothing is cropped.
    let short = run.n_frames <= run.window_frames();
    let frames = if short { run.window_frames() } else { run.n_frames - seek };
    token_times(&mut run.session, run.decoder.tokens, &prompt.tokens, &text, audio, frames)
}
