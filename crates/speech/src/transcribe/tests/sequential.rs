use std::cell::Cell;

use super::{plain, transcribe, words};
use crate::testing::{NO_SPEECH, NO_TIMESTAMPS, PREVIOUS, Recording, START, Scripted, TRANSCRIBE, at, special_tokens};
use crate::{Features, NetworkError, SpeechError, Temperature, TranscribeOptions, TranscriptEvent};

const ONE: u32 = 256;
const TWO: u32 = 257;
const THREE: u32 = 258;

#[test]
fn windows_follow_the_last_pair_of_timestamps() {
    // Windows of 2 s. The first one ends in the middle of a segment that began at 1.20 s.
    let mut network = Scripted::saying(100, |start| match start {
        0 => vec![at(0), ONE, at(120), at(120), TWO],
        120 => vec![at(10), TWO, THREE, at(150)],
        _ => panic!("no window begins at {start}"),
    });
    let told = transcribe(&mut network, &mut Recording::new(300), &plain()).unwrap();
    assert_eq!(told.texts(), [(0, 120, " one"), (120, 270, " two three")]);
    assert_eq!(network.encoded, [(0, 200), (120, 300)]);
    assert_eq!(told.progress(), [1.2, 3.0]);
    assert_eq!(told.segments[1].seek, 120);
    assert_eq!(told.segments[1].tokens, [at(10), TWO, THREE, at(150)]);
    let finished = TranscriptEvent::Finished { decoded_tokens: 6 + 5, text_tokens: 3, windows: 2 };
    assert_eq!(told.events.last(), Some(&finished));
}

#[test]
fn the_text_before_is_the_context_of_a_window() {
    let prompts = std::sync::Mutex::new(Vec::new());
    let mut network = Scripted::new(100, |asked, logits| {
        let said = [vec![at(0), ONE, at(200)], vec![at(0), TWO, at(200)], vec![at(0), THREE, at(100)]];
        if asked.sampled().is_empty() {
            prompts.lock().unwrap().push(asked.tokens.to_vec());
        }
        let own = &said[asked.start / 200];
        logits[own.get(asked.sampled().len()).copied().unwrap_or(300) as usize] = 20.0;
    });
    let mut seen = |options: &TranscribeOptions| {
        transcribe(&mut network, &mut Recording::new(600), options).unwrap();
        // The last one asked for each window is its whole prompt.
        let mut whole: Vec<Vec<u32>> = Vec::new();
        for prompt in prompts.lock().unwrap().drain(..) {
            if prompt.last() == Some(&TRANSCRIBE) {
                whole.push(prompt[..prompt.len() - 3].to_vec());
            }
        }
        whole
    };
    let first = [at(0), ONE, at(200)];
    let second = [at(0), TWO, at(200)];
    let marked = |parts: &[&[u32]]| [&[PREVIOUS][..], &parts.concat()].concat();
    assert_eq!(seen(&plain()), [vec![], marked(&[&first]), marked(&[&first, &second])]);
    let alone = TranscribeOptions { condition_on_previous_text: false, ..plain() };
    assert_eq!(seen(&alone), [const { Vec::<u32>::new() }; 3]);

    let initial = words().ids(" five");
    let prompt = Some(" five\n".to_owned());
    let prompted = TranscribeOptions { prompt: prompt.clone(), ..plain() };
    assert_eq!(
        seen(&prompted),
        [marked(&[&initial]), marked(&[&initial, &first]), marked(&[&initial, &first, &second])]
    );
    // Without conditioning the prompt is the first window's alone, unless it is carried.
    let once = TranscribeOptions { prompt: prompt.clone(), ..alone.clone() };
    assert_eq!(seen(&once), [marked(&[&initial]), vec![], vec![]]);
    let carried = TranscribeOptions { prompt, carry_prompt: true, ..alone };
    assert_eq!(seen(&carried), [marked(&[&initial]), marked(&[&initial]), marked(&[&initial])]);
}

