//! From the residual stream to what each output row asked for. Logits of a few rows exist at a time, and where a grammar
//! leaves few tokens only their rows of the head are computed.

use tsserve_engine::{RowResult, RowWant, StepPlan, TokenId};
use tsserve_kernels::{
    Candidate, Level, MAX_BLOCK_ROWS, Matrix, Planes, ROW_GROUP, Team, TopK, arg_max, elementwise, log_sum_exp,
    multiply, multiply_f32, quantize_tile_range,
};

use super::buffers::Buffers;
use super::layout::Output;
use super::shared::Shared;
use super::weights::padded;

/// Allowed sets of at most one in this many tokens get only their own rows computed.
const FEW_ALLOWED: usize = 32;

/// Row groups of the head in one chunk.
const CHUNK_GROUPS: usize = 64;

/// What the head reads.
pub(super) struct Head<'r> {
    pub matrix: &'r Matrix,
    pub final_norm: &'r [f32],
    pub norm_eps: f32,
    pub softcap: Option<f32>,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub level: Level,
    pub prefetch: usize,
}

impl Head<'_> {
    /// Answers the outputs of a step, in their order. `buffers.x` holds the stream of all rows.
    pub(super) fn answer(
        &self,
        team: &Team,
        plan: &StepPlan,
        outputs: &[Output],
        buffers: &mut Buffers,
        groups: &mut Vec<usize>,
    ) -> Vec<RowResult> {
        let mut results = vec![RowResult::default(); outputs.len()];
        for (outputs, results) in outputs.chunks(MAX_BLOCK_ROWS).zip(results.chunks_mut(MAX_BLOCK_ROWS)) {
            let mut wants: [&RowWant; MAX_BLOCK_ROWS] = [&RowWant::ArgMax; MAX_BLOCK_ROWS];
            for (want, output) in wants.iter_mut().zip(outputs) {
                *want = &plan.sequences[output.sequence].outputs[output.output].want;
            }
            self.block(team, outputs, &wants[..outputs.len()], buffers, groups, results);
        }
        results
    }

    fn block(
        &self,
        team: &Team,
        outputs: &[Output],
        wants: &[&RowWant],
        buffers: &mut Buffers,
        groups: &mut Vec<usize>,
        results: &mut [RowResult],
    ) {
        let (width, vocab, n) = (buffers.widths.hidden, buffers.widths.vocab, outputs.len());
        let few = self.few_groups(wants, groups);
        buffers.head_rows.reshape(n, width, Planes::Two);
        let rows = buffers.head_rows.writer();
        let (x, float) = (Shared::new(&mut buffers.x), Shared::new(&mut buffers.head_float));
        let (logits, results) = (Shared::new(&mut buffers.logits), Shared::new(results));
        let level = self.level;
        team.run(&|worker| {
            worker.share(n, |i| {
                // SAFETY: the stream is only read here, and each row normed by one chunk.
                let (x, normed) = unsafe {
                    let first = outputs[i].row * width;
                    (x.read(first..first + self.hidden_size), float.part(i * width..(i + 1) * width))
                };
                elementwise::rms_norm(level, x, self.final_norm, self.norm_eps, &mut normed[..self.hidden_size]);
                normed[self.hidden_size..].fill(0.0);
                if self.matrix.format().is_quantized() {
                    // SAFETY: this row's alone.
                    unsafe { quantize_tile_range(level, normed, i, &rows, 0..rows.n_tiles()) };
                }
            });
            let multiply_groups = |groups: std::ops::Range<usize>| {
                let out = logits.at(0);
                // SAFETY: the rows were written before the last join; these columns of the logits are the chunk's alone.
                unsafe {
                    if self.matrix.format().is_quantized() {
                        multiply(level, self.matrix, groups, &rows.block(0), out, vocab, self.prefetch);
                    } else {
                        let x = float.read(0..n * width);
                        multiply_f32(level, self.matrix, groups, x, width, n, out, vocab, self.prefetch);
                    }
                }
            };
            if few {
                worker.share(groups.len(), |i| multiply_groups(groups[i]..groups[i] + 1));
            } else {
                let n_groups = self.matrix.n_groups();
                worker.share(n_groups.div_ceil(CHUNK_GROUPS), |chunk| {
                    let first = chunk * CHUNK_GROUPS;
                    multiply_groups(first..(first + CHUNK_GROUPS).min(n_groups));
                });
            }
            worker.share(n, |i| {
                // SAFETY: each row by one chunk.
                let (logits, result) =
                    unsafe { (logits.part(i * vocab..i * vocab + self.vocab_size), &mut results.part(i..i + 1)[0]) };
                match (self.softcap, few, wants[i]) {
                    (None, _, _) => {}
                    (Some(cap), true, RowWant::Allowed(ids)) => {
                        ids.iter().for_each(|&id| elementwise::softcap(level, &mut logits[id as usize..][..1], cap));
                    }
                    (Some(cap), _, _) => elementwise::softcap(level, logits, cap),
                }
                *result = reduce(level, logits, wants[i]);
            });
        });
    }

    /// Do all rows ask for few tokens? Then `groups` is set to the row groups that hold them.
    fn few_groups(&self, wants: &[&RowWant], groups: &mut Vec<usize>) -> bool {
        groups.clear();
        for want in wants {
            match want {
                RowWant::Allowed(ids) if ids.len() * FEW_ALLOWED <= self.vocab_size => {
                    groups.extend(ids.iter().map(|&id| id as usize / ROW_GROUP));
                }
                _ => return false,
            }
        }
        groups.sort_unstable();
        groups.dedup();
        groups.len() * 2 < padded(self.vocab_size, ROW_GROUP) / ROW_GROUP
    }
}

/// One row of logits to what it was asked for.
fn reduce(level: Level, logits: &[f32], want: &RowWant) -> RowResult {
    let gather = |ids: &[TokenId]| ids.iter().map(|id| logits[*id as usize]).collect();
    let mut result = RowResult { log_sum_exp: f32::NAN, ..RowResult::default() };
    // A row without a number above -infinity answers its first value, which says so.
    let best = || {
        let best = arg_max(level, logits, 0).map_or((0, logits[0]), |Candidate { id, logit }| (id, logit));
        vec![best]
    };
    match want {
        RowWant::ArgMax => result.candidates = best(),
        RowWant::TopK { k, chosen } => {
            let mut top = TopK::new((*k).min(logits.len()));
            top.scan(level, logits, 0);
            result.candidates = top.best().iter().map(|&Candidate { id, logit }| (id, logit)).collect();
            if result.candidates.is_empty() {
                result.candidates = best();
            }
            result.log_sum_exp = log_sum_exp(level, logits).ln() as f32;
            result.chosen = gather(chosen);
        }
        RowWant::Allowed(ids) => result.chosen = gather(ids),
        RowWant::Full => result.logits = logits.to_vec(),
    }
    result
}
