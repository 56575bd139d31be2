//! Grammars: text that must match a JSON schema, a regular expression, a list or a Lark grammar becomes sets of allowed
//! tokens, by llguidance.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{ParserFactory, TokenParser};
use serde_json::{Value, json};

use crate::token_table::DecodeRule;
use crate::{TextError, Tokenizer};

mod env;
mod matcher;
mod trigger;

use env::TokenEnvironment;
pub use matcher::{GrammarMatcher, NextTokens};
use matcher::{failure, guarded};
pub use trigger::{MAX_TRIGGER_BYTES, MAX_TRIGGERS, Trigger};

/// Longest grammar in bytes, a schema counted as compact JSON.
pub const MAX_GRAMMAR_BYTES: usize = 256 * 1024;

/// Most texts of a choice.
pub const MAX_CHOICES: usize = 4096;

/// How long a grammar may take to compile.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(5);

/// Deepest nesting of brackets in a regular expression or a Lark grammar: both are read by recursion.
pub const MAX_NESTING: usize = 200;

/// Stack of the compiling thread: as much as the deepest grammar that the limits let through needs, several times.
const COMPILE_STACK: usize = 64 * 1024 * 1024;

/// Grammars of one model that may compile at once; one that overran its time counts until it gives up.
const MAX_COMPILING: usize = 8;

/// Blanks in a free JSON object: one space, or a new line and its indentation. A model cannot stall on blanks.
const JSON_BLANKS: &str = r"[ ]|\n[ \t]{0,32}";

/// What text must match.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object, as the model likes to lay it out.
    JsonObject,
    /// JSON that a schema describes: an object or a boolean. Written on one line, with a space behind each comma and
    /// colon: small models waste many tokens on layout, and what is fixed is forced.
    JsonSchema(Value),
    /// The whole text matches; the syntax of Rust's `regex`, without look-around.
    Regex(String),
    /// One of these, none empty.
    Choice(Vec<String>),
    /// llguidance's Lark dialect.
    Lark(String),
}

impl Grammar {
    /// A schema in JSON. Its properties keep their order: it is the order in which they are written.
    ///
    /// # Errors
    /// It is not JSON, or nested too deep.
    pub fn json_schema(text: &str) -> Result<Self, TextError> {
        let schema = serde_json::from_str(text);
        schema.map(Self::JsonSchema).map_err(|error| TextError::Grammar(format!("the schema is not JSON: {error}")))
    }
}

/// Compiles grammars for one tokenizer. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
    n_compiling: Arc<AtomicUsize>,
}

