//! The pre-tokenizers that `tokenizer.ggml.pre` can name: how text is cut before merging, as regular expressions.
//!
//! Where a model's own tokenizer.json is known to say it in other words than llama.cpp, the tokenizer.json is followed.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::invalid;
use crate::TextError;

/// What a pre-tokenizer's name stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreTokenizer {
    /// Each cuts the pieces that the one before it left.
    patterns: &'static [&'static str],
    /// Text is brought to normal form C first.
    pub(super) nfc: bool,
    /// A piece that is a token as it stands is not merged up from bytes.
    pub(super) ignore_merges: bool,
    /// Whether BOS goes first when the file does not say.
    pub(super) add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const JAIS2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)",
    r"|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const UFAKZEKA: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const BAILING: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
);
const EXAONE_MOE: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const YOUTU_SCRIPTS: &str = concat!(
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+",
    r"|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+",
    r"|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
);
const YOUTU: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const KIMI_K2: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DEEPSEEK3_WORDS: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const SPARK_WORDS: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
);
const CJK_KANA: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";
const CJK_HANGUL: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
/// Cased letters as DeepSeek's first tokenizer lists them; by number, since some look like others.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[\x{41}-\x{5A}\x{61}-\x{7A}\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}",
    r"\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}-\x{377}\x{37B}-\x{37D}\x{37F}\x{386}",
    r"\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}",
    r"\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}",
    r"\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}",
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}",
    r"\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}",
    r"\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}",
    r"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}-\x{2184}\x{2C00}-\x{2C7B}",
    r"\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}-\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}",
    r"\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}",
    r"\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}",
    r"\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+"
);
const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+";

impl PreTokenizer {
    /// # Errors
    /// A name that is not known: guessing would give wrong tokens without anyone noticing.
    pub(super) fn named(name: &str) -> Result<Self, TextError> {
        let plain = |patterns| Self { patterns, nfc: false, ignore_merges: false, add_bos: false };
        let nfc = |patterns| Self { nfc: true, ..plain(patterns) };
        let whole_pieces = |patterns| Self { ignore_merges: true, ..plain(patterns) };
        let pre = match name {
            // What llama.cpp does for files without a name.
            "" | "default" => plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),

            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2"
            | "jina-v5-nano" => Self { add_bos: true, ..whole_pieces(&[LLAMA3]) },
            "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => plain(&[LLAMA3]),
            "jais-2" => plain(&[JAIS2]),

            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" => nfc(&[QWEN2]),
            "qwen35" => nfc(&[QWEN35]),
            "hunyuan" | "solar-open" | "grok-2" => plain(&[QWEN2]),
            "ufakzeka" => plain(&[UFAKZEKA]),
            "seed-coder" => plain(&[SEED_CODER]),
            "bailingmoe" | "bailingmoe2" | "llada-moe" => plain(&[BAILING]),
            "exaone-moe" => plain(&[EXAONE_MOE]),
            "laguna" => plain(&[r"[^\n]+|[\n]+", QWEN2]),

            "gpt-2" | "phi-2" | "gigachat" | "a.x-4.0" | "mellum" | "jais" | "trillion" | "granite-docling"
            | "exaone4" => plain(&[GPT2]),
            "mpt" | "olmo" | "modern-bert" => nfc(&[GPT2]),
            "smollm" | "starcoder" | "refact" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
                plain(&[r"\p{N}", GPT2])
            }
            "command-r" => nfc(&[r"\p{N}", GPT2]),
            "falcon" => plain(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),

            // Both come from tiktoken, where a piece that is a token is that token.
            "gpt-4o" | "llama4" => whole_pieces(&[GPT4O]),
            "kanana2" | "talkie" | "minimax-m2" => plain(&[GPT4O]),
            "granite-embed-multi-97m" => whole_pieces(&[GPT4O]),
            "tiny_aya" | "cohere2moe" => plain(&[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]),
            "tekken" => Self { add_bos: true, ..whole_pieces(&[TEKKEN]) },
            "kimi-k2" => plain(&[KIMI_K2]),
            "youtu" => whole_pieces(&[YOUTU_SCRIPTS, YOUTU]),

