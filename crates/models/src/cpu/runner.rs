//! The CPU runner: loads a checkpoint into packed weights and computes steps.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tsserve_engine::{CacheGroup, CacheKind, ModelRunner, RunnerError, RunnerSpec, StepCosts, StepPlan, StepResults};
use tsserve_kernels::attention::{CacheType, KvPages};
use tsserve_kernels::{Level, Team};

use super::buffers::Buffers;
use super::cache::{kv_caches, layer_types, layout_of};
use super::costs::calibrate;
use super::forward::{Constants, Forward, MAX_ROPES, Parts};
use super::head::Head;
use super::layout::Layout;
use super::quantization::Quantization;
use super::role_rows::has_tiles;
use super::weights::{PackedLayer, PackedModel, format_of, pack};
use crate::architecture::Architecture;
use crate::candle::rope::RopeFrequencies;
use crate::candle::{HiddenPoint, HiddenTap};
use crate::checkpoint::Checkpoint;
use crate::config::ConfigError;
use crate::error::ModelError;
use crate::step::BLOCK_SIZE;

/// How a model is to run. All sizes are final: nothing grows afterwards.
#[derive(Debug, Clone)]
pub struct CpuOptions {
    /// Instruction set to use; one that the machine has.
    pub level: Level,
    /// Threads that compute, the engine's own among them.
    pub threads: usize,
    /// What becomes of weights that are not quantised. `None`: they stay as they are.
    pub quantization: Option<Quantization>,
    /// How keys and values are kept.
    pub cache_type: CacheType,
    /// Longest sequence, in tokens.
    pub max_context: usize,
    /// Most tokens in one step.
    pub max_batch_tokens: usize,
    /// Blocks per cache group, in the order of [`kv_layout`](super::kv_layout).
    pub kv_blocks: Vec<usize>,
}

/// Computes a decoder on packed weights with kernels of our own.
#[derive(Debug)]
pub struct CpuRunner {
    spec: RunnerSpec,
    max_batch_tokens: usize,
    architecture: Architecture,
    model: PackedModel,
    ropes: Vec<RopeFrequencies>,
    caches: Vec<KvPages>,
    /// The cache group of each layer.
    groups: Vec<usize>,
    level: Level,
    /// Bytes ahead of the weight stream that steps of few rows prefetch.
    pub(super) prefetch: usize,
    team: Arc<Team>,
    layout: Layout,
    buffers: Buffers,
    head_groups: Vec<usize>,
    costs: Option<StepCosts>,
}

/// Why this runner cannot compute a model, as half a sentence; `None` if it can.
pub fn unsupported(checkpoint: &Checkpoint) -> Option<String> {
    let architecture = &checkpoint.architecture;
    let matrices = checkpoint.roles().into_iter().filter(|role| checkpoint.stored_rows(*role).is_ok());
    for role in matrices {
        let stored = checkpoint.stored_rows(role).ok()?;
        match format_of(stored.kind) {
            None => return Some(format!("{role} is stored as {}", stored.kind)),
            Some(format) if format.is_quantized() && !stored.n_cols.is_multiple_of(tsserve_kernels::TILE) => {
                return Some(format!("{role} has rows of {} quantised weights", stored.n_cols));
            }
            Some(_) => {}
        }
    }
    let first = &architecture.layers.first()?.attention;
    let same = |layer: &crate::architecture::Layer| {
        let attention = &layer.attention;
        (attention.n_heads, attention.n_kv_heads, attention.head_dim)
            == (first.n_heads, first.n_kv_heads, first.head_dim)
    };
    if !architecture.layers.iter().all(same) {
        return Some("its layers have different heads".to_owned());
    }
    if !first.head_dim.is_multiple_of(8) {
        return Some(format!("its heads have {} dimensions", first.head_dim));
    }
    if architecture.ropes.len() > MAX_ROPES {
        return Some(format!("it has {} rotary embeddings", architecture.ropes.len()));
    }
    None
}

impl CpuRunner {
    /// Packs all weights and allocates the KV cache. `progress` hears how many of how many parts are packed, from
    /// (0, n) to (n, n).
    ///
    /// # Errors
    /// `ModelError` where a tensor is missing or broken, or the model is not [`unsupported`]'s.
    pub fn load(
        checkpoint: &Checkpoint,
        options: CpuOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let refuse = |what: String| ModelError::from(ConfigError::Unsupported { what });
        if let Some(why) = unsupported(checkpoint) {
            return Err(refuse(format!("a model on the packed CPU runner of which {why}")));
        }
        let architecture = checkpoint.architecture.clone();
        let cache_types = layer_types(checkpoint, options.cache_type);
        let layout = layout_of(&architecture, &cache_types);
        if layout.len() != options.kv_blocks.len() {
            return Err(refuse(format!(
                "a cache of {} groups for a model of {}",
                options.kv_blocks.len(),
                layout.len()
            )));
        }
        let team = team(options.threads).map_err(|error| refuse(format!("{} threads: {error}", options.threads)))?;
        let model = pack(checkpoint, options.quantization, options.threads, progress)?;
        let group_of = |index| layout.iter().position(|group| group.layers.contains(&index)).unwrap_or(0);
        let groups: Vec<usize> = (0..architecture.layers.len()).map(group_of).collect();
        let caches = kv_caches(&architecture, &cache_types, &layout, &groups, &options.kv_blocks);
        let buffers = Buffers::new(
            options.level,
            &architecture,
            &model,
            options.max_batch_tokens,
            options.max_context,
            team.n_threads(),
        );
        let kinds: Vec<CacheKind> = layout.iter().map(|group| group.kind).collect();
        let mut runner = Self {
            spec: RunnerSpec {
                vocab_size: architecture.vocab_size,
                block_size: BLOCK_SIZE,
                max_context: options.max_context,
                groups: kinds
                    .iter()
                    .zip(&options.kv_blocks)
                    .map(|(&kind, &n_blocks)| CacheGroup { kind, n_blocks })
                    .collect(),
            },
            max_batch_tokens: options.max_batch_tokens,
            ropes: architecture.ropes.iter().map(RopeFrequencies::new).collect(),
            architecture,
            model,
            caches,
            groups,
            level: options.level,
            prefetch: 0,
            team,
            layout: Layout::default(),
            buffers,
            head_groups: Vec::new(),
            costs: None,
        };
        runner.costs = calibrate(&mut runner);
        Ok(runner)
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.model.bytes()
    }

