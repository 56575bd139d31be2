//! whisper.cpp's files against transformers' of the same weights, quantised ones against what their blocks stand for,
//! and what is broken.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not seen as tests")]

mod speech;

use std::fs;
use std::path::PathBuf;

use speech::ggml::{F32, Ggml, names, words};
use speech::{Golden, fixtures, mel, options, teacher_forced, v3_features, worst};
use tsserve_kernels::{Format, Matrix};
use tsserve_models::cpu::Level;
use tsserve_models::error::ModelError;
use tsserve_models::whisper::{Arithmetic, Precision, WhisperCheckpoint, WhisperModel, WhisperOptions};

/// A file that is gone when dropped.
struct File(PathBuf);

impl File {
    fn of(name: &str, ggml: &Ggml) -> Self {
        let path = std::env::temp_dir().join(format!("tsserve-ggml-{}-{name}.bin", std::process::id()));
        fs::write(&path, ggml.bytes()).unwrap();
        Self(path)
    }

    fn load(&self, options: WhisperOptions) -> Result<WhisperModel, ModelError> {
        WhisperModel::load(&WhisperCheckpoint::open(&self.0)?, options, &mut |_, _| {})
    }

    fn refusal(&self) -> String {
        match self.load(exact()) {
            Ok(_) => panic!("it was loaded"),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

fn exact() -> WhisperOptions {
    options(Level::detect(), Precision::Exact)
}

fn v3() -> Ggml {
    let sizes = [51_866, 1500, 16, 1, 3, 448, 16, 1, 2, 128, 0];
    let filters = mel::filters(128).into_iter().flatten().map(|weight| weight as f32).collect();
    Ggml::of(&fixtures().join("models/whisper_v3"), sizes, filters)
}

#[test]
fn ggml_is_transformers_in_another_file() {
    let golden = Golden::load("whisper_v3");
    let (mel, ids) = (v3_features(&golden), golden.ids("forced.ids"));
    let written = v3();
    let file = File::of("v3", &written);
    assert!(WhisperCheckpoint::is_here(&file.0));
    let (opened, original) = (WhisperCheckpoint::open(&file.0).unwrap(), speech::open("whisper_v3"));
    assert_eq!(opened.config, original.config);
    assert_eq!(opened.format_summary(), "F32 (ggml)");
    assert_eq!(opened.n_parameters(), original.n_parameters());
    assert_eq!(opened.weight_files(), std::slice::from_ref(&file.0));
    assert_eq!(opened.mel_filters(), Some(written.filters));
    // Nobody knows the heads of a model of these sizes, and the words say which tokens are suppressed.
    let mut special = original.special_ids;
    special.start_of_lm = Some(50_361);
    (special.suppressed, special.begin_suppressed, special.alignment_heads) = Default::default();
    assert_eq!(opened.special_ids, special);
    let found = opened.words().unwrap();
    assert_eq!((&found.text[..], found.special.len()), (&words().iter().map(|w| &w[..]).collect::<Vec<_>>()[..], 1609));
    assert_eq!(found.special[0], (50_257, "<|endoftext|>".to_owned()));

    let [mut theirs, mut ours] = [
        WhisperModel::load(&speech::open("whisper_v3"), exact(), &mut |_, _| {}).unwrap(),
        file.load(exact()).unwrap(),
    ];
    let [expected, found] = [&mut theirs, &mut ours].map(|model| {
        let audio = model.encode(&mel).unwrap()[0];
        teacher_forced(model, audio, &ids)
    });
    assert_eq!(worst(&found, &expected), 0.0);
}

/// Numbers that repeat.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn value(&mut self) -> f32 {
        self.next() as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A small model of random weights, matrices in blocks of a type, and the same in f32.
fn quantized(format: Format, number: u32) -> [Ggml; 2] {
    let (width, layers) = (64, 1);
    let sizes = [51_864, 1500, width, 1, layers, 448, width, 1, layers, 80, 2000 + number];
    let (values, bytes) = format.block();
    let mut random = Random(1);
    let tensor = |name: &str, random: &mut Random| -> (Vec<usize>, Option<Vec<u8>>, Vec<f32>) {
        let width = width as usize;
        let shape = match name {
            "encoder.conv1.weight" => vec![width, 80, 3],
            "encoder.conv2.weight" => vec![width, width, 3],
            "encoder.positional_embedding" => vec![1500, width],
            "decoder.positional_embedding" => vec![448, width],
            "decoder.token_embedding.weight" => vec![51_864, width],
            name if name.contains(".conv") => vec![width, 1],
            name if name.ends_with("mlp.0.bias") => vec![4 * width],
            name if name.ends_with("mlp.0.weight") => vec![4 * width, width],
            name if name.ends_with("mlp.2.weight") => vec![width, 4 * width],
            name if name.ends_with(".weight") && !name.contains("ln") => vec![width, width],
            _ => vec![width],
        };
        let n: usize = shape.iter().product();
        if shape.len() != 2 || !name.ends_with(".weight") {
            let norm = if name.contains("ln") && name.ends_with("weight") { 1.0 } else { 0.0 };
            return (shape, None, (0..n).map(|_| norm + 0.1 * random.value()).collect());
        }
        let mut data: Vec<u8> = (0..n / values * bytes).map(|_| random.next() as u8).collect();
        // Scales of every block: f16 from 2^-9 to 2^-8.
        for block in data.chunks_exact_mut(bytes) {
            block[1] = 0x18 | block[1] & 3;
            if matches!(format, Format::Q4_1 | Format::Q5_1) {
                block[3] = 0xa8 | block[3] & 3;
            }
        }
        let n_cols = shape[1];
        let row_bytes = n_cols / values * bytes;
        let row = |row: usize| &data[row * row_bytes..][..row_bytes];
        let matrix = Matrix::pack(format, shape[0], n_cols, 1, &row).unwrap();
        let mut floats = vec![0.0; n];
        floats.chunks_exact_mut(n_cols).enumerate().for_each(|(row, out)| matrix.dequantize_row(row, out));
        (shape, Some(data), floats)
    };
    let to_bytes = |floats: &[f32]| floats.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (mut blocks, mut floats) = (Vec::new(), Vec::new());
    for (_, name) in names(layers, layers) {
        let (shape, data, values) = tensor(&name, &mut random);
        let kind = if data.is_some() { number } else { F32 };
        blocks.push((name.clone(), shape.clone(), kind, data.unwrap_or_else(|| to_bytes(&values))));
        floats.push((name, shape, F32, to_bytes(&values)));
    }
    let filters = vec![0.0; 80 * 201];
    [(sizes, blocks), ([&sizes[..10], &[0]].concat().try_into().unwrap(), floats)].map(|(sizes, tensors)| Ggml {
        sizes,
        filters: filters.clone(),
        words: words()[..50_256].to_vec(),
        tensors,
    })
}

#[test]
fn quantised_files_are_what_their_blocks_stand_for() {
    let mel: Vec<f32> = (0..80 * 3000).map(|i| ((i % 3000) as f32 * 0.01 + (i / 3000) as f32).sin()).collect();
    let ids = [50_257, 50_362, 7, 300, 4000, 50_256];
    let formats = [Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0];
    for (format, number) in formats.into_iter().zip([2, 3, 6, 7, 8]) {
        let [blocks, floats] =
            quantized(format, number).map(|ggml| File::of(&format!("{format}-{}", ggml.sizes[10]), &ggml));
        assert_eq!(WhisperCheckpoint::open(&blocks.0).unwrap().format_summary(), format!("{format} (ggml)"));
        let logits = |file: &File, options: WhisperOptions| {
            let mut model = file.load(options).unwrap();
            let audio = model.encode(&mel).unwrap()[0];
            (teacher_forced(&mut model, audio, &ids), model.weight_bytes())
        };
        let (expected, _) = logits(&floats, exact());
        let (found, _) = logits(&blocks, exact());
        assert_eq!(worst(&found, &expected), 0.0, "{format}");
        // In the fast mode blocks stay as they are, so that only activations are rounded.
        let spread = expected.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        for arithmetic in [Arithmetic::Floats, Arithmetic::Integers] {
            let fast =
                WhisperOptions { arithmetic: Some(arithmetic), ..options(Level::detect(), Precision::default()) };
            let (found, bytes) = logits(&blocks, fast.clone());
            let difference = worst(&found, &expected) / spread;
            assert!(difference < 0.02, "{format} {arithmetic:?}: {difference}");
            let (_, of_floats) = logits(&floats, fast);
            assert!(bytes < of_floats || format == Format::Q8_0, "{format}: {bytes} of {of_floats}");
        }
    }
}

#[test]
fn what_is_missing_or_broken_is_said() {
    let mut ggml = v3();
    ggml.tensors.retain(|tensor| tensor.0 != "encoder.blocks.2.mlp.0.weight");
    let refusal = File::of("less", &ggml).refusal();
    assert!(refusal.contains("no tensor encoder.blocks.2.mlp.0.weight"), "{refusal}");
    let mut ggml = v3();
    ggml.tensors.iter_mut().find(|tensor| tensor.0 == "decoder.ln.bias").unwrap().1 = vec![4, 4];
    let refusal = File::of("shape", &ggml).refusal();
    assert!(refusal.contains("decoder.ln.bias has shape [4, 4], the model's configuration says [16]"), "{refusal}");
    let mut ggml = v3();
    ggml.words.truncate(40_000);
    let refusal = File::of("words", &ggml).refusal();
    assert!(refusal.ends_with("is broken: its vocabulary has 40000 words, expected at least 50256"), "{refusal}");
    let file = File::of("cut", &v3());
    let bytes = fs::read(&file.0).unwrap();
    for share in [1, 9, 50, 99] {
        fs::write(&file.0, &bytes[..bytes.len() * share / 100]).unwrap();
        let refusal = file.refusal();
        assert!(refusal.contains("is broken: it is truncated"), "{share} %: {refusal}");
    }
}
