//! Which levels tests run at.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, clippy::print_stdout, reason = "helpers of tests")]

use tsserve_models::cpu::Level;

/// All levels of the machine, and that of AMX, if need be in software.
pub fn levels() -> Vec<Level> {
    if let Err(why) = tsserve_kernels::amx_emulation::install() {
        println!("the level of AMX is left out: {why}");
    }
    Level::available()
}

/// Of all levels the fastest, and that of AMX: the ones whose prompts have bits of their own.
pub fn unlike_levels() -> Vec<Level> {
    let (amx, others): (Vec<_>, Vec<_>) = levels().into_iter().partition(|&level| level == Level::Amx);
    others.into_iter().next_back().into_iter().chain(amx).collect()
}

/// The fastest of all levels but that of AMX.
pub fn fastest() -> Level {
    unlike_levels()[0]
}

/// The level that `TSSERVE_CPU` names, as for the server.
pub fn asked_level() -> Option<Level> {
    let name = std::env::var("TSSERVE_CPU").ok()?;
    Some(levels().into_iter().find(|level| level.name() == name).expect("a level of this machine"))
}
