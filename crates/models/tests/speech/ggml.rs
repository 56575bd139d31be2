//! Writes whisper.cpp's `ggml-*.bin`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use tsserve_models::weights::{ModelFiles, Weights};

/// The type number of f32.
pub const F32: u32 = 0;

/// What a file holds.
pub struct Ggml {
    /// Tokens, audio context, width, heads and layers of the encoder, text context, width, heads and layers of the
    /// decoder, mel filters, type.
    pub sizes: [u32; 11],
    /// `[n_mels][201]`
    pub filters: Vec<f32>,
    pub words: Vec<Vec<u8>>,
    /// Name, dimensions outermost first, type number, data.
    pub tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

impl Ggml {
    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = 0x6767_6d6c_u32.to_le_bytes().to_vec();
        let numbers = |out: &mut Vec<u8>, numbers: &[u32]| numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
        numbers(&mut out, &self.sizes);
        numbers(&mut out, &[self.sizes[9], 201]);
        self.filters.iter().for_each(|x| out.extend(x.to_le_bytes()));
        numbers(&mut out, &[self.words.len() as u32]);
        for word in &self.words {
            numbers(&mut out, &[word.len() as u32]);
            out.extend(word);
        }
        for (name, shape, kind, data) in &self.tensors {
            numbers(&mut out, &[shape.len() as u32, name.len() as u32, *kind]);
            shape.iter().rev().for_each(|&dim| numbers(&mut out, &[dim as u32]));
            out.extend(name.as_bytes());
            out.extend(data);
        }
        out
    }

    /// The weights of a checkpoint of transformers in f32.
    pub fn of(checkpoint: &Path, sizes: [u32; 11], filters: Vec<f32>) -> Self {
        let weights = Weights::open(&ModelFiles::discover(checkpoint).unwrap()).unwrap();
        let tensors = names(sizes[4], sizes[8]).into_iter().map(|(theirs, own)| {
            let theirs = format!("model.{theirs}");
            let mut shape = weights.info(&theirs).unwrap().shape.clone();
            if own.contains(".conv") && shape.len() == 1 {
                shape.push(1);
            }
            let data = weights.tensor_f32(&theirs).unwrap().iter().flat_map(|x| x.to_le_bytes()).collect();
            (own, shape, F32, data)
        });
        Self { sizes, filters, words: words(), tensors: tensors.collect() }
    }
}

/// The 256 bytes in GPT-2's order, and words up to the last that no text becomes.
pub fn words() -> Vec<Vec<u8>> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let bytes = (0..=255).filter(printable).chain((0..=255).filter(|byte| !printable(byte)));
    let others = (256..50_257u32).map(|id| [&[0xff][..], &id.to_be_bytes()].concat());
    bytes.map(|byte| vec![byte]).chain(others).collect()
}

/// Names of all tensors, transformers' without the `model.` and whisper.cpp's.
pub fn names(encoder_layers: u32, decoder_layers: u32) -> Vec<(String, String)> {
    let mut names = Vec::new();
    let mut add = |theirs: String, own: String, values: &[&str]| {
        names.extend(values.iter().map(|value| (format!("{theirs}.{value}"), format!("{own}.{value}"))));
    };
    let both = &["weight", "bias"][..];
    for conv in ["encoder.conv1", "encoder.conv2"] {
        add(conv.into(), conv.into(), both);
    }
    add("decoder.embed_tokens".into(), "decoder.token_embedding".into(), &["weight"]);
    add("encoder.layer_norm".into(), "encoder.ln_post".into(), both);
    add("decoder.layer_norm".into(), "decoder.ln".into(), both);
    for (side, layers) in [("encoder", encoder_layers), ("decoder", decoder_layers)] {
        for layer in 0..layers {
            let (theirs, own) = (format!("{side}.layers.{layer}"), format!("{side}.blocks.{layer}"));
            let mut attentions = vec![("self_attn", "attn")];
            if side == "decoder" {
                attentions.push(("encoder_attn", "cross_attn"));
            }
            for (from, to) in attentions {
                add(format!("{theirs}.{from}_layer_norm"), format!("{own}.{to}_ln"), both);
                add(format!("{theirs}.{from}.k_proj"), format!("{own}.{to}.key"), &["weight"]);
                for (part, own_part) in [("q_proj", "query"), ("v_proj", "value"), ("out_proj", "out")] {
                    add(format!("{theirs}.{from}.{part}"), format!("{own}.{to}.{own_part}"), both);
                }
            }
            add(format!("{theirs}.final_layer_norm"), format!("{own}.mlp_ln"), both);
            add(format!("{theirs}.fc1"), format!("{own}.mlp.0"), both);
            add(format!("{theirs}.fc2"), format!("{own}.mlp.2"), both);
        }
    }
    let positions = |side| (format!("{side}.embed_positions.weight"), format!("{side}.positional_embedding"));
    names.extend(["encoder", "decoder"].map(positions));
    names
}
