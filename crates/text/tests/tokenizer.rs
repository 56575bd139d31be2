//! Tokenizers against what transformers says about the fixtures, and GGUF against tokenizer.json.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a failing test may panic")]

mod common;

use std::path::Path;

use common::{MODELS, TRICKY, gguf_tokenizer, ids, json, reference, root, tokenizer};
use serde_json::Value;
use tsserve_text::{GgufTokenizer, Tokenizer};

#[test]
fn fixtures_encode_and_decode_as_transformers_does() {
    for model in MODELS {
        let tokenizer = tokenizer(model);
        let golden = json(&format!("fixtures/golden/{model}.json"));
        let cases = golden["tokenizer_cases"].as_array().unwrap();
        assert!(cases.len() > 5, "{model}");
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let with_special = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text, true).unwrap(), with_special, "{model}: {text:?}");
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids_no_special"]), "{model}: {text:?}");
            assert_eq!(tokenizer.decode(&with_special, false).unwrap(), case["decoded"], "{model}: {text:?}");
            assert_eq!(
                tokenizer.decode(&with_special, true).unwrap(),
                case["decoded_skip_special"],
                "{model}: {text:?}"
            );
        }
        assert!(tokenizer.warnings().is_empty(), "{model}: {:?}", tokenizer.warnings());
        assert_eq!(tokenizer.vocab_size(), 512, "{model}");
    }
}

#[test]
fn the_greedy_answers_of_the_fixtures_decode() {
    for model in MODELS {
        let tokenizer = tokenizer(model);
        let golden = json(&format!("fixtures/golden/{model}.json"));
        let mut seen = 0;
        for greedy in collect(&golden, "text_with_special") {
            let ids = ids(&greedy["ids"]);
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), greedy["text"], "{model}");
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), greedy["text_with_special"], "{model}");
            seen += 1;
        }
        assert!(seen > 0, "{model}");
    }
}

/// Every object below `value` that has `key`.
fn collect<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    if value.get(key).is_some() {
        found.push(value);
    }
    match value {
        Value::Object(map) => found.extend(map.values().flat_map(|value| collect(value, key))),
        Value::Array(list) => found.extend(list.iter().flat_map(|value| collect(value, key))),
        _ => {}
    }
    found
}

#[test]
fn tricky_text_equals_the_tokenizers_crate() {
    for model in MODELS {
        let (ours, theirs) = (tokenizer(model), reference(model));
        for text in TRICKY {
            for special in [true, false] {
                let expected = theirs.encode(*text, special).unwrap().get_ids().to_vec();
                assert_eq!(ours.encode(text, special).unwrap(), expected, "{model}: {text:?}");
            }
        }
    }
}

#[test]
fn token_bytes_join_to_the_text() {
    for model in MODELS {
        let tokenizer = tokenizer(model);
        for text in TRICKY.iter().filter(|text| !text.contains('▁')) {
            let ids = tokenizer.encode(text, false).unwrap();
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap().to_vec()).collect();
            let joined = String::from_utf8(bytes).unwrap();
            if model.starts_with("qwen") {
                assert_eq!(nfc(&joined), nfc(text), "{model}");
            } else if !ids.contains(&3) {
                assert_eq!(&joined, text, "{model}");
            }
        }
        assert_eq!(tokenizer.token_bytes(512), None);
        assert_eq!(tokenizer.token_text(512), "");
        assert!(!tokenizer.is_special(512));
    }
    let gemma = tokenizer("gemma3_text");
    assert_eq!(gemma.token_bytes(gemma.token_id("<0xE2>").unwrap()), Some(&[0xe2][..]));
    assert_eq!(gemma.token_bytes(gemma.token_id("▁").unwrap()), Some(&b" "[..]));
}

fn nfc(text: &str) -> String {
    let mut normalized = tokenizers::NormalizedString::from(text);
    tokenizers::Normalizer::normalize(&tokenizers::normalizers::NFC, &mut normalized).unwrap();
    normalized.get().to_owned()
}

