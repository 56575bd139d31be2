//! Facts of the machine that a load depends on, and a short measurement of what it can do.

use tsserve_models::cpu::{self, Level};

use crate::error::CoreError;
use crate::runner::level;

/// What the CPU can do.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineReport {
    /// The processor's name as it gives it.
    pub processor: String,
    /// Cores of the machine.
    pub cores: usize,
    /// Cores that affinity and quota leave to this process: the default number of compute threads.
    pub threads: usize,
    /// CPU time that the container may use per second of time, in cores; `None` without a limit.
    pub quota: Option<f64>,
    /// The instruction set that kernels use, and all that the machine has.
    pub level: String,
    pub levels: Vec<String>,
    /// Bytes per second read from memory by all threads.
    pub bandwidth: f64,
    /// 8-bit multiplications and additions per second of all threads.
    pub integer_peak: f64,
    /// Bytes of memory, and of it free.
    pub memory: u64,
    pub free_memory: u64,
}

/// Measures for about a second.
///
/// # Errors
/// The environment forces an instruction set that is not there, or no threads can be started.
pub fn measure_machine() -> Result<MachineReport, CoreError> {
    let level = level()?;
    let threads = thread_count();
    let peaks = cpu::measure(level, threads)
        .map_err(|error| CoreError::Internal(format!("{threads} compute threads could not be started: {error}")))?;
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let processor = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default();
    Ok(MachineReport {
        processor: if processor.is_empty() { std::env::consts::ARCH.to_owned() } else { processor },
        cores: system.cpus().len().max(threads),
        threads,
        quota: quota(),
        level: level.name().to_owned(),
        levels: Level::available().iter().map(|level| level.name().to_owned()).collect(),
        bandwidth: peaks.bandwidth,
        integer_peak: peaks.integer_peak,
        memory: system.total_memory(),
        free_memory: crate::memory::available_memory(),
    })
}

/// Compute threads by default: the cores that quota and affinity leave to this process.
pub(crate) fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The container's CPU quota in cores, of control groups version 2.
fn quota() -> Option<f64> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
    parse_quota(&text)
}

/// "200000 100000" is 2 cores; "max 100000" is no limit.
fn parse_quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next()?, numbers.next()?) {
        (Ok(time), Ok(period)) if period > 0.0 => Some(time / period),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read() {
        assert_eq!(parse_quota("150000 100000\n"), Some(1.5));
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota(""), None);
    }

    #[test]
    fn the_machine_is_measured() {
        let report = measure_machine().unwrap();
        assert!(report.bandwidth > 1e8 && report.integer_peak > 1e7 && report.threads >= 1);
        assert!(report.levels.contains(&report.level) && report.memory >= report.free_memory);
    }
}
