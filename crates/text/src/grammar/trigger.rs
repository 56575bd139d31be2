//! Markers that switch a grammar on.

use crate::TextError;

/// Most texts and most tokens of a trigger.
pub const MAX_TRIGGERS: usize = 16;

/// Longest text of a trigger.
pub const MAX_TRIGGER_BYTES: usize = 256;

/// What switches a grammar on: one of these tokens, or one of these texts, whatever tokens it comes in. A special token
/// is never part of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trigger {
    pub token_ids: Vec<u32>,
    pub texts: Vec<String>,
}

impl Trigger {
    pub(super) fn check(&self) -> Result<(), TextError> {
        let invalid = |what: &str| Err(TextError::Grammar(format!("its trigger {what}")));
        if self.token_ids.is_empty() && self.texts.is_empty() {
            return invalid("names neither a token nor a text");
        }
        if self.token_ids.len() > MAX_TRIGGERS || self.texts.len() > MAX_TRIGGERS {
            return invalid(&format!("has more than {MAX_TRIGGERS} tokens or texts"));
        }
        if self.texts.iter().any(|text| text.is_empty() || text.len() > MAX_TRIGGER_BYTES) {
            return invalid(&format!("has a text that is empty or longer than {MAX_TRIGGER_BYTES} bytes"));
        }
        Ok(())
    }
}

/// Looks for a trigger in tokens as they come.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    trigger: Trigger,
    /// The last bytes of the text, less than the longest marker has.
    tail: Vec<u8>,
}

impl Watch {
    pub(super) fn new(trigger: Trigger) -> Self {
        Self { trigger, tail: Vec::new() }
    }

    /// Takes in a token: `bytes` is its text, none for a special one. Answers how many of its bytes follow the first
    /// marker that it completes.
    pub(super) fn push(&mut self, token: u32, bytes: Option<&[u8]>) -> Option<usize> {
        if self.trigger.token_ids.contains(&token) {
            self.tail.clear();
            return Some(0);
        }
        let Some(bytes) = bytes else {
            self.tail.clear();
            return None;
        };
        let n_before = self.tail.len();
        self.tail.extend_from_slice(bytes);
        let ends = self.trigger.texts.iter().filter_map(|text| {
            // Only what ends within the new bytes is new.
            let from = (n_before + 1).saturating_sub(text.len());
            let windows = self.tail.get(from..)?.windows(text.len());
            windows.zip(from..).find(|(window, _)| *window == text.as_bytes()).map(|(_, at)| at + text.len())
        });
        if let Some(end) = ends.min() {
            let n_rest = self.tail.len() - end;
            self.tail.clear();
            return Some(n_rest);
        }
        let longest = self.trigger.texts.iter().map(String::len).max().unwrap_or(0);
        let n_needed = longest.saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - n_needed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(texts: &[&str]) -> Watch {
        Watch::new(Trigger { token_ids: vec![7], texts: texts.iter().map(|&text| text.into()).collect() })
    }

    #[test]
    fn a_text_is_found_however_it_is_cut() {
        let text = "a <tool><tool_call>{";
        for size in 1..=text.len() {
            let mut watch = watch(&["<tool_call>", "[TOOL]"]);
            let found: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .enumerate()
                .filter_map(|(i, chunk)| Some((i, watch.push(0, Some(chunk))?)))
                .collect();
            let last = 19_usize.div_ceil(size) - 1;
            assert_eq!(found, [(last, ((last + 1) * size).min(text.len()) - 19)], "in pieces of {size}");
        }
    }

    #[test]
    fn special_tokens_are_no_text_and_tokens_count_by_id() {
        let mut watch = watch(&["ab"]);
        assert_eq!(watch.push(0, Some(b"a")), None);
        assert_eq!(watch.push(1, None), None);
        assert_eq!(watch.push(0, Some(b"b")), None);
        assert_eq!(watch.push(7, None), Some(0));
        // The earliest end wins, and what was before a marker counts no more.
        assert_eq!(watch.push(0, Some(b"xabab")), Some(2));
        assert_eq!(watch.push(0, Some(b"b")), None);
    }

    #[test]
    fn odd_triggers_are_refused() {
        let of = |texts: Vec<String>| Trigger { token_ids: vec![], texts }.check();
        assert!(of(vec![]).is_err() && of(vec![String::new()]).is_err());
        assert!(of(vec!["x".repeat(MAX_TRIGGER_BYTES + 1)]).is_err());
        assert!(of(vec!["x".to_owned(); MAX_TRIGGERS + 1]).is_err());
        assert!(of(vec!["x".to_owned()]).is_ok());
    }
}
