"""Makes fixtures/golden/openai_rules.json: what the code of openai/whisper tells of scripted networks.

    python3 openai_rules.py WHISPER > fixtures/golden/openai_rules.json

WHISPER: the unpacked sdist of openai-whisper 20250625 (MIT licence), which is run as it is; torch, numba and numpy are needed,
tiktoken and tqdm are not. The network is a hash of its tokens, written down twice: `logits` and `scores` here, and in
`src/transcribe/tests/openai.rs`.
"""

import importlib
import json
import sys
import types

import numpy as np
import torch

# Neither is used by what runs here.
tiktoken = types.ModuleType("tiktoken")
tiktoken.Encoding = object
sys.modules["tiktoken"] = tiktoken
tqdm = types.ModuleType("tqdm")


class Bar:
    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, *_):
        pass


tqdm.tqdm = Bar
sys.modules["tqdm"] = tqdm
sys.path.insert(0, sys.argv[1])
decoding = importlib.import_module("whisper.decoding")
transcribing = importlib.import_module("whisper.transcribe")
tokenizing = importlib.import_module("whisper.tokenizer")

END, START, LANGUAGES, TRANSLATE, TRANSCRIBE = 300, 301, {"en": 302, "zh": 303, "de": 304, "fr": 305}, 306, 307
PREVIOUS, NO_SPEECH, NO_TIMESTAMPS, FIRST, VOCAB = 309, 310, 311, 312, 312 + 1501
WORDS = [" one", " two", " three", " four", " five", "你", " six"]
SPECIAL = {"<|endoftext|>": END, "<|startoftranscript|>": START, "<|translate|>": TRANSLATE, "<|transcribe|>": TRANSCRIBE,
           "<|startoflm|>": 308, "<|startofprev|>": PREVIOUS, "<|nospeech|>": NO_SPEECH, "<|notimestamps|>": NO_TIMESTAMPS,
           **{f"<|{c}|>": i for c, i in LANGUAGES.items()}, **{f"<|{i * 0.02:.2f}|>": FIRST + i for i in range(1501)}}
NAMES = {i: n for n, i in SPECIAL.items()}


class Encoding:
    special_tokens_set = set(SPECIAL)
    eot_token = END

    def encode_single_token(self, name):
        return SPECIAL[name]

    def encode(self, text, **_):
        ids = []
        while text:
            known = [w for w in WORDS if text.startswith(w)]
            if known:
                word = max(known, key=len)
                ids.append(256 + WORDS.index(word))
                text = text[len(word):]
            else:
                ids += text[0].encode()
                text = text[1:]
        return ids

    def decode(self, ids, **_):
        parts = [bytes([i]) if i < 256 else WORDS[i - 256].encode() if i - 256 < len(WORDS) else NAMES.get(i, "?").encode() for i in ids]
        return b"".join(parts).decode("utf-8", errors="replace")


class Tokenizer(tokenizing.Tokenizer):
    def __post_init__(self):
        super().__post_init__()
        task = TRANSCRIBE if self.task == "transcribe" else TRANSLATE
        self.sot_sequence = (START, LANGUAGES[self.language], task)


def get_tokenizer(multilingual, *, num_languages=99, language=None, task=None):
    return Tokenizer(encoding=Encoding(), num_languages=num_languages, language=language or "en", task=task or "transcribe")


decoding.get_tokenizer = transcribing.get_tokenizer = get_tokenizer

U = np.uint64


def mix(x):
    with np.errstate(over="ignore"):
        x = x ^ (x >> U(33))
        x = x * U(0xFF51AFD7ED558CCD)
        x = x ^ (x >> U(29))
        x = x * U(0x9E3779B97F4A7C15)
        return x ^ (x >> U(32))


def place_of(seed, start, tokens):
    place = mix(U(seed) ^ (U(start) << U(20)))
    with np.errstate(over="ignore"):
        for token in tokens:
            place = mix(place + U(token))
    return place


IDS = np.arange(VOCAB, dtype=np.uint64)


