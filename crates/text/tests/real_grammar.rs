//! What grammars cost with the tokenizers inside the real GGUF files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a failing test may panic")]

mod common;

use std::time::{Duration, Instant};

use common::{gguf_tokenizer, weights};
use serde_json::json;
use tsserve_text::{Grammar, GrammarCompiler, NextTokens, Tokenizer};

const MODELS: &[&str] = &["smollm2-135m-instruct-q4_1", "qwen2.5-coder-0.5b-instruct-q4_k_m", "gemma-3-270m-q4_k_m"];

const TEXT: &str = r#"{"title": "A street with no name", "year": 1987, "tags": ["rock", "décor", "日本"], "rating": 4.5, "people": [{"name": "Ann O'Nyme", "role": "singer"}, {"name": "Bo", "role": "drums"}], "note": null}"#;

#[derive(Debug, Default)]
struct Cost {
    n: u32,
    sum: Duration,
    most: Duration,
}

impl Cost {
    fn add(&mut self, since: Instant) {
        let took = since.elapsed();
        self.n += 1;
        self.sum += took;
        self.most = self.most.max(took);
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} times {:.0?}, at most {:.0?}", self.n, self.sum / self.n.max(1), self.most)
    }
}

/// Resident kilobytes; 0 where that is not known.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_mask_takes_microseconds() {
    let person = json!({ "type": "object", "properties": { "name": { "type": "string" }, "role": { "type": "string" } },
        "required": ["name", "role"], "additionalProperties": false });
    let schema = json!({ "type": "object", "properties": {
        "title": { "type": "string" }, "year": { "type": "integer" },
        "tags": { "type": "array", "items": { "type": "string" } }, "rating": { "type": "number" },
        "people": { "type": "array", "items": person }, "note": { "type": ["string", "null"] } },
        "required": ["title", "year", "tags", "rating", "people", "note"], "additionalProperties": false });
    for model in MODELS {
        let tokenizer = Tokenizer::from_gguf(&gguf_tokenizer(&weights(&format!("{model}.gguf")))).unwrap();
        let end = tokenizer.special_tokens().next().unwrap().0;
        let (begun, before) = (Instant::now(), resident());
        let compiler = GrammarCompiler::new(&tokenizer, tokenizer.vocab_size(), &[end]).unwrap();
        println!(
            "{model}: {} tokens sorted in {:.0?}, {} kB",
            tokenizer.vocab_size(),
            begun.elapsed(),
            resident() - before
        );
        for grammar in [Grammar::JsonObject, Grammar::JsonSchema(schema.clone())] {
            let begun = Instant::now();
            let mut matcher = compiler.compile(&grammar, None).unwrap();
            let compiled = begun.elapsed();
            let [mut few, mut many, mut accept] = [Cost::default(), Cost::default(), Cost::default()];
            let mut n_forced = 0;
            let tokens = tokenizer.encode_plain(TEXT).unwrap();
            for &token in &tokens {
                let begun = Instant::now();
                let next = matcher.next_tokens().unwrap();
                let allowed = match next {
                    NextTokens::Few(allowed) => {
                        few.add(begun);
                        allowed.contains(&token)
                    }
                    NextTokens::Many => {
                        let mask = matcher.mask().unwrap();
                        many.add(begun);
                        mask[token as usize / 32] >> (token % 32) & 1 == 1
                    }
                    next => panic!("{next:?}"),
                };
                assert!(allowed, "{model}: token {token} of {TEXT}");
                let begun = Instant::now();
                matcher.accept(token).unwrap();
                n_forced += matcher.forced().unwrap().len();
                accept.add(begun);
            }
            assert!(matcher.is_complete());
            println!(
                "  {}: compiled in {compiled:.0?}; few: {few}; many: {many}; accept: {accept}; forced {n_forced}",
                match grammar {
                    Grammar::JsonObject => "any object",
                    _ => "a schema",
                }
            );
            // Generous, for busy computers. Measured: see the comment of `GrammarCompiler::new`.
            assert!(
                many.sum / many.n.max(1) < Duration::from_millis(5)
                    && few.sum / few.n.max(1) < Duration::from_millis(5)
            );
        }
    }
}
