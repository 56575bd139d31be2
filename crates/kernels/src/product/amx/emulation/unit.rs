//! The tiles of one thread and what instructions do to them.

use std::arch::asm;
use std::arch::x86_64::*;

/// What a processor would answer with an exception.
pub(super) type Fault = &'static str;

const TILES: usize = 8;
const MAX_ROWS: usize = 16;
const MAX_LINE: usize = 64;

/// The tiles, and their shapes once they are configured.
#[derive(Debug)]
pub(super) struct Unit {
    shapes: Option<[Shape; TILES]>,
    tiles: [Tile; TILES],
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    n_rows: usize,
    line_bytes: usize,
}

/// `[row][dword]`; what is beyond its shape is zero.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Tile([[u32; MAX_LINE / 4]; MAX_ROWS]);

impl Unit {
    pub(super) const fn new() -> Self {
        Self { shapes: None, tiles: [Tile([[0; MAX_LINE / 4]; MAX_ROWS]); TILES] }
    }

    /// From the 64 bytes of `ldtilecfg`.
    pub(super) fn configure(&mut self, bytes: &[u8; 64]) -> Result<(), Fault> {
        if bytes[0] != 1 {
            return Err("a palette other than 1");
        }
        if bytes[1] != 0 {
            return Err("a start row, which no kernel asks for");
        }
        if bytes[2..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]).any(|&byte| byte != 0) {
            return Err("reserved bytes of the configuration are set");
        }
        let shapes = std::array::from_fn(|tile| Shape {
            n_rows: usize::from(bytes[48 + tile]),
            line_bytes: usize::from(u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]])),
        });
        for Shape { n_rows, line_bytes } in shapes {
            if n_rows > MAX_ROWS || line_bytes > MAX_LINE || (n_rows == 0) != (line_bytes == 0) {
                return Err("a tile of an impossible shape");
            }
        }
        *self = Self { shapes: Some(shapes), ..Self::new() };
        Ok(())
    }

    pub(super) fn release(&mut self) {
        *self = Self::new();
    }

    /// # Safety
    /// The rows of the tile's shape are there.
    pub(super) unsafe fn load(&mut self, tile: usize, start: *const u8, stride: isize) -> Result<(), Fault> {
        let Shape { n_rows, line_bytes } = self.shape(tile)?;
        let tile = &mut self.tiles[tile];
        *tile = Tile([[0; MAX_LINE / 4]; MAX_ROWS]);
        for (row, line) in tile.0.iter_mut().enumerate().take(n_rows) {
            // SAFETY: the caller's promise; a line has room for as much.
            unsafe {
                let from = start.wrapping_offset(row as isize * stride);
                line.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from, line_bytes);
            }
        }
        Ok(())
    }

    /// # Safety
    /// The rows of the tile's shape may be written.
    pub(super) unsafe fn store(&self, tile: usize, start: *mut u8, stride: isize) -> Result<(), Fault> {
        let Shape { n_rows, line_bytes } = self.shape(tile)?;
        for (row, line) in self.tiles[tile].0.iter().enumerate().take(n_rows) {
            // SAFETY: the caller's promise; a line has as much.
            unsafe {
                let to = start.wrapping_offset(row as isize * stride);
                to.copy_from_nonoverlapping(line.as_ptr().cast(), line_bytes);
            }
        }
        Ok(())
    }

    /// `sum += a * b`, pairs of bf16.
    ///
    /// # Safety
    /// The machine has AVX-512.
    pub(super) unsafe fn dot(&mut self, sum: usize, a: usize, b: usize) -> Result<(), Fault> {
        if sum == a || sum == b || a == b {
            return Err("a product of a tile with itself");
        }
        let (sums, rows, columns) = (self.shape(sum)?, self.shape(a)?, self.shape(b)?);
        let shapes_fit = rows.line_bytes == 4 * columns.n_rows
            && sums.n_rows == rows.n_rows
            && sums.line_bytes == columns.line_bytes
            && [sums, rows, columns].iter().all(|shape| shape.line_bytes.is_multiple_of(4));
        if !shapes_fit {
            return Err("a product of tiles that do not fit");
        }
        for row in 0..sums.n_rows {
            let (x, weights) = (self.tiles[a].0[row].as_ptr(), self.tiles[b].0.as_ptr().cast());
            let line = &mut self.tiles[sum].0[row];
            // SAFETY: the machine has AVX-512; lines are whole.
            unsafe { add_products(line, x, weights, columns.n_rows) };
            line[sums.line_bytes / 4..].fill(0);
        }
        Ok(())
    }

    fn shape(&self, tile: usize) -> Result<Shape, Fault> {
        let shapes = self.shapes.as_ref().ok_or("tiles that are not configured")?;
        shapes.get(tile).copied().filter(|shape| shape.n_rows > 0).ok_or("a tile that is not configured")
    }
}

