//! A product that is computed before the level is believed: these kernels were written without such a processor, and a
//! machine on which they gave other bits than they are defined to give must not use them.

use super::panel::TileWeights;
use super::rows::TileRows;
use super::{portable, x86};
use crate::{Format, Level, Matrix, ROW_GROUP};

/// Three groups, and blocks of which the last is not whole.
const OUTPUTS: usize = 3 * ROW_GROUP;
const ROWS: usize = 37;
const WIDTH: usize = 96;

/// Does a product with AMX equal the definition to the bit?
///
/// # Safety
/// The machine has AMX-BF16.
pub(super) unsafe fn is_right() -> bool {
    let weights: Vec<u8> =
        (0..OUTPUTS * WIDTH).flat_map(|i| (bits(i, 5) >> 16).to_le_bytes().into_iter().take(2)).collect();
    let x: Vec<f32> = (0..ROWS * WIDTH).map(|i| f32::from_bits(bits(i, 11))).collect();
    let bias: Vec<f32> = (0..OUTPUTS).map(|i| f32::from_bits(bits(i, 17))).collect();
    let row = |row: usize| &weights[row * 2 * WIDTH..][..2 * WIDTH];
    let Ok(matrix) = Matrix::pack(Format::BF16, OUTPUTS, WIDTH, 1, &row) else { return false };
    let weights = TileWeights::stored(&matrix, 0..matrix.n_groups());
    let mut rows = TileRows::with_capacity(ROWS, WIDTH);
    rows.round(Level::Scalar, &x, WIDTH, ROWS, WIDTH);
    let mut outs = [const { [0f32; ROWS * OUTPUTS] }; 2];
    let [defined, computed] = &mut outs;
    // SAFETY: the outputs hold all rows, the bias has a value for each, and the machine has AMX.
    unsafe {
        portable::multiply(&weights, &rows.blocks(), Some(&bias), defined.as_mut_ptr(), OUTPUTS);
        x86::multiply(&weights, &rows.blocks(), Some(&bias), computed.as_mut_ptr(), OUTPUTS);
    }
    defined.iter().zip(computed).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The bits of a number of either sign around 1; every seventh is subnormal, or its products are.
fn bits(i: usize, seed: u32) -> u32 {
    let mixed = (i as u32 + seed).wrapping_mul(0x9E37_79B9);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85EB_CA6B);
    let mixed = mixed ^ mixed >> 13;
    let exponent = if i.is_multiple_of(7) { mixed >> 8 & 0x3f } else { 122 + (mixed >> 8 & 7) };
    mixed & 0x807f_ffff | exponent << 23
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_is_passed_under_emulation() {
        match crate::amx_emulation::install() {
            // SAFETY: what the machine lacks is emulated.
            Ok(()) => assert!(unsafe { is_right() }),
            Err(why) => println!("left out: {why}"),
        }
    }
}
