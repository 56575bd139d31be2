//! The raw bytes of every token, and the rule by which a tokenizer's decoder joins them.

use std::borrow::Cow;

use tokenizers::Decoder;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;

/// SentencePiece's mark for a space.
pub(crate) const SPACE_MARK: char = '\u{2581}';

/// How decoded tokens become text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecodeRule {
    /// Every token is a run of bytes of one UTF-8 stream.
    ByteLevel,
    /// Tokens are text; `<0xNN>` tokens are bytes, of which a run forms characters. Up to `strip.1` leading
    /// `strip.0` are dropped at the start of the text.
    ByteFallback { strip: Option<(char, usize)>, bytes: bool },
    /// Tokens are text; the first token loses its space marks if `strip_first`.
    Metaspace { mark: char, strip_first: bool },
    /// Anything else: decode a sliding window and take what is new.
    Windowed,
}

impl DecodeRule {
    /// Reads the rule off a decoder. Exact: a decoder that is not fully understood is [`DecodeRule::Windowed`].
    pub(crate) fn of(decoder: Option<&DecoderWrapper>) -> Self {
        match decoder {
            Some(DecoderWrapper::ByteLevel(_)) => Self::ByteLevel,
            Some(DecoderWrapper::Metaspace(metaspace)) => Self::Metaspace {
                mark: metaspace.get_replacement(),
                strip_first: metaspace.get_prepend_scheme() != PrependScheme::Never,
            },
            Some(DecoderWrapper::Sequence(sequence)) => Self::of_sequence(sequence.get_decoders()),
            _ => Self::Windowed,
        }
    }

    fn of_sequence(decoders: &[DecoderWrapper]) -> Self {
        if let [only] = decoders {
            return Self::of(Some(only));
        }
        // Replace*, ByteFallback?, Fuse, Strip(start only)?: what SentencePiece models have.
        let rest = &decoders[replacements(decoders).len()..];
        let (bytes, rest) = match rest {
            [DecoderWrapper::ByteFallback(_), rest @ ..] => (true, rest),
            _ => (false, rest),
        };
        match rest {
            [DecoderWrapper::Fuse(_)] => Self::ByteFallback { strip: None, bytes },
            [DecoderWrapper::Fuse(_), DecoderWrapper::Strip(strip)] if strip.stop == 0 => {
                Self::ByteFallback { strip: Some((strip.content, strip.start)), bytes }
            }
            _ => Self::Windowed,
        }
    }
}

/// The leading `Replace` steps of a decoder: they see one token at a time, so they can be applied once per token.
pub(crate) fn replacements(decoders: &[DecoderWrapper]) -> &[DecoderWrapper] {
    let count = decoders.iter().take_while(|step| matches!(step, DecoderWrapper::Replace(_))).count();
    &decoders[..count]
}

/// The bytes of every token, in one allocation.
pub(crate) struct TokenTable {
    blob: Vec<u8>,
    /// Token `i` is `blob[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    flags: Vec<u8>,
}

const PRESENT: u8 = 1;
const BYTE: u8 = 2;
const SPECIAL: u8 = 4;

/// What a table is built from: one token's text and nature.
pub(crate) struct TableToken<'a> {
    pub(crate) text: &'a str,
    pub(crate) special: bool,
}

