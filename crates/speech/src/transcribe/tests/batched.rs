use super::{plain, transcribe};
use crate::testing::{PREVIOUS, Recording, Scripted, at};
use crate::{Chunking, TranscribeOptions};

const ONE: u32 = 256;
const TWO: u32 = 257;
const THREE: u32 = 258;

fn batched(batch: usize) -> TranscribeOptions {
    TranscribeOptions { chunking: Chunking::Batched { batch }, ..plain() }
}

fn recording(speech: &[std::ops::Range<usize>]) -> Recording {
    let mut recording = Recording::new(2000);
    recording.speech = speech.to_vec();
    recording
}

#[test]
fn pieces_are_decoded_together_and_told_in_order() {
    let mut network = Scripted::saying(100, |start| match start {
        // The piece of 100 ends early, twice: it is done after its successors.
        100 => vec![at(0), ONE, at(40), at(40), TWO],
        140 => vec![at(0), TWO, at(60), at(60)],
        200 => vec![at(0), THREE, at(50)],
        400 => vec![at(0), ONE, TWO, at(100)],
        900 => vec![at(0), THREE, THREE, at(100)],
        _ => panic!("no window begins at {start}"),
    });
    let mut recording = recording(&[100..260, 400..550, 900..1000]);
    let told = transcribe(&mut network, &mut recording, &batched(8)).unwrap();
    let expected = [
        (100, 140, " one"),
        (140, 200, " two"),
        (200, 250, " three"),
        (400, 500, " one two"),
        (900, 1000, " three three"),
    ];
    assert_eq!(told.texts(), expected);
    assert_eq!(network.encoded, [(100, 260), (400, 550), (900, 1000), (140, 260), (200, 260)]);
    assert_eq!(network.calls[0], 3, "the prompts of three pieces at once");
    assert_eq!(told.progress(), [2.6, 5.5, 10.0, 20.0]);
    assert_eq!(told.segments.iter().map(|segment| segment.seek).collect::<Vec<_>>(), [100, 140, 200, 400, 900]);
}

#[test]
fn the_first_text_does_not_wait_for_a_batch_of_windows() {
    let heard = |pieces: usize| {
        let mut network = Scripted::saying(100, |_| vec![at(0), ONE, at(50)]);
        let speech: Vec<_> = (0..pieces).map(|i| 300 * i..300 * i + 50).collect();
        let mut told = transcribe(&mut network, &mut recording(&speech), &batched(3)).unwrap();
        (network.calls, told.segments.drain(..).count())
    };
    let prompts = |calls: &[usize]| calls.iter().step_by(4).copied().collect::<Vec<_>>();
    let (calls, told) = heard(6);
    assert_eq!((prompts(&calls), told), (vec![1, 3, 2], 6), "{calls:?}");
    let (calls, told) = heard(3);
    assert_eq!((prompts(&calls), told), (vec![3], 3), "one batch: {calls:?}");
}

#[test]
fn the_size_of_the_batch_changes_nothing() {
    let mut told = Vec::new();
    for batch in [1, 2, 3, 8] {
        let mut network = Scripted::saying(100, |start| {
            let end = 40 + (start as u32 / 10 % 5) * 20;
            vec![at(0), ONE + (start as u32 % 3), at(end), at(end), TWO]
        });
        let mut recording = recording(&[0..150, 160..230, 300..790, 900..1000, 1100..1290, 1500..2000]);
        let options = TranscribeOptions { word_timestamps: true, ..batched(batch) };
        let now = transcribe(&mut network, &mut recording, &options).unwrap().segments;
        assert!(network.calls.iter().all(|&rows| rows <= batch));
        told.push(now);
    }
    assert!(told[0].len() > 10);
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn no_text_is_carried_over_but_the_prompt_is() {
    let mut network = Scripted::new(100, |asked, logits| {
        assert_eq!(asked.before(), [PREVIOUS, 260]);
        let said = [at(0), ONE, at(100)];
        logits[said.get(asked.sampled().len()).copied().unwrap_or(300) as usize] = 20.0;
    });
    let options = TranscribeOptions { prompt: Some("five".into()), ..batched(2) };
    let told = transcribe(&mut network, &mut recording(&[0..100, 300..400, 800..900]), &options).unwrap();
    assert_eq!(told.segments.len(), 3);
}

#[test]
fn the_language_is_that_of_the_first_piece() {
    let mut network = Scripted::new(100, |asked, logits| {
        if asked.tokens.len() == 1 {
            logits[if asked.start == 300 { 305 } else { 304 }] = 9.0;
        }
        let said = [at(0), ONE, at(100)];
        logits[said.get(asked.sampled().len()).copied().unwrap_or(300) as usize] = 20.0;
    });
    let options = TranscribeOptions { language: None, ..batched(2) };
    let told = transcribe(&mut network, &mut recording(&[300..400, 800..900]), &options).unwrap();
    assert_eq!(told.language().map(|(code, _)| code), Some("fr"));
}

#[test]
fn without_speech_nothing_is_decoded() {
    let mut network = Scripted::new(100, |_, _| panic!("there is nothing to decode"));
    for frames in [0, 2000] {
        let mut recording = Recording::new(frames);
        recording.speech.clear();
        let told = transcribe(&mut network, &mut recording, &batched(4)).unwrap();
        assert!(told.segments.is_empty());
        assert_eq!(told.progress(), [frames as f64 / 100.0]);
    }
}
