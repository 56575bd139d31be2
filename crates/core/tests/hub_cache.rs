//! A cache that Python laid out, read without a hub.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests fail by panicking, as the tests do")]

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tsserve_core::hub::{CachedKind, HubConfig, HubError, ModelSpec, ResolvedModel, resolve, scan_cache};

const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn offline(cache: &Path) -> HubConfig {
    let mut config = HubConfig::from_vars(|_| None, None);
    config.cache_dir = cache.to_path_buf();
    config.offline = true;
    config
}

/// Writes files of a snapshot the way `huggingface_hub` does: a blob, and a relative link to it.
fn snapshot(cache: &Path, repo: &str, commit: &str, refs: &[&str], files: &[(&str, &str)]) {
    let root = cache.join(format!("models--{}", repo.replace('/', "--")));
    for name in refs {
        let path = root.join("refs").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, commit).unwrap();
    }
    fs::create_dir_all(root.join("blobs")).unwrap();
    for (name, text) in files {
        let etag = format!("{:x}", name.len() * 1000 + text.len());
        fs::write(root.join("blobs").join(&etag), text).unwrap();
        let pointer = root.join("snapshots").join(commit).join(name);
        fs::create_dir_all(pointer.parent().unwrap()).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("{}blobs/{etag}", "../".repeat(2 + name.matches('/').count())), &pointer)
            .unwrap();
        #[cfg(not(unix))]
        fs::write(&pointer, text).unwrap();
    }
}

