//! A tokenizer as llguidance wants it: the bytes of all tokens in one tree, and text to tokens.

use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::Tokenizer;

/// A tokenizer with its tokens sorted into a tree by their bytes.
pub(super) struct TokenEnvironment {
    tokenizer: Tokenizer,
    trie: TokTrie,
}

impl TokenEnvironment {
    /// Special tokens and end tokens stand in the tree with a byte before their text that no text has, so that text
    /// never matches them: a grammar has to name them.
    pub(super) fn new(tokenizer: &Tokenizer, vocab_size: usize, end_tokens: &[TokenId]) -> Self {
        let end_tokens: Vec<_> = end_tokens.iter().copied().filter(|&id| (id as usize) < vocab_size).collect();
        let word = |id: TokenId| match tokenizer.token_bytes(id) {
            Some(_) if tokenizer.is_special(id) || end_tokens.contains(&id) => {
                [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.token_text(id).as_bytes()].concat()
            }
            bytes => bytes.unwrap_or_default().to_vec(),
        };
        let words: Vec<_> = (0..vocab_size as TokenId).map(word).collect();
        let first_end = end_tokens.first().copied().unwrap_or(llguidance::toktrie::INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, first_end), &words);
        if end_tokens.len() > 1 {
            trie = trie.with_eos_tokens(&end_tokens);
        }
        Self { tokenizer: tokenizer.clone(), trie }
    }

    /// The tokens of a text as the model knows it, if they stand for exactly its bytes: some tokenizers put a space
    /// before a text or normalize it.
    fn tokenize(&self, text: &str) -> Option<Vec<TokenId>> {
        let ids = self.tokenizer.encode_plain(text).ok()?;
        let mut rest = text.as_bytes();
        for &id in &ids {
            let bytes = (!self.trie.is_special_token(id)).then(|| self.trie.token(id))?;
            rest = rest.strip_prefix(bytes).filter(|_| !bytes.is_empty())?;
        }
        rest.is_empty().then_some(ids)
    }
}

impl TokenizerEnv for TokenEnvironment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let text = std::str::from_utf8(bytes).ok();
        text.and_then(|text| self.tokenize(text)).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}
