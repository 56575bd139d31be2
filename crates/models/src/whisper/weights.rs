//! A checkpoint's tensors, packed.

use half::bf16;
use tsserve_kernels::{Format, Matrix, PackError, TILE};

use super::checkpoint::WhisperCheckpoint;
use super::config::WhisperConfig;
use super::tensors::Stored;
use crate::config::ConfigError;
use crate::cpu::{Quantization, format_of};
use crate::error::ModelError;

/// A matrix and what is added to its products.
#[derive(Debug)]
pub(super) struct Linear {
    pub matrix: Matrix,
    /// One for each row.
    pub bias: Vec<f32>,
}

#[derive(Debug)]
pub(super) struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

#[derive(Debug)]
pub(super) struct EncoderLayer {
    pub attn_norm: Norm,
    /// q, k and v.
    pub qkv: Linear,
    pub out: Linear,
    pub mlp_norm: Norm,
    pub fc1: Linear,
    pub fc2: Linear,
}

#[derive(Debug)]
pub(super) struct DecoderLayer {
    pub attn_norm: Norm,
    /// q, k and v.
    pub qkv: Linear,
    pub out: Linear,
    pub cross_norm: Norm,
    pub cross_q: Linear,
    /// k and v of the encoder's output; computed with the encoder.
    pub cross_kv: Linear,
    pub cross_out: Linear,
    pub mlp_norm: Norm,
    pub fc1: Linear,
    pub fc2: Linear,
}

#[derive(Debug)]
pub(super) struct Encoder {
    /// Convolutions as matrices `[out, kernel * in]`.
    pub conv1: Linear,
    pub conv2: Linear,
    /// `[audio_context][width]`
    pub positions: Vec<f32>,
    pub layers: Vec<EncoderLayer>,
    pub norm: Norm,
}

#[derive(Debug)]
pub(super) struct Decoder {
    /// Embedding and head, less `centre`.
    pub embedding: Matrix,
    /// The mean of the embedding's rows where it is quantised here, `[width]`, otherwise zeros. Whisper's rows are
    /// nearly this and little else: without it what is left has much smaller weights, and so quantisation makes much
    /// smaller errors: half in the log-probabilities of base.
    pub centre: Vec<f32>,
    /// `[text_context][width]`
    pub positions: Vec<f32>,
    pub layers: Vec<DecoderLayer>,
    pub norm: Norm,
}

impl Encoder {
    pub(super) fn bytes(&self) -> usize {
        let layer = |l: &EncoderLayer| [&l.qkv, &l.out, &l.fc1, &l.fc2].iter().map(|l| l.matrix.bytes()).sum::<usize>();
        self.conv1.matrix.bytes() + self.conv2.matrix.bytes() + self.layers.iter().map(layer).sum::<usize>()
    }
}

impl Decoder {
    pub(super) fn bytes(&self) -> usize {
        self.bytes_per_token() + self.layers.iter().map(|layer| layer.cross_kv.matrix.bytes()).sum::<usize>()
    }

    /// Bytes of the matrices that every token goes through.
    pub(super) fn bytes_per_token(&self) -> usize {
        let layer = |l: &DecoderLayer| {
            let matrices = [&l.qkv, &l.out, &l.cross_q, &l.cross_out, &l.fc1, &l.fc2];
            matrices.iter().map(|linear| linear.matrix.bytes()).sum::<usize>()
        };
        self.embedding.bytes() + self.layers.iter().map(layer).sum::<usize>()
    }
}

/// What becomes of a matrix's weights when they are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Floats as they are stored, quantised ones in f32.
    Float,
    /// Rounded to bf16.
    Bf16,
    /// Quantised, where rows divide into its blocks and are not quantised already.
    To(Quantization),
}

/// Packs tensors of one checkpoint.
pub(super) struct Packer<'c> {
    pub checkpoint: &'c WhisperCheckpoint,
    pub threads: usize,
}

