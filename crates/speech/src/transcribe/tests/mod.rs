mod batched;
mod openai;
mod properties;
mod sequential;
mod words;

use crate::testing::{Recording, Scripted, Words, special_tokens};
use crate::{Segment, SpeechError, TranscribeOptions, TranscriptEvent};

/// What a transcription told.
#[derive(Debug, Default)]
struct Told {
    segments: Vec<Segment>,
    events: Vec<TranscriptEvent>,
}

impl Told {
    /// (start, end, text), times in hundredths of a second.
    fn texts(&self) -> Vec<(u32, u32, &str)> {
        let hundredths = |seconds: f64| (seconds * 100.0).round() as u32;
        self.segments.iter().map(|s| (hundredths(s.start), hundredths(s.end), s.text.as_str())).collect()
    }

    fn progress(&self) -> Vec<f64> {
        let seconds = self.events.iter().filter_map(|event| match event {
            TranscriptEvent::Progress { seconds } => Some(*seconds),
            _ => None,
        });
        seconds.collect()
    }

    fn language(&self) -> Option<(&str, Option<f32>)> {
        self.events.iter().find_map(|event| match event {
            TranscriptEvent::Language { code, probability } => Some((code.as_str(), *probability)),
            _ => None,
        })
    }
}

/// The words of the scripted vocabulary.
fn words() -> Words {
    Words(vec![" one", " two", " three", " four", " five"])
}

/// Options that take every answer as it is and do not ask for the language.
fn plain() -> TranscribeOptions {
    TranscribeOptions {
        language: Some("en".into()),
        compression_ratio_threshold: None,
        logprob_threshold: None,
        no_speech_threshold: None,
        ..Default::default()
    }
}

/// Runs a transcription and looks at what every one must keep to.
fn transcribe(
    network: &mut Scripted<'_>,
    recording: &mut Recording,
    options: &TranscribeOptions,
) -> Result<Told, SpeechError> {
    let tokens = special_tokens();
    let mut told = Told::default();
    let mut emit = |event: TranscriptEvent| {
        if let TranscriptEvent::Segment(segment) = &event {
            told.segments.push(segment.clone());
        }
        told.events.push(event);
    };
    let result = crate::transcribe(network, &words(), &tokens, recording, options, &mut emit, &|| false);
    assert_eq!(network.held(), 0, "everything is given back");
    let (windows, caches) = network.most;
    assert!(windows <= options.most_windows() && caches <= options.most_caches(), "{:?} {options:?}", network.most);
    result?;
    check(&told, recording);
    Ok(told)
}

fn check(told: &Told, recording: &Recording) {
    let duration = recording.n_frames as f64 / 100.0;
    assert!(matches!(told.events.first(), Some(TranscriptEvent::Started { duration: told }) if *told == duration));
    assert!(matches!(told.events.last(), Some(TranscriptEvent::Finished { .. })));
    let ids: Vec<usize> = told.segments.iter().map(|segment| segment.id).collect();
    assert_eq!(ids, (0..told.segments.len()).collect::<Vec<_>>());
    for segment in &told.segments {
        assert!(segment.start >= 0.0 && segment.start <= segment.end && segment.end <= duration + 1e-9, "{segment:?}");
        assert!(!segment.text.trim().is_empty());
        for word in &segment.words {
            assert!(word.start <= word.end && word.end <= duration + 1e-9, "{word:?}");
        }
    }
    assert!(told.segments.is_sorted_by(|a, b| a.seek <= b.seek && a.start <= b.start), "{:?}", told.texts());
    assert!(told.progress().is_sorted());
}