#[test]
fn a_carried_prompt_leaves_room_for_less_text() {
    let longest = Cell::new(0);
    let longest = &longest;
    // A context of 32 tokens: 15 for the text before, and the mark.
    let mut lengths = Vec::new();
    for carry_prompt in [false, true] {
        longest.set(0);
        let seen = std::sync::Mutex::new((0usize, Vec::new()));
        let mut network = Scripted::new(100, |asked, logits| {
            let mut seen = seen.lock().unwrap();
            if asked.before().len() >= seen.0 {
                *seen = (asked.before().len(), asked.before().to_vec());
            }
            let said = [at(0), ONE, TWO, THREE, ONE, TWO, at(200)];
            logits[said.get(asked.sampled().len()).copied().unwrap_or(300) as usize] = 20.0;
        })
        .text_context(32);
        let options = TranscribeOptions { prompt: Some("five five five".into()), carry_prompt, ..plain() };
        transcribe(&mut network, &mut Recording::new(1000), &options).unwrap();
        drop(network);
        let (length, before) = seen.into_inner().unwrap();
        lengths.push(length);
        let initial = words().ids(" five five five");
        assert_eq!(before[1..4] == initial, carry_prompt, "{before:?}");
    }
    assert_eq!(lengths, [16, 16]);
}

#[test]
fn the_language_is_detected_and_told_once() {
    let mut network = Scripted::new(100, |asked, logits| {
        if asked.tokens == [START] {
            logits[304] = 5.0;
        } else {
            let own = &asked.tokens[asked.before().len()..];
            assert_eq!(own[..own.len().min(3)], [START, 304, TRANSCRIBE][..own.len().min(3)]);
            let said = [at(0), ONE, at(200)];
            logits[said.get(asked.sampled().len()).copied().unwrap_or(300) as usize] = 20.0;
        }
    });
    let told =
        transcribe(&mut network, &mut Recording::new(500), &TranscribeOptions { language: None, ..plain() }).unwrap();
    let (code, probability) = told.language().unwrap();
    assert_eq!(code, "de");
    assert!((probability.unwrap() - 5f32.exp() / (5f32.exp() + 3.0)).abs() < 1e-5);
    assert!(matches!(told.events[1], TranscriptEvent::Language { .. }));
    // The window it was detected by is not encoded again.
    assert_eq!(network.encoded.len(), 3);
}

#[test]
fn the_task_and_the_missing_timestamps_stand_in_the_prompt() {
    let mut network = Scripted::new(100, |asked, logits| {
        let own = &asked.tokens[asked.before().len()..];
        assert_eq!(own[..own.len().min(4)], [START, 305, 306, NO_TIMESTAMPS][..own.len().min(4)]);
        let said = [ONE, TWO];
        logits[said.get(asked.sampled().len()).copied().unwrap_or(300) as usize] = 20.0;
    });
    let options = TranscribeOptions {
        language: Some("French".into()),
        task: crate::Task::Translate,
        timestamps: false,
        logprobs: true,
        ..plain()
    };
    let told = transcribe(&mut network, &mut Recording::new(330), &options).unwrap();
    assert_eq!(told.texts(), [(0, 200, " one two"), (200, 330, " one two")]);
    assert_eq!(told.language(), Some(("fr", None)));
    let logprobs = &told.segments[0].logprobs;
    assert_eq!(logprobs.iter().map(|token| token.text.as_str()).collect::<Vec<_>>(), [" one", " two"]);
    assert!(logprobs.iter().all(|token| token.logprob > -0.01 && token.logprob <= 0.0));
}

#[test]
fn silence_has_no_segments() {
    // Nobody speaks and the answer is doubtful: windows are passed over.
    let mut network = Scripted::new(100, |asked, logits| {
        if asked.tokens.last() == Some(&START) {
            logits[NO_SPEECH as usize] = 20.0;
        }
    });
    let options = TranscribeOptions { no_speech_threshold: Some(0.6), logprob_threshold: Some(-1.0), ..plain() };
    let told = transcribe(&mut network, &mut Recording::new(1000), &options).unwrap();
    assert!(told.segments.is_empty());
    assert_eq!(network.encoded.len(), 5);
    // An answer without text, or of no length, is none.
    let mut network = Scripted::saying(100, |_| vec![at(0), u32::from(b'\n'), at(200)]);
    assert!(transcribe(&mut network, &mut Recording::new(1000), &plain()).unwrap().segments.is_empty());
}

