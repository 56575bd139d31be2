//! KV memory in integers: which blocks each sequence holds in each cache group, and which may be reused.
//!
//! Nothing here is shared between threads: pools live on the engine thread, behind `Rc`, so that a sequence's holding
//! can give its blocks back wherever it is dropped.

mod pool;
mod prefix;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use pool::BlockPool;
pub(crate) use prefix::Prefix;
use prefix::PrefixTree;

use crate::{BlockId, CacheKind, RunnerSpec, TokenId};

/// Stands in block tables where a window group has no block any more because no later token can see it, so that a
/// table's index stays position / block size. A valid id; what it holds must not be read.
pub const OUT_OF_SIGHT: BlockId = 0;

/// The blocks of all cache groups of one runner.
#[derive(Debug)]
pub(crate) struct KvBlocks {
    block_size: usize,
    /// Longest chunk of a prompt in blocks, at least 1: a window group must hold its window and one chunk.
    chunk_blocks: usize,
    groups: Vec<Group>,
    /// `None` where prefixes are not reused: switched off, or a group of the runner keeps a state.
    prefixes: Option<PrefixTree>,
}

#[derive(Debug)]
struct Group {
    kind: CacheKind,
    pool: Rc<RefCell<BlockPool>>,
}

/// What one sequence holds: a block table per group. Dropping it gives every block back.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    pool: Rc<RefCell<BlockPool>>,
    ids: Vec<BlockId>,
    /// The first entries are placeholders, their blocks given back (or never taken).
    n_out_of_sight: usize,
    /// The table as plans carry it, kept until it changes.
    snapshot: Option<Arc<[BlockId]>>,
}

/// Cached blocks that a new sequence can start on.
#[derive(Debug, Default)]
pub(crate) struct Hit {
    /// Positions that need not be computed, a multiple of the block size.
    pub(crate) n_tokens: usize,
    /// Per group: number of leading placeholders, and the blocks after them.
    tables: Vec<(usize, Vec<BlockId>)>,
}

impl KvBlocks {
    /// Pools as large as the spec says. `chunk_tokens` is the longest chunk wanted; see [`KvBlocks::chunk_tokens`].
    pub(crate) fn new(spec: &RunnerSpec, chunk_tokens: usize, prefix_cache: bool) -> Self {
        let block_size = spec.block_size.max(1);
        let mut chunk_blocks = (chunk_tokens / block_size).max(1);
        for group in &spec.groups {
            if let CacheKind::Window(w) = group.kind {
                let beside_window = group.n_blocks.saturating_sub(window_blocks(w, block_size));
                chunk_blocks = chunk_blocks.min(beside_window.max(1));
            }
        }
        let has_state = spec.groups.iter().any(|g| g.kind == CacheKind::State);
        let group =
            |g: &crate::CacheGroup| Group { kind: g.kind, pool: Rc::new(RefCell::new(BlockPool::new(g.n_blocks))) };
        Self {
            block_size,
            chunk_blocks,
            groups: spec.groups.iter().map(group).collect(),
            prefixes: (prefix_cache && !has_state).then(PrefixTree::default),
        }
    }

    /// Positions between two chunk borders, a multiple of the block size.
    pub(crate) fn chunk_tokens(&self) -> usize {
        self.chunk_blocks * self.block_size
    }

    /// The longest chunk that may begin anywhere, at least 1: what a window group holds for a chunk between two borders
    /// is one block less elsewhere.
    pub(crate) fn longest_run(&self) -> usize {
        let windowed = self.groups.iter().any(|group| matches!(group.kind, CacheKind::Window(_)));
        if windowed { (self.chunk_blocks - 1) * self.block_size + 1 } else { self.chunk_tokens() }
    }

