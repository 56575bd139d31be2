//! Options that can be followed.

use crate::error::SpeechError;
use crate::languages::language_code;
use crate::network::{NetworkError, NetworkShape};
use crate::vocabulary::SpecialTokens;
use crate::{Chunking, MAX_BATCH, MAX_HYPOTHESES, Task, Temperature, TranscribeOptions};

/// Temperatures that are tried at most.
const MAX_ATTEMPTS: usize = 16;
const MAX_TEMPERATURE: f32 = 2.0;
const MAX_PATIENCE: f32 = 8.0;

/// Checks options and checkpoint. The index of the language in `tokens.languages`, if one was asked for; 0 where there
/// is nothing to choose.
pub(super) fn check(
    options: &TranscribeOptions,
    tokens: &SpecialTokens,
    shape: &NetworkShape,
) -> Result<Option<usize>, SpeechError> {
    check_checkpoint(tokens, shape)?;
    let Temperature::Ladder(ladder) = &options.temperature;
    let temperatures = (1..=MAX_ATTEMPTS).contains(&ladder.len())
        && ladder.iter().all(|temperature| (0.0..=MAX_TEMPERATURE).contains(temperature));
    ensure(temperatures, "temperature", || {
        format!("temperatures must be 1 to {MAX_ATTEMPTS} numbers from 0 to {MAX_TEMPERATURE}")
    })?;
    let hypotheses = |count: usize| (1..=MAX_HYPOTHESES).contains(&count);
    ensure(options.beam_size.is_none_or(hypotheses), "beam_size", || out_of(MAX_HYPOTHESES))?;
    ensure(hypotheses(options.best_of), "best_of", || out_of(MAX_HYPOTHESES))?;
    ensure(options.patience > 0.0 && options.patience <= MAX_PATIENCE, "patience", || {
        format!("must be above 0 and at most {MAX_PATIENCE}")
    })?;
    if let Chunking::Batched { batch } = options.chunking {
        ensure((1..=MAX_BATCH).contains(&batch), "batch", || out_of(MAX_BATCH))?;
    }
    let silence = options.hallucination_silence_threshold;
    ensure(silence.is_none_or(|seconds| seconds >= 0.0), "hallucination_silence_threshold", || {
        "must be 0 seconds or more".to_owned()
    })?;
    language(options, tokens)
}

fn language(options: &TranscribeOptions, tokens: &SpecialTokens) -> Result<Option<usize>, SpeechError> {
    let english_only = tokens.languages.is_empty();
    if english_only {
        ensure(options.task == Task::Transcribe, "task", || "this model does not translate".to_owned())?;
    }
    let Some(given) = &options.language else { return Ok(english_only.then_some(0)) };
    // A checkpoint may know languages that Whisper does not.
    if let Some(index) = tokens.languages.iter().position(|(known, _)| known == given) {
        return Ok(Some(index));
    }
    let Some(code) = language_code(given) else {
        return invalid("language", format!("'{}' is no language that is known here", shorten(given)));
    };
    if english_only {
        ensure(code == "en", "language", || "this model knows English only".to_owned())?;
        return Ok(Some(0));
    }
    match tokens.languages.iter().position(|(known, _)| known == code) {
        Some(index) => Ok(Some(index)),
        None => invalid("language", format!("this model does not know '{code}'")),
    }
}

/// What the rules rely on.
fn check_checkpoint(tokens: &SpecialTokens, shape: &NetworkShape) -> Result<(), SpeechError> {
    let needed = [tokens.end_of_text, tokens.start_of_transcript, tokens.start_of_previous, tokens.first_timestamp];
    let others = [tokens.transcribe, tokens.translate].into_iter().flatten();
    let ids = needed.into_iter().chain(others).chain(tokens.languages.iter().map(|(_, token)| *token));
    let known = ids.into_iter().all(|token| (token as usize) < shape.vocab_size);
    let ordered = tokens.end_of_text < tokens.first_timestamp && tokens.no_timestamps < tokens.first_timestamp;
    // Half of the context is for the text before: there must be room for a start sequence and some text in the other
    // one.
    let sized = shape.text_context >= 16 && shape.audio_context > 0 && shape.window_frames == 2 * shape.audio_context;
    if known && ordered && sized {
        return Ok(());
    }
    Err(NetworkError("the checkpoint's special tokens do not fit its network".to_owned()).into())
}

