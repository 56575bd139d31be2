//! Which files of a repository or folder make up a model.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::spec::{is_model_file, is_safe_relative};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Weights as CTranslate2 (faster-whisper) keeps them; its own format, not a pickle.
pub(super) const CT2_WEIGHTS: &str = "model.bin";
/// Beside them, and beside no pickle of that name.
const CT2_VOCABULARIES: [&str; 2] = ["vocabulary.json", "vocabulary.txt"];

/// Small files that are taken along where a repository has them.
pub(super) const SIDE_FILES: [&str; 11] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "vocabulary.json",
];

/// Without these a model of the cache may have been fetched by a program that needed less than we do; unless the cache
/// has noted that the repository lacks them, the hub is asked.
pub(super) const EXPECTED: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// No index of shards comes near this; a larger file is not read.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// What of a list of files is the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// A folder in the layout of transformers or CTranslate2: the small files, then the weights or the index that names them.
    Folder { files: Vec<String>, sharded: bool },
    /// One file that is the model: GGUF, or ggml for speech.
    File(String),
}

/// Why a list of files holds no model, to be completed with where the files are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unloadable {
    /// The file that was asked for is not there; these are those that are.
    NoSuchFile(Vec<String>),
    /// Several files that are models, none of them named.
    Several(Vec<String>),
    /// Weights in a format that is never read (pickle and the like).
    OnlyOther(String),
    /// Safetensors without the `config.json` that says what they are.
    NoConfig,
    Nothing,
}

/// Picks the model among `files` (paths with `/`, relative to the repository): `wanted` if a file is named, else the
/// safetensors checkpoint, else the only file that is a model, else CTranslate2's weights.
pub(super) fn select(files: &[String], wanted: Option<&str>) -> Result<Selection, Unloadable> {
    let has = |name: &str| files.iter().any(|file| file == name);
    if let Some(wanted) = wanted {
        return if has(wanted) {
            Ok(Selection::File(wanted.to_owned()))
        } else {
            Err(Unloadable::NoSuchFile(model_files(files)))
        };
    }
    let folder = |weights: &str| {
        let mut chosen = vec![CONFIG.to_owned()];
        chosen.extend(files.iter().filter(|file| is_side_file(file)).cloned());
        chosen.push(weights.to_owned());
        Selection::Folder { files: chosen, sharded: weights == INDEX }
    };
    // transformers prefers the single file where both are there.
    let weights = [WEIGHTS, INDEX].into_iter().find(|name| has(name));
    if let (Some(weights), true) = (weights, has(CONFIG)) {
        return Ok(folder(weights));
    }
    let mut single = model_files(files);
    if single.len() > 1 {
        return Err(Unloadable::Several(single));
    }
    if let Some(file) = single.pop() {
        return Ok(Selection::File(file));
    }
    if has(CT2_WEIGHTS) && has(CONFIG) && CT2_VOCABULARIES.into_iter().any(has) {
        return Ok(folder(CT2_WEIGHTS));
    }
    if weights.is_some() {
        return Err(Unloadable::NoConfig);
    }
    match files.iter().find(|file| is_foreign_weights(file)) {
        Some(other) => Err(Unloadable::OnlyOther(other.clone())),
        None => Err(Unloadable::Nothing),
    }
}

impl Unloadable {
    /// One sentence about `place` (a repository with its revision, or a folder); `named` is the file that was asked for.
    pub(super) fn describe(&self, place: &str, named: Option<&str>) -> String {
        match self {
            Self::NoSuchFile(choices) if choices.is_empty() => {
                format!("{place} has no file '{}', nor any other .gguf or ggml-NAME.bin", named.unwrap_or_default())
            }
            Self::NoSuchFile(choices) => {
                format!("{place} has no file '{}'; its models are {}", named.unwrap_or_default(), list(choices))
            }
            Self::Several(choices) => {
                format!("{place} holds several models, name one of them after a colon: {}", list(choices))
            }
            Self::OnlyOther(file) => {
                format!("{place} has no safetensors, GGUF or ggml weights, and files such as {file} are never loaded")
            }
            Self::NoConfig => format!("{place} has safetensors but no config.json that says what they are"),
            Self::Nothing => {
                format!(
                    "{place} has no model.safetensors (or its index) with a config.json, no .gguf and no ggml-NAME.bin"
                )
            }
        }
    }
}

/// The files that are models by themselves (not the projector of a vision model), sorted.
pub(super) fn model_files(files: &[String]) -> Vec<String> {
    let mut found: Vec<String> = files
        .iter()
        .filter(|file| is_model_file(file) && !file.rsplit('/').next().unwrap_or(file).starts_with("mmproj"))
        .cloned()
        .collect();
    found.sort();
    found
}

