use serde_json::json;

use super::*;

fn sizes(vocab_size: usize) -> WhisperConfig {
    WhisperConfig {
        n_mels: 80,
        width: 64,
        audio_context: 1500,
        encoder_layers: 4,
        encoder_heads: 4,
        encoder_inner: 256,
        text_context: 448,
        decoder_layers: 4,
        decoder_heads: 4,
        decoder_inner: 256,
        vocab_size,
    }
}

fn names(list: &[(&str, u32)]) -> Names {
    list.iter().map(|(name, id)| (format!("<|{name}|>"), *id)).collect()
}

const ALL: [(&str, u32); 10] = [
    ("endoftext", 50257),
    ("startoftranscript", 50258),
    ("zh", 50260),
    ("en", 50259),
    ("translate", 50358),
    ("transcribe", 50359),
    ("startoflm", 50360),
    ("startofprev", 50361),
    ("nospeech", 50362),
    ("notimestamps", 50363),
];

#[test]
fn names_fill_what_a_configuration_leaves_out() {
    let config = json!({ "suppress_ids": [1, 60000, -1], "alignment_heads": [[3, 1]], "lang_ids": [50259] });
    let ids = WhisperSpecialIds::from_ct2(&config, &names(&ALL), &sizes(51865)).unwrap();
    assert_eq!((ids.end_of_text, ids.no_speech, ids.first_timestamp), (50257, 50362, 50364));
    assert_eq!((ids.transcribe, ids.translate, ids.start_of_lm), (Some(50359), Some(50358), Some(50360)));
    assert_eq!(ids.languages, [("en".to_owned(), 50259)]);
    assert_eq!((ids.suppressed, ids.alignment_heads), (vec![1], vec![(3, 1)]));
    // Without a list all names of languages count, in the order of ids.
    let ids = WhisperSpecialIds::from_ct2(&json!({}), &names(&ALL), &sizes(51865)).unwrap();
    assert_eq!(ids.languages, [("en".to_owned(), 50259), ("zh".to_owned(), 50260)]);
    assert!(ids.alignment_heads.is_empty());
}

#[test]
fn english_models_have_no_languages_and_tasks() {
    let ids = WhisperSpecialIds::from_ct2(&Value::Null, &names(&ALL), &sizes(51864)).unwrap();
    assert_eq!((ids.languages.len(), ids.transcribe, ids.translate), (0, None, None));
    let generation = json!({ "is_multilingual": false, "eos_token_id": 50256, "decoder_start_token_id": [50257] });
    let ids = WhisperSpecialIds::from_transformers(Some(&generation), &json!({}), &names(&ALL), &sizes(51864)).unwrap();
    assert_eq!((ids.end_of_text, ids.start_of_transcript, ids.transcribe), (50256, 50257, None));
}

#[test]
fn a_generation_configuration_comes_first() {
    let generation = json!({
        "lang_to_id": { "<|de|>": 7, "<|en|>": 6 },
        "task_to_id": { "transcribe": 8, "translate": 9 },
        "no_timestamps_token_id": 10,
        "suppress_tokens": null,
        "begin_suppress_tokens": [3],
    });
    let config = json!({ "suppress_tokens": [1, 2], "begin_suppress_tokens": [4], "eos_token_id": 5 });
    let names = names(&[("startoftranscript", 11), ("startofprev", 12), ("notimestamps", 99)]);
    let ids = WhisperSpecialIds::from_transformers(Some(&generation), &config, &names, &sizes(100)).unwrap();
    assert_eq!((ids.no_timestamps, ids.no_speech, ids.end_of_text), (10, 9, 5));
    assert_eq!((ids.suppressed, ids.begin_suppressed), (vec![1, 2], vec![3]));
    assert_eq!(ids.languages, [("en".to_owned(), 6), ("de".to_owned(), 7)]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refusal = |config: Value, list: &[(&str, u32)]| {
        WhisperSpecialIds::from_ct2(&config, &names(list), &sizes(51865)).unwrap_err().to_string()
    };
    assert_eq!(refusal(json!({}), &[]), "the model's configuration has no token <|notimestamps|>");
    let heads = refusal(json!({ "alignment_heads": [[4, 0]] }), &ALL);
    assert!(heads.contains("alignment_heads = [4, 0], expected heads of 4 layers of 4"), "{heads}");
    assert!(refusal(json!({ "alignment_heads": [[1]] }), &ALL).contains("pairs of layer and head"));
    assert!(refusal(json!({ "suppress_ids": ["a"] }), &ALL).contains("a token id or a list"));
    let mut beyond = ALL.to_vec();
    beyond[9].1 = 51864;
    assert!(refusal(json!({}), &beyond).contains("a special token = 51865"), "the first timestamp");
}
