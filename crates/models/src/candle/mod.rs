//! The candle runner: one code for CPU, CUDA and Metal.
//!
//! A step is laid out flat (`step`): the linear layers see one `[tokens, hidden]` matrix for any mix of prefill and
//! decode, and attention goes per sequence over its KV blocks. On the CPU in f32 the heavy operations are our own
//! (`cpu_ops` on `simd`) and compute a row's bits the same way whoever runs beside it; elsewhere they are candle's.

mod attention;
mod cpu_ops;
mod device;
mod head;
mod kv_cache;
mod layers;
mod load;
pub(crate) mod rope;
mod runner;
mod simd;
mod step;

pub use device::{DeviceError, DeviceKind, Dtype, RunnerDevice, configure_threads, device};
pub use kv_cache::kv_layout;
pub use runner::{CandleRunner, HiddenPoint, HiddenTap, RunnerOptions};
