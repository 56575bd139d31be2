use crate::decode::{Decoded, Decoder, Prompt, Window};
use crate::session::Session;
use crate::testing::{Asked, END, FIRST, NO_SPEECH, PREVIOUS, START, Scripted, Words, at, numbered, special_tokens};
use crate::{Chunking, Temperature, TranscribeOptions, WhisperNetwork};

const A: u32 = b'a' as u32;

/// Decodes windows that begin at these frames.
fn decode(network: &mut Scripted<'_>, options: &TranscribeOptions, seeks: &[usize]) -> Vec<Decoded> {
    let tokens = special_tokens();
    let words = Words(vec![" hello", " bye"]);
    let decoder = Decoder::new(network.shape(), &tokens, &words, options);
    let mut session = Session::new(network, &|| false);
    let windows: Vec<Window> = seeks
        .iter()
        .map(|&seek| {
            let mut mel = vec![0.0; 400];
            mel[0] = numbered(seek);
            let audio = session.encode(&mel).unwrap()[0];
            Window { audio, prompt: Prompt::new(&tokens, &[], &[START, 302, 307], 448), seek }
        })
        .collect();
    decoder.decode(&mut session, &windows).unwrap()
}

/// Logits of a window: a token that is as likely as `certainty` says, text first, then a closing timestamp and the end.
fn say(asked: &Asked<'_>, logits: &mut [f32], certainty: f32) {
    let next = [at(0), A, A + 1, at(40), END];
    logits[next[asked.sampled().len().min(4)] as usize] = certainty;
}

#[test]
fn a_sure_answer_needs_one_attempt() {
    let mut network = Scripted::new(100, |asked, logits| say(asked, logits, 20.0));
    let decoded = &decode(&mut network, &TranscribeOptions::default(), &[0])[0];
    assert_eq!(decoded.tokens, [at(0), A, A + 1, at(40)]);
    assert!(decoded.avg_logprob > -0.01 && decoded.temperature == 0.0 && decoded.ended);
    assert_eq!(network.calls, [1, 1, 1, 1, 1]);
    assert_eq!(network.held(), 0);
}

#[test]
fn doubtful_answers_are_tried_again_at_higher_temperatures() {
    // All but certain to be uncertain: about ln(1/500) a token.
    let mut network = Scripted::new(100, |asked, logits| say(asked, logits, 1.0));
    let options = TranscribeOptions {
        temperature: Temperature::Ladder(vec![0.0, 0.4, 0.8]),
        no_speech_threshold: None,
        ..Default::default()
    };
    let decoded = &decode(&mut network, &options, &[0])[0];
    assert_eq!(decoded.temperature, 0.8, "the last one stands");
    // Draws of five rows, one of them in the prompt's cache, and the prompt is read once.
    assert_eq!(network.calls[0], 1);
    assert!(network.calls.contains(&5));
    let sure = TranscribeOptions { logprob_threshold: None, compression_ratio_threshold: None, ..options };
    assert_eq!(decode(&mut network, &sure, &[0])[0].temperature, 0.0);
}

#[test]
fn repetition_is_tried_again() {
    // 60 times the same letter, at every temperature.
    let mut network = Scripted::new(100, |asked, logits| {
        let said = asked.sampled().len();
        logits[(if said == 0 {
            at(0)
        } else if said <= 60 {
            A
        } else {
            END
        }) as usize] = 40.0;
    });
    let decoded = &decode(&mut network, &TranscribeOptions::default(), &[0])[0];
    assert!(decoded.compression_ratio > 2.4 && decoded.temperature == 1.0);
    let lax = TranscribeOptions { compression_ratio_threshold: None, ..Default::default() };
    assert_eq!(decode(&mut network, &lax, &[0])[0].temperature, 0.0);
}

#[test]
fn silence_is_accepted_as_it_is() {
    let mut network = Scripted::new(100, |asked, logits| {
        if asked.tokens.last() == Some(&START) {
            logits[NO_SPEECH as usize] = 20.0;
        } else {
            say(asked, logits, 1.0);
        }
    });
    let decoded = &decode(&mut network, &TranscribeOptions::default(), &[0])[0];
    assert!(decoded.no_speech_prob > 0.99 && decoded.avg_logprob < -1.0 && decoded.temperature == 0.0);
    let options = TranscribeOptions { no_speech_threshold: None, ..Default::default() };
    assert_eq!(decode(&mut network, &options, &[0])[0].temperature, 1.0);
}

