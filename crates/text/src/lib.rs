//! Text on both sides of a model: strings to token ids and back, and the strings that end an answer.
//!
//! Imports nothing of ours: another crate reads the files and hands plain data over.

mod detokenizer;
mod error;
mod gguf;
mod stop;
mod token_table;
mod tokenizer;

pub use detokenizer::{DetokOutput, Detokenizer, Piece, SpecialTokens};
pub use error::TextError;
pub use gguf::GgufTokenizer;
pub use stop::{StopMatcher, StopOutput};
pub use tokenizer::Tokenizer;
