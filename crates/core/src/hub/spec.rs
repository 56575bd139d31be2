//! What a user may write as MODEL, and the one name each model is known by.

use std::path::{Path, PathBuf};

use super::HubError;

/// The branch that is meant when no revision is given.
pub const DEFAULT_REVISION: &str = "main";

/// The longest repository id the hub accepts.
const MAX_REPO_LENGTH: usize = 96;
/// The longest revision or file path taken from a user; file systems stop at 255 bytes per name.
const MAX_PART_LENGTH: usize = 200;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A file on this machine that is a model: `.gguf`, or `.bin` for speech.
    File(PathBuf),
    /// A repository of the hub, or its copy in the cache.
    Hub {
        repo: String,
        /// Branch, tag or commit; [`DEFAULT_REVISION`] when none was given.
        revision: String,
        /// A file of the repository that is a model, by its path in it.
        file: Option<String>,
    },
}

/// A MODEL argument that was understood: a local folder, a local `.gguf` or `.bin`, `repo`, `repo@revision`,
/// `repo:FILE` or `repo@revision:FILE`, FILE being a `.gguf` or `ggml-NAME.bin` of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    source: ModelSource,
    id: String,
}

impl ModelSpec {
    /// Reads a MODEL argument of the command line or of `createEngine`. What exists on this machine wins over a
    /// repository of the same name.
    ///
    /// # Errors
    /// `invalid_spec` for what can be neither, `model_not_found` for a path at which there is nothing.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self { source: ModelSource::Folder(path.to_path_buf()), id: local_id(path) });
        }
        if path.is_file() {
            // Of a local .bin its beginning tells whether it is a model: it may have any name.
            if !has_extension(text, ".gguf") && !has_extension(text, ".bin") {
                return Err(invalid(text, "a local model is a folder, a .gguf file or a .bin of whisper.cpp"));
            }
            return Ok(Self { source: ModelSource::File(path.to_path_buf()), id: local_id(path) });
        }
        if looks_like_a_path(text) {
            let hint = if is_model_file(text) { " (a file of a repository is written repo:file.gguf)" } else { "" };
            return Err(HubError::not_found(format!("there is no file or folder '{text}'{hint}")));
        }
        Self::parse_hub(text)
    }

    /// Reads a model id that may only name a repository: for ids that come with a request from outside, which must
    /// never reach the file system.
    ///
    /// # Errors
    /// `invalid_spec`, naming what is wrong with it.
    pub fn parse_hub(text: &str) -> Result<Self, HubError> {
        let (rest, file) = match text.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (repo, revision) = match rest.split_once('@') {
            Some((repo, revision)) => (repo, revision),
            None => (rest, DEFAULT_REVISION),
        };
        check_repo(repo).map_err(|reason| invalid(text, reason))?;
        check_revision(revision).map_err(|reason| invalid(text, reason))?;
        if let Some(file) = file {
            if !is_model_file(file) {
                return Err(invalid(
                    text,
                    "what follows the colon must be a .gguf or ggml-NAME.bin file of the repository",
                ));
            }
            if !is_safe_relative(file) || file.len() > MAX_PART_LENGTH {
                return Err(invalid(text, "the file must be a plain path inside the repository"));
            }
        }
        Ok(Self::hub(repo, revision, file))
    }

    /// The spec of a repository whose parts are already known to be valid.
    pub(super) fn hub(repo: &str, revision: &str, file: Option<&str>) -> Self {
        let id = hub_id(repo, revision, file);
        let file = file.map(str::to_owned);
        Self { source: ModelSource::Hub { repo: repo.to_owned(), revision: revision.to_owned(), file }, id }
    }

    /// Where to look.
    pub fn source(&self) -> &ModelSource {
        &self.source
    }

    /// The canonical id: `repo@main` is `repo`; a local folder is its base name, a local file its stem.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// The canonical id of a repository's model.
