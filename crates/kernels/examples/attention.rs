//! Measures attention on one thread beside what the machine can do: `cargo run --release -p tsserve-kernels --example
//! attention -- [LEVEL [KIB [NAME]]]`. Decode reads a KV cache of KIB, by default far larger than the machine's caches,
//! whose blocks lie in no order. It is compared with plain reading of the same blocks, fetched ahead, and of as many
//! bytes in a row. Prompts are compared with a loop of nothing but fused multiply-adds. Each measurement alternates with
//! its probe; printed are the best of both and the median of their ratios. The 8-bit cache then alternates with the f16
//! one on the same positions. NAME chooses, as in `decode (3, 3, 64) 1024`, `types (3, 3, 64) 1024` or
//! `prompt (3, 3, 64) 0 512`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool for a terminal")]

use std::hint::black_box;

use tsserve_kernels::attention::{
    CacheType, Context, KvPages, PAGE, Partial, SPAN, Scratch, attend_rows, attend_spans, merge,
};
use tsserve_kernels::{AlignedBytes, Level};

/// Query heads per key-value head, key-value heads, width: SmolLM2-135M, Qwen2.5-0.5B, Gemma-3-270M, Qwen3-0.6B.
const SHAPES: [(usize, usize, usize); 4] = [(3, 3, 64), (7, 2, 64), (4, 1, 256), (2, 8, 128)];
/// KiB that no cache holds.
const SET: usize = 256 << 10;
const ROUNDS: usize = 15;

fn main() {
    let level = std::env::args().nth(1).map_or_else(Level::detect, |name| Level::from_name(&name).unwrap());
    let kib: usize = std::env::args().nth(2).map_or(SET, |kib| kib.parse().unwrap());
    let name = std::env::args().nth(3).unwrap_or_default();
    assert!(level.is_available());
    println!("level {level}, one thread");
    for shape in SHAPES {
        for context in [128, 1024, 4096] {
            if format!("decode {shape:?} {context}").contains(&name) {
                decode(level, shape, context, kib << 10);
            }
            if format!("types {shape:?} {context}").contains(&name) {
                decode_types(level, shape, context, kib << 10);
            }
        }
    }
    for shape in SHAPES {
        for (start, n) in [(0, 64), (0, 512), (1536, 512)] {
            if format!("prompt {shape:?} {start} {n}").contains(&name) {
                prompt(level, shape, start, n);
            }
        }
    }
}

fn decode(level: Level, shape: (usize, usize, usize), context: usize, set: usize) {
    let (group, n_kv, head_dim) = shape;
    let mut decoder = Decoder::new(level, CacheType::F16, shape, context, set);
    let (once, passes) = (decoder.bytes(), decoder.passes);
    let bytes = once * passes;
    let order = decoder.order.clone();
    let mut stream = AlignedBytes::zeroed(once);
    // Memory of its own, as zeros nobody wrote would not be.
    stream.fill(1);
    let mut step = || decoder.step();
    let block = once / order.len();
    let mut scattered = || {
        for i in 0..passes * order.len() {
            let at = |i: usize| &stream[order[i % order.len()] as usize * block..][..block];
            read(level, at(i), Some(at(i + (16 << 10) / block + 1)));
        }
    };
    let (time, scattered, share) = paired(&mut step, &mut scattered);
    let (_, linear, linear_share) = paired(&mut step, &mut || (0..passes).for_each(|_| read(level, &stream, None)));
    println!(
        "decode {group}x{n_kv}x{head_dim} at {context}: {:.1} GB/s; reading its blocks {:.1} GB/s, median {:.0} %; \
         reading in a row {:.1} GB/s, median {:.0} %",
        bytes as f64 / time / 1e9,
        bytes as f64 / scattered / 1e9,
        share * 100.0,
        bytes as f64 / linear / 1e9,
        linear_share * 100.0
    );
}

/// The 8-bit cache beside the f16 one, of as many positions.
fn decode_types(level: Level, shape: (usize, usize, usize), context: usize, set: usize) {
    let [mut half, mut q8] = CacheType::ALL.map(|cache_type| Decoder::new(level, cache_type, shape, context, set));
    let bytes = [half.bytes() * half.passes, q8.bytes() * q8.passes];
    let (half, q8, ratio) = paired(&mut || half.step(), &mut || q8.step());
    let (group, n_kv, head_dim) = shape;
    println!(
        "types {group}x{n_kv}x{head_dim} at {context}: f16 {:.1} GB/s, q8_0 {:.1} GB/s, q8_0 takes {:.0} % of the time",
        bytes[0] as f64 / half / 1e9,
        bytes[1] as f64 / q8 / 1e9,
        ratio * 100.0
    );
}

