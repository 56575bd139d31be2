//! Facts of the machine that a load depends on.

/// Compute threads by default: the cores that quota and affinity leave to this process.
pub(crate) fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