            "deepseek-llm" => plain(&[
                r"[\r\n]",
                DEEPSEEK_LETTERS,
                r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
                r"\s+$",
                CJK_HANGUL,
                r"\p{N}+",
            ]),
            "deepseek-coder" => plain(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_HANGUL, r"\p{N}"]),
            "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => {
                plain(&[r"\p{N}{1,3}", CJK_KANA, DEEPSEEK3_WORDS])
            }
            "spark2_5" => plain(&[r"\p{N}{1,3}", CJK_KANA, SPARK_WORDS, r"\p{N}"]),

            "bloom" | "gpt3-finnish" | "poro-chat" => plain(&[BLOOM]),
            "viking" => plain(&[BLOOM, r"\p{N}"]),

            other => return Err(TextError::UnknownPreTokenizer(other.to_owned())),
        };
        Ok(pre)
    }

    pub(super) fn build(&self) -> Result<PreTokenizerWrapper, TextError> {
        // Matches and what lies between them are pieces.
        let behavior = SplitDelimiterBehavior::Isolated;
        let mut steps = Vec::with_capacity(self.patterns.len() + 1);
        for pattern in self.patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            steps.push(PreTokenizerWrapper::Split(Split::new(pattern, behavior, false).map_err(invalid)?));
        }
        steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)));
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps)))
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    const NAMES: &[&str] = &[
        "default",
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "jina-v5-nano",
        "dbrx",
        "smaug-bpe",
        "glm4",
        "chatglm-bpe",
        "jais-2",
        "qwen2",
        "deepseek-r1-qwen",
        "kormo",
        "f2llmv2",
        "megrez",
        "stablelm2",
        "qwen35",
        "hunyuan",
        "solar-open",
        "grok-2",
        "ufakzeka",
        "seed-coder",
        "bailingmoe",
        "bailingmoe2",
        "llada-moe",
        "exaone-moe",
        "laguna",
        "gpt-2",
        "phi-2",
        "gigachat",
        "a.x-4.0",
        "mellum",
        "jais",
        "trillion",
        "granite-docling",
        "exaone4",
        "mpt",
        "olmo",
        "modern-bert",
        "smollm",
        "starcoder",
        "refact",
        "codeshell",
        "exaone",
        "minerva-7b",
        "mellum2",
        "command-r",
        "falcon",
        "gpt-4o",
        "llama4",
        "kanana2",
        "talkie",
        "minimax-m2",
        "granite-embed-multi-97m",
        "tiny_aya",
        "cohere2moe",
        "tekken",
        "kimi-k2",
        "youtu",
        "deepseek-llm",
        "deepseek-coder",
        "deepseek-v3",
        "hunyuan-dense",
        "joyai-llm",
        "hy_v4",
        "spark2_5",
        "bloom",
        "gpt3-finnish",
        "poro-chat",
        "viking",
    ];

    const TEXT: &str = "Hello WORLD, it's 12345 o'clock:\n\n\tif (x >= 10) { return 'naïve'; }  数字と日本語 \
                        안녕 <|a|> 🎉🎉 e\u{301}A\u{30a} ÇA   end  ";

    fn cut(name: &str, text: &str) -> Vec<String> {
        let mut pre = PreTokenizer::named(name).unwrap().build().unwrap_or_else(|error| panic!("{name}: {error}"));
        if let PreTokenizerWrapper::Sequence(sequence) = &pre {
            // Without the byte alphabet the pieces can be read.
            let steps = sequence.as_ref();
            pre = PreTokenizerWrapper::Sequence(Sequence::new(steps[..steps.len() - 1].to_vec()));
        }
        let mut pieces = PreTokenizedString::from(text);
        pre.pre_tokenize(&mut pieces).unwrap();
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(piece, ..)| piece.to_owned()).collect()
    }

    #[test]
    fn every_pattern_compiles_and_loses_nothing() {
        for name in NAMES {
            assert_eq!(cut(name, TEXT).concat(), TEXT, "{name}");
        }
    }

    #[test]
    fn pieces() {
        assert_eq!(cut("qwen2", "it's 123  ok\n\n x"), ["it", "'s", " ", "1", "2", "3", " ", " ok", "\n\n", " x"]);
        assert_eq!(cut("llama-bpe", "IT'S 12345!!\n"), ["IT", "'S", " ", "123", "45", "!!\n"]);
        assert_eq!(cut("smollm", "a 12\n b"), ["a", " ", "1", "2", "\n", " b"]);
        assert_eq!(cut("gpt-2", "it's 123  ok"), ["it", "'s", " 123", " ", " ok"]);
        assert_eq!(cut("gpt-4o", "HelloWorld's 1234"), ["Hello", "World's", " ", "123", "4"]);
        assert_eq!(cut("tekken", "HelloWORLD 12"), ["Hello", "WORLD", " ", "1", "2"]);
        assert_eq!(cut("deepseek-v3", "漢字kana 1234.foo"), ["漢字", "kana", " ", "123", "4", ".foo"]);
        assert_eq!(cut("deepseek-coder", "a b,\n12"), ["a", " b", ",", "\n", "1", "2"]);
        assert_eq!(cut("deepseek-llm", "a b, 12\nΩé"), ["a", " b", ",", " ", "12", "\n", "Ωé"]);
        assert_eq!(cut("qwen35", "e\u{301}x"), ["e\u{301}x"]);
        assert_eq!(cut("kimi-k2", "abc漢字def"), ["abc", "漢字", "def"]);
        assert_eq!(cut("tiny_aya", "1234567"), ["1", "234", "567"]);
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = PreTokenizer::named("nonesuch").unwrap_err();
        assert_eq!(error.code(), "unknown_pre_tokenizer");
        assert!(error.to_string().contains("nonesuch"));
    }
}
