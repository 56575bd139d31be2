//! Which files a model is made of.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::WeightsError;

/// Largest model.safetensors.index.json that is read, in bytes (that of a 400 B model has some 10 MB).
const MAX_INDEX_BYTES: u64 = 64 << 20;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files of one model. All paths exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFiles {
    /// A folder as transformers saves it.
    Safetensors {
        /// Holds config.json and perhaps tokenizer.json, chat templates and so on.
        folder: PathBuf,
        config_json: PathBuf,
        /// One file, or the shards named by model.safetensors.index.json, by name.
        files: Vec<PathBuf>,
    },
    Gguf {
        file: PathBuf,
    },
}

impl ModelFiles {
    /// Finds the model at `path`: a folder with config.json and model.safetensors (or the index of its shards), a
    /// folder with exactly one model in a .gguf file, or such a file.
    ///
    /// # Errors
    /// Nothing there, several models, weights in pickle files only, or shards that are missing.
    pub fn discover(path: &Path) -> Result<Self, WeightsError> {
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => WeightsError::NotFound { path: path.to_owned() },
            _ => WeightsError::Io { path: path.to_owned(), source },
        })?;
        if metadata.is_dir() { in_folder(path) } else { gguf_file(path) }
    }

    /// The folder in which texts beside the weights are looked for.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Safetensors { folder, .. } => folder,
            Self::Gguf { file } => file.parent().unwrap_or(Path::new("")),
        }
    }
}

fn gguf_file(file: &Path) -> Result<ModelFiles, WeightsError> {
    let mut magic = [0; 4];
    let is_gguf = has_extension(file, "gguf")
        || fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"GGUF";
    if is_gguf {
        return Ok(ModelFiles::Gguf { file: file.to_owned() });
    }
    Err(WeightsError::Unsupported {
        file: file.to_owned(),
        reason: "expected a folder with config.json and model.safetensors, or a .gguf file".to_owned(),
    })
}

fn in_folder(folder: &Path) -> Result<ModelFiles, WeightsError> {
    let single = folder.join(SINGLE);
    let index = folder.join(INDEX);
    let files = if single.is_file() {
        vec![single]
    } else if index.is_file() {
        shards(folder, &index)?
    } else {
        return other_weights(folder);
    };
    let config_json = folder.join("config.json");
    if !config_json.is_file() {
        return Err(WeightsError::NoConfig { folder: folder.to_owned() });
    }
    Ok(ModelFiles::Safetensors { folder: folder.to_owned(), config_json, files })
}

#[derive(Deserialize)]
struct Index {
    #[serde(deserialize_with = "shard_names")]
    weight_map: BTreeSet<String>,
}

/// The values of a map from tensors to files.
fn shard_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = BTreeSet<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map from tensor names to file names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut names = BTreeSet::new();
            while let Some((_, name)) = map.next_entry::<IgnoredAny, String>()? {
                names.insert(name);
            }
            Ok(names)
        }
    }
    deserializer.deserialize_map(Names)
}

fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let broken = |reason: String| WeightsError::Broken { file: index.to_owned(), reason };
    let io = |source| WeightsError::Io { path: index.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(index).map_err(io)?;
    file.take(MAX_INDEX_BYTES).read_to_string(&mut text).map_err(io)?;
    let Index { weight_map } = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    if weight_map.is_empty() {
        return Err(broken("it names no weight files".to_owned()));
    }
    let mut files = Vec::new();
    for shard in weight_map {
        // The index comes with the model: it must not be able to name files elsewhere on the machine.
        let mut components = Path::new(&shard).components();
        let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
        if !is_plain || shard.contains(['/', '\\']) || !has_extension(Path::new(&shard), "safetensors") {
            return Err(broken(format!("it names the weight file {shard:?}, expected a .safetensors file beside it")));
        }
        let file = folder.join(&shard);
        if !file.is_file() {
            return Err(WeightsError::MissingShard { index: index.to_owned(), shard });
        }
        files.push(file);
    }
    Ok(files)
}

/// A folder without safetensors: GGUF, or the reason why there is nothing to load.
fn other_weights(folder: &Path) -> Result<ModelFiles, WeightsError> {
    let io = |source| WeightsError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        names.push(PathBuf::from(entry.map_err(io)?.file_name()));
    }
    names.sort();
    let name_of = |path: &PathBuf| path.to_string_lossy().into_owned();
    // A vision projector (mmproj) belongs to a model, it is none.
    let models: Vec<_> = names
        .iter()
        .filter(|name| has_extension(name, "gguf") && !name.to_string_lossy().starts_with("mmproj"))
        .collect();
    match models.as_slice() {
        [file] => return Ok(ModelFiles::Gguf { file: folder.join(file) }),
        [] => {}
        several => {
            let names = several.iter().map(|name| name_of(name)).collect();
            return Err(WeightsError::SeveralGguf { folder: folder.to_owned(), names });
        }
    }
    let pickle = names.iter().find(|name| {
        ["bin", "pt", "pth", "pkl", "ckpt"].iter().any(|extension| has_extension(name, extension))
            || name.as_os_str() == "pytorch_model.bin.index.json"
    });
    match pickle {
        Some(file) => Err(WeightsError::PickleOnly { folder: folder.to_owned(), file: name_of(file) }),
        None => Err(WeightsError::NoWeights { folder: folder.to_owned() }),
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|found| found.eq_ignore_ascii_case(extension))
}
