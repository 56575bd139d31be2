use napi_derive::napi;
use tsserve_core::MachineReport;

/// What the CPU can do. Sizes in bytes, speeds per second.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingMachineReport {
    pub processor: String,
    /// Cores of the machine, and those that affinity and quota leave to this process.
    pub cores: u32,
    pub threads: u32,
    /// CPU time that the container may use, in cores; unset without a limit.
    pub quota: Option<f64>,
    /// The instruction set that kernels use, and all that the machine has.
    pub level: String,
    pub levels: Vec<String>,
    /// Bytes read from memory by all threads.
    pub bandwidth: f64,
    /// 8-bit multiplications and additions of all threads.
    pub integer_peak: f64,
    pub memory: f64,
    pub free_memory: f64,
}

impl From<MachineReport> for BindingMachineReport {
    fn from(report: MachineReport) -> Self {
        Self {
            processor: report.processor,
            cores: report.cores as u32,
            threads: report.threads as u32,
            quota: report.quota,
            level: report.level,
            levels: report.levels,
            bandwidth: report.bandwidth,
            integer_peak: report.integer_peak,
            memory: report.memory as f64,
            free_memory: report.free_memory as f64,
        }
    }
}