def logits(seed, start, tokens):
    """In 256ths with a fraction in 65536ths: numbers that are floats without rounding, and hardly ever equal."""
    place = place_of(seed, start, tokens)
    at = tokens.index(START)
    timed = NO_TIMESTAMPS not in tokens[at:]
    sampled = [t for t in tokens[at + 1:] if t < END or t >= FIRST]
    fraction = (mix(place ^ (IDS << U(17))) % U(131072)).astype(np.int64)
    row = np.full(VOCAB, -2048, dtype=np.int64)
    row[END + 1:FIRST] = -8192
    row[:256] -= 4096
    row[256 + len(WORDS):END] -= 4096
    pick = lambda n, of: int(mix(place ^ U(n)) % U(of))
    if tokens[-1] == START:
        for language in LANGUAGES.values():
            row[language] = pick(language, 1024)
        # In every fifth window somebody may be silent.
        row[NO_SPEECH] = 4096 if int(mix(U(start) ^ U(seed)) % U(5)) == 0 else 0
        return row * 256 + fraction
    last = sampled[-1] if sampled else FIRST
    stamps = [t for t in sampled if t >= FIRST]
    stamp = (stamps[-1] if stamps else FIRST) - FIRST
    # How sure the network is: differs by window.
    sure = [512, 1536, 3072][int(mix(U(start) ^ U(seed + 1)) % U(3))]
    if last == 0xE5:
        row[0xA5] += 9000
    elif last == 0xA5:
        row[0xBD] += 9000
    elif last >= FIRST:
        # A segment begins with a word that begins with a space.
        row[256 + 5] -= 2048
        row[256 + pick(1, 5)] += sure
        row[END] += 9000 if len(stamps) % 2 == 0 and pick(2, 4) == 0 else -2048
    else:
        row[256 + pick(3, 7)] += sure
        row[ord(",")] += 4096 + (1024 if pick(4, 9) == 0 else 0)
        row[ord(".")] += 4096 + (1024 if pick(5, 9) == 0 else 0)
        row[ord("a")] += 4096 + (sure if pick(6, 5) == 0 else 0)
        row[0xE5] += 4096 + (sure if pick(7, 12) == 0 else 0)
        row[END] += 2048 + sure if pick(8, 25) == 0 else -2048
    if last in (0xE5, 0xA5):
        # A character is never cut: of the rest of such a text the original makes no words.
        pass
    elif timed:
        # A segment is short, or ends anywhere.
        ahead = pick(10, 180) if pick(9, 6) else pick(11, 1500)
        row[FIRST + min(1500, stamp + ahead)] += 6144 if pick(12, 6) == 0 or last >= FIRST else 0
    if not timed:
        row[FIRST:] -= 8192
    return row * 256 + fraction


def scores(seed, start, tokens, heads):
    """[layers][1, heads, tokens, 1500]: each token is heard for a while, some of them long."""
    lengths = []
    for i, token in enumerate(tokens):
        long = int(mix(U(i) ^ U(start)) % U(19 if token != ord(".") else 2)) == 0
        lengths.append(4 + int(mix(U(token) ^ (U(i) << U(12)) ^ U(seed)) % U(40)) + (120 if long else 0))
    ends = np.cumsum(lengths)
    positions = np.arange(1500)
    out = []
    for layer in range(2):
        rows = np.zeros((1, heads, len(tokens), 1500), dtype=np.float32)
        for head in range(heads):
            for i in range(len(tokens)):
                heard = (positions >= ends[i] - lengths[i]) & (positions < ends[i])
                rows[0, head, i] = np.where(heard, 6.0 + head, (positions * (i + 3 + layer)) % 16 / 64.0)
        out.append(torch.from_numpy(rows))
    return out


class Inference(decoding.Inference):
    def __init__(self, model, initial_token_length):
        self.model, self.first = model, True

    def logits(self, tokens, audio_features):
        out = torch.full((tokens.shape[0], tokens.shape[1], VOCAB), 0.0)
        for k, row in enumerate(tokens.tolist()):
            wanted = range(len(row)) if self.first else [len(row) - 1]
            for i in wanted:
                if START in row[:i + 1]:
                    out[k, i] = self.model.row(int(audio_features[min(k, len(audio_features) - 1), 0]), row[:i + 1])
        self.first = False
        return out

    def rearrange_kv_cache(self, source_indices):
        pass


decoding.PyTorchInference = Inference