#[test]
fn special_tokens_are_known_by_id() {
    let qwen = tokenizer("qwen2");
    assert_eq!(qwen.special_id("<|im_end|>"), Some(501));
    assert!(qwen.is_special(501));
    assert_eq!(qwen.token_text(501), "<|im_end|>");
    // Added, but not special.
    assert_eq!(qwen.special_id("<think>"), None);
    assert_eq!(qwen.token_id("<think>"), Some(510));
    assert!(!qwen.is_special(510));
    assert_eq!(qwen.special_id("nonesuch"), None);
    let names: Vec<&str> = qwen.special_tokens().map(|(_, text)| text).collect();
    assert_eq!(names[..3], ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]);
}

#[test]
fn plain_text_never_becomes_a_special_token() {
    let text = "a<|im_start|>system\nb<|im_end|><bos><start_of_turn><|begin_of_text|><eos> <think>ü🎉";
    for model in MODELS {
        let tokenizer = tokenizer(model);
        assert!(tokenizer.encode(text, false).unwrap().iter().any(|&id| tokenizer.is_special(id)), "{model}");
        let plain = tokenizer.encode_plain(text).unwrap();
        let specials: Vec<String> =
            plain.iter().filter(|&&id| tokenizer.is_special(id)).map(|&id| tokenizer.token_text(id)).collect();
        assert!(specials.iter().all(|text| text == "<unk>"), "{model}: {specials:?}");
        if specials.is_empty() {
            assert_eq!(tokenizer.decode(&plain, true).unwrap(), text, "{model}");
        }
        // Without special tokens in it, text is what `encode` makes of it.
        for text in TRICKY.iter().filter(|text| !text.contains("<|") && !text.contains("<bos>")) {
            assert_eq!(
                tokenizer.encode_plain(text).unwrap(),
                tokenizer.encode(text, false).unwrap(),
                "{model}: {text:?}"
            );
        }
    }
    // Qwen's <think> is an added token, not a special one.
    assert!(tokenizer("qwen2").encode_plain(text).unwrap().contains(&510));
}

#[test]
fn a_special_token_that_merges_can_form_is_taken_apart_in_plain_text() {
    let json = r#"{"version":"1.0","added_tokens":[{"id":2,"content":"ab","single_word":false,"lstrip":false,
        "rstrip":false,"normalized":false,"special":true}],"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},
        "merges":["a b"]}}"#;
    let tokenizer = Tokenizer::from_json_bytes(json.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("aab", false).unwrap(), [0, 2]);
    assert_eq!(tokenizer.encode_plain("aab").unwrap(), [0, 0, 1]);
}

#[test]
fn gguf_equals_tokenizer_json() {
    for (file, model) in [("llama_mixed32", "llama"), ("qwen3_kquants", "qwen3")] {
        let gguf = gguf_tokenizer(&root().join(format!("fixtures/golden/quant/{file}.gguf")));
        let (from_gguf, from_json) = (Tokenizer::from_gguf(&gguf).unwrap(), tokenizer(model));
        assert!(from_gguf.warnings().is_empty(), "{:?}", from_gguf.warnings());
        assert_same(&from_gguf, &from_json, file);
    }
}

#[test]
fn fixtures_rewritten_as_gguf_equal_their_tokenizer_json() {
    for (model, pre) in [("llama", "llama-bpe"), ("llama_smollm2", "smollm"), ("qwen2", "qwen2"), ("qwen3", "qwen2")] {
        let gguf = byte_level_as_gguf(model, pre);
        assert_same(&Tokenizer::from_gguf(&gguf).unwrap(), &tokenizer(model), model);
    }
}

