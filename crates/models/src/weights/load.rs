//! From stored bytes to candle tensors, in parallel.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::dequant::Element;
use super::types::WeightType;

/// Values that one task converts, at least: small enough to share a large tensor between the cores, large enough that
/// handing out tasks costs nothing. A multiple of every block length.
const TASK_LEN: usize = 64 * 1024;

/// The tensor of `shape` whose blocks are `bytes`; `kind` is readable.
///
/// `row_of`: where row `i` of the result (along the first dimension) comes from, for tensors that are stored in
/// another order.
pub(super) fn tensor(
    kind: WeightType,
    bytes: &[u8],
    shape: &[usize],
    row_of: Option<&(dyn Fn(usize) -> usize + Sync)>,
    dtype: DType,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let n_rows = if row_of.is_some() { shape.first().copied().unwrap_or(1) } else { 1 };
    let n = shape.iter().product();
    match dtype {
        DType::F32 => Tensor::from_vec(values::<f32>(kind, bytes, n, n_rows, row_of), shape, device),
        DType::F16 => Tensor::from_vec(values::<f16>(kind, bytes, n, n_rows, row_of), shape, device),
        DType::BF16 => Tensor::from_vec(values::<bf16>(kind, bytes, n, n_rows, row_of), shape, device),
        other => Err(candle_core::Error::UnsupportedDTypeForOp(other, "loading weights").bt()),
    }
}

pub(super) fn values<T: Element>(
    kind: WeightType,
    bytes: &[u8],
    n: usize,
    n_rows: usize,
    row_of: Option<&(dyn Fn(usize) -> usize + Sync)>,
) -> Vec<T> {
    let Some((block_len, block_bytes)) = kind.block() else { return Vec::new() };
    let convert = |bytes: &[u8], out: &mut [T]| {
        if kind == T::STORED {
            T::copy_from_bytes(bytes, out);
        } else {
            T::dequantize(kind, bytes, out);
        }
    };
    let mut out = vec![T::zero(); n];
    let Some(row_of) = row_of else {
        let task_bytes = TASK_LEN / block_len * block_bytes;
        out.par_chunks_mut(TASK_LEN).zip(bytes.par_chunks(task_bytes)).for_each(|(out, bytes)| convert(bytes, out));
        return out;
    };
    let row_len = n / n_rows;
    let row_bytes = bytes.len() / n_rows;
    out.par_chunks_mut(row_len).enumerate().with_min_len(TASK_LEN.div_ceil(row_len)).for_each(|(row, out)| {
        let from = row_of(row) * row_bytes;
        convert(&bytes[from..from + row_bytes], out);
    });
    out
}