    /// Number of all blocks and of those nobody refers to, over all groups.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.groups.iter().fold((0, 0), |(total, free), group| {
            let pool = group.pool.borrow();
            (total + pool.len(), free + pool.n_free())
        })
    }

    /// Extends `chain` to the prefixes of the first `n_blocks` full blocks of `tokens`, of which the first `n_prompt` are
    /// computed as a prompt's. Does nothing where prefixes are not reused.
    pub(crate) fn extend_chain(
        &mut self,
        chain: &mut Vec<Rc<Prefix>>,
        n_blocks: usize,
        salt: u64,
        n_prompt: usize,
        tokens: &[TokenId],
    ) {
        let Some(tree) = &mut self.prefixes else { return };
        for block in tokens.chunks_exact(self.block_size).take(n_blocks).skip(chain.len()) {
            let start = chain.len() * self.block_size;
            chain.push(tree.extend(chain.last(), salt, n_prompt.saturating_sub(start), block));
        }
    }

    /// The longest start of a sequence that every group can serve from its cached blocks.
    pub(crate) fn find(&self, chain: &[Rc<Prefix>]) -> Hit {
        let mut limit = if self.prefixes.is_some() { chain.len() } else { 0 };
        let mut cached: Vec<Vec<Option<BlockId>>> = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let pool = group.pool.borrow();
            let mut blocks: Vec<_> = chain[..limit].iter().map(|prefix| pool.lookup(prefix)).collect();
            if group.kind == CacheKind::Full {
                limit = blocks.iter().position(Option::is_none).unwrap_or(limit);
                blocks.truncate(limit);
            }
            cached.push(blocks);
        }
        while limit > 0 && !self.groups.iter().zip(&cached).all(|(g, blocks)| self.serves(g.kind, blocks, limit)) {
            limit -= 1;
        }
        if limit == 0 {
            return Hit::default();
        }
        let n_tokens = limit * self.block_size;
        let tables = self.groups.iter().zip(&cached).map(|(group, blocks)| {
            let first = first_visible_block(group.kind, n_tokens, self.block_size);
            (first, blocks[first..limit].iter().flatten().copied().collect())
        });
        Hit { n_tokens, tables: tables.collect() }
    }

    /// Whether a sequence could go on behind `n_blocks` blocks: all that its next token sees are there.
    fn serves(&self, kind: CacheKind, cached: &[Option<BlockId>], n_blocks: usize) -> bool {
        let first = first_visible_block(kind, n_blocks * self.block_size, self.block_size);
        cached.get(first..n_blocks).is_some_and(|blocks| blocks.iter().all(Option::is_some))
    }

    /// Takes the blocks of a hit. It must have been found since blocks were last allocated.
    pub(crate) fn acquire(&self, hit: &Hit) -> Holding {
        let tables = self.groups.iter().enumerate().map(|(g, group)| {
            let (n_out_of_sight, blocks) = hit.tables.get(g).map_or((0, [].as_slice()), |(n, b)| (*n, b));
            let mut pool = group.pool.borrow_mut();
            blocks.iter().for_each(|&id| pool.retain(id));
            let mut ids = vec![OUT_OF_SIGHT; n_out_of_sight];
            ids.extend_from_slice(blocks);
            Table { pool: group.pool.clone(), ids, n_out_of_sight, snapshot: None }
        });
        Holding { tables: tables.collect() }
    }

    /// Whether [`KvBlocks::extend`] to `end` positions would find its blocks.
    pub(crate) fn has_room(&self, holding: &Holding, end: usize) -> bool {
        self.groups.iter().enumerate().all(|(g, group)| {
            let held = holding.tables.get(g).map_or(0, |table| table.ids.len());
            self.table_len(group.kind, end).saturating_sub(held) <= group.pool.borrow().n_free()
        })
    }

    /// Whether a sequence of `n_tokens` known tokens, starting on `holding` and `hit`, can be computed to its end
    /// beside the sequences `others` (each with its number of known tokens) without taking blocks from them.
    pub(crate) fn can_admit<'a>(
        &self,
        holding: &Holding,
        hit: &Hit,
        n_tokens: usize,
        others: impl Iterator<Item = (&'a Holding, usize)> + Clone,
    ) -> bool {
        self.groups.iter().enumerate().all(|(g, group)| {
            let pool = group.pool.borrow();
            let missing = |holding: &Holding, n_tokens| {
                let held = holding.tables.get(g).map_or(0, |t| t.ids.len() - t.n_out_of_sight);
                self.peak_blocks(group.kind, n_tokens).saturating_sub(held)
            };
            let hit_blocks = hit.tables.get(g).map_or([].as_slice(), |(_, blocks)| blocks);
            // Blocks of the hit that lie in the free list are found, but leave the free list as well.
            let revived = hit_blocks.iter().filter(|&&id| pool.is_free(id)).count();
            let mine = missing(holding, n_tokens).saturating_sub(hit_blocks.len()) + revived;
            let theirs: usize = others.clone().map(|(holding, n_tokens)| missing(holding, n_tokens)).sum();
            mine + theirs <= pool.n_free()
        })
    }

    /// Lengthens the tables to cover `end` positions. False if blocks ran out (never after [`KvBlocks::has_room`]);
    /// what was taken so far stays in the holding.
    pub(crate) fn extend(&self, holding: &mut Holding, end: usize) -> bool {
        if holding.tables.is_empty() {
            *holding = self.acquire(&Hit::default());
        }
        self.groups.iter().zip(&mut holding.tables).all(|(group, table)| {
            let missing = self.table_len(group.kind, end).saturating_sub(table.ids.len());
            let mut pool = group.pool.borrow_mut();
            (0..missing).all(|_| {
                let block = pool.allocate();
                table.snapshot = None;
                table.ids.extend(block);
                block.is_some()
            })
        })
    }

    /// Shortens the tables to what `end` positions need, after a draft that was not right: nobody knows of the blocks
    /// behind.
    pub(crate) fn trim(&self, holding: &mut Holding, end: usize) {
        for (group, table) in self.groups.iter().zip(&mut holding.tables) {
            let n_kept = self.table_len(group.kind, end).max(table.n_out_of_sight);
            if n_kept < table.ids.len() {
                let mut pool = table.pool.borrow_mut();
                table.ids.drain(n_kept..).rev().for_each(|id| pool.release(id));
                table.snapshot = None;
            }
        }
    }

    /// Makes the blocks from `first` on, as far as `chain` goes, known by their content. Only for blocks whose step
    /// succeeded.
    pub(crate) fn register(&self, holding: &Holding, chain: &[Rc<Prefix>], first: usize) {
        for table in &holding.tables {
            let mut pool = table.pool.borrow_mut();
            let first = first.max(table.n_out_of_sight);
            for (&id, prefix) in table.ids.iter().zip(chain).skip(first) {
                pool.register(id, prefix);
            }
        }
    }

    /// Gives back the blocks that no token from position `next` on can see.
    pub(crate) fn release_out_of_sight(&self, holding: &mut Holding, next: usize) {
        for (group, table) in self.groups.iter().zip(&mut holding.tables) {
            let first = first_visible_block(group.kind, next, self.block_size).min(table.ids.len());
            if first > table.n_out_of_sight {
                let mut pool = table.pool.borrow_mut();
                for id in &mut table.ids[table.n_out_of_sight..first] {
                    pool.release(std::mem::replace(id, OUT_OF_SIGHT));
                }
                table.n_out_of_sight = first;
                table.snapshot = None;
            }
        }
    }

    fn table_len(&self, kind: CacheKind, n_positions: usize) -> usize {
        match kind {
            CacheKind::Full | CacheKind::Window(_) => n_positions.div_ceil(self.block_size),
            CacheKind::State => 1,
        }
    }

    /// The most blocks that a sequence of `n_tokens` holds at once.
    fn peak_blocks(&self, kind: CacheKind, n_tokens: usize) -> usize {
        let all = self.table_len(kind, n_tokens);
        match kind {
            CacheKind::Full | CacheKind::State => all,
            CacheKind::Window(w) => all.min(window_blocks(w, self.block_size) + self.chunk_blocks),
        }
    }
}

