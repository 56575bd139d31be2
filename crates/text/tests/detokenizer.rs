//! Streaming against decoding at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a failing test may panic")]

mod common;

use common::{MODELS, Numbers, TRICKY, ids, json, tokenizer};
use tsserve_text::{Detokenizer, Piece, SpecialTokens, Tokenizer};

/// All text of a stream, marks written as their text; checks each step.
fn stream(tokenizer: &Tokenizer, ids: &[u32], special: SpecialTokens) -> String {
    let mut detokenizer = Detokenizer::new(tokenizer, special);
    let mut text = String::new();
    for &id in ids {
        for piece in detokenizer.push(id) {
            match piece {
                Piece::Text(part) => {
                    assert!(!part.is_empty());
                    text.push_str(&part);
                }
                Piece::Special { id: mark, text: content } => {
                    assert_eq!(mark, id);
                    assert_eq!(special, SpecialTokens::Mark);
                    text.push_str(&content);
                }
            }
        }
    }
    for piece in detokenizer.finish() {
        let Piece::Text(part) = piece else { panic!("a mark at the end") };
        text.push_str(&part);
    }
    assert!(detokenizer.finish().is_empty());
    text
}

fn assert_streams_as_decoded(tokenizer: &Tokenizer, ids: &[u32], what: &str) {
    assert_eq!(stream(tokenizer, ids, SpecialTokens::Mark), tokenizer.decode(ids, false).unwrap(), "{what}: {ids:?}");
    assert_eq!(stream(tokenizer, ids, SpecialTokens::Skip), tokenizer.decode(ids, true).unwrap(), "{what}: {ids:?}");
}

#[test]
fn tokenizer_cases_stream_as_decoded() {
    for model in MODELS {
        let tokenizer = tokenizer(model);
        for case in json(&format!("fixtures/golden/{model}.json"))["tokenizer_cases"].as_array().unwrap() {
            let ids = ids(&case["ids"]);
            assert_eq!(stream(&tokenizer, &ids, SpecialTokens::Mark), case["decoded"], "{model}");
            assert_eq!(stream(&tokenizer, &ids, SpecialTokens::Skip), case["decoded_skip_special"], "{model}");
        }
        for text in TRICKY {
            assert_streams_as_decoded(&tokenizer, &tokenizer.encode(text, true).unwrap(), model);
        }
    }
}

#[test]
fn random_ids_of_byte_level_tokenizers_stream_as_decoded() {
    let mut numbers = Numbers(7);
    let mut broken = 0;
    for model in MODELS.iter().filter(|model| **model != "gemma3_text") {
        let tokenizer = tokenizer(model);
        // Tokens that are part of a character, to make broken and mended ones likely.
        let partial: Vec<u32> =
            (0..512).filter(|&id| std::str::from_utf8(tokenizer.token_bytes(id).unwrap()).is_err()).collect();
        assert!(partial.len() > 100);
        for round in 0..4000 {
            let length = 1 + numbers.below(40);
            let ids: Vec<u32> = (0..length)
                .map(|_| match round % 3 {
                    0 => u32::try_from(numbers.below(514)).unwrap(),
                    _ if numbers.below(4) == 0 => u32::try_from(numbers.below(512)).unwrap(),
                    _ => partial[numbers.below(partial.len())],
                })
                .collect();
            broken += usize::from(tokenizer.decode(&ids, true).unwrap().contains('\u{fffd}'));
            assert_streams_as_decoded(&tokenizer, &ids, model);
        }
    }
    assert!(broken > 1000);
}

/// What the whole sequence must give with byte tokens: whole characters stay, every other byte of a run is one U+FFFD.
fn expected_with_bytes(tokenizer: &Tokenizer, ids: &[u32]) -> (String, bool) {
    let mut text = String::new();
    let mut mixed = false;
    let mut run: Vec<u8> = Vec::new();
    let mut end_run = |run: &mut Vec<u8>, text: &mut String| {
        let (mut whole, mut lost) = (false, false);
        for chunk in run.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(std::iter::repeat_n('\u{fffd}', chunk.invalid().len()));
            whole |= !chunk.valid().is_empty();
            lost |= !chunk.invalid().is_empty();
        }
        mixed |= whole && lost;
        run.clear();
    };
    for &id in ids {
        let is_byte = (10..266).contains(&id);
        match tokenizer.token_bytes(id) {
            Some(bytes) if is_byte => run.extend_from_slice(bytes),
            Some(bytes) => {
                end_run(&mut run, &mut text);
                text.push_str(std::str::from_utf8(bytes).unwrap());
            }
            None => {}
        }
    }
    end_run(&mut run, &mut text);
    (text, mixed)
}

#[test]
fn random_ids_with_byte_fallback() {
    let tokenizer = tokenizer("gemma3_text");
    assert_eq!((tokenizer.token_text(10), tokenizer.token_bytes(265)), ("\0".to_owned(), Some(&[255][..])));
    let mut numbers = Numbers(11);
    let (mut mixed_seen, mut equal_seen) = (0, 0);
    for round in 0..20_000 {
        let length = 1 + numbers.below(24);
        let ids: Vec<u32> = (0..length)
            .flat_map(|_| match (round % 2, numbers.below(3)) {
                // The bytes of a character, now and then with one missing.
                (0, 0) => {
                    let text = ["é", "€", "🎉", "\n", "漢字"][numbers.below(5)];
                    let mut bytes: Vec<u32> = text.bytes().map(|byte| u32::from(byte) + 10).collect();
                    if numbers.below(6) == 0 {
                        bytes.remove(numbers.below(bytes.len()));
                    }
                    bytes
                }
                (1, 0) => vec![u32::try_from(10 + numbers.below(256)).unwrap()],
                _ => vec![u32::try_from(numbers.below(514)).unwrap()],
            })
            .collect();
        let (expected, mixed) = expected_with_bytes(&tokenizer, &ids);
        assert_eq!(stream(&tokenizer, &ids, SpecialTokens::Mark), expected, "{ids:?}");
        if mixed {
            mixed_seen += 1;
        } else {
            equal_seen += 1;
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), expected, "{ids:?}");
        }
    }
    assert!(mixed_seen > 500 && equal_seen > 2000, "{mixed_seen} {equal_seen}");
}