impl GrammarCompiler {
    /// Sorts the vocabulary into a tree, which takes time and memory: 0.15 s and 16 MB for 49 thousand tokens, 0.55 s and
    /// 46 MB for 152 thousand, 1 s and 87 MB for 262 thousand. `vocab_size` is the model's own: tokens beyond it do not
    /// exist. `end_tokens` may follow wherever the grammar is complete.
    ///
    /// # Errors
    /// `GrammarUnsupported`: the tokenizer decodes in a way that gives its tokens no bytes of their own.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize, end_tokens: &[u32]) -> Result<Self, TextError> {
        if *tokenizer.rule() == DecodeRule::Windowed {
            let what = "the tokenizer's tokens have no text of their own".to_owned();
            return Err(TextError::GrammarUnsupported(what));
        }
        let environment: TokEnv = Arc::new(TokenEnvironment::new(tokenizer, vocab_size, end_tokens));
        let unsupported = |error: &dyn std::fmt::Display| TextError::GrammarUnsupported(reason(error));
        let capabilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, capabilities, &slices).map_err(|e| unsupported(&e))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            // A state takes 1 to 2 kB.
            max_lexer_states: 30_000,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self { factory: Arc::new(factory), n_compiling: Arc::default() })
    }

    /// Compiles a grammar. With a trigger it applies from the trigger on, and again from each further one.
    ///
    /// # Errors
    /// `Grammar`: it cannot be understood, is too large, or takes too long.
    pub fn compile(&self, grammar: &Grammar, trigger: Option<Trigger>) -> Result<GrammarMatcher, TextError> {
        check_size(grammar)?;
        if let Some(trigger) = &trigger {
            trigger.check()?;
        }
        let top = TopLevelGrammar::from_grammar(to_llguidance(grammar)?);
        let parser = self.compile_within_limits(top)?;
        Ok(GrammarMatcher::new(parser, self.factory.tok_env().clone(), trigger))
    }

    /// On a thread of its own: compiling recurses, and nothing else bounds its time in all cases.
    fn compile_within_limits(&self, grammar: TopLevelGrammar) -> Result<TokenParser, TextError> {
        if self.n_compiling.fetch_add(1, Ordering::AcqRel) >= MAX_COMPILING {
            self.n_compiling.fetch_sub(1, Ordering::AcqRel);
            return Err(TextError::Grammar("too many grammars are being compiled already".to_owned()));
        }
        let (sender, receiver) = channel();
        let there = self.clone();
        let body = move || {
            let parser = there.start(grammar);
            there.n_compiling.fetch_sub(1, Ordering::AcqRel);
            // After its time nobody waits for it.
            let _ = sender.send(parser);
        };
        let thread = std::thread::Builder::new().name("tsserve-grammar".into()).stack_size(COMPILE_STACK).spawn(body);
        if let Err(error) = thread {
            self.n_compiling.fetch_sub(1, Ordering::AcqRel);
            return Err(TextError::Grammar(format!("no thread could be started to compile it: {error}")));
        }
        match receiver.recv_timeout(COMPILE_TIMEOUT) {
            Ok(parser) => parser,
            Err(RecvTimeoutError::Timeout) => {
                Err(TextError::Grammar(format!("it takes more than {} s to compile", COMPILE_TIMEOUT.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(TextError::Grammar("it cannot be compiled".to_owned())),
        }
    }
}

impl GrammarCompiler {
    /// A parser at its start. Its first mask is computed once, so that a grammar that nothing can match is known as such.
    fn start(&self, grammar: TopLevelGrammar) -> Result<TokenParser, TextError> {
        let mut parser = guarded(|| self.factory.create_parser(grammar)).map_err(TextError::Grammar)?;
        guarded(|| {
            parser.start_without_prompt();
            parser.compute_mask()
        })
        .map_err(|said| failure(&parser, said))?;
        Ok(parser)
    }
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

fn check_size(grammar: &Grammar) -> Result<(), TextError> {
    let too_large = |n: usize| match n <= MAX_GRAMMAR_BYTES {
        true => Ok(()),
        false => Err(TextError::Grammar(format!("it has {n} bytes, at most {MAX_GRAMMAR_BYTES} are possible"))),
    };
    match grammar {
        Grammar::JsonObject => Ok(()),
        Grammar::JsonSchema(schema) => too_large(schema.to_string().len()),
        Grammar::Choice(choices) if choices.is_empty() => Err(TextError::Grammar("there is nothing to choose".into())),
        Grammar::Choice(choices) if choices.iter().any(String::is_empty) => {
            Err(TextError::Grammar("a choice must not be empty".to_owned()))
        }
        Grammar::Choice(choices) if choices.len() > MAX_CHOICES => {
            Err(TextError::Grammar(format!("at most {MAX_CHOICES} choices are possible, got {}", choices.len())))
        }
        Grammar::Choice(choices) => too_large(choices.iter().map(String::len).sum()),
        Grammar::Regex(text) | Grammar::Lark(text) => {
            too_large(text.len())?;
            if nesting(text) > MAX_NESTING {
                return Err(TextError::Grammar(format!("its brackets are nested more than {MAX_NESTING} deep")));
            }
            Ok(())
        }
    }
}

/// The deepest nesting of brackets, quoted ones counted too: an upper bound.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn to_llguidance(grammar: &Grammar) -> Result<GrammarWithLexer, TextError> {
    Ok(match grammar {
        Grammar::JsonObject => GrammarWithLexer::from_json_schema(json!({
            "type": "object",
            "x-guidance": { "whitespace_pattern": JSON_BLANKS },
        })),
        Grammar::JsonSchema(schema) => GrammarWithLexer::from_json_schema(on_one_line(schema.clone())?),
        Grammar::Regex(pattern) => GrammarWithLexer::from_regex(pattern),
        Grammar::Choice(choices) => {
            let quoted: Vec<String> = choices.iter().map(|choice| Value::from(choice.as_str()).to_string()).collect();
            GrammarWithLexer::from_lark(format!("start: {}", quoted.join(" | ")))
        }
        Grammar::Lark(text) => GrammarWithLexer::from_lark(text.clone()),
    })
}

/// The schema with our layout in place of llguidance's, whose blanks have no end.
fn on_one_line(schema: Value) -> Result<Value, TextError> {
    let mut schema = match schema {
        Value::Object(schema) => schema,
        Value::Bool(true) => serde_json::Map::new(),
        Value::Bool(false) => return Err(TextError::Grammar("the schema `false` has no instance".to_owned())),
        _ => return Err(TextError::Grammar("a schema is an object or a boolean".to_owned())),
    };
    // Settings of llguidance are not the client's business.
    let layout = json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
    schema.insert("x-guidance".to_owned(), layout);
    Ok(Value::Object(schema))
}

/// llguidance's message as one line of bounded length.
fn reason(error: &dyn std::fmt::Display) -> String {
    const MAX_CHARS: usize = 400;
    let text = error.to_string();
    if text.starts_with("panic:") {
        return "it cannot be compiled".to_owned();
    }
    // What follows describes its parser, not the grammar.
    let text = text.split("\n<").next().unwrap_or_default();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