#[test]
fn sure_words_in_noise_are_not_believed() {
    let script = |asked: &crate::testing::Asked<'_>, logits: &mut [f32]| {
        if asked.tokens.last() == Some(&START) {
            logits[NO_SPEECH as usize] = 20.0;
        }
        let said = [at(0), ONE, at(200)];
        if asked.tokens.len() >= 3 {
            logits[said.get(asked.sampled().len()).copied().unwrap_or(300) as usize] = 20.0;
        }
    };
    let options = TranscribeOptions { no_speech_threshold: Some(0.6), condition_on_previous_text: false, ..plain() };
    let mut recording = Recording::new(600);
    recording.speech = vec![250..260, 590..600];
    let certain = TranscribeOptions { logprob_threshold: Some(-1.0), ..options.clone() };
    let told = transcribe(&mut Scripted::new(100, script), &mut recording, &certain).unwrap();
    assert_eq!(told.texts(), [(200, 400, " one"), (400, 600, " one")], "nothing is as loud as speech before");
    let trusting = TranscribeOptions { no_speech_threshold: None, ..certain };
    let told = transcribe(&mut Scripted::new(100, script), &mut recording, &trusting).unwrap();
    assert_eq!(told.segments.len(), 3);
}

#[test]
fn perfect_silence_is_not_decoded() {
    /// Zeros from one frame on.
    struct Quiet(Recording, usize);
    impl Features for Quiet {
        fn n_mels(&self) -> usize {
            2
        }
        fn n_frames(&self) -> usize {
            self.0.n_frames
        }
        fn window(
            &mut self,
            start: usize,
            content: std::ops::Range<usize>,
            out: &mut [f32],
        ) -> Result<(), SpeechError> {
            self.0.window(start, content, out)?;
            let from = self.1.saturating_sub(start).min(out.len() / 2);
            let frames = out.len() / 2;
            out.chunks_exact_mut(frames).for_each(|row| row[from..].fill(-1.5));
            Ok(())
        }
        fn speech(&mut self) -> Result<Vec<std::ops::Range<usize>>, SpeechError> {
            self.0.speech()
        }
    }
    let mut network = Scripted::saying(100, |_| vec![at(0), ONE, at(200)]);
    let (mut recording, tokens) = (Quiet(Recording::new(1000), 401), special_tokens());
    let mut progress = Vec::new();
    let mut emit = |event| {
        if let TranscriptEvent::Progress { seconds } = event {
            progress.push(seconds);
        }
    };
    let options = TranscribeOptions { language: None, ..plain() };
    crate::transcribe(&mut network, &words(), &tokens, &mut recording, &options, &mut emit, &|| false).unwrap();
    assert_eq!(network.encoded.iter().map(|window| window.0).collect::<Vec<_>>(), [0, 200, 400]);
    assert_eq!(progress, [2.0, 4.0, 6.0, 8.0, 10.0]);
}

#[test]
fn an_empty_recording_is_over_at_once() {
    let mut network = Scripted::new(100, |_, _| panic!("there is nothing to decode"));
    for skip_silence in [false, true] {
        let options = TranscribeOptions { language: None, skip_silence, ..plain() };
        let told = transcribe(&mut network, &mut Recording::new(0), &options).unwrap();
        assert_eq!(told.events.len(), 2);
        assert_eq!(told.language(), None);
    }
    // A single frame is a window.
    let mut network = Scripted::saying(100, |_| vec![at(0), ONE, at(100)]);
    let told = transcribe(&mut network, &mut Recording::new(1), &plain()).unwrap();
    assert_eq!(told.texts(), [(0, 1, " one")]);
}

