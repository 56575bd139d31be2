//! Tokens to words, and punctuation to the words it belongs to. After `tokenizer.py` and `merge_punctuations` of
//! openai/whisper.

use crate::vocabulary::Vocabulary;

/// Languages that do not put spaces between words: there a word is what decodes to whole characters.
const WITHOUT_SPACES: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];
/// Goes with the word behind it.
const PREPENDED: &str = "\"'“¿([{-";
/// Goes with the word before it.
const APPENDED: &str = "\"'.。,，!！?？:：”)]}、";
/// Python's `string.punctuation`.
const ASCII_PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// A word and how many tokens it is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub text: String,
    pub tokens: usize,
}

/// Cuts text tokens into words of a language (ISO code).
pub(crate) fn split(vocabulary: &dyn Vocabulary, language: &str, tokens: &[u32]) -> Vec<Piece> {
    let characters = split_on_characters(vocabulary, tokens);
    if WITHOUT_SPACES.contains(&language) { characters } else { join_to_words(characters) }
}

/// The shortest runs of tokens that decode to whole characters.
fn split_on_characters(vocabulary: &dyn Vocabulary, tokens: &[u32]) -> Vec<Piece> {
    let whole: Vec<char> = vocabulary.decode(tokens).chars().collect();
    let (mut pieces, mut start, mut offset) = (Vec::new(), 0, 0);
    for end in 1..=tokens.len() {
        let text = vocabulary.decode(&tokens[start..end]);
        // A replacement character is a cut one, unless the whole text has one there too.
        let broken = text.chars().position(|c| c == char::REPLACEMENT_CHARACTER);
        let cut = broken.is_some_and(|at| whole.get(offset + at).is_some_and(|&c| c != char::REPLACEMENT_CHARACTER));
        if !cut || end == tokens.len() {
            offset += text.chars().count();
            pieces.push(Piece { text, tokens: end - start });
            start = end;
        }
    }
    pieces
}

/// A word begins with a space, or is punctuation.
fn join_to_words(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut words: Vec<Piece> = Vec::new();
    for piece in pieces {
        let begins = piece.text.starts_with(' ') || ASCII_PUNCTUATION.contains(piece.text.trim());
        match words.last_mut() {
            Some(word) if !begins => {
                word.text.push_str(&piece.text);
                word.tokens += piece.tokens;
            }
            _ => words.push(piece),
        }
    }
    words
}

/// Moves punctuation into the words it belongs to; what was moved is left as a piece without text and tokens.
pub(crate) fn merge_punctuation<W: AsMut<Piece> + AsRef<Piece>>(words: &mut [W]) {
    let mut following = words.len().saturating_sub(1);
    for previous in (0..following).rev() {
        let text = &words[previous].as_ref().text;
        if text.starts_with(' ') && PREPENDED.contains(text.trim()) {
            let moved = take(words[previous].as_mut());
            let word = words[following].as_mut();
            word.text.insert_str(0, &moved.text);
            word.tokens += moved.tokens;
        } else {
            following = previous;
        }
    }
    let mut previous = 0;
    for following in 1..words.len() {
        let appended = APPENDED.contains(words[following].as_ref().text.as_str());
        if appended && !words[previous].as_ref().text.ends_with(' ') {
            let moved = take(words[following].as_mut());
            let word = words[previous].as_mut();
            word.text.push_str(&moved.text);
            word.tokens += moved.tokens;
        } else {
            previous = following;
        }
    }
}

fn take(piece: &mut Piece) -> Piece {
    std::mem::replace(piece, Piece { text: String::new(), tokens: 0 })
}

/// Whether a word is nothing but punctuation that is merged.
pub(crate) fn is_punctuation(word: &str) -> bool {
    PREPENDED.contains(word) || APPENDED.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Words;

    impl AsMut<Piece> for Piece {
        fn as_mut(&mut self) -> &mut Piece {
            self
        }
    }

    impl AsRef<Piece> for Piece {
        fn as_ref(&self) -> &Piece {
            self
        }
    }

    fn words(language: &str, text: &str) -> Vec<(String, usize)> {
        let vocabulary = Words(vec![" Mr", " John", " Dash", "wood", " to", "你", " ("]);
        let tokens = vocabulary.ids(text);
        let pieces = split(&vocabulary, language, &tokens);
        assert_eq!(pieces.iter().map(|piece| piece.tokens).sum::<usize>(), tokens.len());
        pieces.into_iter().map(|piece| (piece.text, piece.tokens)).collect()
    }

    fn merged(parts: &[&str]) -> Vec<String> {
        let mut pieces: Vec<Piece> = parts.iter().map(|part| Piece { text: (*part).to_owned(), tokens: 1 }).collect();
        merge_punctuation(&mut pieces);
        assert_eq!(pieces.iter().map(|piece| piece.tokens).sum::<usize>(), parts.len());
        pieces.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn words_begin_at_spaces_and_punctuation() {
        let found = words("en", " Mr. John Dashwood to");
        let expected = [(" Mr", 1), (".", 1), (" John", 1), (" Dashwood", 2), (" to", 1)];
        assert_eq!(found, expected.map(|(text, count)| (text.to_owned(), count)));
    }

    #[test]
    fn without_spaces_every_character_is_a_word() {
        // "好" is three tokens of one byte each, "你" is one token.
        assert_eq!(words("zh", "你好"), [("你".to_owned(), 1), ("好".to_owned(), 3)]);
        // In a language with spaces they stay together.
        assert_eq!(words("en", "你好"), [("你好".to_owned(), 4)]);
    }

    #[test]
    fn broken_text_is_kept() {
        let vocabulary = Words(Vec::new());
        // A lone continuation byte, and a character that is cut at the end.
        let tokens = [0xA0, u32::from(b'a'), 0xE5, 0xA5];
        let pieces = split(&vocabulary, "ja", &tokens);
        assert_eq!(pieces.iter().map(|piece| piece.tokens).sum::<usize>(), 4);
        assert_eq!(pieces[0].text, "\u{fffd}");
        assert_eq!(split(&vocabulary, "en", &[]), []);
    }

    #[test]
    fn punctuation_joins_its_word() {
        assert_eq!(
            merged(&[" he", " said", ",", " \"", "yes", ".", "\""]),
            [" he", " said,", "", "", " \"yes.\"", "", ""]
        );
        assert_eq!(merged(&[" (", " (", "a", ")", ")"]), ["", "", " ( (a))", "", ""]);
        assert_eq!(merged(&["."]), ["."]);
        assert_eq!(merged(&[]), Vec::<String>::new());
    }
}
