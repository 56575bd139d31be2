//! The tokenizers inside the real GGUF files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a failing test may panic")]

mod common;

use std::time::{Duration, Instant};

use common::{TRICKY, gguf_tokenizer, ids, json, weights};
use tsserve_text::{Detokenizer, Piece, SpecialTokens, Tokenizer};

const MODELS: &[&str] = &["smollm2-135m-instruct-q4_1", "qwen2.5-coder-0.5b-instruct-q4_k_m", "gemma-3-270m-q4_k_m"];

fn load(model: &str) -> (Tokenizer, Duration) {
    let gguf = gguf_tokenizer(&weights(&format!("{model}.gguf")));
    let start = Instant::now();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    (tokenizer, start.elapsed())
}

#[test]
fn prompts_and_answers_are_those_of_transformers() {
    for model in MODELS {
        let (tokenizer, built) = load(model);
        let golden = json(&format!("fixtures/real/{model}.json"));
        let cases = golden["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let prompt = case["prompt"].as_str().unwrap();
            let is_completion = case["kind"] == "completion";
            assert_eq!(
                tokenizer.encode(prompt, is_completion).unwrap(),
                ids(&case["prompt_ids"]),
                "{model}: {prompt:?}"
            );
            let new = ids(&case["new_ids"]);
            assert_eq!(tokenizer.decode(&new, true).unwrap(), case["new_text"], "{model}: {prompt:?}");
            assert_eq!(stream(&tokenizer, &new), case["new_text"], "{model}: {prompt:?}");
        }
        // Generous, for busy computers. Measured: 0.03 s, 0.17 s and 0.6 s.
        assert!(built < Duration::from_secs(5), "{model}: {built:?}");
        println!("{model}: built in {built:?}, {} tokens, warnings {:?}", tokenizer.vocab_size(), tokenizer.warnings());
    }
}

fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut detokenizer = Detokenizer::continuing(tokenizer, SpecialTokens::Skip);
    let mut pieces: Vec<Piece> = ids.iter().flat_map(|&id| detokenizer.push(id)).collect();
    pieces.extend(detokenizer.finish());
    pieces.into_iter().map(|piece| if let Piece::Text(text) = piece { text } else { panic!("{piece:?}") }).collect()
}

#[test]
fn tricky_text_survives_the_way_there_and_back() {
    for model in MODELS {
        let (tokenizer, _) = load(model);
        for text in TRICKY {
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(stream(&tokenizer, &ids), tokenizer.decode(&ids, true).unwrap(), "{model}: {text:?}");
            // Qwen composes characters, and U+2581 is a space to SentencePiece: those texts come back changed.
            let plain = tokenizer.encode_plain(text).unwrap();
            assert!(plain.iter().all(|&id| !tokenizer.is_special(id)), "{model}: {text:?}");
            let is_changed = text.contains('▁') || (model.starts_with("qwen") && text.contains(['\u{301}', '\u{30a}']));
            if !is_changed {
                assert_eq!(&tokenizer.decode(&plain, true).unwrap(), text, "{model}");
            }
        }
    }
}

#[test]
fn known_tokens() {
    let (qwen, _) = load(MODELS[1]);
    assert_eq!(qwen.special_id("<|im_end|>"), Some(151_645));
    assert_eq!((qwen.special_id("<tool_call>"), qwen.token_id("<tool_call>")), (None, Some(151_657)));
    assert_eq!(qwen.encode("<|im_start|>user\n", false).unwrap(), [151_644, 872, 198]);
    assert_eq!(qwen.encode("it's 2026", false).unwrap(), [275, 594, 220, 17, 15, 17, 21]);
    // Padding of the vocabulary is neither text nor found in text.
    assert_eq!((qwen.token_bytes(151_700), qwen.token_id("[PAD151700]")), (None, None));

    let (gemma, _) = load(MODELS[2]);
    assert_eq!(gemma.encode("", true).unwrap(), [2]);
    assert_eq!(gemma.encode("<start_of_turn>user\nHi<end_of_turn>\n", true).unwrap()[..4], [2, 105, 2364, 107]);
    // Runs of spaces are one token, and do not swallow the space that belongs to the next word.
    assert_eq!(gemma.token_bytes(138), Some(&b"  "[..]));
    assert_eq!(gemma.encode("    ", false).unwrap(), [140]);
    assert_eq!(gemma.encode("\n\n\n", false).unwrap(), [109]);
}

/// Whisper's vocabulary as whisper.cpp keeps it, without merges, is the tokenizer that has them.
#[test]
fn whisper_is_read_from_ranks() {
    let vocabulary = weights("whisper-base-ct2/vocabulary.json");
    let expected = Tokenizer::from_json_file(weights("whisper-base-ct2/tokenizer.json")).unwrap();
    let names: Vec<String> = serde_json::from_slice(&std::fs::read(vocabulary).unwrap()).unwrap();
    let end = names.iter().position(|name| name == "<|endoftext|>").unwrap();
    let words: Vec<&[u8]> = (0..end as u32).map(|id| expected.token_bytes(id).unwrap_or_default()).collect();
    let special: Vec<(u32, String)> = (end as u32..).zip(names[end..].iter().cloned()).collect();
    let start = Instant::now();
    let found = Tokenizer::from_ranks(&words, &special).unwrap();
    println!("built in {:?}", start.elapsed());
    assert_eq!(found.vocab_size(), expected.vocab_size());
    assert_eq!(found.special_id("<|notimestamps|>"), Some(50_363));
    let prose = std::fs::read_to_string(common::root().join("fixtures/real/gpl-3.txt")).unwrap();
    for text in TRICKY.iter().copied().chain([&prose[..]]) {
        let ids = found.encode_plain(text).unwrap();
        assert_eq!(ids, expected.encode_plain(text).unwrap(), "{text:?}");
        assert_eq!(found.decode(&ids, true).unwrap(), expected.decode(&ids, true).unwrap(), "{text:?}");
    }
    // Every token, and so every merge that leads to it.
    for word in words {
        if let Ok(word) = std::str::from_utf8(word) {
            assert_eq!(found.encode_plain(word).unwrap(), expected.encode_plain(word).unwrap(), "{word:?}");
        }
    }
}

#[test]
#[ignore = "prints times; run by hand"]
fn times() {
    let prose =
        "The quick brown fox jumps over the lazy dog, doesn't it? In 2026 naïve 数字 🎉 code {x[0]}\n".repeat(1000);
    for model in MODELS {
        let (tokenizer, built) = load(model);
        let start = Instant::now();
        let ids = tokenizer.encode(&prose, true).unwrap();
        let encode = start.elapsed();
        let mut stream = Detokenizer::new(&tokenizer, SpecialTokens::Mark);
        let start = Instant::now();
        let bytes: usize = ids
            .iter()
            .flat_map(|&id| stream.push(id))
            .map(|piece| match piece {
                Piece::Text(text) | Piece::Special { text, .. } => text.len(),
            })
            .sum();
        let each = start.elapsed() / u32::try_from(ids.len()).unwrap();
        let start = Instant::now();
        let short = tokenizer.encode(&prose[..400], true).unwrap().len();
        println!(
            "{model}: build {built:?}; encode {} bytes to {} ids {encode:?}; {short} ids {:?}; detokenize {each:?} each ({bytes})",
            prose.len(),
            ids.len(),
            start.elapsed()
        );
    }
}