fn assert_same(a: &Tokenizer, b: &Tokenizer, what: &str) {
    assert_eq!(a.vocab_size(), b.vocab_size(), "{what}");
    for text in TRICKY {
        for special in [true, false] {
            assert_eq!(a.encode(text, special).unwrap(), b.encode(text, special).unwrap(), "{what}: {text:?}");
        }
        assert_eq!(a.encode_plain(text).unwrap(), b.encode_plain(text).unwrap(), "{what}: {text:?}");
    }
    for id in 0..520 {
        assert_eq!(a.token_bytes(id), b.token_bytes(id), "{what}: {id}");
        assert_eq!(a.is_special(id), b.is_special(id), "{what}: {id}");
        assert_eq!(a.token_text(id), b.token_text(id), "{what}: {id}");
        for skip in [true, false] {
            assert_eq!(a.decode(&[id], skip).unwrap(), b.decode(&[id], skip).unwrap(), "{what}: {id}");
        }
    }
}

/// The tokenizer.json of a fixture in the words of a GGUF file.
fn byte_level_as_gguf(model: &str, pre: &str) -> GgufTokenizer {
    let json = json(&format!("fixtures/models/{model}/tokenizer.json"));
    let mut tokens = vec![String::new(); 512];
    let mut token_types = vec![1; 512];
    for (text, id) in json["model"]["vocab"].as_object().unwrap() {
        tokens[usize::try_from(id.as_u64().unwrap()).unwrap()] = text.clone();
    }
    for token in json["added_tokens"].as_array().unwrap() {
        let id = usize::try_from(token["id"].as_u64().unwrap()).unwrap();
        tokens[id] = token["content"].as_str().unwrap().to_owned();
        token_types[id] = if token["special"] == true { 3 } else { 4 };
    }
    let merges = json["model"]["merges"].as_array().unwrap();
    let bos = tokens.iter().position(|text| text == "<|begin_of_text|>").map(|id| u32::try_from(id).unwrap());
    GgufTokenizer {
        model: "gpt2".to_owned(),
        pre: pre.to_owned(),
        tokens,
        token_types,
        merges: merges.iter().map(|m| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap())).collect(),
        bos_id: bos,
        // llama-bpe adds BOS by itself.
        add_bos: None,
        ..GgufTokenizer::default()
    }
}

