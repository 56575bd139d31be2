//! Has this process AMX? The processor must, the system must save its registers, and Linux wants to be asked: a program
//! that never asks gets smaller signal frames. Then a small product must come out as it is defined. Whatever
//! fails means no.

/// Asks once; later calls are one load.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) fn is_available() -> bool {
    use std::sync::OnceLock;

    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    #[cfg(feature = "amx-emulation")]
    if super::emulation::is_installed() {
        return true;
    }
    *AVAILABLE.get_or_init(|| {
        linux::processor_has_it()
            && linux::system_saves_it()
            && linux::kernel_permits_it()
            // SAFETY: the processor has it, and this process may use it.
            && unsafe { super::trial::is_right() }
    })
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
pub(crate) fn is_available() -> bool {
    false
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// AMX-BF16 and AMX-TILE, with tiles of the shape that the kernels configure.
    pub(super) fn processor_has_it() -> bool {
        const FEATURES: u32 = 1 << 22 | 1 << 24;
        if __cpuid(0).eax < 0x1d || __cpuid_count(7, 0).edx & FEATURES != FEATURES {
            return false;
        }
        // Palette 1: bytes of a tile, of a row, number of tiles, rows.
        let palette = __cpuid_count(0x1d, 1);
        let (tile_bytes, row_bytes) = (palette.eax >> 16, palette.ebx & 0xffff);
        let (n_tiles, n_rows) = (palette.ebx >> 16, palette.ecx & 0xffff);
        tile_bytes >= 1024 && row_bytes >= 64 && n_tiles >= 8 && n_rows >= 16
    }

    /// The tiles and their configuration are among the registers that the system keeps for each thread.
    pub(super) fn system_saves_it() -> bool {
        const OSXSAVE: u32 = 1 << 27;
        const TILES: u64 = 1 << 17 | 1 << 18;

        #[target_feature(enable = "xsave")]
        fn saved() -> u64 {
            // SAFETY: the system has enabled XSAVE, which makes the register readable.
            unsafe { _xgetbv(0) }
        }

        // SAFETY: OSXSAVE says that there is XSAVE, and that it is enabled.
        __cpuid(1).ecx & OSXSAVE != 0 && unsafe { saved() } & TILES == TILES
    }

    /// Asks for the registers, for all threads of the process. It is refused by kernels before 5.16, under some
    /// sandboxes, and where a thread has an alternative signal stack that is too small for them.
    pub(super) fn kernel_permits_it() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        // SAFETY: it takes two numbers, and changes nothing but what instructions the process may run.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
}
