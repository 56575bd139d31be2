//! What the encoder computes with in the fast mode: whatever is fastest on this machine. Instruction sets do not tell:
//! bf16 dot products are twice as fast as f32 on some processors that have them and half as fast on others.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tsserve_kernels::attention::{PanelScratch, Panels, Queries, attend_panels};
use tsserve_kernels::{AlignedBytes, Format, Level, Matrix, PackError, has_bf16_dots};

use super::rows::{Products, RowScratch};
use super::weights::Linear;

/// What products of weights with many rows are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32.
    Floats,
    /// Both rounded to bf16, where the machine has dot products of that; otherwise f32.
    Bf16,
    /// Both as 8 bits with a scale for each 32.
    Integers,
}

/// What an encoder computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub products: Arithmetic,
    /// Attention in bf16; otherwise in f32.
    pub bf16_attention: bool,
}

/// How much less time something must take than what is more exact.
const WORTH_IT: f64 = 0.8;
/// How long is measured at most, and how often.
const PATIENCE: Duration = Duration::from_millis(30);
const ROUNDS: usize = 8;

/// A small product, and attention of one head: large enough that only computing counts.
const ROWS: usize = 48;
const WIDTH: usize = 512;
const HEAD_DIM: usize = 64;
const POSITIONS: usize = 512;

impl Choice {
    /// With this arithmetic, or what is fastest at `level` for weights that come in the float format `stored`.
    pub(super) fn new(level: Level, arithmetic: Option<Arithmetic>, stored: Format) -> Self {
        let dots = has_dots(level);
        match arithmetic {
            Some(Arithmetic::Floats) => Self { products: Arithmetic::Floats, bf16_attention: false },
            Some(Arithmetic::Bf16) if dots => Self { products: Arithmetic::Bf16, bf16_attention: true },
            Some(Arithmetic::Bf16) => Self { products: Arithmetic::Floats, bf16_attention: false },
            Some(Arithmetic::Integers) => Self { products: Arithmetic::Integers, ..Self::fastest(level, stored) },
            None => Self::fastest(level, stored),
        }
    }

    /// Measured once in a process, so that all its models answer alike.
    fn fastest(level: Level, stored: Format) -> Self {
        static KNOWN: Mutex<Vec<(Level, Format, Choice)>> = Mutex::new(Vec::new());
        // A list that is whole whatever panicked while holding it.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., choice)) = known.iter().find(|of| (of.0, of.1) == (level, stored)) {
            return *choice;
        }
        // Portable code is for tests. Nothing can be measured only if packing fails, which it does not.
        let floats = Self { products: Arithmetic::Floats, bf16_attention: false };
        let choice = if level == Level::Scalar { floats } else { measure(level, stored).unwrap_or(floats) };
        known.push((level, stored, choice));
        choice
    }
}

/// Has the machine dot products of bf16 that are used at this level?
fn has_dots(level: Level) -> bool {
    matches!(level, Level::Vnni | Level::Amx) && has_bf16_dots()
}

fn measure(level: Level, stored: Format) -> Result<Choice, PackError> {
    let dots = has_dots(level);
    let x: Vec<f32> = (0..ROWS * WIDTH).map(|i| (i * 37 % 255) as f32 / 127.0 - 1.0).collect();
    // Bytes of which every float format makes small numbers.
    let weights: Vec<u8> = (0..4 * WIDTH).map(|i| (i * 31 % 61) as u8).collect();
    let floats = |format: Format| {
        let row = |_| &weights[..format.block().1 * WIDTH];
        Matrix::pack(format, WIDTH, WIDTH, 1, &row)
    };
    let values = |row: usize, out: &mut [f32]| out.copy_from_slice(&x[row % ROWS * WIDTH..][..WIDTH]);
    let integers = Matrix::encode(Format::Q8_0, WIDTH, WIDTH, 1, &values)?;
    let matrices = [floats(stored)?, integers, floats(Format::BF16)?];
    let linears = matrices.map(|matrix| Linear { matrix, bias: vec![0.0; WIDTH] });
    let products = Products { level, dots };
    let (mut out, mut scratch) = (vec![0.0; ROWS * WIDTH], RowScratch::new(level, ROWS * WIDTH, ROWS, WIDTH));
    let [floats, integers, bf16] = times(|i| {
        // SAFETY: `out` holds the rows.
        unsafe { products.multiply(&linears[i], &x, WIDTH, ROWS, out.as_mut_ptr(), WIDTH, &mut scratch) };
    });
    let bf16 = if dots { bf16 } else { f64::INFINITY };
    let products = if integers < WORTH_IT * floats.min(bf16) {
        Arithmetic::Integers
    } else if bf16 < WORTH_IT * floats {
        Arithmetic::Bf16
    } else {
        Arithmetic::Floats
    };
    Ok(Choice { products, bf16_attention: dots && bf16_attends_faster(level, &x, &mut out) })
}

fn bf16_attends_faster(level: Level, q: &[f32], out: &mut [f32]) -> bool {
    let panels = [Format::F32, Format::BF16].map(|format| Panels::new(format, HEAD_DIM, POSITIONS));
    let memory = panels.map(|panels| AlignedBytes::zeroed(panels.bytes()));
    let mut scratch = PanelScratch::new(POSITIONS, HEAD_DIM);
    let [floats, bf16] = times(|i| {
        let queries = Queries { q, stride: WIDTH, n: ROWS, seen: POSITIONS, causal: false, dots: i == 1 };
        // SAFETY: `out` holds the rows.
        unsafe {
            attend_panels(level, &panels[i], &memory[i], &queries, &mut scratch, out.as_mut_ptr(), WIDTH, None);
        }
    });
    bf16 < WORTH_IT * floats
}

/// Seconds that each of `N` ways to do something takes: the best of several, in turns, so that a neighbour on the
/// machine disturbs all alike.
fn times<const N: usize>(mut run: impl FnMut(usize)) -> [f64; N] {
    let (begun, mut best) = (Instant::now(), [f64::INFINITY; N]);
    // The first round touches the memory.
    for round in 0..=ROUNDS {
        for (i, best) in best.iter_mut().enumerate() {
            let started = Instant::now();
            run(i);
            if round > 0 {
                *best = best.min(started.elapsed().as_secs_f64());
            }
        }
        if round > 0 && begun.elapsed() > PATIENCE {
            break;
        }
    }
    best
}
