//! Speed of attention over panels on one thread, by the best of many short runs: `cargo run --release --example panels`.
//! An encoder's (1500 queries of one head) in each format, and a decoder's over an encoder's output, read from memory.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::time::Instant;

use tsserve_kernels::attention::{PanelScratch, Panels, Queries, attend_panels};
use tsserve_kernels::{
    AlignedBytes, Format, Level, Matrix, Start, has_bf16_dots, multiply_bf16_rows, multiply_f32_rows,
};

const POSITIONS: usize = 1500;
const DIM: usize = 64;
/// Enough heads to be read from memory.
const HEADS: usize = 192;

fn main() {
    let level = std::env::var("TSSERVE_CPU").ok().and_then(|name| Level::from_name(&name)).unwrap_or(Level::detect());
    let mut state = 1u32;
    let mut values = |n: usize| -> Vec<f32> {
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        std::iter::repeat_with(next).take(n).collect()
    };
    let (k, v, q) = (values(POSITIONS * DIM), values(POSITIONS * DIM), values(POSITIONS * DIM));
    let mut out = vec![0.0; POSITIONS * DIM];
    let mut scratch = PanelScratch::new(POSITIONS, DIM);
    for (format, dots) in [(Format::BF16, true), (Format::F32, false), (Format::F16, false), (Format::BF16, false)] {
        if dots && !(has_bf16_dots() && matches!(level, Level::Vnni | Level::Amx)) {
            continue;
        }
        let panels = Panels::new(format, DIM, POSITIONS);
        let mut memory = AlignedBytes::zeroed(panels.bytes());
        let write = best(200, || {
            for first in (0..POSITIONS).step_by(96) {
                let n = 96.min(POSITIONS - first);
                let from = first * DIM;
                // SAFETY: the memory is ours.
                unsafe { panels.write(level, memory.as_mut_ptr(), first, n, &k[from..], &v[from..], DIM) };
            }
        });
        let attend = best(60, || {
            let queries = Queries { q: &q, stride: DIM, n: 72, seen: POSITIONS, causal: false, dots };
            // SAFETY: `out` has a row for each query.
            unsafe { attend_panels(level, &panels, &memory, &queries, &mut scratch, out.as_mut_ptr(), DIM, None) };
        });
        let flops = 4.0 * (72 * POSITIONS * DIM) as f64;
        println!(
            "{format} dots={dots}: written in {:.3} ms, 72 queries {:.3} ms, {:.0} GFLOP/s",
            write * 1e3,
            attend * 1e3,
            flops / attend / 1e9
        );
    }
    for format in [Format::F16, Format::F32] {
        let panels = Panels::new(format, DIM, POSITIONS);
        let mut memory = AlignedBytes::zeroed(HEADS * panels.bytes());
        for memory in memory.chunks_exact_mut(panels.bytes()) {
            // SAFETY: the memory is ours.
            unsafe { panels.write(level, memory.as_mut_ptr(), 0, POSITIONS, &k, &v, DIM) };
        }
        let mut head = 0;
        for n in [1, 2, 5, 8] {
            let seconds = best(400, || {
                head = (head + 1) % HEADS;
                let memory = &memory[head * panels.bytes()..][..panels.bytes()];
                let queries = Queries { q: &q, stride: DIM, n, seen: POSITIONS, causal: false, dots: false };
                // SAFETY: as above.
                unsafe { attend_panels(level, &panels, memory, &queries, &mut scratch, out.as_mut_ptr(), DIM, None) };
            });
            println!("{format}, {n} rows: {:.1} GB/s", panels.bytes() as f64 / seconds / 1e9);
        }
    }
    for (n_out, n_in) in [(1536, 512), (512, 512), (2048, 512), (512, 2048)] {
        let weights = values(n_out * n_in);
        let bytes: Vec<u8> = weights.iter().flat_map(|w| half::bf16::from_f32(*w).to_le_bytes()).collect();
        let row = |row: usize| &bytes[2 * row * n_in..][..2 * n_in];
        let Ok(matrix) = Matrix::pack(Format::BF16, n_out, n_in, 1, &row) else { return };
        let Ok(floats) = Matrix::pack_f32(n_out, n_in, 1, &weights) else { return };
        let rows = 96;
        let (x, short) = (values(rows * n_in), vec![0x3f80u16; rows * n_in]);
        let mut out = vec![0.0; rows * n_out];
        let flops = 2.0 * (rows * n_out * n_in) as f64;
        let f32s = best(60, || {
            let groups = 0..floats.n_groups();
            // SAFETY: `out` holds the rows.
            unsafe { multiply_f32_rows(level, &floats, groups, &x, n_in, rows, Start::Zero, out.as_mut_ptr(), n_out) };
        });
        print!("{rows} rows of {n_in} to {n_out}: f32 {:.0} GFLOP/s", flops / f32s / 1e9);
        if has_bf16_dots() {
            let dots = best(60, || {
                let groups = 0..matrix.n_groups();
                // SAFETY: `out` holds the rows.
                unsafe {
                    multiply_bf16_rows(&matrix, groups, &short, n_in, rows, Start::Zero, out.as_mut_ptr(), n_out)
                };
            });
            print!(", bf16 {:.0}", flops / dots / 1e9);
        }
        println!();
    }
}

fn best(runs: usize, mut run: impl FnMut()) -> f64 {
    run();
    let time = |_| {
        let started = Instant::now();
        run();
        started.elapsed().as_secs_f64()
    };
    (0..runs).map(time).fold(f64::INFINITY, f64::min)
}
