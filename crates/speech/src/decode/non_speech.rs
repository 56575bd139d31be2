//! Tokens that write down what nobody says. After `non_speech_tokens` in `tokenizer.py` of openai/whisper.

use crate::vocabulary::Vocabulary;

/// Suppressed where they are one token, alone or after a space.
const SYMBOLS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 \
    << >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
/// Suppressed by their first token, which is of nothing but such signs.
const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";
/// Allowed within words, not at their beginning.
const WITHIN_WORDS: [&str; 2] = [" -", " '"];

/// The tokens that openai/whisper never chooses by default, special ones aside, in order: for checkpoints that do not
/// say.
#[must_use]
pub fn non_speech_tokens(vocabulary: &dyn Vocabulary) -> Vec<u32> {
    let alone_and_after_space = |symbol: &str| [vocabulary.encode(symbol), vocabulary.encode(&format!(" {symbol}"))];
    let first = |tokens: Vec<u32>| tokens.first().copied();
    let symbols = SYMBOLS.split_whitespace().flat_map(alone_and_after_space).filter(|tokens| tokens.len() == 1);
    let notes = NOTES.split_whitespace().flat_map(alone_and_after_space);
    let within = WITHIN_WORDS.into_iter().map(|text| vocabulary.encode(text));
    let mut tokens: Vec<u32> = symbols.chain(notes).chain(within).filter_map(first).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}
