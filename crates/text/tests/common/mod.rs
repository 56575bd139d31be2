//! What the tests share: fixtures, and just enough of a GGUF reader to get at the tokenizer.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tsserve_text::{GgufTokenizer, Tokenizer};

pub const MODELS: &[&str] = &["llama", "llama_smollm2", "qwen2", "qwen3", "gemma3_text"];

/// Text that tokenizers like to get wrong.
pub const TRICKY: &[&str] = &[
    "",
    " ",
    "  ",
    "     \t  \n \n\n\n  x",
    "Hello, world!",
    " leading and trailing ",
    "it's we'll I'M DON'T o'clock ’s",
    "0 1 12 123 1234 12345678901 3.14 1,000 ½ ² Ⅷ ٣",
    "a\r\nb\r\n\r\n\tc\n\n\n\nd\u{b}\u{c}\u{85}\u{2028}e",
    "naïve cafe\u{301} café ÅA\u{30a} ﬁ ß İ ſ",
    "数字 123 と日本語 漢字かな交じり文 한국어 ไทย हिन्दी العربية עברית",
    "🎉 🎉🎉 👩‍👩‍👧‍👦 🇩🇪 ✈️ \u{1f9d1}\u{1f3fd}‍💻",
    "fn main() {\n    let x = vec![1, 2];\n\tprintln!(\"{x:?}\"); // ok\n}\n",
    "<b>&amp;</b> http://a.b/c?d=e&f=%20 user@example.com C:\\path\\n",
    "\u{feff}zero\u{200b}width\u{a0}nbsp\u{3000}wide",
    "▁ already ▁marked Ġ Ċ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "------====****####////\\\\\\\\....????!!!!",
    "\u{0}\u{1}\u{7f}\u{fffd}\u{10ffff}",
    "<|im_start|>user\nhi<|im_end|>\n<think>x</think><|begin_of_text|><bos><start_of_turn>",
];

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn json(path: &str) -> Value {
    let path = root().join(path);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

pub fn tokenizer_path(model: &str) -> PathBuf {
    root().join(format!("fixtures/models/{model}/tokenizer.json"))
}

pub fn tokenizer(model: &str) -> Tokenizer {
    Tokenizer::from_json_file(tokenizer_path(model)).unwrap()
}

/// The same file, read by the tokenizers crate alone.
pub fn reference(model: &str) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_file(tokenizer_path(model)).unwrap()
}

/// The folder of the real weights.
pub fn weights(file: &str) -> PathBuf {
    let folder = std::env::var_os("TSSERVE_WEIGHTS_DIR").map_or_else(|| root().join(".tsserve/weights"), PathBuf::from);
    let path = folder.join(file);
    assert!(
        path.is_file(),
        "{} is missing: fetch the real weights first, or point TSSERVE_WEIGHTS_DIR to them",
        path.display()
    );
    path
}

/// A fixed stream of numbers.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

enum Entry {
    Strings(Vec<String>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Text(String),
    Int(i64),
    Float(f64),
}

/// The tokenizer's keys of a GGUF file.
pub fn gguf_tokenizer(path: &Path) -> GgufTokenizer {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reader = Reader(std::io::BufReader::new(file));
    assert_eq!(&reader.take::<4>(), b"GGUF");
    assert!(reader.u32() >= 2);
    let _tensors = reader.u64();
    let mut keys: HashMap<String, Entry> = HashMap::new();
    for _ in 0..reader.u64() {
        let key = reader.string();
        let kind = reader.u32();
        let entry = reader.entry(kind);
        if let Some(name) = key.strip_prefix("tokenizer.ggml.") {
            keys.insert(name.to_owned(), entry);
        }
    }
    let mut strings = |name: &str| match keys.remove(name) {
        Some(Entry::Strings(list)) => list,
        _ => Vec::new(),
    };
    let (tokens, merges) = (strings("tokens"), strings("merges"));
    let text = |name: &str| match keys.get(name) {
        Some(Entry::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let id = |name: &str| match keys.get(name) {
        Some(Entry::Int(id)) => Some(u32::try_from(*id).unwrap()),
        _ => None,
    };
    let flag = |name: &str| match keys.get(name) {
        Some(Entry::Int(flag)) => Some(*flag != 0),
        _ => None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "they were f32 in the file")]
    let scores = match keys.get("scores") {
        Some(Entry::Floats(list)) => list.iter().map(|score| *score as f32).collect(),
        _ => Vec::new(),
    };
    let token_types = match keys.get("token_type") {
        Some(Entry::Ints(list)) => list.iter().map(|kind| i32::try_from(*kind).unwrap()).collect(),
        _ => Vec::new(),
    };
    GgufTokenizer {
        model: text("model"),
        pre: text("pre"),
        tokens,
        scores,
        token_types,
        merges,
        bos_id: id("bos_token_id"),
        eos_id: id("eos_token_id"),
        unk_id: id("unknown_token_id"),
        pad_id: id("padding_token_id"),
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
        add_space_prefix: flag("add_space_prefix"),
    }
}

struct Reader<R>(R);

impl<R: std::io::Read> Reader<R> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn string(&mut self) -> String {
        let mut bytes = vec![0; usize::try_from(self.u64()).unwrap()];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn entry(&mut self, kind: u32) -> Entry {
        match kind {
            0 | 7 => Entry::Int(self.take::<1>()[0].into()),
            1 => Entry::Int(i8::from_le_bytes(self.take()).into()),
            2 => Entry::Int(u16::from_le_bytes(self.take()).into()),
            3 => Entry::Int(i16::from_le_bytes(self.take()).into()),
            4 => Entry::Int(self.u32().into()),
            5 => Entry::Int(i32::from_le_bytes(self.take()).into()),
            6 => Entry::Float(f32::from_le_bytes(self.take()).into()),
            8 => Entry::Text(self.string()),
            9 => {
                let kind = self.u32();
                let count = self.u64();
                let (mut strings, mut ints, mut floats) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..count {
                    match self.entry(kind) {
                        Entry::Text(text) => strings.push(text),
                        Entry::Int(int) => ints.push(int),
                        Entry::Float(float) => floats.push(float),
                        _ => panic!("nested arrays"),
                    }
                }
                match kind {
                    8 => Entry::Strings(strings),
                    6 | 12 => Entry::Floats(floats),
                    _ => Entry::Ints(ints),
                }
            }
            10 => Entry::Int(i64::try_from(self.u64()).unwrap()),
            11 => Entry::Int(i64::from_le_bytes(self.take())),
            12 => Entry::Float(f64::from_le_bytes(self.take())),
            other => panic!("metadata type {other}"),
        }
    }
}