impl Holding {
    /// Whether dropping it would free memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.ids.len() == table.n_out_of_sight)
    }

    /// The tables as a plan carries them.
    pub(crate) fn snapshots(&mut self) -> Vec<Arc<[BlockId]>> {
        self.tables.iter_mut().map(|t| t.snapshot.get_or_insert_with(|| t.ids.as_slice().into()).clone()).collect()
    }
}

impl Drop for Table {
    /// Last block first: the start of a prompt is worth more than its end, so it should be reused for other content
    /// last.
    fn drop(&mut self) {
        let mut pool = self.pool.borrow_mut();
        self.ids.drain(self.n_out_of_sight..).rev().for_each(|id| pool.release(id));
    }
}

/// The longest sequence whose blocks fit the runner's memory when it runs alone, in tokens.
pub(crate) fn longest_context(spec: &RunnerSpec) -> usize {
    let block_size = spec.block_size.max(1);
    let reach = spec.groups.iter().map(|group| match group.kind {
        CacheKind::Window(w) if group.n_blocks > window_blocks(w, block_size) => usize::MAX,
        CacheKind::Full | CacheKind::Window(_) => group.n_blocks.saturating_mul(block_size),
        CacheKind::State if group.n_blocks > 0 => usize::MAX,
        CacheKind::State => 0,
    });
    reach.fold(spec.max_context, usize::min)
}

/// Blocks that hold what a token at the start of a block sees before that block: `w - 1` positions.
fn window_blocks(w: usize, block_size: usize) -> usize {
    w.saturating_sub(1).div_ceil(block_size)
}

