//! How finely a network computes, and the formats that follow from it.

use tsserve_kernels::Format;

use super::arithmetic::{Arithmetic, Choice};
use super::model::WhisperOptions;
use super::rows::Products;
use super::weights::Packing;
use crate::cpu::Quantization;

/// How finely a network computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Fast, and near to f32: the encoder in integers, bf16 or f32, whatever the machine is fastest at; the decoder's
    /// weights quantised as said where they are not already, with activations of 16 bits; keys and values in f16.
    Fast(Quantization),
    /// Weights as they are stored, and everything else in f32.
    Exact,
}

impl Default for Precision {
    fn default() -> Self {
        Self::Fast(Quantization::Q8_0)
    }
}

/// The formats that follow from a precision.
pub(super) struct Formats {
    pub arithmetic: Arithmetic,
    /// How the encoder's matrices are multiplied, and those of the decoder that read what it made.
    pub products: Products,
    /// These matrices.
    pub encoder: Packing,
    pub decoder: Packing,
    pub head: Packing,
    /// Keys and values of the encoder's layers; queries are what they are.
    pub attended: Format,
    /// Keys and values that are kept for the decoder.
    pub kept: Format,
}

impl Formats {
    /// `stored`: the float format of the encoder's matrices.
    pub(super) fn of(options: &WhisperOptions, stored: Format) -> Self {
        let level = options.level;
        let Precision::Fast(quantization) = options.precision else {
            return Self {
                arithmetic: Arithmetic::Floats,
                products: Products { level, dots: false },
                encoder: Packing::Float,
                decoder: Packing::Float,
                head: Packing::Float,
                attended: Format::F32,
                kept: Format::F32,
            };
        };
        let Choice { products: arithmetic, bf16_attention } = Choice::new(level, options.arithmetic, stored);
        Self {
            arithmetic,
            products: Products { level, dots: arithmetic == Arithmetic::Bf16 },
            encoder: match arithmetic {
                Arithmetic::Floats => Packing::Float,
                Arithmetic::Bf16 => Packing::Bf16,
                // The encoder's rows are not refined by a second plane, and keep eight bits of weights.
                Arithmetic::Integers => Packing::To(Quantization::Q8_0),
            },
            decoder: Packing::To(quantization),
            head: Packing::To(Quantization::Q8_0),
            attended: if bf16_attention { Format::BF16 } else { Format::F32 },
            kept: Format::F16,
        }
    }
}