const LLAMA: (&str, &str) = ("config.json", r#"{"model_type":"llama"}"#);
const TOKENIZER: [(&str, &str); 2] = [("tokenizer.json", "{}"), ("tokenizer_config.json", "{ }")];
const WEIGHTS: (&str, &str) = ("model.safetensors", "weights");

fn find(text: &str, config: &HubConfig) -> Result<ResolvedModel, HubError> {
    let spec = ModelSpec::parse_hub(text).unwrap();
    resolve(&spec, config, &mut |_| {}, &AtomicBool::new(false))
}

#[test]
fn a_cache_of_pythons_is_found() {
    let cache = tempfile::tempdir().unwrap();
    let config = offline(cache.path());
    let files = [LLAMA, TOKENIZER[0], TOKENIZER[1], WEIGHTS];
    snapshot(cache.path(), "o/m", OLD, &["v1"], &files);
    snapshot(cache.path(), "o/m", NEW, &["main"], &files);
    let root = cache.path().join("models--o--m/snapshots");
    for (text, commit) in [("o/m", NEW), ("o/m@main", NEW), ("o/m@v1", OLD)] {
        let model = find(text, &config).unwrap();
        assert_eq!((model.path, model.revision.as_deref()), (root.join(commit), Some(commit)));
        assert!(model.warnings.is_empty(), "{:?}", model.warnings);
    }
    let by_commit = format!("o/m@{OLD}");
    let model = find(&by_commit, &config).unwrap();
    assert_eq!((model.id, model.path), (by_commit, root.join(OLD)));
}

#[test]
fn parts_that_are_missing_make_it_incomplete() {
    let cache = tempfile::tempdir().unwrap();
    let config = offline(cache.path());
    let index = ("model.safetensors.index.json", r#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#);
    snapshot(cache.path(), "o/torn", NEW, &["main"], &[LLAMA, index, ("m-1.safetensors", "1")]);
    assert_eq!(find("o/torn", &config).unwrap_err().code(), "model_not_found");
    // A link to a blob that is being downloaded.
    snapshot(cache.path(), "o/dangling", NEW, &["main"], &[LLAMA, WEIGHTS]);
    let weights = cache.path().join("models--o--dangling/snapshots").join(NEW).join("model.safetensors");
    fs::remove_file(weights.canonicalize().unwrap()).unwrap();
    assert_eq!(find("o/dangling", &config).unwrap_err().code(), "model_not_found");
    assert!(scan_cache(&config, &["llama"]).is_empty());
}

#[test]
fn a_copy_without_a_tokenizer_is_used_with_a_warning_unless_there_is_none_to_have() {
    let cache = tempfile::tempdir().unwrap();
    let config = offline(cache.path());
    snapshot(cache.path(), "o/bare", NEW, &["main"], &[LLAMA, WEIGHTS]);
    let model = find("o/bare", &config).unwrap();
    let expected = "the copy of o/bare in the cache has no tokenizer.json, tokenizer_config.json";
    assert_eq!(model.warnings, [expected]);

    let absent = cache.path().join("models--o--bare/.no_exist").join(NEW);
    fs::create_dir_all(&absent).unwrap();
    for (name, _) in TOKENIZER {
        fs::write(absent.join(name), "").unwrap();
    }
    assert!(find("o/bare", &config).unwrap().warnings.is_empty());
}

#[test]
fn the_scan_lists_what_can_be_loaded() {
    let cache = tempfile::tempdir().unwrap();
    let config = offline(cache.path());
    assert!(scan_cache(&config, &["llama"]).is_empty(), "an empty cache");
    let files = [LLAMA, TOKENIZER[0], TOKENIZER[1], WEIGHTS];
    snapshot(cache.path(), "o/m", OLD, &["v1"], &files);
    snapshot(cache.path(), "o/m", NEW, &["main", "v2"], &files);
    snapshot(cache.path(), "detached", OLD, &[], &files);
    snapshot(cache.path(), "o/bert", NEW, &["main"], &[("config.json", r#"{"model_type":"bert"}"#), WEIGHTS]);
    snapshot(
        cache.path(),
        "o/gguf",
        NEW,
        &["main"],
        &[("a.gguf", "GGUF...."), ("q/b.gguf", "GGUF....."), ("mmproj-f16.gguf", "GGUF"), ("not.gguf", "<html>")],
    );
    let ggml = [("ggml-base.bin", "lmgg....."), ("ggml-x.bin", "PK......"), ("pytorch_model.bin", "lmgg")];
    snapshot(cache.path(), "o/whisper", NEW, &["main"], &ggml);
    fs::create_dir_all(cache.path().join("datasets--o--d/snapshots")).unwrap();
    fs::create_dir_all(cache.path().join("models--..--x/snapshots")).unwrap();

    let found = scan_cache(&config, &["llama", "qwen2"]);
    let ids: Vec<_> = found.iter().map(|model| model.id.as_str()).collect();
    let ggml = "o/whisper:ggml-base.bin";
    assert_eq!(ids, [format!("detached@{OLD}").as_str(), "o/gguf:a.gguf", "o/gguf:q/b.gguf", "o/m", "o/m@v1", ggml]);
    let model = &found[3];
    assert_eq!((model.kind, model.model_type.as_deref()), (CachedKind::Safetensors, Some("llama")));
    assert_eq!(model.bytes, files.iter().map(|(_, text)| text.len() as u64).sum::<u64>());
    assert_eq!((model.revision.as_str(), model.path.ends_with(NEW)), (NEW, true));
    assert!(model.modified > 1_600_000_000);
    assert_eq!((found[1].kind, found[1].bytes), (CachedKind::Gguf, 8));
    assert_eq!((found[5].kind, found[5].bytes), (CachedKind::Ggml, 9));
    // Each of them is found under its id.
    for model in &found {
        assert_eq!(find(&model.id, &config).unwrap().path, model.path);
    }
}

#[test]
fn a_local_folder_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let config = offline(folder.path());
    let path = folder.path().join("my-model");
    fs::create_dir(&path).unwrap();
    let local = |path: &Path| {
        let spec = ModelSpec::parse(path.to_str().unwrap()).unwrap();
        resolve(&spec, &config, &mut |_| {}, &AtomicBool::new(false))
    };
    let error = local(&path).unwrap_err();
    assert_eq!(error.code(), "no_weights");
    assert!(error.to_string().contains("my-model"), "{error}");
    fs::write(path.join("config.json"), "{}").unwrap();
    fs::write(path.join("model.safetensors"), "x").unwrap();
    let expected = ResolvedModel { id: "my-model".into(), path: path.clone(), revision: None, warnings: vec![] };
    assert_eq!(local(&path).unwrap(), expected);

    let gguf = folder.path().join("tiny.gguf");
    fs::write(&gguf, "GGUF").unwrap();
    let expected = ResolvedModel { id: "tiny".into(), path: gguf.clone(), revision: None, warnings: vec![] };
    assert_eq!(local(&gguf).unwrap(), expected);
}