impl Packer<'_> {
    /// The float format in which the encoder's matrices are packed if they are not quantised.
    ///
    /// # Errors
    /// The first of them is missing.
    pub(super) fn float_format(&self) -> Result<Format, ModelError> {
        let WhisperConfig { width, encoder_inner, .. } = self.checkpoint.config;
        let first = self.checkpoint.tensors.get("encoder.layers.0.fc1.weight", &[encoder_inner, width])?;
        let stored = first.kind().and_then(format_of).filter(|stored| !stored.is_quantized());
        Ok(stored.filter(|_| width.is_multiple_of(TILE)).unwrap_or(Format::F32))
    }

    pub(super) fn encoder(&self, packing: Packing, progress: &mut dyn FnMut()) -> Result<Encoder, ModelError> {
        let WhisperConfig { n_mels, width, audio_context, encoder_layers, encoder_inner: inner, .. } =
            self.checkpoint.config;
        // The first convolution reads features and is small: as it is stored.
        let conv1 = self.convolution("encoder.conv1", width, n_mels, Packing::Float)?;
        let conv2 = self.convolution("encoder.conv2", width, width, packing)?;
        let positions = self.values("encoder.embed_positions.weight", &[audio_context, width])?;
        let mut layers = Vec::with_capacity(encoder_layers);
        for index in 0..encoder_layers {
            let name = |part: &str| format!("encoder.layers.{index}.{part}");
            layers.push(EncoderLayer {
                attn_norm: self.norm(&name("self_attn_layer_norm"))?,
                qkv: self.fused(&name("self_attn"), &["q_proj", "k_proj", "v_proj"], packing)?,
                out: self.linear(&name("self_attn.out_proj"), width, width, packing)?,
                mlp_norm: self.norm(&name("final_layer_norm"))?,
                fc1: self.linear(&name("fc1"), inner, width, packing)?,
                fc2: self.linear(&name("fc2"), width, inner, packing)?,
            });
            progress();
        }
        Ok(Encoder { conv1, conv2, positions, layers, norm: self.norm("encoder.layer_norm")? })
    }

    /// `cross`: of the matrices that the encoder's output goes through.
    pub(super) fn decoder(
        &self,
        packing: Packing,
        head: Packing,
        cross: Packing,
        progress: &mut dyn FnMut(),
    ) -> Result<Decoder, ModelError> {
        let WhisperConfig { width, text_context, decoder_layers, decoder_inner: inner, vocab_size, .. } =
            self.checkpoint.config;
        let stored = self.checkpoint.tensors.get("decoder.embed_tokens.weight", &[vocab_size, width])?;
        let quantized_here = match (head, stored.kind().and_then(format_of)) {
            (Packing::To(head), kind) => !kind.is_some_and(Format::is_quantized) && head.format_of(width).is_some(),
            _ => false,
        };
        let centre = if quantized_here { mean_row(&stored) } else { vec![0.0; width] };
        let embedding = self.pack(&[stored], head, Some(&centre))?;
        progress();
        let positions = self.values("decoder.embed_positions.weight", &[text_context, width])?;
        let mut layers = Vec::with_capacity(decoder_layers);
        for index in 0..decoder_layers {
            let name = |part: &str| format!("decoder.layers.{index}.{part}");
            layers.push(DecoderLayer {
                attn_norm: self.norm(&name("self_attn_layer_norm"))?,
                qkv: self.fused(&name("self_attn"), &["q_proj", "k_proj", "v_proj"], packing)?,
                out: self.linear(&name("self_attn.out_proj"), width, width, packing)?,
                cross_norm: self.norm(&name("encoder_attn_layer_norm"))?,
                cross_q: self.linear(&name("encoder_attn.q_proj"), width, width, packing)?,
                cross_kv: self.fused(&name("encoder_attn"), &["k_proj", "v_proj"], cross)?,
                cross_out: self.linear(&name("encoder_attn.out_proj"), width, width, packing)?,
                mlp_norm: self.norm(&name("final_layer_norm"))?,
                fc1: self.linear(&name("fc1"), inner, width, packing)?,
                fc2: self.linear(&name("fc2"), width, inner, packing)?,
            });
            progress();
        }
        Ok(Decoder { embedding, centre, positions, layers, norm: self.norm("decoder.layer_norm")? })
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        Ok(self.checkpoint.tensors.get(name, shape)?.values())
    }

    fn norm(&self, name: &str) -> Result<Norm, ModelError> {
        let width = [self.checkpoint.config.width];
        Ok(Norm {
            weight: self.values(&format!("{name}.weight"), &width)?,
            bias: self.values(&format!("{name}.bias"), &width)?,
        })
    }

    fn linear(&self, name: &str, n_out: usize, n_in: usize, packing: Packing) -> Result<Linear, ModelError> {
        let stored = self.checkpoint.tensors.get(&format!("{name}.weight"), &[n_out, n_in])?;
        let bias = self.values(&format!("{name}.bias"), &[n_out])?;
        Ok(Linear { matrix: self.pack(&[stored], packing, None)?, bias })
    }

    /// Square matrices that read the same input as one. Keys have no bias.
    fn fused(&self, name: &str, parts: &[&str], packing: Packing) -> Result<Linear, ModelError> {
        let width = self.checkpoint.config.width;
        let mut stored = Vec::with_capacity(parts.len());
        let mut bias = Vec::with_capacity(parts.len() * width);
        for part in parts {
            stored.push(self.checkpoint.tensors.get(&format!("{name}.{part}.weight"), &[width, width])?);
            if *part == "k_proj" {
                bias.resize(bias.len() + width, 0.0);
            } else {
                bias.extend(self.values(&format!("{name}.{part}.bias"), &[width])?);
            }
        }
        Ok(Linear { matrix: self.pack(&stored, packing, None)?, bias })
    }

    /// A convolution over three times, `[out, in, 3]` in files, as a matrix `[out, 3 * in]`: windows of times are rows.
    fn convolution(&self, name: &str, n_out: usize, n_in: usize, packing: Packing) -> Result<Linear, ModelError> {
        let stored = self.values(&format!("{name}.weight"), &[n_out, n_in, 3])?;
        let mut by_time = Vec::with_capacity(stored.len());
        for weights in stored.chunks_exact(3 * n_in) {
            for time in 0..3 {
                by_time.extend(weights.iter().skip(time).step_by(3));
            }
        }
        let bias = self.values(&format!("{name}.bias"), &[n_out])?;
        Ok(Linear { matrix: self.pack_values(n_out, 3 * n_in, by_time, packing)?, bias })
    }

    /// Rows of several tensors of one width as one matrix; `less` is taken from each where it is quantised.
    fn pack(&self, parts: &[Stored<'_>], packing: Packing, less: Option<&[f32]>) -> Result<Matrix, ModelError> {
        let Some(first) = parts.first() else { return Err(broken_pack("nothing to pack")) };
        let (per_part, n_cols) = (first.n_rows, first.n_cols);
        let n_rows = parts.len() * per_part;
        let whole_tiles = n_cols.is_multiple_of(TILE);
        let kind = first.kind().filter(|_| parts.iter().all(|part| part.element == first.element));
        let stored = kind.and_then(format_of);
        let wanted = match packing {
            Packing::Float => stored.filter(|stored| !stored.is_quantized()),
            Packing::Bf16 => Some(Format::BF16),
            Packing::To(quantization) => {
                stored.filter(|stored| stored.is_quantized()).or_else(|| quantization.format_of(n_cols)).or(stored)
            }
        };
        let row = |row: usize, out: &mut [f32]| {
            parts[row / per_part].row_f32(row % per_part, out);
            out.iter_mut().zip(less.into_iter().flatten()).for_each(|(x, less)| *x -= less);
        };
        match wanted {
            Some(format) if stored == Some(format) && n_cols.is_multiple_of(format.block().0.max(TILE)) => {
                let rows = |row: usize| parts[row / per_part].row(row % per_part);
                Matrix::pack(format, n_rows, n_cols, self.threads, &rows).map_err(refused)
            }
            Some(format) if format.is_quantized() && whole_tiles => {
                Matrix::encode(format, n_rows, n_cols, self.threads, &row).map_err(refused)
            }
            _ => self.pack_values(n_rows, n_cols, parts.iter().flat_map(Stored::values).collect(), packing),
        }
    }

    /// Values `[n_rows][n_cols]` as wanted where rows are whole tiles, and as f32 otherwise.
    fn pack_values(
        &self,
        n_rows: usize,
        n_cols: usize,
        values: Vec<f32>,
        packing: Packing,
    ) -> Result<Matrix, ModelError> {
        if let Packing::To(quantization) = packing
            && let Some(format) = quantization.format_of(n_cols)
        {
            let row = |row: usize, out: &mut [f32]| out.copy_from_slice(&values[row * n_cols..][..n_cols]);
            return Matrix::encode(format, n_rows, n_cols, self.threads, &row).map_err(refused);
        }
        if packing != Packing::Bf16 || !n_cols.is_multiple_of(TILE) {
            return Matrix::pack_f32(n_rows, n_cols, self.threads, &values).map_err(refused);
        }
        let bytes: Vec<u8> = values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
        drop(values);
        let row = |row: usize| &bytes[2 * row * n_cols..][..2 * n_cols];
        Matrix::pack(Format::BF16, n_rows, n_cols, self.threads, &row).map_err(refused)
    }
}

/// The mean of a tensor's rows.
fn mean_row(stored: &Stored<'_>) -> Vec<f32> {
    let (mut sums, mut row) = (vec![0.0f64; stored.n_cols], vec![0.0; stored.n_cols]);
    for index in 0..stored.n_rows {
        stored.row_f32(index, &mut row);
        sums.iter_mut().zip(&row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sums.into_iter().map(|sum| (sum / stored.n_rows as f64) as f32).collect()
}

fn refused(error: PackError) -> ModelError {
    broken_pack(error)
}

fn broken_pack(what: impl ToString) -> ModelError {
    ConfigError::Unsupported { what: what.to_string() }.into()
}
