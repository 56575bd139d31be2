//! `llama`: SentencePiece BPE with byte fallback. Such files hold scores, from which the merges follow.

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};

use super::{GgufTokenizer, TokenKind, added_tokens, byte_level, invalid, vocabulary};
use crate::TextError;
use crate::token_table::SPACE_MARK;

/// The tokenizer, and whether it puts BOS first when the file does not say: SentencePiece does.
pub(super) fn build(
    gguf: &GgufTokenizer,
    kinds: &[TokenKind],
    warnings: &mut Vec<String>,
) -> Result<(tokenizers::Tokenizer, bool), TextError> {
    let mut vocab = vocabulary(gguf, kinds, warnings);
    let runs = space_runs(gguf, kinds, &mut vocab);
    // transformers lets a tab take part in merges although SentencePiece only knows it as a byte.
    if !vocab.contains_key("\t")
        && let Some(&tab) = vocab.get("<0x09>")
    {
        vocab.insert("\t".to_owned(), tab);
    }
    let merges = if gguf.merges.is_empty() {
        derive_merges(gguf, kinds, &vocab, &runs)
    } else {
        byte_level::merges(gguf, &vocab, warnings)
    };
    let byte_fallback = (0..=255_u8).all(|byte| vocab.contains_key(format!("<0x{byte:02X}>").as_str()));
    if !byte_fallback {
        warnings.push("the vocabulary lacks bytes; characters outside it are lost".to_owned());
    }
    let unknown =
        gguf.unk_id.or_else(|| (0_u32..).zip(kinds).find(|(_, k)| **k == TokenKind::Unknown).map(|(id, _)| id));
    let mut model = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(byte_fallback).fuse_unk(true);
    if let Some(id) = unknown {
        model = model.unk_token(gguf.tokens[id as usize].clone());
    }
    let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(invalid)?);

    // Only SentencePiece proper adds a space by default; a file with its own merges comes without.
    let space_prefix = gguf.add_space_prefix.unwrap_or(gguf.model == "llama");
    let mark = SPACE_MARK.to_string();
    let escape = NormalizerWrapper::from(Replace::new(" ", mark.as_str()).map_err(invalid)?);
    let normalizer = if space_prefix {
        NormalizerWrapper::from(Sequence::new(vec![Prepend::new(mark.clone()).into(), escape]))
    } else {
        escape
    };
    tokenizer.with_normalizer(Some(normalizer)).map_err(invalid)?;

    let mut decoders: Vec<DecoderWrapper> = vec![
        DecoderWrapper::Replace(Replace::new(mark, " ").map_err(invalid)?),
        DecoderWrapper::ByteFallback(ByteFallback::new()),
        DecoderWrapper::Fuse(Fuse::new()),
    ];
    if space_prefix {
        decoders.push(DecoderWrapper::Strip(Strip::new(' ', 1, 0)));
    }
    tokenizer.with_decoder(Some(DecoderSequence::new(decoders)));
    tokenizer.add_tokens(added_tokens(gguf, kinds, |id| !runs.contains_key(&id))).map_err(invalid)?;
    Ok((tokenizer, true))
}

/// User-defined runs of spaces (Gemma has 30 of them): GGUF holds them with real spaces. They become ordinary tokens
/// of space marks, because transformers forms them by merges; the id is that of the token in the file.
type SpaceRuns = std::collections::BTreeMap<usize, String>;

fn space_runs(gguf: &GgufTokenizer, kinds: &[TokenKind], vocab: &mut Vocab) -> SpaceRuns {
    let is_run = |text: &str| !text.is_empty() && text.chars().all(|c| c == ' ' || c == SPACE_MARK);
    let mut runs = SpaceRuns::new();
    for (id, text) in gguf.tokens.iter().enumerate() {
        if kinds[id] == TokenKind::UserDefined && is_run(text) {
            let marks = text.replace(' ', SPACE_MARK.encode_utf8(&mut [0; 4]));
            if let Some(token) = vocab.remove(text.as_str()) {
                vocab.entry(marks.clone()).or_insert(token);
                runs.insert(id, marks);
            }
        }
    }
    runs
}

/// Every pair of tokens whose concatenation is a token, ranked as transformers' converter ranks them: by the score of
/// the whole, then by the length of the left part. Tokens that text must not turn into (control, unused, bytes) take no part.
fn derive_merges(gguf: &GgufTokenizer, kinds: &[TokenKind], vocab: &Vocab, runs: &SpaceRuns) -> Merges {
    struct Merge<'a> {
        score: f32,
        left_chars: u32,
        right_chars: u32,
        parts: (u32, u32),
        text: &'a str,
        cut: usize,
    }

    let scored = !gguf.scores.is_empty();
    let mut merges: Vec<Merge<'_>> = Vec::with_capacity(gguf.tokens.len() * 2);
    let mut first: Merges = Vec::new();
    for (id, text) in gguf.tokens.iter().enumerate() {
        let run = runs.get(&id);
        if kinds[id] != TokenKind::Normal && run.is_none() {
            continue;
        }
        let text = run.map_or(text.as_str(), String::as_str);
        let chars = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        // Without scores the order of the vocabulary is the order of the merges.
        #[expect(clippy::cast_precision_loss, reason = "ids are below 2^24")]
        let score = if scored { gguf.scores[id] } else { -(id as f32) };
        for (left_chars, (cut, _)) in (1..).zip(text.char_indices().skip(1)) {
            let (left, right) = text.split_at(cut);
            let Some(&left_id) = vocab.get(left) else { continue };
            let Some(&right_id) = vocab.get(right) else { continue };
            if !may_merge(kinds, runs, left_id) || !may_merge(kinds, runs, right_id) {
                continue;
            }
            if run.is_some() {
                // Runs come before everything, shortest first, as they do in SentencePiece's own segmentation.
                first.push((left.to_owned(), right.to_owned()));
            } else {
                let right_chars = chars - left_chars;
                merges.push(Merge { score, left_chars, right_chars, parts: (left_id, right_id), text, cut });
            }
        }
    }
    // Of one whole's pairs Llama's converter prefers the longer left part, Gemma's the shorter.
    let shorter_first = !runs.is_empty();
    merges.sort_unstable_by(|a, b| {
        let by_parts = if shorter_first {
            (a.left_chars, a.right_chars).cmp(&(b.left_chars, b.right_chars))
        } else {
            (b.left_chars, b.right_chars).cmp(&(a.left_chars, a.right_chars))
        };
        b.score.total_cmp(&a.score).then(by_parts).then(a.parts.cmp(&b.parts))
    });
    first.extend(merges.iter().map(|m| {
        let (left, right) = m.text.split_at(m.cut);
        (left.to_owned(), right.to_owned())
    }));
    first
}

/// Whether a token can be met inside text while merging.
fn may_merge(kinds: &[TokenKind], runs: &SpaceRuns, id: u32) -> bool {
    match kinds[id as usize] {
        TokenKind::Normal => true,
        // The tab, see `build`.
        TokenKind::Byte => true,
        TokenKind::UserDefined => runs.contains_key(&(id as usize)),
        TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => false,
    }
}
