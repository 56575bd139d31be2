//! AMX in software, so that tests run the kernels' instructions on machines without it: they raise SIGILL there, and a
//! handler decodes them, does what they would do to the thread's tiles, and goes on behind them. It knows the
//! instructions that the kernels use and no others, and aborts the process where a processor would fault.
//!
//! Arithmetic is that of AVX-512 with the flags set that AMX implies: subnormal numbers are zeros, taken or made. So it
//! says independently of the portable definition what a product is.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod decode;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod trap;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unit;

/// Makes [`Level::Amx`](crate::Level::Amx) available in this process from now on: by its processor if it has AMX, or
/// else in software.
///
/// # Errors
/// Why it cannot be, as half a sentence: the machine lacks AVX-512 too, or is of another kind.
pub fn install() -> Result<(), &'static str> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        if super::is_available() {
            return Ok(());
        }
        if !crate::Level::Vnni.is_available() {
            return Err("this processor has no AVX-512 VNNI");
        }
        trap::install()
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    Err("this is not Linux on x86-64")
}

/// Are the instructions caught?
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) fn is_installed() -> bool {
    trap::is_installed()
}
