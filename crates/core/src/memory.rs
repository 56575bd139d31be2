//! What memory there is, and how much of it the KV cache gets.

use tsserve_engine::CacheKind;
use tsserve_models::KvGroupLayout;

/// Memory that must stay free for activations, tokenizers and Node itself, in bytes.
const HEADROOM: u64 = 256 << 20;

/// Share of the memory left after the weights that the cache may take by default.
const DEFAULT_KV_SHARE: f64 = 0.5;

/// Bytes that this process may still take: free memory of the machine, or of its container if that is less.
pub(crate) fn available_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let machine = system.available_memory();
    match system.cgroup_limits() {
        // free_memory of a cgroup counts page cache as used; what can be reclaimed is unknown here, so take its limit
        // minus what processes hold (rss).
        Some(limits) if limits.total_memory > 0 => machine.min(limits.total_memory.saturating_sub(limits.rss)),
        _ => machine,
    }
}

/// How long sequences may be and how many blocks each cache group gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KvPlan {
    pub max_model_len: usize,
    /// Blocks per group, in group order.
    pub blocks: Vec<usize>,
    /// Bytes over all groups.
    pub bytes: u64,
    pub warnings: Vec<String>,
}

/// What the plan is made from.
pub(crate) struct KvRequest<'a> {
    pub groups: &'a [KvGroupLayout],
    /// Positions per block.
    pub block_size: usize,
    /// What the model was made for, tokens.
    pub context_length: usize,
    pub max_model_len: Option<usize>,
    pub max_num_seqs: usize,
    pub max_batch_tokens: usize,
    /// Asked for by the operator, bytes.
    pub kv_cache_memory: Option<u64>,
    /// Left after the weights, bytes.
    pub free: u64,
}

/// Refuses weights that do not fit, before they are read.
///
/// # Errors
/// One sentence with both figures.
pub(crate) fn check_weights(name: &str, needed: u64, available: u64) -> Result<(), String> {
    if needed + HEADROOM > available {
        return Err(format!(
            "{name} needs {} of memory for its weights, and {} are free",
            human_bytes(needed),
            human_bytes(available)
        ));
    }
    Ok(())
}

/// Divides memory: what `max_num_seqs` sequences of the full context could use, bounded by what is there.
///
/// # Errors
/// One sentence if not even one short sequence fits, or the asked context cannot be held.
pub(crate) fn plan_kv(request: &KvRequest<'_>) -> Result<KvPlan, String> {
    let mut warnings = Vec::new();
    let wanted_len = request.max_model_len.unwrap_or(request.context_length);
    if wanted_len > request.context_length {
        warnings.push(format!(
            "a context of {wanted_len} tokens was asked for, the model was made for {}: answers far in may be poor",
            request.context_length
        ));
    }
    let budget = match request.kv_cache_memory {
        Some(bytes) if bytes > request.free => {
            return Err(format!(
                "a KV cache of {} was asked for, and {} are free after the weights",
                human_bytes(bytes),
                human_bytes(request.free)
            ));
        }
        Some(bytes) => bytes,
        None => (request.free.saturating_sub(HEADROOM) as f64 * DEFAULT_KV_SHARE) as u64,
    };

    let all = bytes_for(request, wanted_len, request.max_num_seqs);
    let one = bytes_for(request, wanted_len, 1);
    let max_model_len = if one <= budget {
        wanted_len
    } else {
        let fits = longest_that_fits(request, wanted_len, budget);
        if fits < 2 * request.block_size {
            return Err(format!(
                "the KV cache may take {}, which does not hold even a short sequence",
                human_bytes(budget)
            ));
        }
        if request.max_model_len.is_some() {
            return Err(format!(
                "a context of {wanted_len} tokens needs {} of KV cache, and it may take {}: at most {fits} tokens fit",
                human_bytes(one),
                human_bytes(budget)
            ));
        }
        warnings.push(format!("context cut from {wanted_len} to {fits} tokens: that is what the KV cache holds"));
        fits
    };

    // An operator's figure is used up; the default takes no more than the sequences could fill.
    let target = if request.kv_cache_memory.is_some() { budget } else { budget.min(all) };
    let per_sequence = blocks_for(request, max_model_len, 1);
    let (full, bounded): (Vec<_>, Vec<_>) =
        request.groups.iter().zip(&per_sequence).partition(|(group, _)| matches!(group.kind, CacheKind::Full));
    // Windows and states need a fixed number per sequence; what remains goes to the groups that grow.
    let seqs = request.max_num_seqs as u64;
    let bounded_bytes: u64 = bounded.iter().map(|(g, n)| g.bytes_per_block as u64 * **n as u64 * seqs).sum();
    let full_block: u64 = full.iter().map(|(g, _)| g.bytes_per_block as u64).sum();
    let (share, full_blocks) = if full_block == 0 {
        ((target as f64 / bounded_bytes.max(1) as f64).min(1.0), 0)
    } else if bounded_bytes == 0 {
        (1.0, target / full_block)
    } else {
        let share = (target as f64 * 0.5 / bounded_bytes as f64).min(1.0);
        (share, (target - (bounded_bytes as f64 * share) as u64) / full_block)
    };
    let blocks: Vec<usize> = request
        .groups
        .iter()
        .zip(&per_sequence)
        .map(|(group, &single)| match group.kind {
            CacheKind::Full => (full_blocks as usize).max(single),
            _ => ((single as f64 * seqs as f64 * share) as usize).max(single),
        })
        .collect();
    let bytes = request.groups.iter().zip(&blocks).map(|(g, &n)| g.bytes_per_block as u64 * n as u64).sum();
    Ok(KvPlan { max_model_len, blocks, bytes, warnings })
}