/// The shards that an index names.
///
/// # Errors
/// One sentence if it cannot be read or names files outside the repository.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::HashMap<String, String>,
    }
    let read = || -> Result<Index, String> {
        let bytes = std::fs::metadata(index).map_err(|error| error.to_string())?.len();
        if bytes > MAX_INDEX_BYTES {
            return Err(format!("{bytes} bytes are too many"));
        }
        let text = std::fs::read(index).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    };
    let parsed = read().map_err(|error| format!("{INDEX} cannot be read ({error})"))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if shards.is_empty() {
        return Err(format!("{INDEX} names no weights"));
    }
    if let Some(bad) = shards.iter().find(|shard| !is_safe_relative(shard) || !shard.ends_with(".safetensors")) {
        return Err(format!("{INDEX} names '{bad}', which is not a .safetensors file of the repository"));
    }
    Ok(shards)
}

fn is_side_file(file: &str) -> bool {
    SIDE_FILES.contains(&file) || (file.starts_with("additional_chat_templates/") && file.ends_with(".jinja"))
}

fn is_foreign_weights(file: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".safetensors"].iter().any(|end| file.ends_with(end))
}

/// At most this many choices are listed in an error.
const MAX_LISTED: usize = 12;

fn list(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_LISTED {
        text.push_str(&format!(" and {} more", names.len() - MAX_LISTED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_checkpoint_takes_its_side_files_and_leaves_the_rest() {
        let all = files(&[
            "README.md",
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "chat_template.jinja",
            "additional_chat_templates/rag.jinja",
            "x.gguf",
        ]);
        let expected = files(&[
            "config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "additional_chat_templates/rag.jinja",
            "model.safetensors",
        ]);
        assert_eq!(select(&all, None), Ok(Selection::Folder { files: expected, sharded: false }));
        assert_eq!(select(&all, Some("x.gguf")), Ok(Selection::File("x.gguf".into())));
        let sharded = files(&["config.json", "model.safetensors.index.json"]);
        assert_eq!(select(&sharded, None), Ok(Selection::Folder { files: sharded.clone(), sharded: true }));
    }

    #[test]
    fn a_converted_model_is_told_from_a_pickle_by_its_vocabulary() {
        let converted = files(&["README.md", "config.json", "model.bin", "tokenizer.json", "vocabulary.json"]);
        let expected = files(&["config.json", "tokenizer.json", "vocabulary.json", "model.bin"]);
        assert_eq!(select(&converted, None), Ok(Selection::Folder { files: expected, sharded: false }));
        let pickle = files(&["config.json", "model.bin", "tokenizer.json"]);
        assert_eq!(select(&pickle, None), Err(Unloadable::OnlyOther("model.bin".into())));
    }

    #[test]
    fn the_only_model_file_is_taken_and_several_are_listed() {
        let one = files(&["README.md", "config.json", "mmproj-f16.gguf", "b.gguf"]);
        assert_eq!(select(&one, None), Ok(Selection::File("b.gguf".into())));
        let one = files(&["README.md", "ggml-base-encoder.mlmodelc.zip", "ggml-base.bin"]);
        assert_eq!(select(&one, None), Ok(Selection::File("ggml-base.bin".into())));
        let two = files(&["q/b.gguf", "a.gguf"]);
        let why = select(&two, None).unwrap_err();
        assert_eq!(
            why.describe("o/r", None),
            "o/r holds several models, name one of them after a colon: a.gguf, q/b.gguf"
        );
        let why = select(&two, Some("c.gguf")).unwrap_err();
        assert_eq!(why.describe("o/r", Some("c.gguf")), "o/r has no file 'c.gguf'; its models are a.gguf, q/b.gguf");
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(
            select(&files(&["config.json", "pytorch_model.bin"]), None).unwrap_err(),
            Unloadable::OnlyOther("pytorch_model.bin".into())
        );
        assert_eq!(select(&files(&["model.safetensors"]), None), Err(Unloadable::NoConfig));
        assert_eq!(select(&files(&["README.md"]), None), Err(Unloadable::Nothing));
    }

    #[test]
    fn an_index_may_only_name_safetensors_inside() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.json");
        let of = |text: &str| {
            std::fs::write(&index, text).unwrap();
            shards(&index)
        };
        let good =
            of(r#"{"metadata":{},"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors","c":"m-2.safetensors"}}"#);
        assert_eq!(good.unwrap().into_iter().collect::<Vec<_>>(), ["m-1.safetensors", "m-2.safetensors"]);
        assert!(of(r#"{"weight_map":{"a":"../../x.safetensors"}}"#).unwrap_err().contains("not a .safetensors file"));
        assert!(of(r#"{"weight_map":{"a":"x.bin"}}"#).is_err());
        assert!(of(r#"{"weight_map":{}}"#).unwrap_err().contains("names no weights"));
        assert!(of("{").unwrap_err().contains("cannot be read"));
    }
}
