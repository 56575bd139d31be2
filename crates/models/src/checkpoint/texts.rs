//! The texts beside the weights: chat templates and special tokens.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::ConfigError;
use crate::weights::GgufMetadata;

/// Largest JSON file or template that is read, in bytes. (Some tokenizer_config.json list every added token.)
const MAX_TEXT_BYTES: u64 = 32 << 20;
/// Most templates taken from one model.
const MAX_TEMPLATES: usize = 64;
const DEFAULT_TEMPLATE: &str = "default";

/// Special tokens that tokenizer_config.json, special_tokens_map.json and GGUF name.
const SPECIAL_TOKENS: &[(&str, &str)] = &[
    ("bos_token", "bos_token_id"),
    ("eos_token", "eos_token_id"),
    ("unk_token", "unknown_token_id"),
    ("sep_token", "seperator_token_id"),
    ("pad_token", "padding_token_id"),
    ("cls_token", "cls_token_id"),
    ("mask_token", "mask_token_id"),
];

/// A chat template (Jinja source). Code of the model's maker: to be rendered in bounds, never trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    /// "default", or for example "tool_use".
    pub name: String,
    pub source: String,
}

/// Texts of a model; all may be absent.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub tokenizer_json: Option<PathBuf>,
    pub tokenizer_config: Option<String>,
    pub chat_templates: Vec<ChatTemplate>,
    pub special_tokens: BTreeMap<String, String>,
}

impl Texts {
    /// # Errors
    /// A file that is there but cannot be read or is not JSON.
    pub fn from_folder(folder: &Path) -> Result<Self, ConfigError> {
        let tokenizer_json = Some(folder.join("tokenizer.json")).filter(|path| path.is_file());
        let tokenizer_config = read_text(&folder.join("tokenizer_config.json"))?;
        let config = tokenizer_config.as_deref().map(|text| parse("tokenizer_config.json", text)).transpose()?;
        let special_map = read_json(&folder.join("special_tokens_map.json"))?;
        let mut special_tokens = BTreeMap::new();
        for source in [&config, &special_map].into_iter().flatten() {
            add_special_tokens(source, &mut special_tokens);
        }
        let chat_templates = templates_of_folder(folder, config.as_ref())?;
        Ok(Self { tokenizer_json, tokenizer_config, chat_templates, special_tokens })
    }

    pub fn from_gguf(metadata: &GgufMetadata) -> Self {
        let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap_or_default();
        let special_tokens = SPECIAL_TOKENS.iter().filter_map(|(name, key)| {
            let id = metadata.u32(&format!("tokenizer.ggml.{key}"))?;
            Some(((*name).to_owned(), tokens.get(usize::try_from(id).ok()?)?.clone()))
        });
        let prefix = "tokenizer.chat_template";
        let chat_templates = metadata.iter().filter_map(|(key, value)| {
            let name = match key.strip_prefix(prefix)? {
                "" => DEFAULT_TEMPLATE,
                suffix => suffix.strip_prefix('.')?,
            };
            Some(ChatTemplate { name: name.to_owned(), source: value.as_str()?.to_owned() })
        });
        Self {
            tokenizer_json: None,
            tokenizer_config: None,
            chat_templates: chat_templates.take(MAX_TEMPLATES).collect(),
            special_tokens: special_tokens.collect(),
        }
    }
}

/// transformers' order: template files replace what tokenizer_config.json holds; chat_template.json is older still.
fn templates_of_folder(folder: &Path, config: Option<&Value>) -> Result<Vec<ChatTemplate>, ConfigError> {
    let mut templates = Vec::new();
    if let Some(source) = read_text(&folder.join("chat_template.jinja"))? {
        templates.push(ChatTemplate { name: DEFAULT_TEMPLATE.to_owned(), source });
    }
    if let Ok(entries) = fs::read_dir(folder.join("additional_chat_templates")) {
        let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "jinja")).take(MAX_TEMPLATES)
        {
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(source) = read_text(&path)? {
                templates.push(ChatTemplate { name, source });
            }
        }
    }
    if templates.is_empty() {
        templates = config.map(templates_of_value).unwrap_or_default();
    }
    if templates.is_empty() {
        let older = read_json(&folder.join("chat_template.json"))?;
        templates = older.as_ref().map(templates_of_value).unwrap_or_default();
    }
    Ok(templates)
}

/// `chat_template`: a string, or a list of named ones.
fn templates_of_value(config: &Value) -> Vec<ChatTemplate> {
    match config.get("chat_template") {
        Some(Value::String(source)) => {
            vec![ChatTemplate { name: DEFAULT_TEMPLATE.to_owned(), source: source.clone() }]
        }
        Some(Value::Array(named)) => {
            let named = named.iter().filter_map(|entry| {
                let text = |key| entry.get(key).and_then(Value::as_str).map(str::to_owned);
                Some(ChatTemplate { name: text("name")?, source: text("template")? })
            });
            named.take(MAX_TEMPLATES).collect()
        }
        _ => Vec::new(),
    }
}

/// Does not replace what is there.
fn add_special_tokens(source: &Value, tokens: &mut BTreeMap<String, String>) {
    let mut add = |name: &str, value: &Value| {
        // A string, or an AddedToken: an object with `content`.
        if let Some(token) = value.as_str().or_else(|| value.get("content")?.as_str()) {
            tokens.entry(name.to_owned()).or_insert_with(|| token.to_owned());
        }
    };
    for (name, _) in SPECIAL_TOKENS {
        if let Some(value) = source.get(name) {
            add(name, value);
        }
    }
    for key in ["extra_special_tokens", "model_specific_special_tokens"] {
        for (name, value) in source.get(key).and_then(Value::as_object).into_iter().flatten() {
            add(name, value);
        }
    }
}

/// A text file; `None` if it is not there.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, ConfigError> {
    let io = |source: std::io::Error| ConfigError::Io { file: path.display().to_string(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if file.metadata().map_err(io)?.len() > MAX_TEXT_BYTES {
        return Err(io(std::io::Error::other(format!("it is larger than {MAX_TEXT_BYTES} bytes"))));
    }
    let mut text = String::new();
    file.take(MAX_TEXT_BYTES).read_to_string(&mut text).map_err(io)?;
    Ok(Some(text))
}

pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, ConfigError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    parse(&path.display().to_string(), &text).map(Some)
}

pub(crate) fn parse(file: &str, text: &str) -> Result<Value, ConfigError> {
    serde_json::from_str(text).map_err(|source| ConfigError::Json { file: file.to_owned(), source })
}
