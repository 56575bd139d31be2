//! What a full block holds, as a value to look blocks up by: its tokens, behind everything that came before them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::TokenId;

/// The content of one full block and of all blocks before it. Equal contents are one value: the table of known
/// prefixes hashes (parent, tokens) and compares both, so that a collision of hashes can never join two contents.
#[derive(Debug)]
pub(crate) struct Prefix {
    id: u64,
    key: Rc<Key>,
    parent: Option<Rc<Prefix>>,
    known: Known,
}

type Known = Rc<RefCell<HashMap<Rc<Key>, Weak<Prefix>>>>;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    parent: Parent,
    /// How many of the tokens, the first ones, were computed as a prompt's. All, where that makes no difference.
    n_prompt: usize,
    tokens: Box<[TokenId]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Parent {
    /// The first block of a sequence; different salts never share.
    Root { salt: u64 },
    /// `Prefix::id` of the block before, which the child keeps alive.
    Block(u64),
}

impl Prefix {
    /// Unique among all prefixes of one tree for ever; never used again.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Prefix {
    /// Forgets itself and walks up: a long prompt is a long chain, and dropping it by recursion could overflow the
    /// stack.
    fn drop(&mut self) {
        self.known.borrow_mut().remove(&*self.key);
        let mut above = self.parent.take();
        while let Some(mut parent) = above.and_then(Rc::into_inner) {
            above = parent.parent.take();
        }
    }
}

/// All prefixes that a cached block or a live sequence stands on.
#[derive(Debug, Default)]
pub(crate) struct PrefixTree {
    known: Known,
    next_id: u64,
}

impl PrefixTree {
    /// The prefix that `tokens` (one full block) make behind `parent`, or at the start of a sequence with this salt.
    /// `n_prompt` of them, the first ones, are computed as a prompt's.
    pub(crate) fn extend(
        &mut self,
        parent: Option<&Rc<Prefix>>,
        salt: u64,
        n_prompt: usize,
        tokens: &[TokenId],
    ) -> Rc<Prefix> {
        let parent_id = parent.map_or(Parent::Root { salt }, |p| Parent::Block(p.id));
        let key = Key { parent: parent_id, n_prompt: n_prompt.min(tokens.len()), tokens: tokens.into() };
        if let Some(prefix) = self.known.borrow().get(&key).and_then(Weak::upgrade) {
            return prefix;
        }
        let key = Rc::new(key);
        let prefix =
            Rc::new(Prefix { id: self.next_id, key: key.clone(), parent: parent.cloned(), known: self.known.clone() });
        self.next_id += 1;
        self.known.borrow_mut().insert(key, Rc::downgrade(&prefix));
        prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_are_one_value_and_nothing_stays() {
        let mut tree = PrefixTree::default();
        let a = tree.extend(None, 0, 9, &[1, 2]);
        let ab = tree.extend(Some(&a), 0, 9, &[3, 4]);
        assert_eq!(tree.extend(None, 0, 9, &[1, 2]).id(), a.id());
        assert_ne!(tree.extend(None, 1, 9, &[1, 2]).id(), a.id());
        assert_ne!(tree.extend(None, 0, 9, &[3, 4]).id(), ab.id());
        assert_ne!(tree.extend(None, 0, 1, &[1, 2]).id(), a.id());
        let a_id = a.id();
        drop(a);
        // The child keeps its parent known.
        assert_eq!(tree.extend(None, 0, 9, &[1, 2]).id(), a_id);
        drop(ab);
        assert!(tree.known.borrow().is_empty());
    }

    #[test]
    fn a_very_long_chain_drops_without_recursion() {
        let mut tree = PrefixTree::default();
        let mut last = tree.extend(None, 0, 9, &[0]);
        for i in 1..200_000 {
            last = tree.extend(Some(&last), 0, 9, &[i]);
        }
        drop(last);
        assert!(tree.known.borrow().is_empty());
    }
}