/// The first block that the token at position `next`, or any later one, sees.
fn first_visible_block(kind: CacheKind, next: usize, block_size: usize) -> usize {
    match kind {
        CacheKind::Full | CacheKind::State => 0,
        CacheKind::Window(w) => (next + 1).saturating_sub(w.max(1)) / block_size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CacheGroup;

    fn blocks(groups: &[(CacheKind, usize)]) -> KvBlocks {
        let groups = groups.iter().map(|&(kind, n_blocks)| CacheGroup { kind, n_blocks }).collect();
        KvBlocks::new(&RunnerSpec { vocab_size: 9, block_size: 4, max_context: 99, groups }, 8, true)
    }

    /// Runs a sequence of `tokens` as one step and gives its holding back.
    fn fill(kv: &mut KvBlocks, tokens: &[TokenId]) -> Vec<Rc<Prefix>> {
        let mut chain = Vec::new();
        kv.extend_chain(&mut chain, tokens.len() / 4, 0, usize::MAX, tokens);
        let mut holding = Holding::default();
        assert!(kv.has_room(&holding, tokens.len()));
        assert!(kv.extend(&mut holding, tokens.len()));
        kv.register(&holding, &chain, 0);
        chain
    }

    #[test]
    fn a_hit_is_what_every_group_can_serve() {
        let mut kv = blocks(&[(CacheKind::Full, 8), (CacheKind::Window(6), 8)]);
        let tokens: Vec<u32> = (0..16).collect();
        let chain = fill(&mut kv, &tokens);
        assert_eq!(kv.find(&chain).n_tokens, 16);
        // Token 16 sees positions 11..: blocks 2 and 3 of the window group, the first two are placeholders.
        assert_eq!(kv.find(&chain).tables[1].0, 2);
        // Without block 3 of the window group only three blocks are served, without block 2 neither three nor four.
        let take = |kv: &KvBlocks, n| (0..n).for_each(|_| assert!(kv.groups[1].pool.borrow_mut().allocate().is_some()));
        take(&kv, 4 + 1);
        assert_eq!(kv.find(&chain).n_tokens, 12);
        take(&kv, 1);
        assert_eq!(kv.find(&chain).n_tokens, 8);
        take(&kv, 2);
        assert_eq!(kv.find(&chain).n_tokens, 0);
    }

    #[test]
    fn a_window_gives_back_what_nobody_sees() {
        let kv = blocks(&[(CacheKind::Window(6), 4)]);
        let mut holding = Holding::default();
        assert!(kv.extend(&mut holding, 12));
        // The token at 8 sees 3..=8, so block 0 stays; the token at 9 sees 4..=9.
        kv.release_out_of_sight(&mut holding, 8);
        assert_eq!(kv.counts(), (4, 1));
        kv.release_out_of_sight(&mut holding, 9);
        assert_eq!(kv.counts(), (4, 2));
        assert_eq!(holding.snapshots()[0].len(), 3);
        drop(holding);
        assert_eq!(kv.counts(), (4, 4));
    }

    #[test]
    fn trimming_gives_back_what_lies_behind() {
        let kv = blocks(&[(CacheKind::Full, 8), (CacheKind::Window(6), 8), (CacheKind::State, 1)]);
        let mut holding = Holding::default();
        assert!(kv.extend(&mut holding, 15));
        kv.release_out_of_sight(&mut holding, 9);
        assert_eq!(kv.counts(), (17, 17 - 4 - 3 - 1));
        assert_eq!(holding.snapshots().iter().map(|table| table.len()).collect::<Vec<_>>(), [4, 4, 1]);
        kv.trim(&mut holding, 13);
        assert_eq!(kv.counts(), (17, 9));
        kv.trim(&mut holding, 12);
        assert_eq!(kv.counts(), (17, 11));
        assert_eq!(holding.snapshots().iter().map(|table| table.len()).collect::<Vec<_>>(), [3, 3, 1]);
        assert!(kv.extend(&mut holding, 13));
        drop(holding);
        assert_eq!(kv.counts(), (17, 17));
    }

    #[test]
    fn longest_context_follows_from_memory() {
        let spec = |kind, n_blocks| RunnerSpec {
            vocab_size: 9,
            block_size: 4,
            max_context: 99,
            groups: vec![CacheGroup { kind, n_blocks }],
        };
        assert_eq!(longest_context(&spec(CacheKind::Full, 8)), 32);
        assert_eq!(longest_context(&spec(CacheKind::Full, 80)), 99);
        // A window of 6 sees 5 positions before a block, which lie in 2 blocks.
        assert_eq!(longest_context(&spec(CacheKind::Window(6), 3)), 99);
        assert_eq!(longest_context(&spec(CacheKind::Window(6), 2)), 8);
        assert_eq!(longest_context(&spec(CacheKind::State, 0)), 0);
    }
}
