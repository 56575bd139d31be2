//! A checkpoint's tensors, packed.

use rayon::prelude::*;
use tsserve_kernels::{Format, Matrix, ROW_GROUP, TILE};

use crate::architecture::{Architecture, Layer, LayerNorms};
use crate::checkpoint::{Checkpoint, LayerTensor, TensorRole};
use crate::config::ConfigError;
use crate::error::ModelError;
use crate::weights::{WeightType, dequantize};

use super::quantization::{Quantization, packed_format};

/// Matrices that read the same input, and their biases.
#[derive(Debug)]
pub(super) struct Linear {
    pub parts: Vec<Part>,
}

/// One matrix of a [`Linear`].
#[derive(Debug)]
pub(super) struct Part {
    pub matrix: Matrix,
    /// `[n_rows]`
    pub bias: Option<Vec<f32>>,
    /// Its first column in the output row; a multiple of [`ROW_GROUP`].
    pub offset: usize,
}

/// One decoder layer.
#[derive(Debug)]
pub(super) struct PackedLayer {
    pub shape: Layer,
    pub attn_norm: Vec<f32>,
    /// q, k and v.
    pub qkv: Linear,
    pub qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    pub o: Linear,
    pub post_attn_norm: Option<Vec<f32>>,
    pub mlp_norm: Vec<f32>,
    /// gate and up.
    pub gate_up: Linear,
    pub down: Linear,
    pub post_mlp_norm: Option<Vec<f32>>,
}

/// A decoder, packed.
#[derive(Debug)]
pub(super) struct PackedModel {
    pub embedding: Matrix,
    pub layers: Vec<PackedLayer>,
    pub final_norm: Vec<f32>,
    /// `None`: the head is the embedding.
    pub head: Option<Matrix>,
}

impl Linear {
    /// Columns of an output row, padding included.
    pub(super) fn width(&self) -> usize {
        self.parts.last().map_or(0, |part| part.offset + padded(part.matrix.n_rows(), ROW_GROUP))
    }

    /// Does any part read a row's floats? `tiled`: the row is multiplied in tiles by all matrices that have them.
    pub(super) fn reads_floats(&self, tiled: bool) -> bool {
        !self.parts.iter().all(|part| reads_rows(part.matrix.format(), tiled))
    }

    /// Does any part read it quantised, or rounded, where it is `tiled`?
    pub(super) fn reads_rows(&self, tiled: bool) -> bool {
        self.parts.iter().any(|part| reads_rows(part.matrix.format(), tiled))
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.matrix.bytes()).sum()
    }

    /// Weights that are multiplied as integers.
    pub(super) fn integer_weights(&self) -> usize {
        let quantized = self.parts.iter().map(|part| &part.matrix).filter(|matrix| matrix.format().is_quantized());
        quantized.map(|matrix| matrix.n_rows() * matrix.n_cols()).sum()
    }
}

/// Is a matrix multiplied with quantised rows, or with rounded ones, where they are `tiled`? The others take floats.
fn reads_rows(format: Format, tiled: bool) -> bool {
    if tiled { format.has_tiles() } else { format.is_quantized() }
}

impl PackedModel {
    pub(super) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Does any layer read its rows quantised or, where prompts' rows are `tiled`, rounded? Then prompts' rows and
    /// answers' have other bits.
    pub(super) fn roles_differ(&self, tiled: bool) -> bool {
        let differ = |l: &PackedLayer| [&l.qkv, &l.o, &l.gate_up, &l.down].iter().any(|l| l.reads_rows(tiled));
        self.layers.iter().any(differ)
    }

    /// Bytes of all matrices.
    pub(super) fn bytes(&self) -> usize {
        self.bytes_per_token() + self.head.as_ref().map_or(0, |_| self.embedding.bytes())
    }

    /// Bytes of the matrices that one token of an answer goes through: of an embedding that is not the head it reads a
    /// row only.
    pub(super) fn bytes_per_token(&self) -> usize {
        let layer = |l: &PackedLayer| l.qkv.bytes() + l.o.bytes() + l.gate_up.bytes() + l.down.bytes();
        self.head().bytes() + self.layers.iter().map(layer).sum::<usize>()
    }
}

/// The next multiple of `unit`.
pub(crate) fn padded(n: usize, unit: usize) -> usize {
    n.div_ceil(unit) * unit
}

/// The packed format of a stored type; `None` where there are no kernels for it.
pub(crate) fn format_of(stored: WeightType) -> Option<Format> {
    Some(match stored {
        WeightType::Q4_0 => Format::Q4_0,
        WeightType::Q4_1 => Format::Q4_1,
        WeightType::Q5_0 => Format::Q5_0,
        WeightType::Q5_1 => Format::Q5_1,
        WeightType::Q8_0 => Format::Q8_0,
        WeightType::Q4_K => Format::Q4_K,
        WeightType::Q5_K => Format::Q5_K,
        WeightType::Q6_K => Format::Q6_K,
        WeightType::MXFP4 => Format::MXFP4,
        WeightType::IQ4_NL => Format::IQ4_NL,
        WeightType::BF16 => Format::BF16,
        WeightType::F16 => Format::F16,
        WeightType::F32 => Format::F32,
        _ => return None,
    })
}