impl TokenTable {
    /// `tokens` in the order of their ids, `None` for ids that name nothing.
    pub(crate) fn new<'a>(
        tokens: impl Iterator<Item = Option<TableToken<'a>>>,
        rule: &DecodeRule,
        decoder: Option<&DecoderWrapper>,
    ) -> Self {
        let steps = match decoder {
            Some(DecoderWrapper::Sequence(sequence)) => replacements(sequence.get_decoders()),
            _ => &[],
        };
        let steps = Replacements::new(steps);
        let alphabet = ByteAlphabet::new();
        let count = tokens.size_hint().0;
        let mut table = Self {
            blob: Vec::with_capacity(count * 7),
            ends: Vec::with_capacity(count),
            flags: Vec::with_capacity(count),
        };
        for token in tokens {
            let mut flags = 0;
            if let Some(token) = token {
                flags |= PRESENT | if token.special { SPECIAL } else { 0 };
                flags |= table.append(token.text, rule, &steps, &alphabet);
            }
            // A table of 4 GiB is out of reach: the ids are bounded and the strings came from a file.
            table.ends.push(u32::try_from(table.blob.len()).unwrap_or(u32::MAX));
            table.flags.push(flags);
        }
        table
    }

    fn append(&mut self, text: &str, rule: &DecodeRule, steps: &Replacements<'_>, alphabet: &ByteAlphabet) -> u8 {
        match rule {
            DecodeRule::ByteLevel => {
                // Text outside the alphabet (an added token with a space, say) stands for itself, as in tokenizers.
                if !alphabet.decode(text, &mut self.blob) {
                    self.blob.extend_from_slice(text.as_bytes());
                }
            }
            DecodeRule::ByteFallback { bytes, .. } => {
                let replaced = steps.apply(text);
                if *bytes && let Some(byte) = parse_byte(&replaced) {
                    self.blob.push(byte);
                    return BYTE;
                }
                self.blob.extend_from_slice(replaced.as_bytes());
            }
            DecodeRule::Metaspace { mark, .. } => self.blob.extend_from_slice(text.replace(*mark, " ").as_bytes()),
            DecodeRule::Windowed => self.blob.extend_from_slice(text.replace(SPACE_MARK, " ").as_bytes()),
        }
        0
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token, `None` where the id names nothing.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let at = id as usize;
        if self.flags.get(at)? & PRESENT == 0 {
            return None;
        }
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]) as usize;
        self.blob.get(start..self.ends[at] as usize)
    }

    /// Whether the token is a `<0xNN>` byte of a byte-fallback decoder.
    pub(crate) fn is_byte(&self, id: u32) -> bool {
        self.flags.get(id as usize).is_some_and(|flags| flags & BYTE != 0)
    }

    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.flags.get(id as usize).is_some_and(|flags| flags & SPECIAL != 0)
    }
}

/// What a decoder does to each token's text before joining.
enum Replacements<'a> {
    None,
    /// U+2581 to a space, what nearly every SentencePiece decoder does: needs no regular expression.
    SpaceMark,
    Steps(&'a [DecoderWrapper]),
}

impl<'a> Replacements<'a> {
    fn new(steps: &'a [DecoderWrapper]) -> Self {
        match steps {
            [] => Self::None,
            [DecoderWrapper::Replace(one)]
                if Replace::new(SPACE_MARK.to_string(), " ").is_ok_and(|known| *one == known) =>
            {
                Self::SpaceMark
            }
            steps => Self::Steps(steps),
        }
    }

    fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self {
            Self::SpaceMark if text.contains(SPACE_MARK) => Cow::Owned(text.replace(SPACE_MARK, " ")),
            Self::None | Self::SpaceMark => Cow::Borrowed(text),
            Self::Steps(steps) => {
                let start = vec![text.to_owned()];
                let end = steps.iter().try_fold(start, |tokens, step| step.decode_chain(tokens));
                end.map_or(Cow::Borrowed(text), |tokens| Cow::Owned(tokens.concat()))
            }
        }
    }
}

/// `<0x0A>` → 10. The same test as tokenizers': six bytes, two hexadecimal digits.
pub(crate) fn parse_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// GPT-2's printable alphabet: each byte has one character.
pub(crate) struct ByteAlphabet {
    /// Indexed by code point; the alphabet ends before 324.
    bytes: [Option<u8>; 324],
    characters: [char; 256],
}

impl ByteAlphabet {
    pub(crate) fn new() -> Self {
        let (mut bytes, mut characters) = ([None; 324], ['\0'; 256]);
        let mut next = '\u{100}'..;
        for byte in 0..=255_u8 {
            let is_itself = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let character = if is_itself { char::from(byte) } else { next.next().unwrap_or_default() };
            bytes[character as usize] = Some(byte);
            characters[byte as usize] = character;
        }
        Self { bytes, characters }
    }

    /// The characters of `bytes`.
    pub(crate) fn encode(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|&byte| self.characters[byte as usize]).collect()
    }

    /// Appends the bytes of `text`; false, and nothing appended, if a character is outside the alphabet.
    fn decode(&self, text: &str, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        for c in text.chars() {
            match self.bytes.get(c as usize).copied().flatten() {
                Some(byte) => out.push(byte),
                None => {
                    out.truncate(before);
                    return false;
                }
            }
        }
        true
    }
}
