//! The models of the cache that can be loaded as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Deserialize;

use super::cache::{Found, RepoCache, SNAPSHOT_DEPTH, check_folder, list_files};
use super::select::{self, CONFIG};
use super::spec::{DEFAULT_REVISION, hub_id};
use super::{HubConfig, ModelSource, ModelSpec};

/// What a model of the cache is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachedKind {
    /// A folder with `config.json` and safetensors.
    Safetensors,
    /// One `.gguf` file.
    Gguf,
    /// One `ggml-NAME.bin` of whisper.cpp.
    Ggml,
}

/// A model that can be loaded without the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// As [`ModelSpec::parse`] takes it: `repo`, `repo@revision` or `repo:FILE`.
    pub id: String,
    /// The commit.
    pub revision: String,
    /// The snapshot's folder, or the file in it.
    pub path: PathBuf,
    /// Size of the files that loading it reads.
    pub bytes: u64,
    /// When its newest file was written, in seconds since 1970.
    pub modified: u64,
    pub kind: CachedKind,
    /// `model_type` of its `config.json`; `None` for single files.
    pub model_type: Option<String>,
}

/// Lists the models of the cache whose files are all there, sorted by id. A folder counts if its `model_type` is among
/// `model_types`; a single file counts if it starts as its kind does. Reads no network and, of large files, only names
/// and sizes.
pub fn scan_cache(config: &HubConfig, model_types: &[&str]) -> Vec<CachedModel> {
    let mut found = Vec::new();
    for entry in fs::read_dir(&config.cache_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(repo) = name.to_str().and_then(|name| name.strip_prefix("models--")) else { continue };
        let repo = repo.replace("--", "/");
        // A folder that nobody could ask for is not listed either.
        let is_repo = ModelSpec::parse_hub(&repo)
            .is_ok_and(|spec| matches!(spec.source(), ModelSource::Hub { repo: r, .. } if *r == repo));
        if is_repo {
            scan_repo(&RepoCache::new(&config.cache_dir, &repo), &repo, model_types, &mut found);
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

fn scan_repo(cache: &RepoCache, repo: &str, model_types: &[&str], found: &mut Vec<CachedModel>) {
    let refs = cache.refs();
    for commit in cache.commits() {
        let mut names = refs.iter().filter(|(_, of)| *of == commit).map(|(name, _)| name.as_str());
        let revision = match names.clone().find(|name| *name == DEFAULT_REVISION).or_else(|| names.next()) {
            Some(name) => name,
            None => commit.as_str(),
        };
        let folder = cache.snapshot(&commit);
        if let Some(model_type) = model_type(&folder).filter(|kind| model_types.contains(&kind.as_str()))
            && let Ok(Found::Folder { weights }) = check_folder(&folder, SNAPSHOT_DEPTH)
        {
            let files = weights.iter().map(String::as_str).chain([CONFIG]).chain(select::SIDE_FILES);
            let (bytes, modified) = measure(&folder, files);
            let (id, path, revision) = (hub_id(repo, revision, None), folder.clone(), commit.clone());
            let (kind, model_type) = (CachedKind::Safetensors, Some(model_type));
            found.push(CachedModel { id, revision, path, bytes, modified, kind, model_type });
        }
        for file in select::model_files(&list_files(&folder, SNAPSHOT_DEPTH)) {
            let path = folder.join(&file);
            let Some(kind) = kind_of(&path) else { continue };
            let (bytes, modified) = measure(&folder, [file.as_str()]);
            let (id, revision) = (hub_id(repo, revision, Some(&file)), commit.clone());
            found.push(CachedModel { id, revision, path, bytes, modified, kind, model_type: None });
        }
    }
}

fn model_type(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        model_type: String,
    }
    let text = fs::read(folder.join(CONFIG)).ok()?;
    serde_json::from_slice::<Config>(&text).ok().map(|config| config.model_type)
}

/// What a single file is, by how it starts.
fn kind_of(path: &Path) -> Option<CachedKind> {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic)).ok()?;
    match &magic {
        b"GGUF" => Some(CachedKind::Gguf),
        b"lmgg" => Some(CachedKind::Ggml),
        _ => None,
    }
}

/// Summed size and newest change of those of the files that are there.
fn measure<'f>(folder: &Path, files: impl IntoIterator<Item = &'f str>) -> (u64, u64) {
    let metas = files.into_iter().filter_map(|file| fs::metadata(folder.join(file)).ok());
    metas.fold((0, 0), |(bytes, newest), meta| {
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        (bytes + meta.len(), newest.max(modified.map_or(0, |time| time.as_secs())))
    })
}
