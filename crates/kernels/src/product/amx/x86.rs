//! The instructions. They have no intrinsics in stable Rust, and the compiler knows nothing of tiles: whatever must stay
//! in them from one instruction to the next is one `asm!` block.

use std::arch::asm;
use std::mem::offset_of;

use super::panel::TileWeights;
use super::rows::{BLOCK_ROWS, LINE, TILE_BYTES, TileBlocks};
use crate::ROW_GROUP;

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of each tile's rows.
    line_bytes: [u16; 16],
    /// Number of each tile's rows.
    n_rows: [u8; 16],
}

/// Eight whole tiles. Rows that are missing from the last block are computed too, from whatever is there, and not kept:
/// the few steps that have them wait for the weights to be unpacked.
static WHOLE_TILES: TileConfig = {
    let (mut line_bytes, mut n_rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        (line_bytes[tile], n_rows[tile]) = (LINE as u16, BLOCK_ROWS as u8);
        tile += 1;
    }
    TileConfig { palette: 1, start_row: 0, reserved: [0; 14], line_bytes, n_rows }
};

/// Where sums start from and where they go, of up to two blocks of rows and of two groups.
#[repr(C)]
struct Sums {
    /// 16 values for each group.
    start: [*const f32; 2],
    /// The first row of each block, in each group.
    to: [[*mut f32; 2]; 2],
    /// Bytes from one row to the next, in each block.
    stride: [usize; 2],
}

/// Groups that pass while a pair of blocks stays: their weights come from the L2 cache for all pairs but the first.
const GROUPS_AT_ONCE: usize = 4;

/// # Safety
/// As [`super::multiply_tiles`], which has checked the arguments; the machine has AMX-BF16.
pub(super) unsafe fn multiply(
    weights: &TileWeights<'_>,
    rows: &TileBlocks<'_>,
    bias: Option<&[f32]>,
    out: *mut f32,
    stride: usize,
) {
    if rows.n_rows == 0 || weights.groups.is_empty() {
        return;
    }
    let (n_blocks, n_groups) = (rows.n_rows.div_ceil(BLOCK_ROWS), weights.groups.len());
    let product = Product { weights, rows, bias, out, stride };
    // SAFETY: a valid configuration.
    unsafe { configure(&WHOLE_TILES) };
    for from in (0..n_groups).step_by(GROUPS_AT_ONCE) {
        for block in (0..n_blocks).step_by(2) {
            for group in (from..n_groups.min(from + GROUPS_AT_ONCE)).step_by(2) {
                // What has no partner is its own: twice computed, twice stored.
                let blocks = [block, (block + 1).min(n_blocks - 1)];
                let groups = [group, (group + 1).min(n_groups - 1)];
                // SAFETY: tiles are configured, and the rest is the caller's promise.
                unsafe { product.blocks_and_groups(blocks, groups) };
            }
        }
    }
    // SAFETY: it only forgets the tiles.
    unsafe { release() };
}

/// The arguments of [`multiply`].
struct Product<'a> {
    weights: &'a TileWeights<'a>,
    rows: &'a TileBlocks<'a>,
    bias: Option<&'a [f32]>,
    out: *mut f32,
    stride: usize,
}

impl Product<'_> {
    /// Two blocks of rows times two groups, counted from the first of each.
    ///
    /// # Safety
    /// Whole tiles are configured; as of [`multiply`].
    unsafe fn blocks_and_groups(&self, blocks: [usize; 2], groups: [usize; 2]) {
        static ZEROS: [f32; ROW_GROUP] = [0.0; ROW_GROUP];
        let Self { weights, rows, bias, out, stride } = *self;
        let outputs = groups.map(|group| (weights.groups.start + group) * ROW_GROUP);
        let place = |block: usize, output: usize| out.wrapping_add(block * BLOCK_ROWS * stride + output);
        let mut short = ShortBlock([[[0.0; ROW_GROUP]; BLOCK_ROWS]; 2]);
        let short_at = short.0.each_mut().map(|sums| sums.as_mut_ptr().cast::<f32>());
        let is_short = |block: usize| (block + 1) * BLOCK_ROWS > rows.n_rows;
        let sums = Sums {
            start: outputs.map(|output| bias.map_or(ZEROS.as_ptr(), |bias| bias[output..].as_ptr())),
            to: blocks.map(|b| if is_short(b) { short_at } else { outputs.map(|output| place(b, output)) }),
            stride: blocks.map(|block| if is_short(block) { LINE } else { stride * size_of::<f32>() }),
        };
        let block_bytes = rows.n_tiles * TILE_BYTES;
        let a = blocks.map(|block| rows.values[block * block_bytes..].as_ptr());
        let b = groups.map(|group| weights.tiles[group * block_bytes..].as_ptr());
        // SAFETY: tiles are configured; blocks and groups are `n_tiles` tiles each, and sums go to whole blocks of the
        // caller's rows or to the short block.
        unsafe {
            if blocks[0] == blocks[1] {
                one_block(a[0], b, rows.n_tiles, &sums);
            } else {
                two_blocks(a, b, rows.n_tiles, &sums);
            }
        }
        let last = blocks[1];
        if is_short(last) {
            for (sums, output) in short.0.iter().zip(outputs) {
                for (r, sums) in sums.iter().enumerate().take(rows.n_rows - last * BLOCK_ROWS) {
                    let to = place(last, output).wrapping_add(r * stride);
                    // SAFETY: 16 of the elements that the caller has promised.
                    unsafe { to.copy_from_nonoverlapping(sums.as_ptr(), ROW_GROUP) };
                }
            }
        }
    }
}