pub(super) fn hub_id(repo: &str, revision: &str, file: Option<&str>) -> String {
    let mut id = repo.to_owned();
    if revision != DEFAULT_REVISION {
        id.push('@');
        id.push_str(revision);
    }
    if let Some(file) = file {
        id.push(':');
        id.push_str(file);
    }
    id
}

/// Whether a file of a repository is a model by itself, as its name says: `.gguf`, or `ggml-NAME.bin` of whisper.cpp
/// (other `.bin` files are pickles, mostly).
pub(super) fn is_model_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_ggml = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("ggml"));
    has_extension(name, ".gguf") || is_ggml && has_extension(name, ".bin")
}

/// `extension` in lower case, with its dot.
fn has_extension(name: &str, extension: &str) -> bool {
    name.len() > extension.len() && name.to_ascii_lowercase().ends_with(extension)
}

/// Whether a path of a repository stays inside the folder it is joined to, on every system.
pub(super) fn is_safe_relative(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
}

fn invalid(spec: &str, reason: &str) -> HubError {
    // Whatever a caller sends is quoted back, but not at any length.
    let shown: String = spec.chars().take(120).collect();
    HubError::InvalidSpec { spec: shown, reason: reason.to_owned() }
}

fn local_id(path: &Path) -> String {
    // `.` and `..` have no base name of their own.
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    // A link is known by its own name, not by what it points at (a blob of the cache is named by a hash).
    let named = if path.file_name().is_some() { path } else { full.as_path() };
    let name = if named.is_dir() { named.file_name() } else { named.file_stem() };
    name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn looks_like_a_path(text: &str) -> bool {
    let drive =
        text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic() && text.contains('\\');
    let dotted = text == "." || text == ".." || text.starts_with("./") || text.starts_with("../");
    let bare_file = is_model_file(text) && !text.contains(':');
    dotted || drive || bare_file || text.starts_with(['/', '~']) || text.contains('\\')
}

fn check_repo(repo: &str) -> Result<(), &'static str> {
    if repo.is_empty() {
        return Err("a repository is missing (owner/name)");
    }
    if repo.len() > MAX_REPO_LENGTH {
        return Err("a repository id has at most 96 characters");
    }
    if repo.matches('/').count() > 1 {
        return Err("a repository is owner/name, and there is no such local path");
    }
    if !repo.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')) {
        return Err("a repository id holds only letters, digits, '-', '_' and '.'");
    }
    if repo.contains("--") || repo.contains("..") {
        return Err("a repository id holds neither '--' nor '..'");
    }
    if repo.split('/').any(|part| part.is_empty() || part.starts_with(['-', '.']) || part.ends_with(['-', '.'])) {
        return Err("the parts of a repository id are not empty and neither start nor end with '-' or '.'");
    }
    if repo.ends_with(".git") {
        return Err("a repository id does not end in .git");
    }
    Ok(())
}

