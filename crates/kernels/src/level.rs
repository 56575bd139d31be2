//! Which instruction set the kernels use: detected once, or forced for tests and measurements.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set that kernels are written for, from the slowest to the fastest of its architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Portable code: the definition of what the others compute.
    Scalar,
    /// x86-64: AVX2, FMA and F16C.
    Avx2,
    /// `Avx2` and the 256-bit `vpdpbusd` of AVX-VNNI.
    AvxVnni,
    /// x86-64: AVX-512 F, BW, DQ, VL and VNNI.
    Vnni,
    /// `Vnni`, and AMX for products of many rows in bf16 ([`multiply_tiles`](crate::multiply_tiles)).
    Amx,
    /// aarch64: NEON with the dot product instructions.
    Neon,
    /// `Neon` and the matrix multiply instructions for bytes.
    I8mm,
}

impl Level {
    /// Every level, slowest first.
    pub const ALL: [Self; 7] = [Self::Scalar, Self::Avx2, Self::AvxVnni, Self::Vnni, Self::Amx, Self::Neon, Self::I8mm];

    /// The fastest level of this machine.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Scalar)
    }

    /// The levels that this machine can run, slowest first; never empty.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|level| level.is_available()).collect()
    }

    /// The name by which it is forced and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Vnni => "vnni",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::I8mm => "i8mm",
        }
    }

    /// The level with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// This level, if the machine can run it: the check of safe functions that take a level. It is one load after the
    /// first call.
    ///
    /// # Panics
    /// If the machine cannot run it.
    #[inline]
    pub(crate) fn checked(self) -> Self {
        static AVAILABLE: OnceLock<u32> = OnceLock::new();
        let available = AVAILABLE
            .get_or_init(|| Self::ALL.into_iter().filter(|l| l.is_available()).fold(0, |bits, l| bits | 1 << l as u32));
        // Asked again before it is refused: tests make a level available later.
        let runs = available >> self as u32 & 1 == 1 || self.is_available();
        assert!(runs, "this machine cannot run {self} kernels");
        self
    }

    /// Can this machine run it?
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let avx2 =
            || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        };
        match self {
            Self::Scalar => true,
            Self::Avx2 => avx2(),
            Self::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
            Self::Vnni => avx512(),
            Self::Amx => avx512() && crate::product::has_amx(),
            Self::Neon | Self::I8mm => false,
        }
    }

    /// Can this machine run it?
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        let dotprod = || std::arch::is_aarch64_feature_detected!("dotprod");
        match self {
            Self::Scalar => true,
            Self::Neon => dotprod(),
            Self::I8mm => dotprod() && std::arch::is_aarch64_feature_detected!("i8mm"),
            _ => false,
        }
    }

    /// Can this machine run it?
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn is_available(self) -> bool {
        self == Self::Scalar
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_the_detected_level_is_available() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("sse9"), None);
        assert!(Level::available().contains(&Level::detect()));
        assert_eq!(Level::available()[0], Level::Scalar);
    }

    /// Whoever emulates a processor says what is to be found on it (`scripts/lib/checks.mjs`).
    #[test]
    fn the_detected_level_is_that_of_the_emulated_processor() {
        if let Ok(expected) = std::env::var("TSSERVE_EXPECTED_CPU") {
            assert_eq!(Level::detect().name(), expected);
        }
    }
}