/// A cache of many sequences, and one token to be decoded of each.
struct Decoder {
    level: Level,
    shape: (usize, usize, usize),
    context: usize,
    pages: KvPages,
    order: Vec<u32>,
    passes: usize,
    q: Vec<f32>,
    scratch: Scratch,
    partials: Vec<Partial>,
    outs: Vec<f32>,
}

impl Decoder {
    /// Of `set` bytes, were it of f16.
    fn new(level: Level, cache_type: CacheType, shape: (usize, usize, usize), context: usize, set: usize) -> Self {
        let (group, n_kv, head_dim) = shape;
        let blocks = context / PAGE;
        let sequences = (set / (blocks * CacheType::F16.bytes_per_block(n_kv, head_dim))).max(1);
        let (pages, order) = filled(level, cache_type, n_kv, head_dim, sequences * blocks);
        let n_spans = context.div_ceil(SPAN);
        let once = order.len() * CacheType::F16.bytes_per_block(n_kv, head_dim);
        Self {
            level,
            shape,
            context,
            pages,
            order,
            // A small cache again and again, so that there is something to measure.
            passes: (SET << 10).div_ceil(2 * once),
            q: numbers(n_kv * group * head_dim, 1.0 / (head_dim as f32).sqrt()),
            scratch: Scratch::new(group, head_dim),
            partials: vec![Partial::NONE; n_spans * group],
            outs: vec![0.0; n_spans * group * head_dim],
        }
    }

    /// Bytes of one pass.
    fn bytes(&self) -> usize {
        let (_, n_kv, head_dim) = self.shape;
        self.order.len() * self.pages.cache_type().bytes_per_block(n_kv, head_dim)
    }

    fn step(&mut self) {
        let (group, n_kv, head_dim) = self.shape;
        let n_spans = self.context.div_ceil(SPAN);
        let mut out = vec![0.0; head_dim];
        for table in (0..self.passes).flat_map(|_| self.order.chunks_exact(self.context / PAGE)) {
            for head in 0..n_kv {
                let ctx = Context { pages: &self.pages, table, head };
                let q = &self.q[head * group * head_dim..][..group * head_dim];
                let (scratch, p, o) = (&mut self.scratch, &mut self.partials, &mut self.outs);
                // SAFETY: the level is available, and nobody writes.
                unsafe { attend_spans(self.level, &ctx, q, group, 0, self.context, None, scratch, p, o) };
                for h in 0..group {
                    let spans = (0..n_spans)
                        .map(|s| (self.partials[s * group + h], &self.outs[(s * group + h) * head_dim..][..head_dim]));
                    merge(self.level, spans, &mut out);
                    black_box(&out);
                }
            }
        }
    }
}

fn prompt(level: Level, shape: (usize, usize, usize), start: usize, n: usize) {
    let (group, n_kv, head_dim) = shape;
    let mut prompts = CacheType::ALL.map(|cache_type| Prompt::new(level, cache_type, shape, start, n));
    let [half, q8] = &mut prompts;
    let pairs: usize = (start + 1..=start + n).sum();
    let flops = (4 * head_dim * pairs * group * n_kv) as f64;
    let (time, probe, ratio) = paired(&mut || half.step(), &mut || multiply(level, flops));
    let (_, _, types) = paired(&mut || half.step(), &mut || q8.step());
    println!(
        "prompt {group}x{n_kv}x{head_dim}, {n} from {start}: {:.1} GFLOP/s, peak {:.1}, median {:.0} %; q8_0 takes \
         {:.0} % of the time",
        flops / time / 1e9,
        flops / probe / 1e9,
        ratio * 100.0,
        types * 100.0
    );
}

/// A prompt's rows and the cache before and of them.
struct Prompt {
    level: Level,
    shape: (usize, usize, usize),
    start: usize,
    n: usize,
    pages: KvPages,
    table: Vec<u32>,
    q: Vec<f32>,
    out: Vec<f32>,
    scratch: Scratch,
}

impl Prompt {
    fn new(level: Level, cache_type: CacheType, shape: (usize, usize, usize), start: usize, n: usize) -> Self {
        let (group, n_kv, head_dim) = shape;
        let (pages, table) = filled(level, cache_type, n_kv, head_dim, (start + n).div_ceil(PAGE));
        let width = n_kv * group * head_dim;
        let q = numbers(n * width, 1.0 / (head_dim as f32).sqrt());
        let (out, scratch) = (vec![0.0f32; n * width], Scratch::new(group, head_dim));
        Self { level, shape, start, n, pages, table, q, out, scratch }
    }

