//! Grammars over the fixtures' tokenizers: what random tokens within the masks make of them, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test may panic")]

mod common;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tsserve_text::{
    COMPILE_TIMEOUT, Grammar, GrammarCompiler, GrammarMatcher, MAX_CHOICES, MAX_GRAMMAR_BYTES, NextTokens, TextError,
    Tokenizer, Trigger,
};

/// Byte-level BPE with special tokens at the end, and SentencePiece with byte fallback and special tokens in front.
const MODELS: [(&str, &str); 3] = [("llama", "<|eot_id|>"), ("qwen3", "<|im_end|>"), ("gemma3_text", "<end_of_turn>")];

struct Fixture {
    tokenizer: Tokenizer,
    compiler: GrammarCompiler,
    end: u32,
}

fn fixture(model: &str) -> Fixture {
    let (_, end) = MODELS.iter().find(|(name, _)| *name == model).unwrap();
    let tokenizer = common::tokenizer(model);
    let end = tokenizer.token_id(end).unwrap();
    let compiler = GrammarCompiler::new(&tokenizer, 512, &[end]).unwrap();
    Fixture { tokenizer, compiler, end }
}

fn lark(text: &str) -> Grammar {
    Grammar::Lark(text.to_owned())
}

fn regex(pattern: &str) -> Grammar {
    Grammar::Regex(pattern.to_owned())
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

fn members(mask: &[u32]) -> Vec<u32> {
    (0..mask.len() as u32 * 32).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

/// Random allowed tokens until the text is complete, forced ones in one go. `None`: it grew beyond `most` tokens.
fn walk(fixture: &Fixture, mut matcher: GrammarMatcher, random: &mut Random, most: usize) -> Option<Vec<u8>> {
    let Fixture { tokenizer, end, .. } = fixture;
    let mut text = Vec::new();
    for _ in 0..most {
        let next = matcher.next_tokens().unwrap();
        if next == NextTokens::Complete {
            assert!(matcher.is_complete());
            return Some(text);
        }
        let allowed = members(&matcher.clone().mask().unwrap());
        assert!(!allowed.is_empty());
        if let NextTokens::Few(few) = next {
            assert_eq!(few, allowed);
        }
        assert_eq!(allowed.contains(end), matcher.is_complete(), "after {}", String::from_utf8_lossy(&text));
        if allowed.contains(end) && random.below(4) > 0 {
            return Some(text);
        }
        let token = allowed[random.below(allowed.len())];
        if token == *end {
            return Some(text);
        }
        text.extend_from_slice(tokenizer.token_bytes(token).unwrap());
        matcher.accept(token).unwrap();
        for token in matcher.forced().unwrap() {
            assert_eq!(members(&matcher.clone().mask().unwrap()), [token], "forced means that nothing else is allowed");
            text.extend_from_slice(tokenizer.token_bytes(token).unwrap());
            matcher.accept(token).unwrap();
        }
    }
    None
}

/// A number may be larger than any that serde_json takes.
fn is_json(text: &str, holds: impl Fn(&Value) -> bool) -> bool {
    match serde_json::from_str(text) {
        Ok(value) => holds(&value),
        Err(error) => error.to_string().starts_with("number out of range"),
    }
}

type Check = Box<dyn Fn(&str) -> bool>;

fn grammars() -> Vec<(&'static str, Grammar, Check)> {
    let person = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 2, "maxLength": 8 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "tags": { "type": "array", "items": { "enum": ["a", "bé", null, 3] }, "minItems": 1, "maxItems": 3 },
            "parent": { "$ref": "#/$defs/parent" }
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
        "$defs": { "parent": { "anyOf": [{ "type": "null" }, { "const": { "known": true } }] } }
    });
    let holds = |value: &Value| {
        let length = value["name"].as_str().map_or(0, |name| name.chars().count());
        let tags = value["tags"].as_array().unwrap();
        (2..=8).contains(&length)
            && value["age"].as_u64().is_some_and(|age| age <= 150)
            && (1..=3).contains(&tags.len())
            && tags.iter().all(|tag| [json!("a"), json!("bé"), json!(null), json!(3)].contains(tag))
            && (value["parent"].is_null() || value["parent"] == json!({ "known": true }))
    };
    let list = json!({ "$ref": "#/$defs/list", "$defs": { "list": {
        "type": "object", "properties": { "item": { "type": "boolean" }, "next": { "$ref": "#/$defs/list" } },
        "required": ["item"], "additionalProperties": false } } });
    let number = |text: &str| {
        text.strip_prefix('-').unwrap_or(text).split_once('.').is_some_and(|(whole, part)| {
            (1..=3).contains(&whole.len())
                && part.len() == 2
                && [whole, part].iter().all(|s| s.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    let choices = ["yes", "yesterday", "\"no\"\n", "天気", "/\\"];
    vec![
        ("json_object", Grammar::JsonObject, Box::new(|text| is_json(text, Value::is_object))),
        ("schema", Grammar::JsonSchema(person), Box::new(move |text| is_json(text, holds))),
        ("list", Grammar::JsonSchema(list), Box::new(|text| is_json(text, |list| list["item"].is_boolean()))),
        ("anything", Grammar::JsonSchema(json!(true)), Box::new(|text| is_json(text, |_| true))),
        ("regex", regex(r"-?[0-9]{1,3}\.[0-9]{2}"), Box::new(number)),
        (
            "choice",
            Grammar::Choice(choices.iter().map(|&choice| choice.to_owned()).collect()),
            Box::new(move |text| choices.contains(&text)),
        ),
        (
            "lark",
            lark("start: \"[\" list \"]\"\nlist: item (\",\" item)*\nitem: /[a-c]/ | \"(\" list \")\""),
            Box::new(|text| text.matches('(').count() == text.matches(')').count() && text.ends_with(']')),
        ),
    ]
}

#[test]
fn random_tokens_within_the_masks_match() {
    for (model, _) in MODELS {
        let fixture = fixture(model);
        for (name, grammar, check) in grammars() {
            let compiled = fixture.compiler.compile(&grammar, None).unwrap();
            let mut random = Random(name.len() as u64);
            let mut n_complete = 0;
            for _ in 0..40 {
                let Some(bytes) = walk(&fixture, compiled.clone(), &mut random, 300) else { continue };
                let text = String::from_utf8(bytes).unwrap();
                assert!(check(&text), "{model}, {name}: {text:?}");
                n_complete += 1;
            }
            assert!(n_complete >= 20, "{model}, {name}: only {n_complete} texts became complete");
        }
    }
}

#[test]
fn blanks_in_json_come_to_an_end() {
    let fixture = fixture("llama");
    let mut matcher = fixture.compiler.compile(&Grammar::JsonObject, None).unwrap();
    let blank = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_whitespace);
    let mut n_blank = 0;
    matcher.accept(fixture.tokenizer.token_id("{").unwrap()).unwrap();
    loop {
        let allowed = members(&matcher.mask().unwrap());
        let Some(&token) = allowed.iter().find(|id| blank(fixture.tokenizer.token_bytes(**id).unwrap())) else { break };
        n_blank += fixture.tokenizer.token_bytes(token).unwrap().len();
        matcher.accept(token).unwrap();
        assert!(n_blank <= 33);
    }
    assert!(n_blank > 0);
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    let fixture = fixture("qwen3");
    let schema = |schema: Value| Grammar::JsonSchema(schema);
    let deep = format!("start: {}\"x\"{}", "(".repeat(5000), ")".repeat(5000));
    let cases = [
        (schema(json!({ "type": "string", "pattern": "(" })), "regex"),
        (schema(json!({ "type": "thing" })), "thing"),
        (schema(json!({ "$ref": "#/$defs/missing" })), "missing"),
        (schema(json!({ "$ref": "http://example.com/schema" })), "http://example.com/schema"),
        (schema(json!({ "type": "integer", "minimum": 5, "maximum": 3 })), "nsatisfiable"),
        (schema(json!({ "not": { "type": "string" } })), "not"),
        (schema(json!({ "enum": [] })), ""),
        (schema(json!(false)), "no instance"),
        (schema(json!({ "allOf": [{ "$ref": "#" }] })), "no text can match"),
        (lark("start: start"), "no text can match"),
        (schema(json!(["type"])), "an object or a boolean"),
        (schema(json!({ "title": "x".repeat(MAX_GRAMMAR_BYTES) })), "bytes"),
        (regex("(ab"), "unclosed group"),
        (regex("a(?=b)"), "look-around"),
        (regex(&"(".repeat(300)), "nested"),
        (lark("begin: \"x\""), "start"),
        (lark("start: missing"), "missing"),
        (lark("start: <|no_such_token|>"), "no_such_token"),
        (lark(&deep), "nested"),
        (lark(""), ""),
        (Grammar::Choice(vec![]), "nothing to choose"),
        (Grammar::Choice(vec![String::new()]), "must not be empty"),
        (Grammar::Choice(vec!["x".to_owned(); MAX_CHOICES + 1]), "choices"),
    ];
    for (grammar, part) in cases {
        let short = format!("{grammar:.80?}").chars().take(80).collect::<String>();
        match fixture.compiler.compile(&grammar, None) {
            Err(TextError::Grammar(reason)) => {
                assert!(reason.contains(part), "{short}: {reason}");
                assert!(reason.chars().count() <= 401 && !reason.contains('\n'), "{short}: {reason}");
            }
            other => panic!("{short}: {other:?}"),
        }
    }
}

/// What could take for ever: each is refused or can be followed, in bounded time.
#[test]
fn hostile_grammars_are_bounded() {
    let fixture = fixture("qwen3");
    let doubling = |levels: usize| {
        let mut schema = json!({ "type": "string" });
        for _ in 0..levels {
            schema = json!({ "anyOf": [
                { "type": "object", "properties": { "a": schema }, "required": ["a"] },
                { "type": "array", "items": schema }
            ] });
        }
        schema
    };
    let mut nested = json!({ "type": "null" });
    for _ in 0..120 {
        nested = json!({ "type": "array", "items": nested });
    }
    let all_of: Vec<Value> = (0..200)
        .map(|i| json!({ "type": "object", "properties": { format!("p{i}"): { "type": "string" } } }))
        .collect();
    let wide: serde_json::Map<String, Value> =
        (0..3000).map(|i| (format!("property{i}"), json!({ "type": "string" }))).collect();
    let ambiguous = "start: s\ns: s s | s s s | \"a\" | \"\"".to_owned();
    let rules: String = (0..20).map(|i| format!("r{i}: r{0} r{0} r{0} r{0}\n", i + 1)).collect();
    let cases = [
        ("doubling", Grammar::JsonSchema(doubling(10))),
        ("nested", Grammar::JsonSchema(nested)),
        ("all of itself", Grammar::JsonSchema(json!({ "allOf": [{ "$ref": "#" }] }))),
        ("any of itself", Grammar::JsonSchema(json!({ "anyOf": [{ "$ref": "#" }, { "$ref": "#" }] }))),
        ("refers to itself", Grammar::JsonSchema(json!({ "$ref": "#" }))),
        (
            "a circle",
            Grammar::JsonSchema(json!({ "$ref": "#/$defs/a", "$defs": {
            "a": { "$ref": "#/$defs/b" }, "b": { "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] } } })),
        ),
        ("all of many", Grammar::JsonSchema(json!({ "allOf": all_of }))),
        ("many properties", Grammar::JsonSchema(json!({ "type": "object", "properties": wide }))),
        ("many items", Grammar::JsonSchema(json!({ "type": "array", "minItems": 100_000, "maxItems": 2_000_000_000 }))),
        (
            "a long string",
            Grammar::JsonSchema(json!({ "type": "string", "minLength": 1_000_000, "maxLength": 9_000_000 })),
        ),
        ("a pattern", Grammar::JsonSchema(json!({ "type": "string", "pattern": "^((a{1,50}){1,50}){1,50}$" }))),
        ("counts", regex("((((a{1,100}){1,100}){1,100}){1,100}){1,100}")),
        ("alternatives", regex("(a|b|ab)*c(a|b|ab)*d.{500}e(.|..|...)*")),
        ("states", regex("(.*a.{20})*(.*b.{20})*")),
        ("not this", regex(r"(\p{L}|\p{N}|\p{P}){200}")),
        ("ambiguous", lark(&ambiguous)),
        ("powers", lark(&format!("start: r0\n{rules}r20: \"a\"?"))),
        ("left recursion", lark("start: start start \"a\" | start \"b\" | \"\"")),
        ("no end", lark("start: start")),
        ("a big terminal", lark("start: /(.{0,1000}x){0,1000}/")),
        ("repeats", lark("start: a{1,1000000}\na: b{1,1000000}\nb: \"x\"{1,1000000}")),
    ];
    for (name, grammar) in cases {
        let begun = Instant::now();
        let compiled = fixture.compiler.compile(&grammar, None);
        let took = begun.elapsed();
        assert!(took < COMPILE_TIMEOUT + Duration::from_secs(2), "{name}: compiled in {took:?}");
        let outcome = match compiled {
            Err(error) => error.to_string(),
            Ok(mut matcher) => {
                let mut random = Random(1);
                let mut slowest = Duration::ZERO;
                let end = (0..60).find_map(|_| {
                    let begun = Instant::now();
                    let allowed = match matcher.next_tokens().and_then(|_| matcher.mask()) {
                        _ if matches!(matcher.next_tokens(), Ok(NextTokens::Complete)) => {
                            return Some("complete".to_owned());
                        }
                        Ok(mask) => members(&mask),
                        Err(error) => return Some(error.to_string()),
                    };
                    let token = allowed[random.below(allowed.len())];
                    let end = (token == fixture.end).then(|| "complete".to_owned());
                    let accepted = matcher.accept(token).and_then(|()| matcher.forced());
                    slowest = slowest.max(begun.elapsed());
                    end.or(accepted.err().map(|error| error.to_string()))
                });
                // Several times what is measured: 30 ms in a step, most of it the fuel of the lexer.
                assert!(slowest < Duration::from_secs(1), "{name}: a token took {slowest:?}");
                format!("followed, {slowest:?} for a token at most, {}", end.unwrap_or_default())
            }
        };
        println!("{name}: {took:?}, {outcome}");
    }
}

#[test]
fn a_trigger_switches_the_grammar_on_each_time() {
    let fixture = fixture("qwen3");
    let Fixture { tokenizer, compiler, end } = &fixture;
    let trigger = Trigger { token_ids: vec![], texts: vec!["<call>".to_owned()] };
    let mut matcher = compiler.compile(&regex("[0-9]{2}!"), Some(trigger)).unwrap();
    let feed = |matcher: &mut GrammarMatcher, text: &str| {
        let ids = tokenizer.encode_plain(text).unwrap();
        ids.iter().for_each(|&id| {
            assert_eq!(matcher.next_tokens().unwrap(), NextTokens::Free);
            assert!(matcher.is_complete());
            matcher.accept(id).unwrap();
        });
    };
    let digits: Vec<_> = (0..512)
        .filter(|&id| {
            tokenizer.token_bytes(id).is_some_and(|b| b.len() <= 2 && b.iter().all(u8::is_ascii_digit) && !b.is_empty())
        })
        .collect();
    for _ in 0..2 {
        feed(&mut matcher, "let me see: 12! <cal ");
        assert_eq!(matcher.next_tokens().unwrap(), NextTokens::Free);
        feed(&mut matcher, "<call>");
        assert!(!matcher.is_complete());
        assert_eq!(matcher.next_tokens().unwrap(), NextTokens::Few(digits.clone()));
        let one = tokenizer.token_id("4").unwrap();
        matcher.accept(one).unwrap();
        matcher.accept(one).unwrap();
        let [bang] = matcher.forced().unwrap()[..] else { panic!("it must be forced") };
        assert_eq!(tokenizer.token_bytes(bang).unwrap(), b"!");
        matcher.accept(bang).unwrap();
    }
    // The end token comes as any other while the grammar is off.
    assert_eq!(matcher.next_tokens().unwrap(), NextTokens::Free);
    matcher.accept(*end).unwrap();
}

#[test]
fn a_trigger_may_be_a_token_and_may_bring_text_along() {
    let fixture = fixture("qwen3");
    let Fixture { tokenizer, compiler, .. } = &fixture;
    let mark = tokenizer.token_id("<|im_start|>").unwrap();
    let trigger = Trigger { token_ids: vec![mark], texts: vec![] };
    let mut matcher = compiler.compile(&Grammar::Choice(vec!["{a}".to_owned()]), Some(trigger)).unwrap();
    // Its text is not the token.
    for id in tokenizer.encode_plain("<|im_start|>").unwrap() {
        matcher.accept(id).unwrap();
    }
    assert_eq!(matcher.next_tokens().unwrap(), NextTokens::Free);
    matcher.accept(mark).unwrap();
    let forced: Vec<u8> =
        matcher.forced().unwrap().iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap().to_vec()).collect();
    assert!(b"{a}".starts_with(&forced) && !forced.is_empty());

    // A token whose text goes on behind the marker: the rest is the grammar's first.
    let long = (0..512).find(|&id| tokenizer.token_bytes(id).is_some_and(|b| b.len() >= 3 && b.is_ascii())).unwrap();
    let text = String::from_utf8(tokenizer.token_bytes(long).unwrap().to_vec()).unwrap();
    let trigger = Trigger { token_ids: vec![], texts: vec![text[..1].to_owned()] };
    let fits = Grammar::Choice(vec![format!("{}?", &text[1..])]);
    let mut matcher = compiler.compile(&fits, Some(trigger.clone())).unwrap();
    matcher.accept(long).unwrap();
    let NextTokens::Few(next) = matcher.next_tokens().unwrap() else { panic!("it has begun") };
    assert_eq!(tokenizer.token_bytes(next[0]).unwrap(), b"?");
    // The grammar cannot begin so: it was no marker.
    let mut matcher = compiler.compile(&Grammar::Choice(vec!["#".to_owned()]), Some(trigger)).unwrap();
    matcher.accept(long).unwrap();
    assert_eq!(matcher.next_tokens().unwrap(), NextTokens::Free);
}

#[test]
fn special_tokens_come_by_name_only() {
    let fixture = fixture("qwen3");
    let Fixture { tokenizer, compiler, end } = &fixture;
    let mark = tokenizer.token_id("<|im_start|>").unwrap();
    let mut named = compiler.compile(&lark("start: \"a\" <|im_start|> \"b\""), None).unwrap();
    named.accept(tokenizer.token_id("a").unwrap()).unwrap();
    assert_eq!(named.next_tokens().unwrap(), NextTokens::Few(vec![mark]));
    named.accept(mark).unwrap();
    named.accept(tokenizer.token_id("b").unwrap()).unwrap();
    assert_eq!(named.next_tokens().unwrap(), NextTokens::Complete);
    let mut text = compiler.compile(&regex("(?s).*"), None).unwrap();
    let allowed = members(&text.mask().unwrap());
    assert!(!allowed.contains(&mark) && allowed.contains(end));
    assert!(text.accept(mark).is_err());
}
