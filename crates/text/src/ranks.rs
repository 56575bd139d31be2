//! Byte-level BPE that is given as a list of tokens in order of rank, without merges: how tiktoken keeps GPT-2's and
//! Whisper's vocabularies.
//!
//! Text is merged two neighbours at a time, always those that make the token of the lowest rank. So each token was made of
//! the two parts that are left when its own bytes are merged by all tokens before it: these parts are its merge.

use std::collections::HashMap;

use crate::TextError;
use crate::gguf::GgufTokenizer;
use crate::token_table::ByteAlphabet;

/// The longest token, in bytes. Whisper's has 128.
const MAX_TOKEN_BYTES: usize = 1024;

/// GGUF's numbers of what tokens are for.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// The same tokenizer as GGUF would describe it. `special` may leave gaps behind the tokens.
///
/// # Errors
/// A token that is longer than any is, or special ones among those of text.
pub(crate) fn described(tokens: &[&[u8]], special: &[(u32, String)]) -> Result<GgufTokenizer, TextError> {
    let invalid = |what: String| Err(TextError::Invalid(what));
    if let Some((id, token)) = tokens.iter().enumerate().find(|(_, token)| token.len() > MAX_TOKEN_BYTES) {
        return invalid(format!("token {id} has {} bytes, expected at most {MAX_TOKEN_BYTES}", token.len()));
    }
    if let Some((id, name)) = special.iter().find(|(id, _)| (*id as usize) < tokens.len()) {
        return invalid(format!("{name} is token {id}, which is one of {} tokens of text", tokens.len()));
    }
    let alphabet = ByteAlphabet::new();
    let kind = |token: &&[u8]| if token.is_empty() { UNUSED } else { NORMAL };
    let mut texts: Vec<String> = tokens.iter().map(|token| alphabet.encode(token)).collect();
    let mut kinds: Vec<i32> = tokens.iter().map(kind).collect();
    let size = special.iter().map(|(id, _)| *id as usize + 1).max().unwrap_or(0).max(tokens.len());
    texts.resize(size, String::new());
    kinds.resize(size, UNUSED);
    for (id, name) in special {
        (texts[*id as usize], kinds[*id as usize]) = (name.clone(), CONTROL);
    }
    let merges = merges(tokens).map(|(left, right)| format!("{} {}", alphabet.encode(left), alphabet.encode(right)));
    Ok(GgufTokenizer {
        model: "gpt2".to_owned(),
        pre: "gpt-2".to_owned(),
        merges: merges.collect(),
        tokens: texts,
        token_types: kinds,
        add_bos: Some(false),
        ..GgufTokenizer::default()
    })
}

/// The two parts of each token of more than one byte, in order of rank. A token that other tokens do not make is left out:
/// text never becomes it.
fn merges<'t>(tokens: &[&'t [u8]]) -> impl Iterator<Item = (&'t [u8], &'t [u8])> {
    let mut ranks = HashMap::with_capacity(tokens.len());
    for (rank, &token) in tokens.iter().enumerate() {
        ranks.entry(token).or_insert(rank);
    }
    let mut ends = Vec::new();
    tokens.iter().enumerate().filter_map(move |(rank, &token)| {
        merge_below(token, rank, &ranks, &mut ends);
        if let [middle, _] = ends[..] { Some(token.split_at(middle)) } else { None }
    })
}

/// Merges the bytes of `token` by the tokens of a rank below `limit`, and leaves where the parts end in `ends`.
fn merge_below(token: &[u8], limit: usize, ranks: &HashMap<&[u8], usize>, ends: &mut Vec<usize>) {
    ends.clear();
    ends.extend(1..=token.len());
    loop {
        let starts = std::iter::once(&0).chain(ends.iter());
        let pairs = starts.zip(ends.iter().skip(1)).map(|(&start, &end)| &token[start..end]);
        let ranked = pairs.enumerate().filter_map(|(at, pair)| Some((*ranks.get(pair)?, at)));
        let Some((_, at)) = ranked.filter(|(rank, _)| *rank < limit).min() else { return };
        ends.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens<'t>(longer: &[&'t str], bytes: &'t [[u8; 1]]) -> Vec<&'t [u8]> {
        bytes.iter().map(|byte| &byte[..]).chain(longer.iter().map(|text| text.as_bytes())).collect()
    }

    #[test]
    fn merges_are_found_from_ranks() {
        let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
        let longer = ["ab", "bc", "abc", "xyz", "aabc", " a"];
        let found: Vec<_> = merges(&tokens(&longer, &bytes)).collect();
        // Nothing makes xyz: neither xy nor yz is a token.
        let expected = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "abc"), (" ", "a")];
        let expected = expected.map(|(left, right)| (left.as_bytes(), right.as_bytes()));
        assert_eq!(found, expected);
        let described = described(&tokens(&longer, &bytes), &[(264, "<|end|>".to_owned())]).unwrap();
        assert_eq!(described.merges[4], "\u{120} a");
        assert_eq!(described.tokens.len(), 265);
        let kinds = [described.token_types[0], described.token_types[262], described.token_types[264]];
        assert_eq!(kinds, [NORMAL, UNUSED, CONTROL]);
    }

    #[test]
    fn what_no_vocabulary_has_is_refused() {
        let long = vec![b'a'; MAX_TOKEN_BYTES + 1];
        let refusal = described(&[b"a", &long], &[]).unwrap_err().to_string();
        assert!(refusal.ends_with("token 1 has 1025 bytes, expected at most 1024"), "{refusal}");
        let refusal = described(&[b"a", b"b"], &[(1, "<|end|>".to_owned())]).unwrap_err().to_string();
        assert!(refusal.ends_with("<|end|> is token 1, which is one of 2 tokens of text"), "{refusal}");
    }
}
