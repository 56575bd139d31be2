//! `gpt2`: byte-level BPE with the pre-tokenizer that `tokenizer.ggml.pre` names.

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;

use super::pre_tokenizer::PreTokenizer;
use super::{GgufTokenizer, TokenKind, added_tokens, invalid, vocabulary};
use crate::TextError;

/// The tokenizer, and whether it puts BOS first when the file does not say.
pub(super) fn build(
    gguf: &GgufTokenizer,
    kinds: &[TokenKind],
    warnings: &mut Vec<String>,
) -> Result<(tokenizers::Tokenizer, bool), TextError> {
    let pre = PreTokenizer::named(&gguf.pre)?;
    if gguf.pre.is_empty() || gguf.pre == "default" {
        warnings.push("the file does not name its pre-tokenizer; text may be cut unlike in training".to_owned());
    }
    let vocab = vocabulary(gguf, kinds, warnings);
    let merges = merges(gguf, &vocab, warnings);
    let model =
        BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(pre.ignore_merges).build().map_err(invalid)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    if pre.nfc {
        tokenizer.with_normalizer(Some(NFC)).map_err(invalid)?;
    }
    tokenizer.with_pre_tokenizer(Some(pre.build()?)).with_decoder(Some(ByteLevel::new(false, true, false)));
    tokenizer.add_tokens(added_tokens(gguf, kinds, |_| true)).map_err(invalid)?;
    Ok((tokenizer, pre.add_bos))
}

/// The pairs in order of rank. A pair that cannot apply (a part or the whole is no token) is left out: it would
/// never be used, and refusing the file for it would help nobody.
pub(super) fn merges(gguf: &GgufTokenizer, vocab: &Vocab, warnings: &mut Vec<String>) -> Merges {
    let mut whole = String::new();
    let mut useless = 0_usize;
    let mut merges = Vec::with_capacity(gguf.merges.len());
    for merge in &gguf.merges {
        // The first part may itself begin with a space, so the separator is looked for behind its first character.
        let skip = merge.chars().next().map_or(0, char::len_utf8);
        let pair = merge[skip..].find(' ').map(|at| (&merge[..skip + at], &merge[skip + at + 1..]));
        let usable = pair.filter(|(left, right)| {
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            vocab.contains_key(*left) && vocab.contains_key(*right) && vocab.contains_key(whole.as_str())
        });
        match usable {
            Some((left, right)) => merges.push((left.to_owned(), right.to_owned())),
            None => useless += 1,
        }
    }
    if useless > 0 {
        warnings.push(format!("{useless} merges name tokens that the vocabulary lacks"));
    }
    if merges.is_empty() {
        warnings.push("the file has no usable merges; text becomes single bytes".to_owned());
    }
    merges
}
