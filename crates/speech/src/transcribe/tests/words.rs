use super::{plain, transcribe};
use crate::TranscribeOptions;
use crate::testing::{Asked, Recording, Scripted, at, attend};

const ONE: u32 = 256;
const TWO: u32 = 257;
const THREE: u32 = 258;
const DOT: u32 = b'.' as u32;

fn timed() -> TranscribeOptions {
    TranscribeOptions { word_timestamps: true, ..plain() }
}

/// Where each token is heard by the default attention of the scripted network: its row in the sequence, ten positions
/// (0.2 s) each. `<|notimestamps|>` is row 3, the first text token row 4.
#[test]
fn words_are_where_attention_is() {
    let mut network = Scripted::saying(100, |_| vec![at(0), ONE, TWO, DOT, THREE, at(180)]);
    let told = transcribe(&mut network, &mut Recording::new(200), &timed()).unwrap();
    let words: Vec<(&str, u32, u32)> = told.segments[0]
        .words
        .iter()
        .map(|word| (word.text.as_str(), (word.start * 100.0).round() as u32, (word.end * 100.0).round() as u32))
        .collect();
    assert_eq!(words.iter().map(|word| word.0).collect::<Vec<_>>(), [" one", " two.", " three"]);
    assert!(words.windows(2).all(|pair| pair[0].2 <= pair[1].1));
    assert!(told.segments[0].words.iter().all(|word| word.probability > 0.0 && word.probability <= 1.0));
    assert_eq!(told.segments[0].start, told.segments[0].words[0].start);
    assert_eq!(told.segments[0].end, told.segments[0].words[2].end);
}

#[test]
fn the_next_window_begins_after_the_last_word() {
    let mut network = Scripted::saying(100, |_| vec![at(0), ONE, at(150), at(150), TWO, THREE]);
    let told = transcribe(&mut network, &mut Recording::new(500), &timed()).unwrap();
    let end = told.segments[0].words.last().unwrap().end;
    assert_eq!(network.encoded[1].0, (end * 100.0).round() as usize);
}

#[test]
fn made_up_words_before_silence_are_dropped() {
    // Words of 20 ms are improbable.
    let attention = |asked: &Asked<'_>, _| attend(asked.tokens.len(), 100, |token| 60 + token..61 + token);
    let says =
        |start: usize| if start < 100 { vec![at(0), ONE, TWO, THREE, at(190)] } else { vec![at(0), ONE, at(100)] };
    let mut network = Scripted::saying(100, says);
    network.attention = Some(Box::new(attention));
    let kept = transcribe(&mut network, &mut Recording::new(200), &timed()).unwrap();
    assert_eq!(kept.segments.len(), 1);
    let strict = TranscribeOptions { hallucination_silence_threshold: Some(0.5), ..timed() };
    let mut network = Scripted::saying(100, says);
    network.attention = Some(Box::new(attention));
    transcribe(&mut network, &mut Recording::new(200), &strict).unwrap();
    assert!(network.encoded.len() > 1, "the silence before them is skipped and the rest heard again");
}