class Block:
    class Attention:
        def register_forward_hook(self, hook):
            self.hook = hook
            return types.SimpleNamespace(remove=lambda: None)

    def __init__(self):
        self.cross_attn = Block.Attention()


class Model:
    is_multilingual, num_languages, device = True, 99, torch.device("cpu")
    dims = types.SimpleNamespace(n_mels=2, n_text_ctx=448, n_audio_ctx=1500, n_audio_state=7, n_text_layer=2)
    alignment_heads = torch.tensor([[True, False], [False, True]]).to_sparse()

    def __init__(self, seed):
        self.seed = seed
        self.decoder = types.SimpleNamespace(blocks=[Block(), Block()])

    def encoder(self, mel):
        return mel[:, 0, :1] - 1.0

    def row(self, start, tokens):
        return torch.from_numpy((logits(self.seed, start, tokens) / 65536.0).astype(np.float32))

    def logits(self, tokens, features):
        return torch.stack([self.row(int(f[0]), t)[None] for t, f in zip(tokens.tolist(), features)])

    def __call__(self, mel, tokens):
        start, row = int(mel[0, 0, 0]) - 1, tokens[0].tolist()
        for block, qk in zip(self.decoder.blocks, scores(self.seed, start, row, 2)):
            block.cross_attn.hook(None, None, (None, qk))
        return torch.stack([self.row(start, row[:i + 1]) for i in range(len(row))])[None]

    def detect_language(self, mel):
        return decoding.detect_language(self, mel, get_tokenizer(True))

    def decode(self, mel, options):
        result = decoding.decode(self, mel, options)
        return result


model_module = types.ModuleType("whisper.model")


class Nothing:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


sys.modules["whisper.model"].disable_sdpa = Nothing


def run(case):
    frames = case["frames"]
    mel = torch.zeros(2, frames + 3000)
    mel[0] = torch.arange(frames + 3000) + 1
    transcribing.log_mel_spectrogram = lambda *_, **__: mel
    windows = []
    model = Model(case["seed"])
    plain = model.decode

    def spy(segment, options):
        windows.append(int(segment[0, 0]) - 1)
        return plain(segment, options)

    model.decode = spy
    options = dict(case["options"])
    got = transcribing.transcribe(model, None, temperature=0.0, fp16=False, suppress_tokens=[35, 91], **options)
    segments = [{k: s[k] for k in ("seek", "start", "end", "tokens", "avg_logprob", "no_speech_prob", "compression_ratio")}
                | {"words": [[w["word"], w["start"], w["end"], round(float(w["probability"]), 6)] for w in s.get("words", [])]}
                for s in got["segments"] if s["text"] != ""]
    for s in segments:
        for key in ("start", "end"):
            s[key] = round(s[key], 4)
        for key in ("avg_logprob", "no_speech_prob", "compression_ratio"):
            s[key] = round(float(s[key]), 6)
    return {**case, "language": got["language"], "windows": windows, "segments": segments}


def cases():
    base = dict(language="en")
    variants = [
        dict(base),
        dict(base, word_timestamps=True),
        dict(base, beam_size=5),
        dict(base, beam_size=3, patience=2.0, word_timestamps=True),
        dict(base, condition_on_previous_text=False, initial_prompt="one five", no_speech_threshold=0.01),
        dict(base, initial_prompt=" three, two. ", carry_initial_prompt=True),
        dict(language=None, word_timestamps=True, hallucination_silence_threshold=1.0),
        dict(language="zh", word_timestamps=True, hallucination_silence_threshold=0.2),
        dict(language="fr", task="translate", without_timestamps=True),
        dict(base, no_speech_threshold=None, logprob_threshold=None, compression_ratio_threshold=None),
        dict(language="de", without_timestamps=True, word_timestamps=True, beam_size=2),
        dict(base, logprob_threshold=None, word_timestamps=True, hallucination_silence_threshold=2.0),
    ]
    for seed in range(4):
        for i, options in enumerate(variants):
            yield {"seed": 100 * seed + i, "frames": [7000, 2950, 9300, 12000][(seed + i) % 4], "options": options}


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [json.dumps(run(case), ensure_ascii=False, separators=(",", ":")) for case in cases()]
    print("[" + ",\n".join(rows) + "]")