#[test]
fn a_warm_answer_is_no_context() {
    let contexts = std::sync::Mutex::new(Vec::new());
    let mut network = Scripted::new(100, |asked, logits| {
        if asked.sampled().is_empty() && asked.tokens.last() == Some(&TRANSCRIBE) {
            contexts.lock().unwrap().push(asked.before().len());
        }
        let said = [at(0), ONE, at(200)];
        logits[said.get(asked.sampled().len()).copied().unwrap_or(300) as usize] = 20.0;
    });
    for (temperature, expected) in [(0.5, vec![0, 4, 7]), (0.6, vec![0, 0, 0])] {
        let options = TranscribeOptions { temperature: Temperature::Ladder(vec![temperature]), ..plain() };
        transcribe(&mut network, &mut Recording::new(600), &options).unwrap();
        assert_eq!(std::mem::take(&mut *contexts.lock().unwrap()), expected, "{temperature}");
    }
}

#[test]
fn silence_between_speech_is_jumped_over() {
    let mut network = Scripted::saying(100, |_| vec![at(0), ONE, at(50), at(50), TWO, at(100)]);
    let mut recording = Recording::new(2000);
    recording.speech = vec![100..150, 180..230, 900..1150];
    let told = transcribe(&mut network, &mut recording, &TranscribeOptions { skip_silence: true, ..plain() }).unwrap();
    assert_eq!(network.encoded, [(100, 230), (900, 1100), (1100, 1150)]);
    assert_eq!(told.segments[2].start, 9.0);
    // Nobody speaks at all.
    recording.speech.clear();
    let told = transcribe(&mut network, &mut recording, &TranscribeOptions { skip_silence: true, ..plain() }).unwrap();
    assert!(told.segments.is_empty());
}

#[test]
fn a_window_that_hardly_goes_on_is_left_behind() {
    // Always a pair at 0.02 s: in the original the next window begins there, a hundred times for two seconds.
    let mut network = Scripted::saying(100, |_| vec![at(0), ONE, at(2), at(2), TWO]);
    let told = transcribe(&mut network, &mut Recording::new(2000), &plain()).unwrap();
    assert!(network.encoded.len() <= 40, "{}", network.encoded.len());
    assert!(!told.segments.is_empty());
}

#[test]
fn errors_and_cancellation_end_it_and_release_everything() {
    for fails_at in 0..8 {
        let mut network = Scripted::saying(100, |_| vec![at(0), ONE, at(120), at(120), TWO]);
        network.fails_at = Some(fails_at);
        let result = transcribe(&mut network, &mut Recording::new(600), &plain());
        assert!(matches!(&result, Err(SpeechError::Network(NetworkError(why))) if why == "out of memory"));
    }
    let asked = Cell::new(0);
    for patience in 0..12 {
        asked.set(0);
        let cancelled = || {
            asked.set(asked.get() + 1);
            asked.get() > patience
        };
        let mut network = Scripted::saying(100, |_| vec![at(0), ONE, at(120), at(120), TWO]);
        let (mut recording, options, tokens) = (Recording::new(600), plain(), special_tokens());
        let (words, mut emit) = (words(), |_| {});
        let result = crate::transcribe(&mut network, &words, &tokens, &mut recording, &options, &mut emit, &cancelled);
        assert!(matches!(result, Err(SpeechError::Cancelled)));
        // It is asked before every call, and before a window is read.
        let calls = network.encoded.len() + network.calls.len();
        assert!(calls <= patience && 2 * calls + 1 >= patience, "{calls} calls after {patience} questions");
        assert_eq!(network.held(), 0);
    }
}

#[test]
fn options_that_cannot_be_followed_are_refused_before_anything_is_told() {
    let mut network = Scripted::new(100, |_, _| {});
    let options = TranscribeOptions { best_of: 0, ..plain() };
    let mut events = 0;
    let (words, tokens) = (words(), special_tokens());
    let result = crate::transcribe(
        &mut network,
        &words,
        &tokens,
        &mut Recording::new(100),
        &options,
        &mut |_| events += 1,
        &|| false,
    );
    assert!(matches!(result, Err(SpeechError::Invalid { param: "best_of", .. })));
    assert_eq!(events, 0);
}
