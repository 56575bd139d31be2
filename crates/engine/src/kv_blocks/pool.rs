//! The blocks of one cache group: reference counts, the free list, and which content each block still holds.

use std::collections::HashMap;
use std::rc::Rc;

use super::prefix::Prefix;
use crate::BlockId;

/// Marks the ends of the free list.
const NONE: BlockId = BlockId::MAX;

/// A fixed number of blocks. A block nobody refers to is in the free list, oldest first; if it holds a known prefix it
/// can be taken back from there until somebody needs the memory.
#[derive(Debug)]
pub(super) struct BlockPool {
    slots: Vec<Slot>,
    first_free: BlockId,
    last_free: BlockId,
    n_free: usize,
    /// `Prefix::id` to the block that holds it.
    cached: HashMap<u64, BlockId>,
}

#[derive(Debug)]
struct Slot {
    references: u32,
    prefix: Option<Rc<Prefix>>,
    /// Neighbours in the free list.
    previous: BlockId,
    next: BlockId,
}

impl BlockPool {
    pub(super) fn new(n_blocks: usize) -> Self {
        let slots = (0..n_blocks).map(|_| Slot { references: 0, prefix: None, previous: NONE, next: NONE }).collect();
        let mut pool = Self { slots, first_free: NONE, last_free: NONE, n_free: 0, cached: HashMap::new() };
        (0..n_blocks as BlockId).for_each(|id| pool.push_last(id));
        pool
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Blocks that nobody refers to, those with reusable content included.
    pub(super) fn n_free(&self) -> usize {
        self.n_free
    }

    pub(super) fn is_free(&self, id: BlockId) -> bool {
        self.slots[id as usize].references == 0
    }

    /// Takes the block unused for longest and forgets what it held; `None` if every block is in use.
    pub(super) fn allocate(&mut self) -> Option<BlockId> {
        let id = self.first_free;
        if id == NONE {
            return None;
        }
        self.unlink(id);
        let slot = &mut self.slots[id as usize];
        slot.references = 1;
        if let Some(prefix) = slot.prefix.take() {
            self.cached.remove(&prefix.id());
        }
        Some(id)
    }

    /// One more reference to a block that is cached or in use.
    pub(super) fn retain(&mut self, id: BlockId) {
        if self.is_free(id) {
            self.unlink(id);
        }
        self.slots[id as usize].references += 1;
    }

    /// One reference less. The last one puts the block into the free list: at the end if its content may be wanted
    /// again, else at the front.
    pub(super) fn release(&mut self, id: BlockId) {
        let slot = &mut self.slots[id as usize];
        debug_assert!(slot.references > 0, "block {id} released twice");
        slot.references -= 1;
        if slot.references == 0 {
            if slot.prefix.is_some() {
                self.push_last(id);
            } else {
                self.push_first(id);
            }
        }
    }

    /// Declares that the block now holds this prefix. If another block already does, that one stays the known one.
    pub(super) fn register(&mut self, id: BlockId, prefix: &Rc<Prefix>) {
        let slot = &mut self.slots[id as usize];
        if slot.prefix.is_none() && !self.cached.contains_key(&prefix.id()) {
            slot.prefix = Some(prefix.clone());
            self.cached.insert(prefix.id(), id);
        }
    }

    pub(super) fn lookup(&self, prefix: &Prefix) -> Option<BlockId> {
        self.cached.get(&prefix.id()).copied()
    }

    fn push_last(&mut self, id: BlockId) {
        let before = std::mem::replace(&mut self.last_free, id);
        let slot = &mut self.slots[id as usize];
        (slot.previous, slot.next) = (before, NONE);
        match before {
            NONE => self.first_free = id,
            _ => self.slots[before as usize].next = id,
        }
        self.n_free += 1;
    }

    fn push_first(&mut self, id: BlockId) {
        let after = std::mem::replace(&mut self.first_free, id);
        let slot = &mut self.slots[id as usize];
        (slot.previous, slot.next) = (NONE, after);
        match after {
            NONE => self.last_free = id,
            _ => self.slots[after as usize].previous = id,
        }
        self.n_free += 1;
    }

    fn unlink(&mut self, id: BlockId) {
        let slot = &mut self.slots[id as usize];
        let (before, after) = (slot.previous, slot.next);
        (slot.previous, slot.next) = (NONE, NONE);
        match before {
            NONE => self.first_free = after,
            _ => self.slots[before as usize].next = after,
        }
        match after {
            NONE => self.last_free = before,
            _ => self.slots[after as usize].previous = before,
        }
        self.n_free -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv_blocks::prefix::PrefixTree;

    #[test]
    fn the_block_unused_for_longest_is_taken_first() {
        let mut tree = PrefixTree::default();
        let mut pool = BlockPool::new(3);
        let ids: Vec<_> = (0..3).map(|_| pool.allocate().unwrap()).collect();
        assert_eq!(pool.allocate(), None);
        let prefixes: Vec<_> = (0..3).map(|i| tree.extend(None, 0, 9, &[i])).collect();
        for (&id, prefix) in ids.iter().zip(&prefixes) {
            pool.register(id, prefix);
        }
        // Freed in the order 1, 2, 0; block 2 is then taken back by its content.
        [1, 2, 0].iter().for_each(|&i| pool.release(ids[i]));
        assert_eq!(pool.n_free(), 3);
        assert_eq!(pool.lookup(&prefixes[2]), Some(ids[2]));
        pool.retain(ids[2]);
        assert_eq!(pool.allocate(), Some(ids[1]));
        assert_eq!(pool.lookup(&prefixes[1]), None);
        assert_eq!(pool.allocate(), Some(ids[0]));
        assert_eq!(pool.allocate(), None);
        // A block without known content goes before those with it.
        pool.release(ids[2]);
        pool.release(ids[0]);
        assert_eq!(pool.allocate(), Some(ids[0]));
    }
}