#[test]
fn half_characters_wait_and_marks_cut() {
    let tokenizer = tokenizer("qwen2");
    let euro: Vec<u32> =
        "€".bytes().map(|byte| (0..512).find(|&id| tokenizer.token_bytes(id) == Some(&[byte])).unwrap()).collect();
    let text = |text: &str| Piece::Text(text.to_owned());
    let mut stream = Detokenizer::new(&tokenizer, SpecialTokens::Mark);
    assert!(stream.push(euro[0]).is_empty());
    assert!(stream.push(euro[1]).is_empty());
    assert_eq!(stream.push(euro[2]).pieces, [text("€")]);
    stream.push(euro[0]);
    let end = Piece::Special { id: 501, text: "<|im_end|>".to_owned() };
    assert_eq!(stream.push(501).pieces, [text("\u{fffd}"), end]);
    assert!(stream.push(9999).is_empty());
    // <think> is an added token: text, unless a mark is wanted.
    assert_eq!(stream.push(510).pieces, [text("<think>")]);
    let mut marking = Detokenizer::new(&tokenizer, SpecialTokens::Skip).marking([511, 510]);
    assert_eq!(marking.push(510).pieces, [Piece::Special { id: 510, text: "<think>".to_owned() }]);
    assert!(marking.push(501).is_empty());
    // The same characters spelt by ordinary tokens are no mark.
    let spelt = tokenizer.encode_plain("<|im_end|>").unwrap();
    let mut stream = Detokenizer::new(&tokenizer, SpecialTokens::Mark);
    assert!(spelt.iter().flat_map(|&id| stream.push(id)).all(|piece| matches!(piece, Piece::Text(_))));
}

/// A tokenizer.json of a few tokens with the given decoder.
fn with_decoder(decoder: &str) -> Tokenizer {
    let json = format!(
        r#"{{"version":"1.0","added_tokens":[{{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,
        "normalized":false,"special":true}}],"decoder":{decoder},"model":{{"type":"BPE","byte_fallback":true,"vocab":
        {{"<s>":0,"▁Hello":1,"▁":2,"▁▁x":3,"world":4,"<0xE2>":5,"<0x82>":6,"<0xAC>":7,"++ing":8,"a▁b":9,",":10,
        "<0x20>":11,"n't":12,"yes</w>":13}},"merges":[]}}}}"#
    );
    Tokenizer::from_json_bytes(json.as_bytes()).unwrap()
}

#[test]
fn decoders_of_other_families_stream_as_decoded() {
    let llama2 = r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
        {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#;
    let strip_two = &llama2.replace("\"start\":1", "\"start\":2");
    let regex = r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"Regex":"▁+"},"content":"_"},
        {"type":"Replace","pattern":{"String":"o"},"content":"0"},{"type":"Fuse"}]}"#;
    let metaspace = r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#;
    let never = &metaspace.replace("always", "never");
    let exact = [llama2, strip_two, regex, metaspace, never];
    let windowed = [
        r#"{"type":"WordPiece","prefix":"++","cleanup":false}"#,
        r#"{"type":"BPEDecoder","suffix":"</w>"}"#,
        r#"{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}]}"#,
    ];
    let mut numbers = Numbers(3);
    for decoder in exact.iter().chain(&windowed) {
        let tokenizer = with_decoder(decoder);
        let is_windowed = windowed.contains(decoder);
        assert_eq!(tokenizer.warnings().len(), usize::from(is_windowed), "{decoder}");
        for _ in 0..3000 {
            let length = 1 + numbers.below(10);
            let mut ids: Vec<u32> = (0..length).map(|_| u32::try_from(numbers.below(14)).unwrap()).collect();
            if decoder.contains("ByteFallback") {
                // Whole characters only: broken runs have a test of their own.
                ids = ids.iter().flat_map(|&id| if (5..8).contains(&id) { vec![5, 6, 7] } else { vec![id] }).collect();
            }
            if is_windowed {
                // A special token restarts the window, so only text is compared.
                ids.retain(|&id| id != 0);
                assert_eq!(
                    stream(&tokenizer, &ids, SpecialTokens::Skip).trim_end(),
                    tokenizer.decode(&ids, true).unwrap().trim_end(),
                    "{decoder} {ids:?}"
                );
            } else {
                assert_streams_as_decoded(&tokenizer, &ids, decoder);
            }
        }
    }
}

#[test]
fn a_continuation_keeps_its_leading_space() {
    for decoder in [
        r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
        {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#,
        r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#,
    ] {
        let tokenizer = with_decoder(decoder);
        let mut fresh = Detokenizer::new(&tokenizer, SpecialTokens::Mark);
        assert_eq!(fresh.push(1).pieces, [Piece::Text("Hello".to_owned())]);
        let mut continuing = Detokenizer::continuing(&tokenizer, SpecialTokens::Mark);
        assert_eq!(continuing.push(1).pieces, [Piece::Text(" Hello".to_owned())]);
    }
}
