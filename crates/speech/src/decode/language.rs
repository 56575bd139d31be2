//! Which language is spoken: one step from the start of the transcript over the language tokens alone.

use super::softmax::exp;
use crate::error::SpeechError;
use crate::network::{AudioId, DecodeRow};
use crate::session::Session;
use crate::vocabulary::SpecialTokens;

/// Index into `tokens.languages` and probability of the likeliest language. `None` for English-only checkpoints.
pub(crate) fn detect_language(
    session: &mut Session<'_>,
    tokens: &SpecialTokens,
    audio: AudioId,
) -> Result<Option<(usize, f32)>, SpeechError> {
    let cache = session.take_cache()?;
    let mut logits = Vec::new();
    let row = DecodeRow { audio, cache, tokens: &[tokens.start_of_transcript], wanted: &[0] };
    session.decode(&[row], &mut logits)?;
    session.give_back(cache);
    Ok(likeliest(tokens, &logits))
}

fn likeliest(tokens: &SpecialTokens, logits: &[f32]) -> Option<(usize, f32)> {
    let known = |index: usize| logits.get(tokens.languages[index].1 as usize).copied();
    let of_each: Vec<(usize, f32)> =
        (0..tokens.languages.len()).filter_map(|index| Some((index, known(index)?))).collect();
    let &first = of_each.first()?;
    let (index, best) = of_each.iter().fold(first, |best, &next| if next.1 > best.1 { next } else { best });
    let sum: f32 = of_each.iter().map(|(_, logit)| exp(logit - best)).sum();
    Some((index, 1.0 / sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::special_tokens;

    #[test]
    fn only_language_tokens_compete() {
        let tokens = special_tokens();
        let mut logits = vec![9.0; 413];
        for (code, token) in &tokens.languages {
            logits[*token as usize] = if code == "de" { 2.0 } else { 1.0 };
        }
        let (index, probability) = likeliest(&tokens, &logits).unwrap();
        assert_eq!(tokens.languages[index].0, "de");
        let others = (tokens.languages.len() - 1) as f32;
        assert!((probability - 1.0 / (1.0 + others * (-1.0f32).exp())).abs() < 1e-6);
    }

    #[test]
    fn an_english_checkpoint_has_none() {
        let mut tokens = special_tokens();
        tokens.languages.clear();
        assert_eq!(likeliest(&tokens, &[0.0; 413]), None);
    }
}