fn ensure(holds: bool, param: &'static str, message: impl FnOnce() -> String) -> Result<(), SpeechError> {
    if holds { Ok(()) } else { invalid(param, message()) }
}

fn invalid<T>(param: &'static str, message: String) -> Result<T, SpeechError> {
    Err(SpeechError::Invalid { message, param })
}

fn out_of(most: usize) -> String {
    format!("must be from 1 to {most}")
}

/// What is quoted of a caller's text.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WhisperNetwork;
    use crate::testing::{Scripted, special_tokens};

    fn param_of(change: impl FnOnce(&mut TranscribeOptions)) -> Option<&'static str> {
        let mut options = TranscribeOptions::default();
        change(&mut options);
        match check(&options, &special_tokens(), Scripted::new(100, |_, _| {}).shape()) {
            Err(SpeechError::Invalid { param, message }) => {
                assert!(!message.is_empty());
                Some(param)
            }
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let ladder = |values: &[f32]| Temperature::Ladder(values.to_vec());
        assert_eq!(param_of(|_| {}), None);
        for values in [&[][..], &[-0.1], &[f32::NAN], &[0.0, 2.1], &[0.0; 17]] {
            assert_eq!(param_of(|options| options.temperature = ladder(values)), Some("temperature"), "{values:?}");
        }
        assert_eq!(param_of(|options| options.beam_size = Some(0)), Some("beam_size"));
        assert_eq!(param_of(|options| options.beam_size = Some(33)), Some("beam_size"));
        assert_eq!(param_of(|options| options.best_of = 0), Some("best_of"));
        assert_eq!(param_of(|options| options.patience = f32::NAN), Some("patience"));
        assert_eq!(param_of(|options| options.patience = 0.0), Some("patience"));
        assert_eq!(param_of(|options| options.chunking = Chunking::Batched { batch: 0 }), Some("batch"));
        assert_eq!(param_of(|options| options.language = Some("elvish".into())), Some("language"));
        assert_eq!(param_of(|options| options.language = Some("ja".into())), Some("language"));
        assert_eq!(param_of(|options| options.language = Some("German".into())), None);
        let silence = Some("hallucination_silence_threshold");
        assert_eq!(param_of(|options| options.hallucination_silence_threshold = Some(-1.0)), silence);
    }

    #[test]
    fn an_english_model_takes_english_only() {
        let mut tokens = special_tokens();
        (tokens.transcribe, tokens.translate) = (None, None);
        tokens.languages.clear();
        let network = Scripted::new(100, |_, _| {});
        let checked = |language: Option<&str>, task| {
            let options = TranscribeOptions { language: language.map(str::to_owned), task, ..Default::default() };
            check(&options, &tokens, network.shape()).map_err(|error| error.to_string())
        };
        assert_eq!(checked(None, Task::Transcribe), Ok(Some(0)));
        assert_eq!(checked(Some("English"), Task::Transcribe), Ok(Some(0)));
        assert_eq!(checked(Some("fr"), Task::Transcribe), Err("this model knows English only".into()));
        assert_eq!(checked(None, Task::Translate), Err("this model does not translate".into()));
    }

    #[test]
    fn a_checkpoint_may_know_languages_of_its_own() {
        let mut tokens = special_tokens();
        tokens.languages.push(("tlh".to_owned(), 250));
        let options = TranscribeOptions { language: Some("tlh".into()), ..Default::default() };
        let checked = check(&options, &tokens, Scripted::new(100, |_, _| {}).shape());
        assert!(matches!(checked, Ok(Some(4))));
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_is_refused() {
        let network = Scripted::new(100, |_, _| {});
        let mut tokens = special_tokens();
        tokens.first_timestamp = 5000;
        let checked = check(&TranscribeOptions::default(), &tokens, network.shape());
        assert!(matches!(checked, Err(SpeechError::Network(_))));
    }
}