/// A SentencePiece vocabulary of a few tokens.
fn sentencepiece() -> GgufTokenizer {
    let mut tokens: Vec<(String, f32, i32)> =
        vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
    tokens.extend((0..=255_u8).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    let pieces = ["▁a", "bc", "abc", "▁abc", "ab", "aa", "aaa", "▁", "a", "b", "c", "s", "<", ">", "<s", "s>"];
    tokens.extend((0_u16..).zip(pieces).map(|(rank, piece)| (piece.to_owned(), -f32::from(rank), 1)));
    tokens.push(("<turn>".into(), -1000.0, 4));
    GgufTokenizer {
        model: "llama".to_owned(),
        pre: "default".to_owned(),
        scores: tokens.iter().map(|token| token.1).collect(),
        token_types: tokens.iter().map(|token| token.2).collect(),
        tokens: tokens.into_iter().map(|token| token.0).collect(),
        bos_id: Some(1),
        eos_id: Some(2),
        unk_id: Some(0),
        ..GgufTokenizer::default()
    }
}

fn pieces(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<String> {
    tokenizer.encode(text, special).unwrap().iter().map(|&id| tokenizer.token_text(id)).collect()
}

#[test]
fn sentencepiece_merges_follow_the_scores() {
    let tokenizer = Tokenizer::from_gguf(&sentencepiece()).unwrap();
    // "▁a" has the best score, so it is formed before "bc", and "▁abc" from both.
    assert_eq!(pieces(&tokenizer, "abc", true), ["<s>", " abc"]);
    assert_eq!(pieces(&tokenizer, "cabc", false), [" ", "c", "abc"]);
    // The byte tokens of é, lossy one by one.
    assert_eq!(tokenizer.encode("é", false).unwrap(), tokenizer_ids(&tokenizer, &["▁", "<0xC3>", "<0xA9>"]));
    // Every stretch between added tokens gets its own space, as Llama 2 had it.
    assert_eq!(pieces(&tokenizer, "a<turn>a</s>", false), [" a", "<turn>", " a", "</s>"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("abc a é", true).unwrap(), true).unwrap(), "abc a é");
    // "<s" + ">" would be BOS: text merges must not reach it.
    let plain = tokenizer.encode_plain("<s>").unwrap();
    assert!(!plain.contains(&1), "{plain:?}");
    assert_eq!(tokenizer.decode(&plain, true).unwrap(), "<s>");
}

fn tokenizer_ids(tokenizer: &Tokenizer, texts: &[&str]) -> Vec<u32> {
    texts.iter().map(|text| tokenizer.token_id(text).unwrap()).collect()
}

#[test]
fn sentencepiece_options() {
    let gguf =
        GgufTokenizer { add_space_prefix: Some(false), add_bos: Some(false), add_eos: Some(true), ..sentencepiece() };
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    assert_eq!(pieces(&tokenizer, "aaa", true), ["aaa", "</s>"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode(" a", false).unwrap(), false).unwrap(), " a");
}

#[test]
fn broken_and_unknown_files_are_errors() {
    let good = sentencepiece();
    let code = |gguf: GgufTokenizer| Tokenizer::from_gguf(&gguf).unwrap_err().code();
    assert_eq!(code(GgufTokenizer { model: "t5".into(), ..good.clone() }), "tokenizer_unsupported");
    assert_eq!(code(GgufTokenizer { model: String::new(), ..good.clone() }), "tokenizer_unsupported");
    assert_eq!(code(GgufTokenizer { scores: vec![1.0], ..good.clone() }), "tokenizer_invalid");
    assert_eq!(code(GgufTokenizer { token_types: vec![1], ..good.clone() }), "tokenizer_invalid");
    assert_eq!(code(GgufTokenizer { tokens: Vec::new(), ..good.clone() }), "tokenizer_invalid");
    assert_eq!(code(GgufTokenizer { eos_id: Some(9999), ..good.clone() }), "tokenizer_invalid");
    let unknown = GgufTokenizer { model: "gpt2".into(), pre: "nonesuch".into(), ..good };
    assert_eq!(code(unknown), "unknown_pre_tokenizer");

    let json = |bytes: &[u8]| Tokenizer::from_json_bytes(bytes).unwrap_err().code();
    assert_eq!(json(b""), "tokenizer_invalid");
    assert_eq!(json(b"{\"model\":{}}"), "tokenizer_invalid");
    // A merge longer than any token, over which the tokenizers crate trips.
    assert_eq!(json(br#"{"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}}"#), "tokenizer_invalid");
    assert_eq!(json(br#"{"model":{"type":"BPE","vocab":{"a":4000000000},"merges":[]}}"#), "tokenizer_invalid");
    let missing = Tokenizer::from_json_file(Path::new("nonesuch.json")).unwrap_err();
    assert_eq!(missing.code(), "tokenizer_unreadable");
}

#[test]
fn odd_files_load_with_warnings() {
    let mut gguf = byte_level_as_gguf("qwen2", "");
    gguf.token_types.clear();
    gguf.merges.push("no such".to_owned());
    gguf.merges.push("nospace".to_owned());
    gguf.eos_id = Some(501);
    gguf.tokens.push("!".to_owned());
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let warnings = tokenizer.warnings().join("; ");
    for part in ["which tokens are special", "pre-tokenizer", "2 merges", "repeat the text"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    assert!(tokenizer.is_special(501));
    assert_eq!(tokenizer.token_bytes(512), Some(&b"!"[..]));
}

#[test]
fn truncation_and_padding_of_a_file_are_dropped() {
    let mut json = json("fixtures/models/qwen2/tokenizer.json");
    json["truncation"] = serde_json::json!({"direction":"Right","max_length":4,"strategy":"LongestFirst","stride":0});
    json["padding"] = serde_json::json!({"strategy":{"Fixed":64},"direction":"Right","pad_to_multiple_of":null,
        "pad_id":499,"pad_type_id":0,"pad_token":"<|endoftext|>"});
    let tokenizer = Tokenizer::from_json_bytes(json.to_string().as_bytes()).unwrap();
    let text = "a text of more than four tokens";
    assert_eq!(tokenizer.encode(text, true).unwrap(), common::tokenizer("qwen2").encode(text, true).unwrap());
}
