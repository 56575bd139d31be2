//! What the machine could do at most, measured with the threads that would compute.

use tsserve_kernels::{Level, Team, probe};

/// Bytes that the bandwidth is measured with: more than the caches of most machines hold.
const READ_BYTES: usize = 256 << 20;

/// Limits of the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// Bytes per second read from memory by all threads.
    pub bandwidth: f64,
    /// 8-bit multiplications and additions per second of all threads.
    pub integer_peak: f64,
}

/// Measures for about half a second.
///
/// # Errors
/// The threads cannot be started.
pub fn measure(level: Level, threads: usize) -> std::io::Result<Peaks> {
    let team = Team::new(threads)?;
    // Rounds are short, so that some of many fall between what neighbours do.
    Ok(Peaks {
        bandwidth: probe::read_bandwidth(&team, READ_BYTES, 8),
        integer_peak: probe::integer_peak(&team, level, 50),
    })
}
