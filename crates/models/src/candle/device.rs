//! Where a model computes: the CPU, a CUDA device or Metal; and with how many threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device};

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// CUDA or Metal where this build has it and it can be used, else the CPU.
    Auto,
    Cpu,
    Cuda,
    Metal,
}

/// Element type in which a model computes and keeps its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    pub fn size_in_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    pub(crate) fn candle(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// A device that can be computed on.
#[derive(Debug, Clone)]
pub struct RunnerDevice {
    inner: Device,
    fallback: Option<String>,
}

impl RunnerDevice {
    pub fn cpu() -> Self {
        Self { inner: Device::Cpu, fallback: None }
    }

    /// "cpu", "cuda" or "metal".
    pub fn name(&self) -> &'static str {
        match self.inner {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        }
    }

    pub fn is_cpu(&self) -> bool {
        self.inner.is_cpu()
    }

    /// Free bytes of the device's own memory; `None` where it shares the machine's.
    pub fn free_memory(&self) -> Option<u64> {
        #[cfg(feature = "cuda")]
        if self.inner.is_cuda() {
            let (free, _) = candle_core::cuda_backend::cudarc::driver::result::mem_get_info().ok()?;
            return Some(free as u64);
        }
        None
    }

    /// Why `DeviceKind::Auto` fell back to the CPU, as one sentence; `None` where it did not.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// f32 on the CPU, bf16 elsewhere.
    pub fn default_dtype(&self) -> Dtype {
        if self.is_cpu() { Dtype::F32 } else { Dtype::Bf16 }
    }

    pub fn candle(&self) -> &Device {
        &self.inner
    }
}

/// Why a device cannot be used, each as one sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    #[error("this build has no {0} support: install the {0} variant of tsserve, or use --device cpu")]
    NotBuilt(&'static str),
    #[error("the NVIDIA driver is missing or cannot be used ({0}): install it, or use --device cpu")]
    NoDriver(String),
    #[error("CUDA libraries are missing ({0}): install the CUDA runtime libraries, or use --device cpu")]
    NoLibraries(String),
    #[error("no {0} device was found on this machine")]
    NoDevice(&'static str),
    #[error("the {kind} device cannot be used: {reason}")]
    Failed { kind: &'static str, reason: String },
}

impl DeviceError {
    /// Stable code for matching.
    pub fn code(&self) -> &'static str {
        "device_unavailable"
    }
}

/// Opens the device that was asked for, the first one of its kind.
///
/// # Errors
/// Where the device was named and cannot be used. `Auto` never fails.
pub fn device(kind: DeviceKind) -> Result<RunnerDevice, DeviceError> {
    match kind {
        DeviceKind::Cpu => Ok(RunnerDevice::cpu()),
        DeviceKind::Cuda => open("CUDA", cfg!(feature = "cuda"), || Device::new_cuda(0)),
        DeviceKind::Metal => open("Metal", cfg!(feature = "metal"), || Device::new_metal(0)),
        DeviceKind::Auto => {
            let mut reasons = Vec::new();
            for (kind, built) in
                [(DeviceKind::Cuda, cfg!(feature = "cuda")), (DeviceKind::Metal, cfg!(feature = "metal"))]
            {
                if built {
                    match device(kind) {
                        Ok(device) => return Ok(device),
                        Err(error) => reasons.push(error.to_string()),
                    }
                }
            }
            let fallback =
                if reasons.is_empty() { "this build computes on the CPU only".to_owned() } else { reasons.join("; ") };
            Ok(RunnerDevice { inner: Device::Cpu, fallback: Some(fallback) })
        }
    }
}

/// Sets how many threads compute on the CPU, for the whole process. Returns the number in force: the first call
/// decides, later ones (and calls after the first computation) change nothing. `None` leaves rayon's own default, the
/// number of CPUs this process may use.
pub fn configure_threads(threads: Option<usize>) -> usize {
    let builder = rayon::ThreadPoolBuilder::new().thread_name(|i| format!("tsserve-compute-{i}"));
    let builder = match threads {
        Some(n) => builder.num_threads(n.max(1)),
        None => builder,
    };
    // An error says that the pool is there already; its size is what counts then.
    let _ = builder.build_global();
    rayon::current_num_threads()
}

fn open(
    kind: &'static str,
    built: bool,
    make: impl FnOnce() -> candle_core::Result<Device>,
) -> Result<RunnerDevice, DeviceError> {
    if !built {
        return Err(DeviceError::NotBuilt(kind));
    }
    // A binding panics where a library lacks a symbol; that must not end the process.
    let made = catch_unwind(AssertUnwindSafe(|| {
        let device = make()?;
        // Opening alone does not load kernels: compute something.
        let probe = candle_core::Tensor::ones(8, DType::F32, &device)?.sum_all()?.to_scalar::<f32>()?;
        if probe != 8.0 {
            candle_core::bail!("a test sum gave {probe} instead of 8");
        }
        Ok(device)
    }));
    match made {
        Ok(Ok(device)) => Ok(RunnerDevice { inner: device, fallback: None }),
        Ok(Err(error)) => Err(classify(kind, &first_line(&error.to_string()))),
        Err(panic) => {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a library failed");
            Err(classify(kind, &first_line(reason)))
        }
    }
}

fn classify(kind: &'static str, reason: &str) -> DeviceError {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if kind == "CUDA"
        && has(&["SYSTEM_DRIVER_MISMATCH", "INSUFFICIENT_DRIVER", "STUB_LIBRARY", "NOT_INITIALIZED", "libcuda"])
    {
        DeviceError::NoDriver(reason.to_owned())
    } else if has(&["NO_DEVICE", "INVALID_DEVICE", "no device", "no metal device"]) {
        DeviceError::NoDevice(kind)
    } else if kind == "CUDA" && has(&["cannot open shared object", "Unable to dynamically load", "Missing symbol"]) {
        DeviceError::NoLibraries(reason.to_owned())
    } else {
        DeviceError::Failed { kind, reason: reason.to_owned() }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_this_build_lacks_is_one_sentence() {
        if !cfg!(feature = "cuda") {
            let error = device(DeviceKind::Cuda).unwrap_err();
            assert!(error.to_string().starts_with("this build has no CUDA support"));
        }
        if !cfg!(feature = "metal") {
            assert_eq!(device(DeviceKind::Metal).unwrap_err(), DeviceError::NotBuilt("Metal"));
        }
    }

    #[test]
    fn auto_always_gives_a_device() {
        let device = device(DeviceKind::Auto).unwrap();
        assert_eq!(device.is_cpu(), device.fallback().is_some());
    }

    #[test]
    fn driver_messages_are_sorted() {
        assert_eq!(classify("CUDA", "DriverError(CUDA_ERROR_NO_DEVICE, \"x\")"), DeviceError::NoDevice("CUDA"));
        assert!(matches!(classify("CUDA", "DriverError(CUDA_ERROR_STUB_LIBRARY)"), DeviceError::NoDriver(_)));
        assert!(matches!(classify("CUDA", "libcublas.so: cannot open shared object"), DeviceError::NoLibraries(_)));
        assert!(matches!(classify("Metal", "odd"), DeviceError::Failed { .. }));
    }
}
