//! What the machine can do at most: how fast a team reads memory, and how many integer operations it computes. Models'
//! limits follow from these two; both are measured in a fraction of a second, and both move with the neighbours.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::lanes::prefetch;
use crate::{AlignedBytes, Level, Team};

/// Bytes of one load of the widest kernels; what threads read is a multiple of it.
const LINE: usize = 64;

/// Bytes ahead that are prefetched, in turns: some processors read half as fast again with it, others slower.
const DISTANCES: [usize; 4] = [0, 4 << 10, 8 << 10, 16 << 10];

/// Bytes per second at which the team reads `bytes` bytes of memory: the best of `rounds` for each prefetch distance,
/// after one that touches the memory. Each thread reads one part from front to back, as it would its share of weights.
pub fn read_bandwidth(team: &Team, bytes: usize, rounds: usize) -> f64 {
    let mut memory = AlignedBytes::zeroed(bytes.max(1 << 20));
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let n_lines = memory.len() / LINE;
    let mut best = f64::INFINITY;
    for _ in 0..=rounds.max(1) {
        for distance in DISTANCES {
            let started = Instant::now();
            team.run(&|worker| {
                let part = |index| index * n_lines / worker.n_active() * LINE;
                read(&memory[part(worker.index())..part(worker.index() + 1)], distance);
            });
            best = best.min(started.elapsed().as_secs_f64());
        }
    }
    (n_lines * LINE) as f64 / best
}

/// Loads every byte, with the widest loads there are and nothing that would be slower than memory.
fn read(bytes: &[u8], distance: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature is there.
            return unsafe { x86::read_avx512(bytes, distance) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature is there.
            return unsafe { x86::read_avx2(bytes, distance) };
        }
    }
    let mut sums = [0u64; 8];
    for line in bytes.chunks_exact(LINE) {
        if distance > 0 {
            prefetch(line.as_ptr().wrapping_add(distance));
        }
        for (sum, word) in sums.iter_mut().zip(line.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    black_box(sums);
}

/// 8-bit multiplications and additions per second of the whole team, each counted as one operation: what integer
/// kernels of `level` could reach if nothing else had to be done. Best of `rounds`.
pub fn integer_peak(team: &Team, level: Level, rounds: usize) -> f64 {
    const TURNS: usize = 200_000;
    let mut best = f64::INFINITY;
    let mut operations = 0;
    for _ in 0..rounds.max(1) {
        let done = AtomicU64::new(0);
        let started = Instant::now();
        team.run(&|worker| {
            worker.share(worker.n_active(), |_| {
                done.fetch_add(burn(level, black_box(TURNS)), Ordering::Relaxed);
            });
        });
        best = best.min(started.elapsed().as_secs_f64() / done.load(Ordering::Relaxed) as f64);
        operations = operations.max(done.load(Ordering::Relaxed));
    }
    if operations == 0 { 0.0 } else { 1.0 / best }
}

/// Runs the level's multiplication `turns` times over independent sums; answers the number of operations.
fn burn(level: Level, turns: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    match level {
        // SAFETY: a level is only used on a machine that has it.
        Level::Vnni | Level::Amx => return unsafe { x86::vnni(turns) },
        // SAFETY: as above.
        Level::AvxVnni => return unsafe { x86::avx_vnni(turns) },
        // SAFETY: as above.
        Level::Avx2 => return unsafe { x86::avx2(turns) },
        Level::Scalar | Level::Neon | Level::I8mm => {}
    }
    #[cfg(target_arch = "aarch64")]
    match level {
        // SAFETY: a level is only used on a machine that has it.
        Level::I8mm => return unsafe { aarch64::i8mm(turns) },
        // SAFETY: as above.
        Level::Neon => return unsafe { aarch64::dotprod(turns) },
        _ => {}
    }
    let _ = level;
    let (mut sums, factors) = ([0i32; 16], black_box([3i32; 16]));
    for turn in 0..turns {
        for (sum, factor) in sums.iter_mut().zip(&factors) {
            *sum = sum.wrapping_add(factor.wrapping_mul(turn as i32));
        }
    }
    black_box(sums);
    (turns * 16 * 2) as u64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::LINE;
    use crate::lanes::prefetch;

    /// A reader with the feature's loads into four independent sums.
    macro_rules! read {
        ($name:ident, $feature:literal, $vector:ty, $zero:ident, $load:ident, $add:ident) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name(bytes: &[u8], distance: usize) {
                const LOADS: usize = LINE / size_of::<$vector>();
                let mut sums = [$zero(); 4];
                for lines in bytes.chunks_exact(4 * LINE) {
                    for line in 0..4 {
                        if distance > 0 {
                            prefetch(lines.as_ptr().wrapping_add(distance + line * LINE));
                        }
                        for load in 0..LOADS {
                            let at = line * LINE + load * size_of::<$vector>();
                            // SAFETY: inside of `lines`, and unaligned loads ask for nothing more.
                            sums[line] = $add(sums[line], unsafe { $load(lines[at..].as_ptr().cast()) });
                        }
                    }
                }
                black_box(sums);
            }
        };
    }

    read!(read_avx512, "avx512f", __m512i, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_add_epi64);
    read!(read_avx2, "avx2", __m256i, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_add_epi64);

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn vnni(turns: usize) -> u64 {
        let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
        let mut sums = [_mm512_setzero_si512(); 12];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (turns * 12 * 64 * 2) as u64
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn avx_vnni(turns: usize) -> u64 {
        let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)));
        let mut sums = [_mm256_setzero_si256(); 12];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (turns * 12 * 32 * 2) as u64
    }

    /// Pairs of products are added in 16 bits, eight of them before they are widened: as kernels do for 4-bit codes.
    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(turns: usize) -> u64 {
        let (a, b, ones) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)), _mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); 4];
        for _ in 0..turns {
            for sum in &mut sums {
                let mut pairs = _mm256_maddubs_epi16(black_box(a), b);
                for _ in 1..8 {
                    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(black_box(a), b));
                }
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
        (turns * 4 * 8 * 32 * 2) as u64
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::hint::black_box;

    /// Makes a loop of an instruction that adds products of bytes to independent sums.
    macro_rules! burn {
        ($name:ident, $features:literal, $instruction:literal, $products:literal) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(turns: usize) -> u64 {
                let (a, b) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(5)));
                let mut sums = [vdupq_n_s32(0); 16];
                for _ in 0..turns {
                    for sum in &mut sums {
                        // SAFETY: the instruction is one of this function's features, and changes nothing but `sum`.
                        unsafe {
                            asm!(
                                concat!($instruction, " {sum:v}.4s, {a:v}.16b, {b:v}.16b"),
                                sum = inout(vreg) *sum,
                                a = in(vreg) a,
                                b = in(vreg) b,
                                options(pure, nomem, nostack, preserves_flags)
                            );
                        }
                    }
                }
                black_box(sums);
                (turns * 16 * $products * 2) as u64
            }
        };
    }

    burn!(dotprod, "neon,dotprod", "sdot", 16);
    burn!(i8mm, "neon,i8mm", "usmmla", 32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_measure_something() {
        let team = Team::new(1).unwrap();
        let bandwidth = read_bandwidth(&team, 8 << 20, 2);
        assert!(bandwidth > 1e8 && bandwidth < 1e13, "{bandwidth}");
        for level in Level::available() {
            let peak = integer_peak(&team, level, 1);
            assert!(peak > 1e7 && peak < 1e15, "{level}: {peak}");
        }
    }
}
