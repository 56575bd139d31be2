//! Text on both sides of a model: strings to token ids and back, the strings that end an answer, and the grammars that it
//! must match.
//!
//! Imports nothing of ours: another crate reads the files and hands plain data over.

mod detokenizer;
mod error;
mod gguf;
mod grammar;
mod ranks;
mod stop;
mod token_table;
mod tokenizer;

pub use detokenizer::{DetokOutput, Detokenizer, Piece, SpecialTokens};
pub use error::TextError;
pub use gguf::GgufTokenizer;
pub use grammar::{
    COMPILE_TIMEOUT, Grammar, GrammarCompiler, GrammarMatcher, MAX_CHOICES, MAX_GRAMMAR_BYTES, MAX_NESTING,
    MAX_TRIGGER_BYTES, MAX_TRIGGERS, NextTokens, Trigger,
};
pub use stop::{StopMatcher, StopOutput};
pub use tokenizer::Tokenizer;
