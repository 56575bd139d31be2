//! What the machine can do right now, asked again and again by a bench: `probe THREADS` reads one number per line, the
//! bytes to read from memory, and answers each with a line of JSON: bytes per second, 8-bit operations per second.
#![allow(clippy::print_stdout, reason = "a measuring tool that speaks over its standard output")]

use std::io::{self, BufRead, Write};

use tsserve_kernels::{Level, Team, probe};

const ROUNDS: usize = 4;

fn main() -> io::Result<()> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).ok_or_else(|| invalid("probe THREADS"))?;
    let team = Team::new(threads)?;
    let level = Level::detect();
    for line in io::stdin().lock().lines() {
        let bytes = line?.trim().parse().map_err(|_| invalid("a line is a number of bytes"))?;
        let bandwidth = probe::read_bandwidth(&team, bytes, ROUNDS);
        let integer_peak = probe::integer_peak(&team, level, ROUNDS);
        println!(r#"{{"level":"{level}","bandwidth":{bandwidth:.0},"integerPeak":{integer_peak:.0}}}"#);
        io::stdout().flush()?;
    }
    Ok(())
}