/// The sums of a block that is not whole, `[group][row][lane]`.
#[repr(C, align(64))]
struct ShortBlock([[[f32; ROW_GROUP]; BLOCK_ROWS]; 2]);

/// # Safety
/// The machine has AMX, and the configuration is valid.
unsafe fn configure(config: &TileConfig) {
    // SAFETY: the caller's promise; 64 bytes are read.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            config = in(reg) config,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Without it every switch of threads would save eight tiles.
///
/// # Safety
/// The machine has AMX.
unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilerelease",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags, nomem),
        );
    }
}

/// 2 blocks x 2 groups: of eight tiles four are sums, and each tile that is loaded is multiplied twice.
///
/// # Safety
/// Whole tiles are configured. `a` are two blocks and `b` two groups of `n_tiles` (not 0) tiles; `sums` has 16 values to
/// start from for each group, and places for 16 rows of 16 sums, the caller's alone.
unsafe fn two_blocks(a: [*const u8; 2], b: [*const u8; 2], n_tiles: usize, sums: &Sums) {
    // SAFETY: the caller's promises.
    unsafe {
        asm!(
            // A stride of 0: the same 16 values in every row.
            "xor {stride:e}, {stride:e}",
            "mov {at}, [{sums} + {START}]",
            "tileloadd tmm0, [{at} + {stride}]",
            "tileloadd tmm2, [{at} + {stride}]",
            "mov {at}, [{sums} + {START} + 8]",
            "tileloadd tmm1, [{at} + {stride}]",
            "tileloadd tmm3, [{at} + {stride}]",
            "mov {stride:e}, {LINE}",
            "2:",
            "tileloadd tmm4, [{a0} + {stride}]",
            "tileloadd tmm6, [{b0} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {stride}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, {TILE}",
            "add {a1}, {TILE}",
            "add {b0}, {TILE}",
            "add {b1}, {TILE}",
            "dec {n}",
            "jnz 2b",
            "mov {stride}, [{sums} + {STRIDE}]",
            "mov {at}, [{sums} + {TO}]",
            "tilestored [{at} + {stride}], tmm0",
            "mov {at}, [{sums} + {TO} + 8]",
            "tilestored [{at} + {stride}], tmm1",
            "mov {stride}, [{sums} + {STRIDE} + 8]",
            "mov {at}, [{sums} + {TO} + 16]",
            "tilestored [{at} + {stride}], tmm2",
            "mov {at}, [{sums} + {TO} + 24]",
            "tilestored [{at} + {stride}], tmm3",
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            b0 = inout(reg) b[0] => _,
            b1 = inout(reg) b[1] => _,
            n = inout(reg) n_tiles => _,
            sums = in(reg) sums,
            stride = out(reg) _,
            at = out(reg) _,
            LINE = const LINE,
            TILE = const TILE_BYTES,
            START = const offset_of!(Sums, start),
            TO = const offset_of!(Sums, to),
            STRIDE = const offset_of!(Sums, stride),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// 1 block x 2 groups.
///
/// # Safety
/// As of [`two_blocks`], for the first block.
unsafe fn one_block(a: *const u8, b: [*const u8; 2], n_tiles: usize, sums: &Sums) {
    // SAFETY: the caller's promises.
    unsafe {
        asm!(
            "xor {stride:e}, {stride:e}",
            "mov {at}, [{sums} + {START}]",
            "tileloadd tmm0, [{at} + {stride}]",
            "mov {at}, [{sums} + {START} + 8]",
            "tileloadd tmm1, [{at} + {stride}]",
            "mov {stride:e}, {LINE}",
            "2:",
            "tileloadd tmm4, [{a} + {stride}]",
            "tileloadd tmm6, [{b0} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {a}, {TILE}",
            "add {b0}, {TILE}",
            "add {b1}, {TILE}",
            "dec {n}",
            "jnz 2b",
            "mov {stride}, [{sums} + {STRIDE}]",
            "mov {at}, [{sums} + {TO}]",
            "tilestored [{at} + {stride}], tmm0",
            "mov {at}, [{sums} + {TO} + 8]",
            "tilestored [{at} + {stride}], tmm1",
            a = inout(reg) a => _,
            b0 = inout(reg) b[0] => _,
            b1 = inout(reg) b[1] => _,
            n = inout(reg) n_tiles => _,
            sums = in(reg) sums,
            stride = out(reg) _,
            at = out(reg) _,
            LINE = const LINE,
            TILE = const TILE_BYTES,
            START = const offset_of!(Sums, start),
            TO = const offset_of!(Sums, to),
            STRIDE = const offset_of!(Sums, stride),
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