/// Adds to 16 sums the products of `n` (not 0) pairs of `x` with `n` lines of 16 pairs. All is one `asm!`: the compiler
/// takes the flags of floats to be what they always are.
///
/// # Safety
/// `x` are `n` pairs, and `weights` n lines of 64 bytes.
#[target_feature(enable = "avx512f")]
unsafe fn add_products(sums: &mut [u32; 16], x: *const u32, weights: *const u32, n: usize) {
    /// Rounding to the nearest, no exceptions; subnormal operands and results are zeros.
    static FLAGS: u32 = 0x9fc0;
    let mut before = 0u32;
    // SAFETY: the caller's promise; the flags are restored.
    unsafe {
        let mut sum = _mm512_loadu_si512(sums.as_ptr().cast());
        asm!(
            "stmxcsr [{before}]",
            "ldmxcsr [{flags}]",
            "2:",
            "vpbroadcastd {x_odd}, dword ptr [{x}]",
            "vmovdqu32 {w_odd}, zmmword ptr [{w}]",
            "vpslld {x_even}, {x_odd}, 16",
            "vpslld {w_even}, {w_odd}, 16",
            "vpandd {x_odd}, {x_odd}, {high}",
            "vpandd {w_odd}, {w_odd}, {high}",
            "vfmadd231ps {even}, {x_even}, {w_even}",
            "vfmadd231ps {odd}, {x_odd}, {w_odd}",
            "add {x}, 4",
            "add {w}, 64",
            "dec {n}",
            "jnz 2b",
            "vaddps {even}, {even}, {odd}",
            "vaddps {sum}, {sum}, {even}",
            "ldmxcsr [{before}]",
            before = in(reg) &raw mut before,
            flags = in(reg) &raw const FLAGS,
            x = inout(reg) x => _,
            w = inout(reg) weights => _,
            n = inout(reg) n => _,
            high = in(zmm_reg) _mm512_set1_epi32(0xffff_0000_u32.cast_signed()),
            even = inout(zmm_reg) _mm512_setzero_si512() => _,
            odd = inout(zmm_reg) _mm512_setzero_si512() => _,
            sum = inout(zmm_reg) sum,
            x_even = out(zmm_reg) _,
            x_odd = out(zmm_reg) _,
            w_even = out(zmm_reg) _,
            w_odd = out(zmm_reg) _,
            options(nostack),
        );
        _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(shapes: &[(u8, u16)]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for (tile, (n_rows, line_bytes)) in shapes.iter().enumerate() {
            bytes[48 + tile] = *n_rows;
            bytes[16 + 2 * tile..18 + 2 * tile].copy_from_slice(&line_bytes.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn what_a_processor_refuses_is_refused() {
        let mut unit = Unit::new();
        // SAFETY: nothing is computed.
        assert!(unsafe { unit.dot(0, 1, 2) }.is_err());
        let mut reserved = config(&[(16, 64)]);
        reserved[60] = 1;
        for bytes in [[0; 64], config(&[(17, 64)]), config(&[(16, 65)]), config(&[(0, 4)]), reserved] {
            assert!(unit.configure(&bytes).is_err());
        }
        unit.configure(&config(&[(16, 64), (16, 64), (15, 64)])).unwrap();
        let mut line = [0u8; 64];
        // SAFETY: nothing is computed, read or written: shapes do not fit, or the tile has none.
        unsafe {
            for (sum, a, b) in [(0, 1, 2), (0, 1, 1), (1, 1, 0), (0, 1, 3)] {
                assert!(unit.dot(sum, a, b).is_err());
            }
            assert!(unit.load(5, line.as_ptr(), 0).is_err());
            assert!(unit.store(5, line.as_mut_ptr(), 0).is_err());
            unit.release();
            assert!(unit.load(0, line.as_ptr(), 0).is_err());
        }
    }

    /// A tile of 2 rows x 4 inputs times one of 4 inputs x 3 outputs.
    #[test]
    fn a_small_product_by_hand() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        let bf16 = |value: f32| value.to_bits() >> 16;
        let pair = |even: f32, odd: f32| bf16(even) | bf16(odd) << 16;
        let a = [[pair(1.0, 2.0), pair(3.0, 4.0)], [pair(-1.0, 0.5), pair(0.0, 8.0)]];
        let b = [[pair(1.0, 1.0), pair(2.0, 0.0), pair(0.0, 3.0)], [pair(1.0, -1.0), pair(0.0, 2.0), pair(5.0, 0.0)]];
        let mut sums = [[0.5f32; 3]; 2];
        let mut unit = Unit::new();
        unit.configure(&config(&[(2, 12), (2, 8), (2, 12)])).unwrap();
        // SAFETY: arrays of the tiles' shapes; the machine has AVX-512.
        unsafe {
            unit.load(0, sums.as_ptr().cast(), 12).unwrap();
            unit.load(1, a.as_ptr().cast(), 8).unwrap();
            unit.load(2, b.as_ptr().cast(), 12).unwrap();
            unit.dot(0, 1, 2).unwrap();
            unit.store(0, sums.as_mut_ptr().cast(), 12).unwrap();
        }
        assert_eq!(sums, [[2.5, 10.5, 21.5], [-8.0 + 0.0, 14.5, 2.0]]);
    }
}
