//! Downloads against a hub on loopback that misbehaves in every way a real one does.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests fail by panicking, as the tests do")]

mod hub_support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hub_support::{COMMIT, FakeHub, Fault, RepoFile, SECOND_COMMIT, checkpoint, dead_endpoint, large, sha256, small};
use tsserve_core::hub::{HubConfig, HubError, HubProgress, ModelSpec, ResolvedModel, resolve};

const REPO: &str = "owner/tiny";

/// Resolves and returns what was reported on the way.
fn fetch(text: &str, config: &HubConfig) -> (Result<ResolvedModel, HubError>, Vec<HubProgress>) {
    let mut events = Vec::new();
    let spec = ModelSpec::parse(text).unwrap();
    let result = resolve(&spec, config, &mut |event| events.push(event), &AtomicBool::new(false));
    (result, events)
}

/// A hub with one checkpoint of `len` bytes of weights, and an empty cache.
fn one_model(len: usize) -> (FakeHub, RepoFile, tempfile::TempDir) {
    let (hub, weights) = (FakeHub::start(), large("model.safetensors", len, 1));
    hub.add(REPO, COMMIT, &checkpoint(weights.clone()));
    (hub, weights, tempfile::tempdir().unwrap())
}

fn blobs(cache: &Path) -> Vec<String> {
    let folder = cache.join("models--owner--tiny/blobs");
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_lands_in_the_layout_that_python_shares() {
    let (hub, weights, cache) = one_model(5000);
    let (result, events) = fetch(REPO, &hub.config(cache.path()));
    let model = result.unwrap();
    let root = cache.path().join("models--owner--tiny");
    assert_eq!(model.id, REPO);
    assert_eq!(model.revision.as_deref(), Some(COMMIT));
    assert_eq!(model.path, root.join("snapshots").join(COMMIT));
    assert_eq!(fs::read(model.path.join("model.safetensors")).unwrap(), weights.bytes);
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert!(root.join("blobs").join(&weights.etag).is_file());
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(model.path.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(&weights.etag)
    );
    assert!(cache.path().join(format!(".locks/models--owner--tiny/{}.lock", weights.etag)).is_file());
    assert!(!model.path.join("README.md").exists(), "what is not needed is not fetched");
    assert!(blobs(cache.path()).iter().all(|name| !name.ends_with(".incomplete")));

    let total: u64 = checkpoint(weights.clone())[1..].iter().map(|file| file.bytes.len() as u64).sum();
    let last = events.last().unwrap();
    assert_eq!((last.done, last.total), (total, total));
    assert!(events.iter().any(|event| event.file == "model.safetensors"));
    assert!(events.is_sorted_by_key(|event| event.done), "{events:?}");

    // The second time nothing is asked, and the hub need not be there.
    hub.forget();
    assert_eq!(fetch(&format!("{REPO}@main"), &hub.config(cache.path())).0.unwrap(), model);
    assert!(hub.seen("").is_empty());
}

#[test]
fn a_cut_connection_is_resumed_and_no_byte_comes_twice() {
    let (hub, weights, cache) = one_model(5000);
    hub.fault("cdn GET", 1, Fault::CutAfter(1000));
    hub.fault("cdn GET", 1, Fault::CutAfter(500));
    let model = fetch(REPO, &hub.config(cache.path())).0.unwrap();
    assert_eq!(fs::read(model.path.join("model.safetensors")).unwrap(), weights.bytes);
    let got = hub.seen("cdn GET");
    let ranges: Vec<_> = got.iter().map(|seen| seen.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=1000-"), Some("bytes=1500-")]);
    assert_eq!(got.iter().map(|seen| seen.sent).sum::<usize>(), 5000);
}

#[test]
fn after_too_many_cuts_the_next_run_goes_on() {
    let (hub, weights, cache) = one_model(5000);
    let config = hub.config(cache.path());
    hub.fault("cdn GET", usize::MAX, Fault::CutAfter(100));
    let error = fetch(REPO, &config).0.unwrap_err();
    assert_eq!(error.code(), "broken_download");
    assert!(error.to_string().contains("after 400 bytes of 5.0 kB; what came is kept"), "{error}");
    assert_eq!(hub.seen("cdn GET").len(), 4, "one attempt and three retries");
    let partial = cache.path().join(format!("models--owner--tiny/blobs/{}.incomplete", weights.etag));
    assert_eq!(fs::read(&partial).unwrap(), weights.bytes[..400]);
    assert!(!cache.path().join("models--owner--tiny/refs/main").exists(), "an unfinished model has no ref");

    hub.heal();
    hub.forget();
    let (result, events) = fetch(REPO, &config);
    assert_eq!(fs::read(result.unwrap().path.join("model.safetensors")).unwrap(), weights.bytes);
    let got = hub.seen("cdn GET");
    assert_eq!(
        got.iter().map(|seen| (seen.range.as_deref(), seen.sent)).collect::<Vec<_>>(),
        [(Some("bytes=400-"), 4600)]
    );
    let (first, last) = (&events[0], events.last().unwrap());
    assert_eq!((first.done, last.done, last.total), (400, 5000, 5000), "progress starts at what is here");
}

#[test]
fn a_host_that_does_not_resume_sends_all_again() {
    let (hub, weights, cache) = one_model(3000);
    hub.fault("cdn GET", 1, Fault::CutAfter(1000));
    hub.fault("cdn GET", 1, Fault::IgnoreRange);
    let model = fetch(REPO, &hub.config(cache.path())).0.unwrap();
    assert_eq!(fs::read(model.path.join("model.safetensors")).unwrap(), weights.bytes);
}

#[test]
fn a_wrong_checksum_is_deleted_and_said() {
    let (hub, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let mut weights = large("model.safetensors", 2000, 1);
    weights.etag = sha256(b"something else");
    hub.add(REPO, COMMIT, &checkpoint(weights.clone()));
    let error = fetch(REPO, &hub.config(cache.path())).0.unwrap_err();
    assert_eq!(error.code(), "broken_download");
    assert!(error.to_string().contains("model.safetensors was damaged on the way"), "{error}");
    assert_eq!(hub.seen("cdn GET").len(), 1);
    assert!(blobs(cache.path()).iter().all(|name| !name.starts_with(&weights.etag)), "{:?}", blobs(cache.path()));
}

#[test]
fn a_damaged_leftover_is_fetched_once_more() {
    let (hub, weights, cache) = one_model(2000);
    let folder = cache.path().join("models--owner--tiny/blobs");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{}.incomplete", weights.etag)), [7; 600]).unwrap();
    let model = fetch(REPO, &hub.config(cache.path())).0.unwrap();
    assert_eq!(fs::read(model.path.join("model.safetensors")).unwrap(), weights.bytes);
    let ranges: Vec<_> = hub.seen("cdn GET").into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [Some("bytes=600-".to_owned()), None]);
}

#[test]
fn passing_errors_are_tried_again_and_lasting_ones_end() {
    let (hub, _, cache) = one_model(2000);
    for line in ["GET /api/models", "HEAD /owner/tiny", "cdn GET"] {
        hub.fault(line, 2, Fault::Status(503, ""));
    }
    fetch(REPO, &hub.config(cache.path())).0.unwrap();
    assert_eq!(hub.seen("GET /api/models").len(), 3);
    assert_eq!(hub.seen("cdn GET").len(), 3);

    let other = tempfile::tempdir().unwrap();
    hub.forget();
    hub.fault("GET /api/models", usize::MAX, Fault::Status(503, ""));
    let error = fetch(REPO, &hub.config(other.path())).0.unwrap_err();
    assert_eq!(error.code(), "broken_download");
    assert!(error.to_string().contains("503"), "{error}");
    assert_eq!(hub.seen("GET /api/models").len(), 4);
}

#[test]
fn an_expired_content_link_is_asked_for_anew() {
    let (hub, _, cache) = one_model(2000);
    hub.fault("cdn GET", 1, Fault::Status(403, ""));
    fetch(REPO, &hub.config(cache.path())).0.unwrap();
    assert_eq!(hub.seen("GET /owner/tiny/resolve/1111111111111111111111111111111111111111/model.safetensors").len(), 2);
}

#[test]
fn the_token_goes_to_the_hub_only() {
    let (hub, _, cache) = one_model(2000);
    fetch(REPO, &hub.config(cache.path())).0.unwrap();
    for line in ["GET /api/models", "HEAD /owner/tiny", "GET /owner/tiny"] {
        let seen = hub.seen(line);
        assert!(!seen.is_empty() && seen.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_secret")));
    }
    let content = hub.seen("cdn");
    assert!(!content.is_empty() && content.iter().all(|seen| seen.authorization.is_none()), "{content:?}");
}

#[test]
fn refusals_say_what_to_do() {
    let (hub, _, cache) = one_model(100);
    let config = hub.config(cache.path());
    hub.fault("HEAD", usize::MAX, Fault::Status(401, "x-error-code: GatedRepo\r\n"));
    let mut anonymous = config.clone();
    anonymous.token = None;
    let error = fetch(REPO, &anonymous).0.unwrap_err();
    assert_eq!(error.code(), "gated");
    let text = error.to_string();
    assert!(text.contains("accept its licence at http://") && text.contains("set HF_TOKEN"), "{text}");
    hub.heal();

    hub.fault("GET /api", usize::MAX, Fault::Status(403, ""));
    assert_eq!(fetch(REPO, &config).0.unwrap_err().code(), "gated");
    hub.heal();

    // The hub answers like this for what is not there when nobody is logged in.
    hub.fault("GET /api", usize::MAX, Fault::Status(401, "x-error-message: Invalid username or password.\r\n"));
    let error = fetch(REPO, &config).0.unwrap_err();
    assert_eq!(error.code(), "model_not_found");
    assert!(error.to_string().contains("'owner/tiny'"), "{error}");
}

#[test]
fn what_is_not_there_is_named() {
    let (hub, _, cache) = one_model(100);
    let config = hub.config(cache.path());
    let cases = [
        ("owner/none", "there is no model 'owner/none'"),
        ("owner/tiny@v9", "no revision 'v9'"),
        ("owner/tiny:q4.gguf", "no file 'q4.gguf'"),
    ];
    for (text, expected) in cases {
        let error = fetch(text, &config).0.unwrap_err();
        assert_eq!(error.code(), "model_not_found", "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    hub.add("owner/pickle", COMMIT, &[small("config.json", "{}"), large("pytorch_model.bin", 10, 1)]);
    let error = fetch("owner/pickle", &config).0.unwrap_err();
    assert_eq!(error.code(), "no_weights");
    assert!(error.to_string().contains("pytorch_model.bin are never loaded"), "{error}");
}

#[test]
fn a_disk_that_is_too_small_is_seen_before_anything_is_fetched() {
    let (hub, _, cache) = one_model(50_000);
    let mut config = hub.config(cache.path());
    config.free_space = |_| Some(10_000);
    let error = fetch(REPO, &config).0.unwrap_err();
    assert_eq!(error.code(), "disk_full");
    assert!(error.to_string().contains("needs 50.0 kB more on disk, but only 10.0 kB are free"), "{error}");
    assert!(hub.seen("cdn").is_empty() && blobs(cache.path()).is_empty());
}

#[test]
fn two_at_once_download_once() {
    let (hub, weights, cache) = one_model(5000);
    let head = format!("HEAD /owner/tiny/resolve/{COMMIT}/model.safetensors");
    // Whoever comes first is kept until the other one wants the same file.
    hub.fault("cdn GET", usize::MAX, Fault::WaitFor(head, 2));
    let config = hub.config(cache.path());
    let models: Vec<ResolvedModel> = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| fetch(REPO, &config).0.unwrap()));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(models[0], models[1]);
    assert_eq!(fs::read(models[0].path.join("model.safetensors")).unwrap(), weights.bytes);
    assert_eq!(hub.seen("cdn GET").len(), 1);
    assert_eq!(hub.seen(&format!("GET /owner/tiny/resolve/{COMMIT}/config.json")).len(), 1);
}

#[test]
fn cancelling_ends_at_once_and_keeps_what_came() {
    let (hub, weights, cache) = one_model(5000);
    hub.fault("cdn GET", 1, Fault::HoldAfter(1000));
    let (config, cancel) = (hub.config(cache.path()), Arc::new(AtomicBool::new(false)));
    let error = std::thread::scope(|scope| {
        let flag = cancel.clone();
        let config = &config;
        let thread =
            scope.spawn(move || resolve(&ModelSpec::parse(REPO).unwrap(), config, &mut |_| {}, &flag).unwrap_err());
        hub.wait_until_held();
        let start = Instant::now();
        cancel.store(true, Ordering::SeqCst);
        let error = thread.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        error
    });
    assert_eq!(error.code(), "cancelled");
    let partial = cache.path().join(format!("models--owner--tiny/blobs/{}.incomplete", weights.etag));
    let kept = fs::metadata(partial).unwrap().len();
    let model = fetch(REPO, &config).0.unwrap();
    assert_eq!(fs::read(model.path.join("model.safetensors")).unwrap(), weights.bytes);
    let range = hub.seen("cdn GET").pop().unwrap().range;
    assert_eq!(range, (kept > 0).then(|| format!("bytes={kept}-")));
}

#[test]
fn shards_are_those_that_the_index_names() {
    let (hub, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let index = r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-1.safetensors"}}"#;
    let mut files = checkpoint(small("model.safetensors.index.json", index));
    files.extend([1, 2, 3].map(|i| large(&format!("model-{i}.safetensors"), 1000, i)));
    hub.add(REPO, COMMIT, &files);
    let config = hub.config(cache.path());
    let model = fetch(REPO, &config).0.unwrap();
    assert!(model.path.join("model-1.safetensors").is_file() && model.path.join("model-2.safetensors").is_file());
    assert!(!model.path.join("model-3.safetensors").exists());

    // A shard that was removed makes the copy incomplete, and only it is fetched again.
    fs::remove_file(model.path.join("model-2.safetensors").canonicalize().unwrap()).unwrap();
    hub.forget();
    assert_eq!(fetch(REPO, &config).0.unwrap(), model);
    assert_eq!((hub.seen("cdn GET").len(), hub.seen("HEAD").len()), (1, 1));

    files.pop();
    files[4] = small("model.safetensors.index.json", r#"{"weight_map":{"a":"model-9.safetensors"}}"#);
    hub.add("owner/torn", COMMIT, &files);
    let error = fetch("owner/torn", &config).0.unwrap_err();
    assert_eq!(error.code(), "no_weights");
    assert!(error.to_string().contains("model-9.safetensors, which is not there"), "{error}");
}

#[test]
fn a_gguf_is_found_by_name_or_by_being_the_only_one() {
    let (hub, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let config = hub.config(cache.path());
    hub.add("owner/one-gguf", COMMIT, &[small("README.md", "x"), large("m.q4.gguf", 300, 1)]);
    let model = fetch("owner/one-gguf", &config).0.unwrap();
    assert_eq!(model.id, "owner/one-gguf:m.q4.gguf");
    assert!(model.path.ends_with("m.q4.gguf"));
    assert_eq!(fetch("owner/one-gguf@main:m.q4.gguf", &config).0.unwrap(), model);

    hub.add("owner/two-gguf", COMMIT, &[large("a.gguf", 300, 2), large("sub/b.gguf", 300, 3)]);
    let error = fetch("owner/two-gguf", &config).0.unwrap_err();
    assert_eq!(error.code(), "no_weights");
    assert!(error.to_string().ends_with("name one of them after a colon: a.gguf, sub/b.gguf"), "{error}");
    let model = fetch("owner/two-gguf:sub/b.gguf", &config).0.unwrap();
    assert_eq!(fs::read(&model.path).unwrap(), large("", 300, 3).bytes);
    #[cfg(unix)]
    assert!(fs::read_link(&model.path).unwrap().starts_with("../../../blobs"));
}

#[test]
fn revisions_with_a_slash_and_repositories_without_an_owner() {
    let (hub, _, cache) = one_model(500);
    hub.add_revision(REPO, "refs/pr/1", COMMIT);
    let model = fetch("owner/tiny@refs/pr/1", &hub.config(cache.path())).0.unwrap();
    assert_eq!(model.id, "owner/tiny@refs/pr/1");
    let root = cache.path().join("models--owner--tiny/refs");
    assert_eq!(fs::read_to_string(root.join("refs/pr/1")).unwrap(), COMMIT);
    assert!(!root.join("main").exists());

    // Repositories of the early days have no owner.
    hub.add("tiny2", COMMIT, &checkpoint(large("model.safetensors", 400, 4)));
    let model = fetch("tiny2", &hub.config(cache.path())).0.unwrap();
    assert!(model.path.starts_with(cache.path().join("models--tiny2/snapshots")));
}

#[test]
fn a_hub_that_is_away_is_named_unless_a_copy_is_here() {
    let (hub, weights, cache) = one_model(500);
    let endpoint = dead_endpoint();
    let mut config = hub_support::config(cache.path(), &endpoint);
    let error = fetch(REPO, &config).0.unwrap_err();
    assert_eq!(error.code(), "hub_unreachable");
    let text = error.to_string();
    assert!(text.contains(endpoint.trim_start_matches("http://")) && text.contains("HF_HUB_OFFLINE=1"), "{text}");

    fetch(REPO, &hub.config(cache.path())).0.unwrap();
    config.refresh = true;
    let model = fetch(REPO, &config).0.unwrap();
    assert_eq!(model.revision.as_deref(), Some(COMMIT));
    assert!(model.warnings[0].contains("using the copy of owner/tiny in the cache"), "{model:?}");

    // So is a copy of what the hub no longer gives.
    let mut config = hub.config(cache.path());
    config.refresh = true;
    hub.fault("GET /api", 1, Fault::Status(403, ""));
    let model = fetch(REPO, &config).0.unwrap();
    assert_eq!(model.revision.as_deref(), Some(COMMIT));
    assert!(model.warnings[0].starts_with("access to owner/tiny is restricted"), "{model:?}");

    // An update that breaks off leaves the older copy in use, and its ref.
    hub.add(REPO, SECOND_COMMIT, &checkpoint(large("model.safetensors", 600, 2)));
    let mut config = hub.config(cache.path());
    config.refresh = true;
    hub.fault("cdn GET", usize::MAX, Fault::CutAfter(10));
    let model = fetch(REPO, &config).0.unwrap();
    assert_eq!(model.revision.as_deref(), Some(COMMIT));
    assert_eq!(fs::read(model.path.join("model.safetensors")).unwrap(), weights.bytes);
    assert_eq!(model.warnings.len(), 1);
    hub.heal();
    assert_eq!(fetch(REPO, &config).0.unwrap().revision.as_deref(), Some(SECOND_COMMIT));
}

#[test]
fn without_downloads_only_the_cache_counts() {
    let (hub, _, cache) = one_model(500);
    let mut offline = hub.config(cache.path());
    offline.offline = true;
    let mut no_download = hub.config(cache.path());
    no_download.no_download = true;
    for (config, reason) in [(&offline, "HF_HUB_OFFLINE"), (&no_download, "--no-download")] {
        let error = fetch(REPO, config).0.unwrap_err();
        assert_eq!(error.code(), "model_not_found");
        assert!(error.to_string().contains("downloads are off") && error.to_string().contains(reason), "{error}");
    }
    assert!(hub.seen("").is_empty());
    fetch(REPO, &hub.config(cache.path())).0.unwrap();
    hub.forget();
    for mut config in [offline, no_download] {
        config.refresh = true;
        fetch(REPO, &config).0.unwrap();
    }
    assert!(hub.seen("").is_empty());
}

#[test]
fn a_bad_endpoint_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    for endpoint in ["huggingface.co", "ftp://x", "http://"] {
        let error = fetch(REPO, &hub_support::config(cache.path(), endpoint)).0.unwrap_err();
        assert_eq!(error.code(), "invalid_spec", "{endpoint}: {error}");
    }
}
