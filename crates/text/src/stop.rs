//! Stop strings over streamed text.

use crate::TextError;

/// Finds stop strings in text that arrives in pieces, wherever the pieces are cut.
///
/// The match that starts first wins; of several that start at the same place, the longest. Text that may still be
/// the beginning of a stop string is held back, and only that. A special token is a cut: no match reaches across
/// it, but a stop string may equal a special token's text.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    matched: bool,
}

/// What a push lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that belongs to the answer; never part of a stop string.
    pub text: String,
    /// The index (into the strings given to [`StopMatcher::new`]) of the stop string that ended the answer.
    pub matched: Option<usize>,
}

impl StopMatcher {
    /// # Errors
    /// [`TextError::EmptyStop`]: an empty string would match everywhere.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, TextError> {
        let stops: Vec<String> = stops.into_iter().map(Into::into).collect();
        if stops.iter().any(String::is_empty) {
            return Err(TextError::EmptyStop);
        }
        Ok(Self { stops, held: String::new(), matched: false })
    }

    /// The stop strings, in the order they were given.
    #[must_use]
    pub fn strings(&self) -> &[String] {
        &self.stops
    }

    /// Takes the next run of text. After a match everything is swallowed.
    pub fn push_text(&mut self, text: &str) -> StopOutput {
        if self.matched {
            return StopOutput::default();
        }
        if self.stops.is_empty() {
            return StopOutput { text: text.to_owned(), matched: None };
        }
        self.held.push_str(text);
        self.advance(false)
    }

    /// Takes a special token by its text (`<|im_end|>`). `text` of the answer is what was held back before it; the
    /// token itself is the caller's to pass on if nothing matched.
    pub fn push_special(&mut self, special: &str) -> StopOutput {
        let mut out = self.finish();
        if !self.matched
            && let Some(index) = self.stops.iter().position(|stop| stop == special)
        {
            self.matched = true;
            out.matched = Some(index);
        }
        out
    }

    /// Ends the text: what was held back is released, or turns out to be a match that a longer one kept waiting.
    pub fn finish(&mut self) -> StopOutput {
        if self.matched { StopOutput::default() } else { self.advance(true) }
    }

    /// Scans what is held. `ended`: no more text can follow it directly.
    fn advance(&mut self, ended: bool) -> StopOutput {
        for start in self.held.char_indices().map(|(at, _)| at).collect::<Vec<_>>() {
            let rest = &self.held[start..];
            // A longer string that may still complete here outranks a shorter one that is complete.
            let undecided = !ended && self.stops.iter().any(|stop| stop.len() > rest.len() && stop.starts_with(rest));
            if undecided {
                let held = self.held.split_off(start);
                return StopOutput { text: std::mem::replace(&mut self.held, held), matched: None };
            }
            let complete = self.stops.iter().enumerate().filter(|(_, stop)| rest.starts_with(stop.as_str()));
            // `max_by_key` keeps the last of equals; equal length at one start means equal strings.
            if let Some((index, _)) = complete.max_by_key(|(_, stop)| stop.len()) {
                self.matched = true;
                self.held.truncate(start);
                return StopOutput { text: std::mem::take(&mut self.held), matched: Some(index) };
            }
        }
        StopOutput { text: std::mem::take(&mut self.held), matched: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().copied()).unwrap()
    }

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
        let mut matcher = matcher(stops);
        let mut text = String::new();
        for piece in pieces {
            let out = matcher.push_text(piece);
            text.push_str(&out.text);
            if out.matched.is_some() {
                assert_eq!(matcher.push_text("more"), StopOutput::default());
                assert_eq!(matcher.finish(), StopOutput::default());
                return (text, out.matched);
            }
        }
        let out = matcher.finish();
        (text + &out.text, out.matched)
    }

    /// The rule on whole text: first start, then the longest.
    fn whole(stops: &[&str], text: &str) -> (String, Option<usize>) {
        for (start, _) in text.char_indices() {
            let found =
                (0..stops.len()).filter(|&i| text[start..].starts_with(stops[i])).max_by_key(|&i| stops[i].len());
            if found.is_some() {
                return (text[..start].to_owned(), found);
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        let mut m = matcher(&["\n\nUser:"]);
        assert_eq!(m.push_text("Hello\n").text, "Hello");
        assert_eq!(m.push_text("\n").text, "");
        assert_eq!(m.push_text("\n").text, "\n");
        assert_eq!(m.push_text("Us").text, "");
        assert_eq!(m.push_text("eful").text, "\n\nUseful");
        assert_eq!(m.push_text(" \n\nUser: hi"), StopOutput { text: " ".into(), matched: Some(0) });
    }

    #[test]
    fn earliest_then_longest() {
        assert_eq!(run(&["ab", "abc"], &["xab", "c"]), ("x".into(), Some(1)));
        assert_eq!(run(&["ab", "abc"], &["xab", "d"]), ("x".into(), Some(0)));
        assert_eq!(run(&["ab", "abc"], &["xab"]), ("x".into(), Some(0)));
        assert_eq!(run(&["c", "abcd"], &["ab", "c", "d"]), (String::new(), Some(1)));
        assert_eq!(run(&["c", "abcd"], &["ab", "c", "x"]), ("ab".into(), Some(0)));
    }

    #[test]
    fn every_cut_gives_the_answer_of_the_whole_text() {
        let stop_sets: [&[&str]; 5] =
            [&["aba"], &["ab", "abc", "bca"], &["é", "éa", "aé€"], &["aaab"], &["b", "aab", "aaaab"]];
        let texts = ["aabababca", "caé€aéa", "aaaaaab", "xyz", "abéab€caaab", "aaaab", "aaaac"];
        for stops in stop_sets {
            for text in texts {
                let chars: Vec<String> = text.chars().map(String::from).collect();
                for mask in 0..1_u32 << (chars.len() - 1) {
                    let mut pieces = vec![String::new()];
                    for (i, c) in chars.iter().enumerate() {
                        if i > 0 && mask >> (i - 1) & 1 == 1 {
                            pieces.push(String::new());
                        }
                        pieces.last_mut().unwrap().push_str(c);
                    }
                    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                    assert_eq!(run(stops, &pieces), whole(stops, text), "{stops:?} {pieces:?}");
                }
            }
        }
    }

    #[test]
    fn special_tokens_cut_and_may_be_a_stop_string() {
        let mut m = matcher(&["ab", "<|im_end|>"]);
        assert_eq!(m.push_text("xa").text, "x");
        assert_eq!(m.push_special("<think>"), StopOutput { text: "a".into(), matched: None });
        assert_eq!(m.push_text("b").text, "b");
        assert_eq!(m.push_text("a").text, "");
        assert_eq!(m.push_special("<|im_end|>"), StopOutput { text: "a".into(), matched: Some(1) });
        assert_eq!(m.push_special("<|im_end|>"), StopOutput::default());
        // The same characters as ordinary text are a stop string too.
        assert_eq!(run(&["<|im_end|>"], &["a<|im", "_end|>"]), ("a".into(), Some(0)));
    }

    #[test]
    fn a_match_waiting_for_a_longer_one_is_found_at_a_cut() {
        let mut m = matcher(&["ab", "abc"]);
        assert_eq!(m.push_text("ab"), StopOutput::default());
        assert_eq!(m.push_special("<eos>"), StopOutput { text: String::new(), matched: Some(0) });
    }

    #[test]
    fn nothing_to_stop_at_and_empty_strings() {
        let mut none = matcher(&[]);
        assert_eq!(none.push_text("abc").text, "abc");
        assert_eq!(none.push_special("<eos>"), StopOutput::default());
        assert_eq!(StopMatcher::new(["a", ""]).unwrap_err().code(), "empty_stop");
    }
}
