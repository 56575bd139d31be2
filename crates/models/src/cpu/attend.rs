//! The attention phases of a step: keys and values into the cache, the prompts' tiles, the fine rows' pieces of context.

use tsserve_kernels::attention::{Context, attend_rows, attend_span, merge};
use tsserve_kernels::elementwise;

use super::buffers::Widths;
use super::forward::{Constants, Forward};
use super::layout::Piece;
use super::weights::{PackedLayer, Part};
use crate::step::BLOCK_SIZE;

impl<'r> Forward<'_, 'r> {
    /// Biases, norms and rotates queries and keys, scales queries, and writes keys and values to the cache.
    pub(super) fn rope_and_cache(&self, index: usize, layer: &PackedLayer) {
        let Constants { architecture, layout, plan, level, .. } = *self.constants;
        let shape = &layer.shape.attention;
        let (d, n_kv, group) = (shape.head_dim, shape.n_kv_heads, shape.n_heads / shape.n_kv_heads);
        let [q_part, k_part, v_part] = &layer.qkv.parts[..] else { return };
        self.worker.share(layout.n_rows() * n_kv, |chunk| {
            let (row, kv_head) = (chunk / n_kv, chunk % n_kv);
            let position = layout.positions[row];
            let table = shape.rope.and_then(|rope| {
                let half = self.constants.ropes[rope].half();
                let (cos, sin) = self.parts.ropes[rope].as_ref()?;
                // SAFETY: written before an earlier join.
                Some(unsafe { (cos.read(row * half..(row + 1) * half), sin.read(row * half..(row + 1) * half)) })
            });
            let head = |part: &Part, head: usize| {
                let first = row * self.parts.widths.qkv + part.offset + head * d;
                // SAFETY: each head of a row belongs to one chunk.
                let values = unsafe { self.parts.qkv.part(first..first + d) };
                if let Some(bias) = &part.bias {
                    elementwise::add(level, values, &bias[head * d..][..d]);
                }
                values
            };
            let turn = |values: &mut [f32], norm: Option<&Vec<f32>>| {
                if let Some(weight) = norm {
                    elementwise::rms_norm_in_place(level, values, weight, architecture.norm_eps);
                }
                if let Some((cos, sin)) = table {
                    elementwise::rope(level, values, cos, sin);
                }
            };
            for i in 0..group {
                let q = head(q_part, kv_head * group + i);
                turn(q, layer.qk_norm.as_ref().map(|norms| &norms.0));
                elementwise::scale(level, q, shape.scale);
            }
            let k = head(k_part, kv_head);
            turn(k, layer.qk_norm.as_ref().map(|norms| &norms.1));
            let v = head(v_part, kv_head);
            let block =
                plan.sequences[layout.sequences[row]].block_tables[self.constants.groups[index]][position / BLOCK_SIZE];
            // SAFETY: blocks being written belong to one sequence, and a position of it to this row.
            unsafe { self.constants.caches[index].write(level, block, kv_head, position % BLOCK_SIZE, k, v) };
        });
    }

    /// Attention of all rows: the prompts' in tiles; of the fine rows each piece of context, then merged.
    pub(super) fn attend(&self, index: usize, layer: &PackedLayer) {
        let layout = self.constants.layout;
        let pieces = &layout.groups[self.constants.groups[index]];
        let n_kv = layer.shape.attention.n_kv_heads;
        let mut done = 0;
        let mut tiles = layout.tiles.len();
        loop {
            // Whole rows' pieces, as many as there is room for.
            let mut end = (done + self.parts.max_pieces).min(pieces.len());
            while end < pieces.len() && end > done + 1 && pieces[end].row == pieces[end - 1].row {
                end -= 1;
            }
            let now = &pieces[done..end];
            self.worker.share((now.len() + tiles) * n_kv, |chunk| {
                let (unit, kv_head) = (chunk / n_kv, chunk % n_kv);
                match unit.checked_sub(now.len()) {
                    None => self.attend_piece(index, layer, &now[unit], unit, kv_head),
                    Some(tile) => self.attend_tile(index, layer, tile, kv_head),
                }
            });
            tiles = 0;
            self.merge(layer, now);
            done = end;
            if done == pieces.len() {
                return;
            }
        }
    }

    fn context(&self, index: usize, row: usize, kv_head: usize) -> Context<'r> {
        let Constants { plan, layout, caches, groups, .. } = *self.constants;
        let table = &plan.sequences[layout.sequences[row]].block_tables[groups[index]];
        Context { pages: &caches[index], table, head: kv_head }
    }

    fn attend_piece(&self, index: usize, layer: &PackedLayer, piece: &Piece, slot: usize, kv_head: usize) {
        let shape = &layer.shape.attention;
        let (d, group) = (shape.head_dim, shape.n_heads / shape.n_kv_heads);
        let first = piece.row * self.parts.widths.qkv + kv_head * group * d;
        // SAFETY: queries were written before the last join; the piece's results are this chunk's alone.
        let (q, partials, values) = unsafe {
            let place = slot * shape.n_heads + kv_head * group;
            (
                self.parts.qkv.read(first..first + group * d),
                self.parts.partials.part(place..place + group),
                self.parts.partial_values.part(place * d..(place + group) * d),
            )
        };
        let context = self.context(index, piece.row, kv_head);
        let scratch = &mut self.scratch().attention;
        let level = self.constants.level;
        // SAFETY: the machine has the level, and the cache was written before the last join.
        unsafe {
            attend_span(level, &context, q, group, piece.from, piece.to, shape.softcap, scratch, partials, values);
        }
    }

    fn attend_tile(&self, index: usize, layer: &PackedLayer, tile: usize, kv_head: usize) {
        let shape = &layer.shape.attention;
        let (d, group) = (shape.head_dim, shape.n_heads / shape.n_kv_heads);
        let tile = self.constants.layout.tiles[tile];
        let Widths { qkv, attended, .. } = self.parts.widths;
        let (first, column) = (tile.row * qkv, kv_head * group * d);
        // SAFETY: queries were written before the last join.
        let q = unsafe { self.parts.qkv.read(first + column..first + (tile.len - 1) * qkv + column + group * d) };
        let out = self.parts.attended.at(tile.row * attended + column);
        let context = self.context(index, tile.row, kv_head);
        let start = self.constants.layout.positions[tile.row];
        let scratch = &mut self.scratch().attention;
        // SAFETY: the tile's rows of these heads are this chunk's alone.
        unsafe {
            attend_rows(
                self.constants.level,
                &context,
                q,
                qkv,
                group,
                start,
                tile.len,
                shape.window,
                shape.softcap,
                scratch,
                out,
                attended,
            );
        }
    }

    /// Merges the pieces of each row and head.
    fn merge(&self, layer: &PackedLayer, pieces: &[Piece]) {
        let shape = &layer.shape.attention;
        let (d, n_heads) = (shape.head_dim, shape.n_heads);
        let Some(first_row) = pieces.first().map(|piece| piece.row) else { return };
        let n_rows = pieces[pieces.len() - 1].row + 1 - first_row;
        self.worker.share(n_rows * n_heads, |chunk| {
            let (row, head) = (first_row + chunk / n_heads, chunk % n_heads);
            let first = pieces.partition_point(|piece| piece.row < row);
            let n = pieces[first..].partition_point(|piece| piece.row == row);
            let place = row * self.parts.widths.attended + head * d;
            // SAFETY: pieces were computed before the last join; the head's output is this chunk's alone.
            let (partials, values, out) = unsafe {
                let slots = first * n_heads..(first + n) * n_heads;
                (
                    self.parts.partials.read(slots.clone()),
                    self.parts.partial_values.read(slots.start * d..slots.end * d),
                    self.parts.attended.part(place..place + d),
                )
            };
            let spans = (head..n * n_heads).step_by(n_heads).map(|slot| (partials[slot], &values[slot * d..][..d]));
            merge(self.constants.level, spans, out);
        });
    }

    pub(super) fn quantize_attended(&self, layer: &PackedLayer) {
        let n_rows = self.constants.layout.n_rows();
        // The first row is of the one role, the last of the other, if there are both.
        if ![0, n_rows - 1].into_iter().any(|row| layer.o.reads_rows(self.is_tiled(row))) {
            return;
        }
        let width = self.parts.widths.attended;
        self.worker.share(n_rows, |row| {
            if layer.o.reads_rows(self.is_tiled(row)) {
                // SAFETY: written before the last join.
                let values = unsafe { self.parts.attended.read(row * width..(row + 1) * width) };
                self.quantize(&self.parts.attended_rows, row, values);
            }
        });
    }
}