/// Packs every tensor. `progress` hears (0, n) to (n, n).
///
/// # Errors
/// A tensor that is missing, broken, or has no kernels.
pub(super) fn pack(
    checkpoint: &Checkpoint,
    quantization: Option<Quantization>,
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PackedModel, ModelError> {
    let architecture = &checkpoint.architecture;
    let total = architecture.layers.len() + 2;
    let packer = Packer { checkpoint, quantization, threads };
    progress(0, total);
    let embedding = packer.matrix(TensorRole::Embedding)?;
    progress(1, total);
    let mut layers = Vec::with_capacity(architecture.layers.len());
    for index in 0..architecture.layers.len() {
        layers.push(packer.layer(index)?);
        progress(2 + index, total);
    }
    let final_norm = packer.norm(TensorRole::FinalNorm)?;
    let head = (!architecture.tied_head).then(|| packer.matrix(TensorRole::Head)).transpose()?;
    progress(total, total);
    Ok(PackedModel { embedding, layers, final_norm, head })
}

struct Packer<'c> {
    checkpoint: &'c Checkpoint,
    quantization: Option<Quantization>,
    threads: usize,
}

impl Packer<'_> {
    fn matrix(&self, role: TensorRole) -> Result<Matrix, ModelError> {
        let stored = self.checkpoint.stored_rows(role)?;
        let unsupported = |what: String| ModelError::from(ConfigError::Unsupported { what });
        let format = packed_format(role, &stored, self.quantization)
            .ok_or_else(|| unsupported(format!("{role} stored as {} on the packed CPU runner", stored.kind)))?;
        let packed = if format_of(stored.kind) != Some(format) {
            // Only rows of whole blocks are quantised.
            let row = |row: usize, out: &mut [f32]| dequantize(stored.kind, stored.row(row), out);
            Matrix::encode(format, stored.n_rows, stored.n_cols, self.threads, &row)
        } else if stored.n_cols.is_multiple_of(TILE) {
            Matrix::pack(format, stored.n_rows, stored.n_cols, self.threads, &|row| stored.row(row))
        } else {
            // Rows of unusual length are lengthened with zeros. Only unquantised ones can be.
            let width = padded(stored.n_cols, TILE);
            let bytes_per_value = format.block().1;
            let rows: Vec<Vec<u8>> = (0..stored.n_rows)
                .into_par_iter()
                .map(|row| {
                    let mut bytes = stored.row(row).to_vec();
                    bytes.resize(width * bytes_per_value, 0);
                    bytes
                })
                .collect();
            Matrix::pack(format, stored.n_rows, width, self.threads, &|row| &rows[row])
        };
        // Packed it has a copy of its own: without this, loading would take twice the memory.
        self.checkpoint.release(role);
        packed.map_err(|error| unsupported(format!("{role}: {error}")))
    }

    fn vector(&self, role: TensorRole) -> Result<Vec<f32>, ModelError> {
        self.checkpoint.load_f32(role)
    }

    /// A norm's weights, with 1 added where the checkpoint stores them without it.
    fn norm(&self, role: TensorRole) -> Result<Vec<f32>, ModelError> {
        let Architecture { norm_plus_one, .. } = self.checkpoint.architecture;
        let mut weight = self.vector(role)?;
        if norm_plus_one {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        Ok(weight)
    }

    fn linear(&self, parts: &[(TensorRole, Option<TensorRole>)]) -> Result<Linear, ModelError> {
        let mut offset = 0;
        let mut packed = Vec::with_capacity(parts.len());
        for (weight, bias) in parts {
            let matrix = self.matrix(*weight)?;
            let width = padded(matrix.n_rows(), ROW_GROUP);
            packed.push(Part { matrix, bias: bias.map(|role| self.vector(role)).transpose()?, offset });
            offset += width;
        }
        Ok(Linear { parts: packed })
    }

    fn layer(&self, index: usize) -> Result<PackedLayer, ModelError> {
        use LayerTensor as T;
        let shape = self.checkpoint.architecture.layers[index].clone();
        let role = |tensor| TensorRole::Layer(index, tensor);
        let biased = |has: bool, weight, bias| (role(weight), has.then(|| role(bias)));
        let sandwich = shape.norms == LayerNorms::Sandwich;
        let norm_if = |wanted: bool, tensor| wanted.then(|| self.norm(role(tensor))).transpose();
        let qk_norm = norm_if(shape.attention.qk_norm, T::QNorm)?.zip(norm_if(shape.attention.qk_norm, T::KNorm)?);
        let (qkv_bias, o_bias, mlp_bias) = (shape.attention.qkv_bias, shape.attention.o_bias, shape.mlp.bias);
        Ok(PackedLayer {
            attn_norm: self.norm(role(T::AttnNorm))?,
            qkv: self.linear(&[
                biased(qkv_bias, T::Q, T::QBias),
                biased(qkv_bias, T::K, T::KBias),
                biased(qkv_bias, T::V, T::VBias),
            ])?,
            qk_norm,
            o: self.linear(&[biased(o_bias, T::O, T::OBias)])?,
            post_attn_norm: norm_if(sandwich, T::PostAttnNorm)?,
            mlp_norm: self.norm(role(T::MlpNorm))?,
            gate_up: self.linear(&[biased(mlp_bias, T::Gate, T::GateBias), biased(mlp_bias, T::Up, T::UpBias)])?,
            down: self.linear(&[biased(mlp_bias, T::Down, T::DownBias)])?,
            post_mlp_norm: norm_if(sandwich, T::PostMlpNorm)?,
            shape,
        })
    }
}