    fn step(&mut self) {
        let (group, n_kv, head_dim) = self.shape;
        let width = n_kv * group * head_dim;
        for head in 0..n_kv {
            let ctx = Context { pages: &self.pages, table: &self.table, head };
            let column = head * group * head_dim;
            let (q, scratch) = (&self.q[column..], &mut self.scratch);
            // SAFETY: the level is available, nobody writes, and `out` has the rows.
            unsafe {
                let out = self.out.as_mut_ptr().add(column);
                attend_rows(self.level, &ctx, q, width, group, self.start, self.n, None, None, scratch, out, width);
            }
        }
    }
}

/// Best times of both, and the median of the ratios probe / step.
fn paired(step: &mut dyn FnMut(), probe: &mut dyn FnMut()) -> (f64, f64, f64) {
    let time = |f: &mut dyn FnMut()| {
        let start = now();
        f();
        now() - start
    };
    time(step);
    time(probe);
    let mut ratios = Vec::new();
    let (mut best, mut best_probe) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (a, b) = (time(step), time(probe));
        ratios.push(b / a);
        (best, best_probe) = (best.min(a), best_probe.min(b));
    }
    ratios.sort_by(f64::total_cmp);
    (best, best_probe, ratios[ratios.len() / 2])
}

/// Seconds this thread has run: other programs' turns on its core do not count.
#[cfg(unix)]
fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes where it is told.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds.
#[cfg(not(unix))]
fn now() -> f64 {
    use std::sync::LazyLock;
    use std::time::Instant;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

/// A cache of random numbers, and its blocks in no order.
fn filled(level: Level, cache_type: CacheType, n_kv: usize, head_dim: usize, n_blocks: usize) -> (KvPages, Vec<u32>) {
    let pages = KvPages::new(cache_type, n_blocks, n_kv, head_dim);
    let some = numbers(4096 + head_dim, 1.0);
    for block in 0..n_blocks {
        for head in 0..n_kv {
            for offset in 0..PAGE {
                let at = (block * 31 + head * 7 + offset * 101) % 4096;
                let row = &some[at..][..head_dim];
                // SAFETY: one thread, and an available level.
                unsafe { pages.write(level, block as u32, head, offset, row, row) };
            }
        }
    }
    let mut order: Vec<u32> = (0..n_blocks as u32).collect();
    let mut state = 1u64;
    for i in (1..n_blocks).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (state >> 33) as usize % (i + 1));
    }
    (pages, order)
}

fn numbers(n: usize, scale: f32) -> Vec<f32> {
    (0..n as u32).map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale).collect()
}

/// Reads all bytes, and fetches as many to be read later.
fn read(level: Level, bytes: &[u8], ahead: Option<&[u8]>) {
    #[cfg(target_arch = "x86_64")]
    if level >= Level::Avx2 {
        // SAFETY: the level has AVX2.
        black_box(unsafe { x86::read(bytes, ahead) });
        return;
    }
    let words = bytes.as_chunks::<8>().0;
    black_box(words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word))));
    let _ = (level, ahead);
}

/// Multiplies and adds `flops` / 2 times.
fn multiply(level: Level, flops: f64) {
    #[cfg(target_arch = "x86_64")]
    {
        // Not known to the compiler, which would compute it once for all rounds.
        let iterations = black_box((flops / 2.0) as usize);
        let sum = match level {
            // SAFETY: the level has AVX-512.
            Level::Vnni | Level::Amx => unsafe { x86::multiply_512(iterations / (16 * 16)) },
            // SAFETY: the level has AVX2 and FMA.
            Level::Avx2 | Level::AvxVnni => unsafe { x86::multiply_256(iterations / (12 * 8)) },
            _ => 0.0,
        };
        black_box(sum);
    }
    let _ = (level, flops);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx2")]
    pub fn read(bytes: &[u8], ahead: Option<&[u8]>) -> i32 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for (i, line) in bytes.as_chunks::<256>().0.iter().enumerate() {
            if let Some(ahead) = ahead {
                for line in ahead[i * 256..][..256].as_chunks::<64>().0 {
                    _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
                }
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: within the 256 bytes.
                *sum = _mm256_xor_si256(*sum, unsafe { _mm256_loadu_si256(line.as_ptr().add(i * 32).cast()) });
            }
        }
        let all = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_xor_si256(a, b));
        _mm256_extract_epi32::<0>(all)
    }

    #[target_feature(enable = "avx512f")]
    pub fn multiply_512(iterations: usize) -> f32 {
        let mut sums = [_mm512_set1_ps(1.0); 16];
        let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        _mm512_reduce_add_ps(sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b)))
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn multiply_256(iterations: usize) -> f32 {
        let mut sums = [_mm256_set1_ps(1.0); 12];
        let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        _mm256_cvtss_f32(sums.into_iter().fold(_mm256_setzero_ps(), |a, b| _mm256_add_ps(a, b)))
    }
}