/// Blocks per group that `n` sequences of `len` tokens can hold at once.
fn blocks_for(request: &KvRequest<'_>, len: usize, n: usize) -> Vec<usize> {
    let all = len.div_ceil(request.block_size);
    request
        .groups
        .iter()
        .map(|group| {
            n * match group.kind {
                CacheKind::Full => all,
                // A window is read while a whole chunk is written, and neither end need be aligned.
                CacheKind::Window(w) => all.min((w + request.max_batch_tokens).div_ceil(request.block_size) + 2),
                CacheKind::State => 1,
            }
        })
        .collect()
}

fn bytes_for(request: &KvRequest<'_>, len: usize, n: usize) -> u64 {
    blocks_for(request, len, n).iter().zip(request.groups).map(|(&b, g)| b as u64 * g.bytes_per_block as u64).sum()
}

/// The longest context, a multiple of the block size, whose one sequence fits the budget.
fn longest_that_fits(request: &KvRequest<'_>, wanted: usize, budget: u64) -> usize {
    let (mut low, mut high) = (0, wanted / request.block_size);
    while low < high {
        let mid = (low + high).div_ceil(2);
        if bytes_for(request, mid * request.block_size, 1) <= budget { low = mid } else { high = mid - 1 }
    }
    low * request.block_size
}

/// Gives memory that was freed back to the system. glibc keeps it per thread otherwise: after a model of 1 GB has come
/// and gone, hundreds of megabytes.
pub(crate) fn release_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes no pointers and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes as a person reads them: "1.2 GB".
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(kind: CacheKind, bytes_per_block: usize) -> KvGroupLayout {
        KvGroupLayout { kind, layers: vec![0], bytes_per_block }
    }

    fn request(groups: &[KvGroupLayout], free: u64) -> KvRequest<'_> {
        KvRequest {
            groups,
            block_size: 16,
            context_length: 8192,
            max_model_len: None,
            max_num_seqs: 16,
            max_batch_tokens: 512,
            kv_cache_memory: None,
            free,
        }
    }

    #[test]
    fn takes_no_more_than_the_sequences_could_fill() {
        let groups = [layout(CacheKind::Full, 1 << 10)];
        let plan = plan_kv(&request(&groups, 100 << 30)).unwrap();
        assert_eq!(plan.blocks, [16 * 512]);
        assert_eq!(plan.max_model_len, 8192);
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn cuts_the_context_aloud() {
        let groups = [layout(CacheKind::Full, 1 << 20)];
        let plan = plan_kv(&request(&groups, HEADROOM + (200 << 20))).unwrap();
        assert_eq!(plan.max_model_len, 100 * 16);
        assert_eq!(plan.blocks, [100]);
        assert!(plan.warnings[0].contains("8192") && plan.warnings[0].contains("1600"));
    }

    #[test]
    fn refuses_a_context_that_was_asked_for_and_does_not_fit() {
        let groups = [layout(CacheKind::Full, 1 << 20)];
        let mut asked = request(&groups, HEADROOM + (200 << 20));
        asked.max_model_len = Some(8192);
        let error = plan_kv(&asked).unwrap_err();
        assert!(error.contains("8192") && error.contains("1600"), "{error}");
    }

    #[test]
    fn a_window_group_is_bounded_and_the_full_group_gets_the_rest() {
        let groups = [layout(CacheKind::Full, 1 << 10), layout(CacheKind::Window(512), 5 << 10)];
        let plan = plan_kv(&request(&groups, 100 << 30)).unwrap();
        // (512 + 512) / 16 + 2 blocks per sequence.
        assert_eq!(plan.blocks[1], 16 * 66);
        assert!(plan.blocks[0] >= 512 * 8, "{plan:?}");
    }

    #[test]
    fn an_operators_figure_is_respected() {
        let groups = [layout(CacheKind::Full, 1 << 10)];
        let mut asked = request(&groups, 100 << 30);
        asked.kv_cache_memory = Some(64 << 20);
        let plan = plan_kv(&asked).unwrap();
        assert_eq!(plan.bytes, 64 << 20);
        asked.kv_cache_memory = Some(200 << 30);
        assert!(plan_kv(&asked).unwrap_err().contains("214.7 GB"));
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_with_both_figures() {
        let error = check_weights("big", 10_000_000_000, 4_000_000_000).unwrap_err();
        assert_eq!(error, "big needs 10.0 GB of memory for its weights, and 4.0 GB are free");
    }
}