#[test]
fn the_no_speech_probability_is_that_after_the_start() {
    let mut network = Scripted::new(100, |asked, logits| {
        // Everything is 0 after the start; elsewhere the token is certain, which must not count.
        if asked.tokens.last() != Some(&START) {
            say(asked, logits, 20.0);
            logits[NO_SPEECH as usize] = 30.0;
        }
    });
    let decoded = &decode(&mut network, &TranscribeOptions::default(), &[0])[0];
    let vocab = FIRST as f32 + 101.0;
    assert!((decoded.no_speech_prob - 1.0 / vocab).abs() < 1e-6);
}

#[test]
fn windows_together_say_what_they_say_alone() {
    let seeks = [0, 200, 400, 600, 800];
    let script = |asked: &Asked<'_>, logits: &mut [f32]| {
        // Windows differ in how sure they are and in how long they speak.
        let certainty = [20.0, 1.0, 3.0, 20.0, 2.0][asked.start / 200];
        let length = 2 + asked.start / 100;
        let said = asked.sampled().len();
        let next = if said == 0 {
            at(0)
        } else if said <= length {
            A + (said as u32 % 7)
        } else {
            END
        };
        logits[next as usize] = certainty;
        logits[(A + 9) as usize] = certainty * 0.9;
    };
    let options = |chunking| TranscribeOptions {
        chunking,
        seed: 5,
        no_speech_threshold: None,
        best_of: 3,
        temperature: Temperature::Ladder(vec![0.0, 0.6, 1.0]),
        ..Default::default()
    };
    let alone: Vec<Decoded> = seeks
        .iter()
        .map(|&seek| decode(&mut Scripted::new(100, script), &options(Chunking::Sequential), &[seek])[0].clone())
        .collect();
    assert!(alone.iter().any(|decoded| decoded.temperature > 0.0));
    let mut network = Scripted::new(100, script);
    assert_eq!(decode(&mut network, &options(Chunking::Batched { batch: 5 }), &seeks), alone);
    assert_eq!(network.calls[0], 5, "all prompts at once");
    assert!(network.calls.iter().all(|&rows| rows <= 5));
    // With beams too.
    let beamed = |chunking| TranscribeOptions { beam_size: Some(3), ..options(chunking) };
    let alone: Vec<Decoded> = seeks
        .iter()
        .map(|&seek| decode(&mut Scripted::new(100, script), &beamed(Chunking::Sequential), &[seek])[0].clone())
        .collect();
    assert_eq!(decode(&mut Scripted::new(100, script), &beamed(Chunking::Batched { batch: 5 }), &seeks), alone);
}

#[test]
fn an_answer_is_as_long_as_the_context_allows() {
    let endless = |asked: &Asked<'_>, logits: &mut [f32]| {
        logits[(if asked.sampled().is_empty() { at(0) } else { A + asked.tokens.len() as u32 % 20 }) as usize] = 30.0;
    };
    let options = TranscribeOptions { compression_ratio_threshold: None, ..Default::default() };
    let decoded = &decode(&mut Scripted::new(100, endless), &options, &[0])[0];
    assert_eq!((decoded.tokens.len(), decoded.ended), (224, false));
    // A long prompt leaves room for fewer: context + 1 tokens in all, of which the last one is not read.
    let tokens = special_tokens();
    let previous = vec![A; 500];
    let prompt = Prompt::new(&tokens, &previous, &[START, 302, 307], 448);
    assert_eq!((prompt.tokens.len(), prompt.start), (227, 224));
    assert_eq!(prompt.tokens[0], PREVIOUS);
    let mut network = Scripted::new(100, endless);
    let words = Words(Vec::new());
    let decoder = Decoder::new(network.shape(), &tokens, &words, &options);
    let mut session = Session::new(&mut network, &|| false);
    let audio = session.encode(&vec![0.0; 400]).unwrap()[0];
    let decoded = decoder.decode(&mut session, &[Window { audio, prompt, seek: 0 }]).unwrap();
    assert_eq!(decoded[0].tokens.len(), 449 - 227);
}
