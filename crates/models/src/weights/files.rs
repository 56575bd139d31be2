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

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, gone when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let folder = std::env::temp_dir().join(format!("tsserve-files-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in files {
                fs::write(folder.join(name), text).unwrap();
            }
            Self(folder)
        }

        fn error(&self) -> WeightsError {
            ModelFiles::discover(&self.0).unwrap_err()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_single_file_wins_over_shards_and_gguf() {
        let folder = Folder::with(
            "single",
            &[("config.json", "{}"), (SINGLE, "x"), (INDEX, r#"{"weight_map":{"a":"b.safetensors"}}"#), ("m.gguf", "")],
        );
        let found = ModelFiles::discover(&folder.0).unwrap();
        let files = vec![folder.0.join(SINGLE)];
        let config_json = folder.0.join("config.json");
        assert_eq!(found, ModelFiles::Safetensors { folder: folder.0.clone(), config_json, files });
    }

    #[test]
    fn shards_are_listed_once_each() {
        let index = r#"{"metadata":{"total_size":3},"weight_map":{"a":"s-2.safetensors","b":"s-1.safetensors","c":"s-2.safetensors"}}"#;
        let folder = Folder::with(
            "shards",
            &[("config.json", "{}"), (INDEX, index), ("s-1.safetensors", "x"), ("s-2.safetensors", "x")],
        );
        let ModelFiles::Safetensors { files, .. } = ModelFiles::discover(&folder.0).unwrap() else { panic!("GGUF") };
        assert_eq!(files, [folder.0.join("s-1.safetensors"), folder.0.join("s-2.safetensors")]);
        fs::remove_file(folder.0.join("s-2.safetensors")).unwrap();
        assert!(matches!(folder.error(), WeightsError::MissingShard { shard, .. } if shard == "s-2.safetensors"));
    }

    #[test]
    fn an_index_cannot_name_files_elsewhere() {
        for name in
            ["../x.safetensors", "/etc/x.safetensors", "a/x.safetensors", "..\\\\x.safetensors", "..", "", "x.bin"]
        {
            let index = format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#);
            let folder = Folder::with("escape", &[("config.json", "{}"), (INDEX, &index), ("x.bin", "")]);
            let error = folder.error();
            assert!(matches!(error, WeightsError::Broken { .. }), "{name}: {error}");
            assert_eq!(error.code(), "model_broken");
        }
    }

    #[test]
    fn a_gguf_is_found_beside_its_projector() {
        let folder = Folder::with("gguf", &[("model.gguf", ""), ("mmproj-model.gguf", ""), ("README.md", "")]);
        let file = folder.0.join("model.gguf");
        assert_eq!(ModelFiles::discover(&folder.0).unwrap(), ModelFiles::Gguf { file: file.clone() });
        assert_eq!(ModelFiles::discover(&file).unwrap(), ModelFiles::Gguf { file });
    }

    #[test]
    fn what_cannot_be_loaded_is_said() {
        let folder = Folder::with("several", &[("b.gguf", ""), ("a.gguf", "")]);
        assert!(matches!(folder.error(), WeightsError::SeveralGguf { names, .. } if names == ["a.gguf", "b.gguf"]));

        let folder = Folder::with("pickle", &[("config.json", "{}"), ("pytorch_model.bin", "")]);
        assert!(folder.error().to_string().contains("pytorch_model.bin"));
        assert_eq!(folder.error().code(), "model_unsupported");

        let folder = Folder::with("nothing", &[("README.md", "")]);
        assert!(matches!(folder.error(), WeightsError::NoWeights { .. }));
        assert!(matches!(ModelFiles::discover(&folder.0.join("no")).unwrap_err(), WeightsError::NotFound { .. }));
        let file = ModelFiles::discover(&folder.0.join("README.md")).unwrap_err();
        assert!(matches!(file, WeightsError::Unsupported { .. }));

        let folder = Folder::with("no-config", &[(SINGLE, "x")]);
        assert!(matches!(folder.error(), WeightsError::NoConfig { .. }));
    }
}