    /// Bytes of weights that one token of an answer reads.
    pub fn bytes_per_token(&self) -> usize {
        self.model.bytes_per_token()
    }

    /// 8-bit multiplications and additions of one token of a prompt, each counted as one; the head, which most of a
    /// prompt's tokens do not go through, is left out. 0 where no weights are integers, or prompts are computed in bf16.
    pub fn operations_per_prompt_token(&self) -> usize {
        let Buffers { qkv_rows, attended_rows, mlp_rows, inner_rows, .. } = &self.buffers;
        let layer = |layer: &PackedLayer| {
            let matrices = [
                (&layer.qkv, qkv_rows),
                (&layer.o, attended_rows),
                (&layer.gate_up, mlp_rows),
                (&layer.down, inner_rows),
            ];
            matrices.map(|(linear, rows)| linear.integer_weights() * rows.prompt_products()).iter().sum::<usize>()
        };
        2 * self.model.layers.iter().map(layer).sum::<usize>()
    }

    /// As `run`, and hands every layer's hidden states to `tap`, rows in plan order if all rows have one role.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_tapped(&mut self, plan: &StepPlan, tap: HiddenTap<'_>) -> Result<StepResults, RunnerError> {
        self.step(plan, Some(tap))
    }

    fn step(&mut self, plan: &StepPlan, mut tap: Option<HiddenTap<'_>>) -> Result<StepResults, RunnerError> {
        self.layout.fill(plan, &self.spec, self.max_batch_tokens)?;
        if self.layout.n_rows() == 0 {
            return Ok(StepResults::default());
        }
        if let Some(tap) = &mut tap {
            self.forward_tapped(plan, tap);
        } else {
            self.forward(plan, None);
        }
        let head = Head {
            matrix: self.model.head(),
            final_norm: &self.model.final_norm,
            norm_eps: self.architecture.norm_eps,
            softcap: self.architecture.final_logit_softcap,
            vocab_size: self.architecture.vocab_size,
            hidden_size: self.architecture.hidden_size,
            level: self.level,
            prefetch: self.prefetch,
        };
        let outputs = &self.layout.outputs;
        Ok(StepResults { rows: head.answer(&self.team, plan, outputs, &mut self.buffers, &mut self.head_groups) })
    }

    /// Computes the stream of all rows after `n_layers` layers, or all of them.
    fn forward(&mut self, plan: &StepPlan, n_layers: Option<usize>) {
        let constants = Constants {
            architecture: &self.architecture,
            model: &self.model,
            ropes: &self.ropes,
            caches: &self.caches,
            groups: &self.groups,
            level: self.level,
            prefetch: self.prefetch,
            plan,
            layout: &self.layout,
        };
        let parts = Parts::new(&mut self.buffers, &self.layout);
        let n_layers = n_layers.unwrap_or(self.model.layers.len());
        self.team.run(&|worker| Forward { constants: &constants, parts: &parts, worker }.run(n_layers));
    }

    /// Computes the step once per layer, one layer further each time: slow, and nothing in the step itself knows of it.
    fn forward_tapped(&mut self, plan: &StepPlan, tap: &mut HiddenTap<'_>) {
        let (width, hidden) = (self.buffers.widths.hidden, self.architecture.hidden_size);
        for n_layers in 0..=self.model.layers.len() {
            self.forward(plan, Some(n_layers));
            let rows = self.buffers.x.chunks(width).take(self.layout.n_rows());
            let states: Vec<f32> = rows.flat_map(|row| &row[..hidden]).copied().collect();
            tap(n_layers.checked_sub(1).map_or(HiddenPoint::Embedding, HiddenPoint::Layer), &states);
        }
    }
}

impl ModelRunner for CpuRunner {
    fn spec(&self) -> &RunnerSpec {
        &self.spec
    }

    fn step_costs(&self) -> Option<StepCosts> {
        self.costs.clone()
    }

    fn roles_differ(&self) -> bool {
        self.model.roles_differ(has_tiles(self.level))
    }

    fn run(&mut self, plan: &StepPlan) -> Result<StepResults, RunnerError> {
        let started = Instant::now();
        let results = self.step(plan, None)?;
        if let Some(costs) = &self.costs {
            self.team.report(Duration::from_secs_f64(costs.plan(plan)), started.elapsed());
        }
        Ok(results)
    }
}

/// The team of `n_threads` that all models of the process share.
pub(crate) fn team(n_threads: usize) -> std::io::Result<Arc<Team>> {
    static TEAMS: Mutex<Vec<Weak<Team>>> = Mutex::new(Vec::new());
    let mut teams = TEAMS.lock().unwrap_or_else(PoisonError::into_inner);
    teams.retain(|team| team.strong_count() > 0);
    if let Some(team) = teams.iter().filter_map(Weak::upgrade).find(|team| team.n_threads() == n_threads) {
        return Ok(team);
    }
    let team = Arc::new(Team::new(n_threads)?);
    teams.push(Arc::downgrade(&team));
    Ok(team)
}
