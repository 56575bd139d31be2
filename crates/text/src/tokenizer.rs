//! Text to token ids and back, whatever file the tokenizer came from.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tokenizers::{AddedVocabulary, Model, OffsetType, PreTokenizer};

use crate::TextError;
use crate::gguf::{self, GgufTokenizer};
use crate::ranks;
use crate::token_table::{DecodeRule, TableToken, TokenTable, parse_byte};

/// More ids than any model has; a file that names a higher one is broken, and must not size a table.
const MAX_VOCAB: u32 = 1 << 24;

/// A tokenizer. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

struct Shared {
    inner: tokenizers::Tokenizer,
    /// The added tokens with the special ones left to be ordinary text, for [`Tokenizer::encode_plain`].
    plain: AddedVocabulary,
    table: TokenTable,
    rule: DecodeRule,
    /// Special tokens by id.
    special: BTreeMap<u32, String>,
    /// Put around the ids when special tokens are asked for and the tokenizer has no post-processor for it (GGUF).
    prefix: Option<u32>,
    suffix: Option<u32>,
    warnings: Vec<String>,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be read or is not a tokenizer.
    pub fn from_json_file(path: impl AsRef<Path>) -> Result<Self, TextError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
        Self::from_json_bytes(&bytes)
    }

    /// Loads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// It is not a tokenizer, or names ids beyond 2^24.
    pub fn from_json_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        // The tokenizers crate indexes without looking in a few places (merges longer than any token).
        let loaded = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(bytes)));
        let mut inner = loaded
            .map_err(|_| TextError::Invalid("its parts do not fit together".to_owned()))?
            .map_err(TextError::InvalidJson)?;
        // Some files carry the truncation or padding of whoever saved them. transformers drops both, too.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(TextError::InvalidJson)?;

        let vocab = inner.get_model().get_vocab();
        let added = inner.get_added_tokens_decoder();
        let highest = vocab.values().chain(added.keys()).copied().max();
        let Some(highest) = highest else {
            return Err(TextError::Invalid("its vocabulary is empty".to_owned()));
        };
        if highest >= MAX_VOCAB {
            return Err(TextError::Invalid(format!("it names token {highest}, ids end at {MAX_VOCAB}")));
        }
        let mut texts: Vec<Option<String>> = vec![None; highest as usize + 1];
        for (text, id) in vocab {
            let slot = &mut texts[id as usize];
            // Gemma's tab is also its byte 9: of two texts for one id the byte is the one that never misleads.
            if slot.as_deref().is_none_or(|known| parse_byte(known).is_none()) {
                *slot = Some(text);
            }
        }
        let mut special = BTreeMap::new();
        for (&id, token) in &added {
            // The form that decoding sees: an added token may have been normalized.
            texts[id as usize] = inner.id_to_token(id);
            if token.special {
                special.insert(id, token.content.clone());
            }
        }
        let tokens = texts
            .iter()
            .zip(0_u32..)
            .map(|(text, id)| text.as_deref().map(|text| TableToken { text, special: special.contains_key(&id) }));
        let rule = DecodeRule::of(inner.get_decoder());
        let table = TokenTable::new(tokens, &rule, inner.get_decoder());
        let mut warnings = Vec::new();
        if rule == DecodeRule::Windowed {
            warnings.push("the tokenizer decodes in an unusual way; streaming decodes a window per token".to_owned());
        }
        Ok(Self::share(inner, table, rule, special, (None, None), warnings))
    }

    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// A kind of tokenizer or a pre-tokenizer that is not known, or lists that do not fit together.
    pub fn from_gguf(gguf: &GgufTokenizer) -> Result<Self, TextError> {
        if gguf.tokens.len() > MAX_VOCAB as usize {
            return Err(TextError::Invalid(format!("it has {} tokens, ids end at {MAX_VOCAB}", gguf.tokens.len())));
        }
        let built = gguf::build(gguf)?;
        let tokens = gguf.tokens.iter().zip(&built.kinds).map(|(text, &kind)| {
            (kind != gguf::TokenKind::Unused).then_some(TableToken { text, special: kind.is_special() })
        });
        let rule = DecodeRule::of(built.inner.get_decoder());
        let table = TokenTable::new(tokens, &rule, built.inner.get_decoder());
        let special = (0_u32..)
            .zip(gguf.tokens.iter().zip(&built.kinds))
            .filter(|(_, (_, kind))| kind.is_special())
            .map(|(id, (text, _))| (id, text.clone()))
            .collect();
        Ok(Self::share(built.inner, table, rule, special, (built.prefix, built.suffix), built.warnings))
    }

    /// Builds the tokenizer of a byte-level vocabulary as tiktoken and whisper.cpp keep it: `tokens` are bytes of text, in
    /// order of rank, which is their id; `special` are the ids and names of the others.
    ///
    /// # Errors
    /// A token that is longer than any is, or special ones among those of text.
    pub fn from_ranks(tokens: &[&[u8]], special: &[(u32, String)]) -> Result<Self, TextError> {
        Self::from_gguf(&ranks::described(tokens, special)?)
    }

    fn share(
        inner: tokenizers::Tokenizer,
        table: TokenTable,
        rule: DecodeRule,
        special: BTreeMap<u32, String>,
        (prefix, suffix): (Option<u32>, Option<u32>),
        warnings: Vec<String>,
    ) -> Self {
        let mut plain = inner.get_added_vocabulary().clone();
        plain.set_encode_special_tokens(true);
        Self { shared: Arc::new(Shared { inner, plain, table, rule, special, prefix, suffix, warnings }) }
    }

    /// Text to ids. Special tokens written in the text become those tokens, as a rendered chat template needs it.
    /// `add_special_tokens` also adds what the tokenizer puts around a text of its own (BOS, say).
    ///
    /// # Errors
    /// The text overruns a limit of the regular-expression engine.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let shared = &*self.shared;
        let encoding = shared.inner.encode_fast(text, add_special_tokens).map_err(TextError::Encode)?;
        let ids = encoding.get_ids();
        if !add_special_tokens || (shared.prefix.is_none() && shared.suffix.is_none()) {
            return Ok(ids.to_vec());
        }
        Ok(shared.prefix.into_iter().chain(ids.iter().copied()).chain(shared.suffix).collect())
    }

    /// Text to ids where nothing in the text can become a special token (the unknown token excepted). Nothing is
    /// added around it. Added tokens that are not special (`<think>` in Qwen's vocabulary) still are what they look
    /// like.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let shared = &*self.shared;
        let model = shared.inner.get_model();
        let run = || -> tokenizers::Result<Vec<u32>> {
            let mut pieces = shared.plain.extract_and_normalize(shared.inner.get_normalizer(), text);
            if let Some(pre) = shared.inner.get_pre_tokenizer() {
                pre.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| model.tokenize(piece.get()))?;
            let encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
            let unknown = self.unknown_id();
            let mut ids = Vec::with_capacity(encoding.len());
            for &id in encoding.get_ids() {
                match shared.special.get(&id) {
                    // The model itself merged a special token's text together: take it apart.
                    Some(content) if Some(id) != unknown => {
                        for c in content.chars() {
                            let tokens = model.tokenize(c.encode_utf8(&mut [0; 4]))?;
                            ids.extend(tokens.into_iter().map(|token| token.id));
                        }
                    }
                    _ => ids.push(id),
                }
            }
            Ok(ids)
        };
        run().map_err(TextError::Encode)
    }

    fn unknown_id(&self) -> Option<u32> {
        use tokenizers::ModelWrapper as M;
        let model = self.shared.inner.get_model();
        let unknown = match model {
            M::BPE(bpe) => bpe.unk_token.as_deref()?,
            M::WordPiece(pieces) => pieces.unk_token.as_str(),
            M::WordLevel(words) => words.unk_token.as_str(),
            // Its unknown token is private; Unigram has no merges that could form a special token.
            M::Unigram(_) => return None,
        };
        model.token_to_id(unknown)
    }

    /// Ids to text, all at once, as transformers does it. Ids that name nothing are passed over.
    ///
    /// # Errors
    /// A decoder of an unusual tokenizer fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TextError> {
        self.shared.inner.decode(ids, skip_special_tokens).map_err(TextError::Decode)
    }

    /// The raw bytes that a token stands for in text, possibly a part of a character; `None` if the id names nothing.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.shared.table.bytes(id)
    }

    /// A token as text for people: bytes that are no character become U+FFFD, an id that names nothing is empty.
    #[must_use]
    pub fn token_text(&self, id: u32) -> String {
        if let Some(content) = self.shared.special.get(&id) {
            return content.clone();
        }
        String::from_utf8_lossy(self.token_bytes(id).unwrap_or_default()).into_owned()
    }

    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.shared.table.is_special(id)
    }

    /// The id of a special token by its exact text.
    #[must_use]
    pub fn special_id(&self, text: &str) -> Option<u32> {
        self.token_id(text).filter(|id| self.is_special(*id))
    }

    /// The id of any token by its text as the vocabulary holds it, special or not (`<think>`, `<tool_call>`).
    #[must_use]
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.shared.inner.token_to_id(text)
    }

    /// All special tokens, by id.
    pub fn special_tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        self.shared.special.iter().map(|(&id, text)| (id, text.as_str()))
    }

    /// One more than the highest id. A model's own vocabulary may be larger (padding).
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.shared.table.len()
    }

    /// What is odd about this tokenizer, in words for a log.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.shared.warnings
    }

    pub(crate) fn rule(&self) -> &DecodeRule {
        &self.shared.rule
    }

    pub(crate) fn table(&self) -> &TokenTable {
        &self.shared.table
    }

    /// The token's text before any decoding.
    pub(crate) fn raw_token(&self, id: u32) -> Option<String> {
        self.shared.inner.id_to_token(id)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.shared.special.len())
            .field("rule", &self.shared.rule)
            .finish_non_exhaustive()
    }
}