fn check_revision(revision: &str) -> Result<(), &'static str> {
    let plain = is_safe_relative(revision)
        && !revision.contains("..")
        && !revision.chars().any(|c| c.is_whitespace() || matches!(c, '~' | '^' | '?' | '*' | '[' | '@'));
    if !plain || revision.len() > MAX_PART_LENGTH {
        return Err("a revision is a branch, a tag or a commit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub_parts(text: &str) -> (String, String, Option<String>, String) {
        let spec = ModelSpec::parse(text).unwrap();
        match spec.source().clone() {
            ModelSource::Hub { repo, revision, file } => (repo, revision, file, spec.id().to_owned()),
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn every_hub_form() {
        let s = str::to_owned;
        assert_eq!(hub_parts("a/b"), (s("a/b"), s("main"), None, s("a/b")));
        assert_eq!(hub_parts("gpt2"), (s("gpt2"), s("main"), None, s("gpt2")));
        assert_eq!(hub_parts("a/b@main"), (s("a/b"), s("main"), None, s("a/b")));
        assert_eq!(hub_parts("a/b@refs/pr/1"), (s("a/b"), s("refs/pr/1"), None, s("a/b@refs/pr/1")));
        assert_eq!(hub_parts("a/b:q4.gguf"), (s("a/b"), s("main"), Some(s("q4.gguf")), s("a/b:q4.gguf")));
        assert_eq!(
            hub_parts("a/b@v1:sub/q4.GGUF"),
            (s("a/b"), s("v1"), Some(s("sub/q4.GGUF")), s("a/b@v1:sub/q4.GGUF"))
        );
        assert_eq!(hub_parts("a/b@main:q4.gguf").3, "a/b:q4.gguf");
        assert_eq!(hub_parts("a/b:x/ggml-base.en-q5_1.bin").3, "a/b:x/ggml-base.en-q5_1.bin");
    }

    #[test]
    fn what_cannot_be_a_model_is_refused_in_one_sentence() {
        let long = format!("a/{}", "b".repeat(96));
        let bad = [
            "",
            "a/b/c",
            "a//b",
            "/b@x:",
            "a b",
            "a/b--c",
            "a/b..c",
            "-a/b",
            "a/b.",
            "a/b.git",
            "a/b@",
            "a/b@../x",
            "a/b@x y",
            "a/b@/x",
            "a/b:",
            "a/b:x.bin",
            "a/b:pytorch_model.bin",
            "a/b:ggml/x.bin",
            "a/b:ggml.pt",
            "a/b:../x.gguf",
            "a/b:/x.gguf",
            "a/b:x\\y.gguf",
            "a/b@x@y",
            "ä/b",
            "a/b:.gguf",
            "a/b\n",
            &long,
        ];
        for text in bad {
            let error = ModelSpec::parse_hub(text).expect_err(text);
            assert_eq!(error.code(), "invalid_spec", "{text}");
            assert!(!error.to_string().contains('\n') || text.contains('\n'), "{error}");
        }
    }

    #[test]
    fn local_paths_win_and_are_known_by_their_base_name() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("My-Model.v2");
        std::fs::create_dir(&model).unwrap();
        let gguf = folder.path().join("tiny.q4.gguf");
        std::fs::write(&gguf, b"GGUF").unwrap();
        let bin = folder.path().join("ggml-base.en.bin");
        std::fs::write(&bin, b"lmgg").unwrap();
        let other = folder.path().join("weights.pt");
        std::fs::write(&other, b"x").unwrap();

        let spec = ModelSpec::parse(model.to_str().unwrap()).unwrap();
        assert_eq!((spec.source(), spec.id()), (&ModelSource::Folder(model.clone()), "My-Model.v2"));
        let dotted = model.join(".");
        assert_eq!(ModelSpec::parse(dotted.to_str().unwrap()).unwrap().id(), "My-Model.v2");
        let spec = ModelSpec::parse(gguf.to_str().unwrap()).unwrap();
        assert_eq!((spec.source(), spec.id()), (&ModelSource::File(gguf), "tiny.q4"));
        let spec = ModelSpec::parse(bin.to_str().unwrap()).unwrap();
        assert_eq!((spec.source(), spec.id()), (&ModelSource::File(bin), "ggml-base.en"));
        assert_eq!(ModelSpec::parse(other.to_str().unwrap()).unwrap_err().code(), "invalid_spec");
        // A request from outside never reaches the file system.
        assert_eq!(ModelSpec::parse_hub(model.to_str().unwrap()).unwrap_err().code(), "invalid_spec");
    }

    #[test]
    fn a_path_at_which_there_is_nothing_is_said_to_be_missing() {
        for text in ["./nothing-here", "/nothing/here", "nothing.gguf", "ggml-x.bin", "~/x", "C:\\models\\x.gguf"] {
            assert_eq!(ModelSpec::parse(text).expect_err(text).code(), "model_not_found", "{text}");
        }
    }
}
