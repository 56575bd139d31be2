//! Speed of the integer products, beside what the machine can do in the same run:
//! `cargo run --release -p tsserve-kernels --example products [megabytes] [level or format ...]`
//!
//! Per level and format: GB/s of weights streamed from a set of matrices with one row of activations, in one and two
//! planes, and GOP/s (multiplications and additions) with 8 rows on weights that stay in the cache; one thread.

#![expect(clippy::print_stdout, reason = "it prints its measurements")]

use std::hint::black_box;

use tsserve_kernels::{Format, Level, Matrix, Planes, QuantizedRows, multiply};

const N_COLS: usize = 1536;
const REPEATS: usize = 15;

/// Seconds of each of some runs, sorted, the runs taking turns: neighbours disturb all of them alike.
fn time<const N: usize>(mut runs: [&mut dyn FnMut(); N]) -> [Vec<f64>; N] {
    let mut seconds = [const { Vec::new() }; N];
    for _ in 0..REPEATS {
        for (run, seconds) in runs.iter_mut().zip(&mut seconds) {
            let start = thread_seconds();
            run();
            seconds.push(thread_seconds() - start);
        }
    }
    seconds.iter_mut().for_each(|seconds| seconds.sort_by(f64::total_cmp));
    seconds
}

/// What this thread has run for: on a busy machine the time that others run is not counted.
#[cfg(target_os = "linux")]
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the write.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Wall time, where the thread's own is not asked for.
#[cfg(not(target_os = "linux"))]
fn thread_seconds() -> f64 {
    use std::{sync::LazyLock, time::Instant};
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

/// `amount` per second, best / median.
fn rate(amount: f64, seconds: &[f64]) -> String {
    format!("{:5.1}/{:5.1}", amount / seconds[0] / 1e9, amount / seconds[REPEATS / 2] / 1e9)
}

fn input(n_rows: usize, planes: Planes) -> QuantizedRows {
    let mut rows = QuantizedRows::with_capacity(n_rows, N_COLS, planes);
    rows.reshape(n_rows, N_COLS, planes);
    let (values, sums) = rows.parts_mut();
    values.iter_mut().enumerate().for_each(|(i, value)| *value = (i * 37 % 255) as i8);
    sums.iter_mut().for_each(|sums| (sums.scale, sums.scaled_sum) = (1e-3, 1e-3));
    rows
}

fn pack(format: Format, n_rows: usize) -> Matrix {
    let (values, size) = format.block();
    // Bytes of which every f16 is small and finite.
    let mut row: Vec<u8> = (0..N_COLS / values * size).map(|i| (i * 31 % 61) as u8).collect();
    if format == Format::MXFP4 {
        // And exponents as models have them: products of subnormal scales would be measured otherwise.
        row.iter_mut().step_by(size).for_each(|exponent| *exponent += 64);
    }
    match Matrix::pack(format, n_rows, N_COLS, 1, &|_| &row) {
        Ok(matrix) => matrix,
        Err(error) => unreachable!("{error}"),
    }
}

fn run(level: Level, matrix: &Matrix, input: &QuantizedRows, prefetch: usize, out: &mut [f32]) {
    let stride = matrix.n_groups() * 16;
    assert!(out.len() >= stride * input.n_rows());
    // SAFETY: `out` has room for all rows, and the levels measured are available.
    unsafe { multiply(level, matrix, 0..matrix.n_groups(), &input.block(0), out.as_mut_ptr(), stride, prefetch) };
    black_box(out);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let megabytes: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(160);
    let (levels, formats): (Vec<String>, Vec<String>) = arguments.partition(|name| Level::from_name(name).is_some());
    let levels: Vec<Level> = levels.iter().filter_map(|name| Level::from_name(name)).collect();
    println!("one thread, best/median of {REPEATS} taking turns; sets of {megabytes} MB, rows of {N_COLS}");
    println!(
        "{:15} {:>11} {:>11} {:>11} {:>11} {:>11} | {:>11} {:>11} {:>11} | pack GB/s",
        "", "read GB/s", "M=1", "8K ahead", "2 planes", "cached", "dots GOP/s", "M=8", "2 planes"
    );
    for level in Level::available() {
        for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
            let name = format.to_string();
            if !(levels.is_empty() && level != Level::Scalar || levels.contains(&level))
                || !(formats.is_empty() || formats.contains(&name))
            {
                continue;
            }
            let (values, size) = format.block();
            let n_rows = (megabytes << 20) / (N_COLS / values * size) / 16 * 16;
            let start = thread_seconds();
            let large = pack(format, n_rows);
            let pack_seconds = thread_seconds() - start;
            let small = pack(format, 256);
            let mut out = vec![0.0; n_rows.max(8 * 256)];
            let bytes = large.bytes() as f64;
            let out = std::cell::RefCell::new(&mut out[..]);
            let multiply = |matrix: &Matrix, input: &QuantizedRows, prefetch, times| {
                (0..times).for_each(|_| run(level, matrix, input, prefetch, &mut out.borrow_mut()));
            };

            let (one, two) = (input(1, Planes::One), input(1, Planes::Two));
            let times = large.bytes() / small.bytes() / 4;
            let streams = time([
                &mut || _ = black_box(probe::read(large.packed())),
                &mut || multiply(&large, &one, 0, 1),
                &mut || multiply(&large, &one, 8192, 1),
                &mut || multiply(&large, &two, 0, 1),
                &mut || multiply(&small, &one, 0, times),
            ]);
            let cached = (small.bytes() * times) as f64;
            let gigabytes = [bytes, bytes, bytes, bytes, cached];

            let (one, two) = (input(8, Planes::One), input(8, Planes::Two));
            let times = 40;
            let computes = time([&mut || probe::dot(), &mut || multiply(&small, &one, 0, times), &mut || {
                multiply(&small, &two, 0, times)
            }]);
            let product = (2 * 8 * 256 * N_COLS * times) as f64;
            let operations = [probe::DOT_OPERATIONS, product, product];

            print!("{:7} {name:7}", level.to_string());
            gigabytes.iter().zip(&streams).for_each(|(amount, seconds)| print!(" {}", rate(*amount, seconds)));
            print!(" |");
            operations.iter().zip(&computes).for_each(|(amount, seconds)| print!(" {}", rate(*amount, seconds)));
            println!(" | {:.2}", bytes / pack_seconds / 1e9);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod probe {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const DOTS: usize = 1_000_000;
    pub const DOT_OPERATIONS: f64 = (DOTS * 12 * 64 * 2) as f64;

    /// `vpdpbusd` on 12 independent sums.
    pub fn dot() {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            // SAFETY: the features were checked.
            unsafe { dot_vnni() };
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn dot_vnni() {
        let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); 12];
        for _ in 0..DOTS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// Reads all bytes.
    pub fn read(bytes: &[u8]) -> u64 {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was checked.
            unsafe { read_512(bytes) }
        } else {
            bytes.as_chunks::<8>().0.iter().fold(0, |sum, bytes| sum ^ u64::from_le_bytes(*bytes))
        }
    }

    #[target_feature(enable = "avx512f")]
    fn read_512(bytes: &[u8]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 8];
        for bytes in bytes.as_chunks::<512>().0 {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 64 of 512 bytes.
                *sum = _mm512_xor_si512(*sum, unsafe { _mm512_loadu_si512(bytes.as_ptr().add(64 * i).cast()) });
            }
        }
        let mut all = sums[0];
        for sum in &sums[1..] {
            all = _mm512_xor_si512(all, *sum);
        }
        _mm512_reduce_add_epi64(all) as u64
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod probe {
    pub const DOT_OPERATIONS: f64 = 0.0;

    pub fn dot() {}

    /// Reads all bytes.
    pub fn read(bytes: &[u8]) -> u64 {
        bytes.as_chunks::<8>().0.iter().fold(0, |sum, bytes| sum ^ u64::from_le_bytes(*bytes))
    }
}
