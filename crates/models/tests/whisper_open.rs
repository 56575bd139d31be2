//! Whisper checkpoints as files: CTranslate2's against transformers' of the same weights, and what is broken.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not seen as tests")]

mod speech;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};
use serde_json::{Value, json};
use speech::{Golden, TINY, fixtures, options, teacher_forced};
use tsserve_models::cpu::Level;
use tsserve_models::error::ModelError;
use tsserve_models::weights::{ModelFiles, Weights};
use tsserve_models::whisper::{Precision, WhisperCheckpoint, WhisperModel};

/// A folder that is gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tsserve-whisper-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// A copy of a tiny checkpoint.
    fn of(name: &str) -> Self {
        let folder = Self::new();
        for entry in fs::read_dir(fixtures().join("models").join(name)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.0.join(path.file_name().unwrap())).unwrap();
        }
        folder
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.0.join(file);
        let mut value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    fn refusal(&self) -> String {
        match load(&self.0) {
            Ok(_) => panic!("it was loaded"),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn load(path: &Path) -> Result<WhisperModel, ModelError> {
    let checkpoint = WhisperCheckpoint::open(path)?;
    WhisperModel::load(&checkpoint, options(Level::detect(), Precision::Exact), &mut |_, _| {})
}

/// How CTranslate2 stores weights.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    F32 = 0,
    I8 = 1,
    F16 = 4,
    Bf16 = 5,
}

/// Writes CTranslate2's files.
struct Writer {
    variables: BTreeMap<String, (Vec<usize>, Kind, Vec<u8>)>,
    kind: Kind,
}

impl Writer {
    /// Matrices are quantised where they are; everything else stays float.
    fn add(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let quantizable = name.ends_with("weight") && !name.contains("conv");
        let kind = if self.kind == Kind::I8 && !quantizable { Kind::F32 } else { self.kind };
        let mut bytes = Vec::new();
        match kind {
            Kind::F32 => values.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Kind::F16 => values.iter().for_each(|x| bytes.extend(f16::from_f32(*x).to_le_bytes())),
            Kind::Bf16 => values.iter().for_each(|x| bytes.extend(bf16::from_f32(*x).to_le_bytes())),
            Kind::I8 => {
                let mut scales = Vec::new();
                for row in values.chunks(shape[1]) {
                    let scale = 127.0 / row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                    scales.extend(scale.to_le_bytes());
                    bytes.extend(row.iter().map(|x| ((x * scale).round() as i8).cast_unsigned()));
                }
                self.variables.insert(format!("{name}_scale"), (vec![shape[0]], Kind::F32, scales));
            }
        }
        self.variables.insert(name.to_owned(), (shape.to_vec(), kind, bytes));
    }

    fn bytes(&self, heads: [i16; 2]) -> Vec<u8> {
        let mut out = Vec::new();
        let name = |out: &mut Vec<u8>, name: &str| {
            out.extend((name.len() as u16 + 1).to_le_bytes());
            out.extend(name.as_bytes());
            out.push(0);
        };
        out.extend(6u32.to_le_bytes());
        name(&mut out, "WhisperSpec");
        out.extend(3u32.to_le_bytes());
        out.extend((self.variables.len() as u32 + 2).to_le_bytes());
        for (side, heads) in ["encoder", "decoder"].into_iter().zip(heads) {
            name(&mut out, &format!("{side}/num_heads"));
            out.extend([0, 2, 2, 0, 0, 0]);
            out.extend(heads.to_le_bytes());
        }
        for (variable, (shape, kind, bytes)) in &self.variables {
            name(&mut out, variable);
            out.push(shape.len() as u8);
            shape.iter().for_each(|dim| out.extend((*dim as u32).to_le_bytes()));
            out.push(*kind as u8);
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(bytes);
        }
        out.extend(1u32.to_le_bytes());
        name(&mut out, "decoder/projection/weight");
        name(&mut out, "decoder/embeddings/weight");
        out
    }
}

/// A tiny checkpoint as CTranslate2 keeps it.
fn as_ct2(name: &str, kind: Kind) -> Folder {
    let source = fixtures().join("models").join(name);
    let weights = Weights::open(&ModelFiles::discover(&source).unwrap()).unwrap();
    let tensor = |name: &str| {
        let name = format!("model.{name}");
        (weights.info(&name).unwrap().shape.clone(), weights.tensor_f32(&name).unwrap())
    };
    let config: Value = serde_json::from_str(&fs::read_to_string(source.join("config.json")).unwrap()).unwrap();
    let number = |key: &str| config[key].as_u64().unwrap() as usize;
    let mut writer = Writer { variables: BTreeMap::new(), kind };
    let mut copy = |to: &str, from: &str| {
        let (shape, values) = tensor(from);
        writer.add(to, &shape, &values);
    };
    for side in ["encoder", "decoder"] {
        copy(&format!("{side}/position_encodings/encodings"), &format!("{side}.embed_positions.weight"));
        copy(&format!("{side}/layer_norm/gamma"), &format!("{side}.layer_norm.weight"));
        copy(&format!("{side}/layer_norm/beta"), &format!("{side}.layer_norm.bias"));
    }
    for value in ["weight", "bias"] {
        copy(&format!("encoder/conv1/{value}"), &format!("encoder.conv1.{value}"));
        copy(&format!("encoder/conv2/{value}"), &format!("encoder.conv2.{value}"));
    }
    copy("decoder/embeddings/weight", "decoder.embed_tokens.weight");
    for (side, key) in [("encoder", "encoder_layers"), ("decoder", "decoder_layers")] {
        for layer in 0..number(key) {
            let (to, from) = (format!("{side}/layer_{layer}"), format!("{side}.layers.{layer}"));
            let mut attention = vec![("self_attention", "self_attn", vec![&["q_proj", "k_proj", "v_proj"][..]])];
            if side == "decoder" {
                attention.push(("attention", "encoder_attn", vec![&["q_proj"][..], &["k_proj", "v_proj"]]));
            }
            let norms = attention.iter().map(|(to, from, _)| (*to, format!("{from}_layer_norm")));
            for (block, norm) in norms.chain([("ffn", "final_layer_norm".to_owned())]) {
                for (value, own) in [("gamma", "weight"), ("beta", "bias")] {
                    let (shape, values) = tensor(&format!("{from}.{norm}.{own}"));
                    writer.add(&format!("{to}/{block}/layer_norm/{value}"), &shape, &values);
                }
            }
            for (block, own, mut linears) in attention {
                linears.push(&["out_proj"]);
                for (index, parts) in linears.iter().enumerate() {
                    let (mut weight, mut bias, mut shape) = (Vec::new(), Vec::new(), vec![0, 0]);
                    for part in *parts {
                        let (part_shape, values) = tensor(&format!("{from}.{own}.{part}.weight"));
                        shape = vec![shape[0] + part_shape[0], part_shape[1]];
                        weight.extend(values);
                        match *part {
                            "k_proj" => bias.resize(bias.len() + part_shape[0], 0.0),
                            part => bias.extend(tensor(&format!("{from}.{own}.{part}.bias")).1),
                        }
                    }
                    writer.add(&format!("{to}/{block}/linear_{index}/weight"), &shape, &weight);
                    writer.add(&format!("{to}/{block}/linear_{index}/bias"), &shape[..1], &bias);
                }
            }
            for (index, own) in ["fc1", "fc2"].into_iter().enumerate() {
                for value in ["weight", "bias"] {
                    let (shape, values) = tensor(&format!("{from}.{own}.{value}"));
                    writer.add(&format!("{to}/ffn/linear_{index}/{value}"), &shape, &values);
                }
            }
        }
    }
    let heads = ["encoder_attention_heads", "decoder_attention_heads"].map(|key| number(key) as i16);
    let folder = Folder::new();
    fs::write(folder.0.join("model.bin"), writer.bytes(heads)).unwrap();
    fs::copy(source.join("tokenizer.json"), folder.0.join("tokenizer.json")).unwrap();
    let generation: Value =
        serde_json::from_str(&fs::read_to_string(source.join("generation_config.json")).unwrap()).unwrap();
    let languages: Vec<&Value> =
        generation["lang_to_id"].as_object().into_iter().flat_map(|map| map.values()).collect();
    let config = json!({
        "alignment_heads": generation["alignment_heads"],
        "lang_ids": languages,
        "suppress_ids": generation["suppress_tokens"],
        "suppress_ids_begin": generation["begin_suppress_tokens"],
    });
    fs::write(folder.0.join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn ctranslate2_is_transformers_in_another_file() {
    for name in TINY {
        let golden = Golden::load(name);
        let (mel, ids) = (golden.values("short.mel"), golden.ids("forced.ids"));
        let source = fixtures().join("models").join(name);
        let opened = WhisperCheckpoint::open(&source).unwrap();
        let mut model = load(&source).unwrap();
        let audio = model.encode(&mel).unwrap()[0];
        let expected = teacher_forced(&mut model, audio, &ids);
        // The weights are bf16, so that f32 and bf16 lose nothing.
        for (kind, within) in [(Kind::F32, 0.0), (Kind::Bf16, 0.0), (Kind::F16, 0.01), (Kind::I8, 1.5)] {
            let folder = as_ct2(name, kind);
            for path in [folder.0.clone(), folder.0.join("model.bin")] {
                assert!(WhisperCheckpoint::is_here(&path));
                let checkpoint = WhisperCheckpoint::open(&path).unwrap();
                assert_eq!(checkpoint.config, opened.config, "{name}");
                assert_eq!(checkpoint.special_ids, opened.special_ids, "{name}");
                assert_eq!(checkpoint.folder(), folder.0);
                assert_eq!(checkpoint.weight_files(), [folder.0.join("model.bin")]);
            }
            let mut model = load(&folder.0).unwrap();
            let audio = model.encode(&mel).unwrap()[0];
            let found = teacher_forced(&mut model, audio, &ids);
            let worst = speech::worst(&found, &expected);
            assert!(worst <= within, "{name} {kind:?}: {worst}");
        }
    }
}

#[test]
fn broken_ctranslate2_files_are_refused() {
    let folder = as_ct2("whisper", Kind::F16);
    let file = folder.0.join("model.bin");
    let good = fs::read(&file).unwrap();
    for end in [0, 3, 20, 60, 1000, good.len() / 2, good.len() - 1] {
        fs::write(&file, &good[..end]).unwrap();
        let refusal = folder.refusal();
        // What does not even begin as such a file does may be anything.
        assert!(
            refusal.contains("is truncated") || refusal.contains("more than fit in it") || end <= 20,
            "{end}: {refusal}"
        );
    }
    // Bytes of headers; flips in data change weights only.
    let mut random = 7u32;
    for _ in 0..300 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut bad = good.clone();
        let at = random as usize % 4000;
        bad[at] ^= 1 << (random >> 29);
        fs::write(&file, &bad).unwrap();
        if let Err(error) = load(&folder.0) {
            assert!(!error.to_string().is_empty() && error.code().starts_with("model_"), "{error}");
        }
    }
    fs::write(&file, &good).unwrap();
    fs::remove_file(folder.0.join("tokenizer.json")).unwrap();
    assert_eq!(folder.refusal(), "the model's configuration has no token <|notimestamps|>");
    // The vocabulary beside it will do as well.
    let tokens: Vec<String> = (0..413).map(|id| format!("t{id}")).collect();
    let mut tokens = tokens;
    for (id, name) in [(300, "endoftext"), (301, "startoftranscript"), (309, "startofprev"), (311, "notimestamps")] {
        tokens[id] = format!("<|{name}|>");
    }
    fs::write(folder.0.join("vocabulary.json"), serde_json::to_string(&tokens).unwrap()).unwrap();
    load(&folder.0).unwrap();
    fs::remove_file(folder.0.join("vocabulary.json")).unwrap();
    fs::write(folder.0.join("vocabulary.txt"), tokens.join("\n")).unwrap();
    assert_eq!(WhisperCheckpoint::open(&folder.0).unwrap().special_ids.no_timestamps, 311);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let refusal = |file: &str, change: &dyn Fn(&mut Value)| {
        let folder = Folder::of("whisper");
        folder.change(file, change);
        folder.refusal()
    };
    let config = |key: &'static str, value: Value| refusal("config.json", &|json| json[key] = value.clone());
    assert!(config("model_type", json!("llama")).contains("models of type \"llama\" are not supported"));
    assert!(config("d_model", json!(96)).contains("the model's configuration says [96"), "shapes");
    assert!(config("d_model", json!(0)).contains("d_model = 0, expected a whole number from 1"));
    assert!(config("d_model", json!(1e9 as u64)).contains("d_model = 1000000000, expected"));
    assert!(config("encoder_layers", json!("two")).contains("encoder_layers = \"two\""));
    assert!(config("decoder_layers", json!(3)).contains("no tensor model.decoder.layers.2"));
    assert!(config("encoder_attention_heads", json!(4)).contains("width 48 with 4 heads"));
    assert!(config("activation_function", json!("relu")).contains("another activation than gelu"));
    assert!(config("scale_embedding", json!(true)).contains("scaled embeddings"));
    assert!(config("tie_word_embeddings", json!(false)).contains("a head of its own"));
    assert!(config("vocab_size", Value::Null).contains("no vocab_size"));
    let features = refusal("processor_config.json", &|json| json["feature_extractor"]["feature_size"] = json!(128));
    assert_eq!(features, "the model's configuration has feature_size = 128, expected 80");
    let heads = refusal("generation_config.json", &|json| json["alignment_heads"] = json!([[0, 3]]));
    assert!(heads.contains("alignment_heads = [0, 3], expected heads of 2 layers of 3"), "{heads}");
    let ids = refusal("generation_config.json", &|json| json["no_timestamps_token_id"] = json!(412));
    assert!(ids.contains("a special token = 413"), "{ids}");

    let folder = Folder::of("whisper");
    fs::write(folder.0.join("model.safetensors"), b"too short").unwrap();
    assert!(folder.refusal().contains("is broken"));
    fs::remove_file(folder.0.join("model.safetensors")).unwrap();
    assert!(folder.refusal().contains("holds no weights"));
    fs::write(folder.0.join("pytorch_model.bin"), b"PK\x03\x04").unwrap();
    assert!(folder.refusal().contains("pickle files"));
    assert!(!WhisperCheckpoint::is_here(&folder.0.join("nothing")));
    assert!(WhisperCheckpoint::is_here(&Folder::of("whisper_en").0));
    assert!(!WhisperCheckpoint::is_here(&fixtures().join("models/llama")));
}
