//! What openai/whisper publishes of its models in code (version 20250625, MIT: `tokenizer.py`, `__init__.py`), for
//! files that hold neither special tokens nor alignment heads.

use super::config::WhisperConfig;

/// Codes of languages in the order of their tokens. Vocabularies before large-v3's end before the last one.
const LANGUAGES: [&str; 100] = [
    "en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it", "id", "hi", "fi",
    "vi", "he", "uk", "el", "ms", "cs", "ro", "da", "hu", "ta", "no", "th", "ur", "hr", "bg", "lt", "la", "mi", "ml",
    "cy", "sk", "te", "fa", "lv", "bn", "sr", "az", "sl", "kn", "et", "mk", "br", "eu", "is", "hy", "ne", "mn", "bs",
    "kk", "sq", "sw", "gl", "mr", "pa", "si", "km", "sn", "yo", "so", "af", "oc", "ka", "be", "tg", "sd", "gu", "am",
    "yi", "lo", "uz", "fo", "ht", "ps", "tk", "nn", "mt", "sa", "lb", "my", "bo", "tl", "mg", "as", "tt", "haw", "ln",
    "ha", "ba", "jw", "su", "yue",
];

/// Timestamps of a window: 0.00 to 30.00 s.
const TIMESTAMPS: usize = 1501;
/// Words of English-only vocabularies; the others have one more.
pub(super) const WORDS: usize = 50_256;
/// Special tokens besides languages and timestamps.
const MARKS: usize = 8;
/// Vocabularies from this size on have a use for languages.
pub(super) const MULTILINGUAL: usize = 51_865;

/// The special tokens of a vocabulary of `vocab_size` tokens (one of Whisper's), in order of id.
pub(super) fn special_tokens(vocab_size: usize) -> Vec<(u32, String)> {
    let first = WORDS + usize::from(vocab_size >= MULTILINGUAL);
    let n_languages = vocab_size.saturating_sub(first + MARKS + TIMESTAMPS);
    let marks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"];
    let names =
        ["endoftext", "startoftranscript"].into_iter().chain(LANGUAGES.into_iter().take(n_languages)).chain(marks);
    let timestamps = (0..TIMESTAMPS).map(|step| format!("<|{}.{:02}|>", step / 50, step % 50 * 2));
    (first as u32..).zip(names.map(|name| format!("<|{name}|>")).chain(timestamps)).collect()
}

/// The heads whose cross-attention follows the words, as (layer, head), if these are the sizes of a published model;
/// otherwise none. large-v1 and v2 have the same sizes: v2 is assumed, which more files are of.
pub(super) fn alignment_heads(sizes: &WhisperConfig) -> Vec<(usize, usize)> {
    let english = sizes.vocab_size < MULTILINGUAL;
    let third = sizes.vocab_size > MULTILINGUAL;
    let by_layer: &[(usize, &[usize])] = match (sizes.decoder_layers, sizes.decoder_heads) {
        // tiny
        (4, 6) if english => &[(1, &[0]), (2, &[0, 5]), (3, &[0, 1, 2, 3, 4])],
        (4, 6) => &[(2, &[2]), (3, &[0, 2, 3, 4, 5])],
        // base
        (6, 8) if english => &[(3, &[3]), (4, &[7]), (5, &[1, 5, 7])],
        (6, 8) => &[(3, &[1]), (4, &[2, 3, 7]), (5, &[1, 2, 4, 6])],
        // small
        (12, 12) if english => &[
            (6, &[6]),
            (7, &[0, 3, 8]),
            (8, &[2, 5, 7]),
            (9, &[0, 4, 8, 10]),
            (10, &[0, 1, 2, 3, 6, 11]),
            (11, &[2, 4]),
        ],
        (12, 12) => &[(5, &[3, 9]), (8, &[0, 4, 7, 8]), (9, &[0, 7, 9]), (10, &[5])],
        // medium
        (24, 16) if english => &[
            (11, &[4]),
            (14, &[1, 12, 14]),
            (15, &[4]),
            (16, &[0, 4, 9]),
            (17, &[12, 14]),
            (18, &[7, 10, 15]),
            (20, &[0, 3, 9, 14]),
            (21, &[12]),
        ],
        (24, 16) => &[(13, &[15]), (15, &[4, 15]), (16, &[1]), (20, &[0]), (23, &[4])],
        // large-v3, large-v2, large-v3-turbo
        (32, 20) if third => &[
            (7, &[0]),
            (10, &[17]),
            (12, &[18]),
            (13, &[12]),
            (16, &[1]),
            (17, &[14]),
            (19, &[11]),
            (21, &[4]),
            (24, &[1]),
            (25, &[6]),
        ],
        (32, 20) => &[
            (10, &[12]),
            (13, &[17]),
            (16, &[11, 12, 13]),
            (17, &[15, 16]),
            (18, &[4, 11, 19]),
            (19, &[11]),
            (21, &[2, 3]),
            (22, &[3, 9, 12]),
            (23, &[5, 7, 13]),
            (25, &[5]),
            (26, &[1, 12]),
            (27, &[15]),
        ],
        (4, 20) if third => &[(2, &[4, 11]), (3, &[3, 6, 11, 14])],
        _ => &[],
    };
    by_layer.iter().flat_map(|(layer, heads)| heads.iter().map(|head| (*layer, *head))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_are_where_whisper_has_them() {
        let of = |vocab_size: usize, name: &str| {
            let tokens = special_tokens(vocab_size);
            assert_eq!(
                tokens.last().map(|(id, name)| (*id as usize + 1, name.as_str())),
                Some((vocab_size, "<|30.00|>"))
            );
            tokens.into_iter().find(|(_, token)| token == &format!("<|{name}|>")).map(|(id, _)| id)
        };
        for (vocab_size, end, languages) in [(51_864, 50_256, 99), (51_865, 50_257, 99), (51_866, 50_257, 100)] {
            assert_eq!(of(vocab_size, "endoftext"), Some(end));
            assert_eq!((of(vocab_size, "en"), of(vocab_size, "su")), (Some(end + 2), Some(end + 100)));
            assert_eq!(of(vocab_size, "yue"), (languages == 100).then_some(end + 101));
            assert_eq!(of(vocab_size, "translate"), Some(end + 2 + languages));
            assert_eq!(of(vocab_size, "notimestamps"), Some(end + 7 + languages));
            assert_eq!(of(vocab_size, "1.02"), Some(end + 8 + languages + 51));
        }
    }
}
