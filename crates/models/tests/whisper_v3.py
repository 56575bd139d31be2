"""A tiny random Whisper of large-v3's kind, and what transformers computes with it: `whisper_v3.py FIXTURES`.

128 mel bins, 51,866 tokens, 100 languages, more layers in the encoder than in the decoder. Written with transformers 5.18.0
and torch 2.9.1; the weights are bf16 and computed in f32. Its words are the 256 bytes in GPT-2's order, and ids up to
<|endoftext|> that no text becomes; there is no tokenizer.
"""

import json
import sys
import wave
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te "
    "fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps "
    "tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
).split()
EOT, SOT = 50257, 50258
TRANSLATE, TRANSCRIBE, LM, PREVIOUS, NO_SPEECH, NO_TIMESTAMPS = range(SOT + 101, SOT + 107)
FIRST_TIMESTAMP = NO_TIMESTAMPS + 1
VOCABULARY = FIRST_TIMESTAMP + 1501
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES += [byte for byte in range(256) if byte not in BYTES]
# What openai/whisper never writes, of words of one byte; and what stands at the beginning of " -" and of notes.
SUPPRESSED = sorted({BYTES.index(byte) for byte in b"\"#()*+/:;<=>@[\\]^_`{|}~ \xe2"})
CONFIG = dict(
    vocab_size=VOCABULARY, d_model=16, encoder_layers=3, decoder_layers=2, encoder_attention_heads=1,
    decoder_attention_heads=1, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=128, max_source_positions=1500,
    max_target_positions=448, bos_token_id=EOT, eos_token_id=EOT, pad_token_id=EOT, decoder_start_token_id=SOT,
)
GENERATION = dict(
    alignment_heads=[[1, 0]], begin_suppress_tokens=[220, EOT], bos_token_id=EOT, decoder_start_token_id=SOT,
    eos_token_id=EOT, is_multilingual=True, lang_to_id={f"<|{code}|>": SOT + 1 + i for i, code in enumerate(LANGUAGES)},
    max_initial_timestamp_index=50, max_length=448, no_timestamps_token_id=NO_TIMESTAMPS, pad_token_id=EOT,
    prev_sot_token_id=PREVIOUS, return_timestamps=False,
    suppress_tokens=SUPPRESSED + [SOT, TRANSLATE, TRANSCRIBE, LM, PREVIOUS, NO_SPEECH],
    task_to_id={"transcribe": TRANSCRIBE, "translate": TRANSLATE},
)
# Frames of the features that the clip reaches; behind them all are alike.
KEPT = 304


@torch.no_grad()
def build(salt):
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**CONFIG, attn_implementation="eager")).eval()
    random = torch.Generator().manual_seed(1000 + salt)
    for name, weight in sorted(model.named_parameters()):
        values = torch.randn(weight.shape, generator=random)
        if name.endswith("encoder.embed_positions.weight"):
            values = weight
        elif "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif weight.ndim == 1:
            values = 0.15 * values
        else:
            values = (0.5 if "embed" in name else 0.35) * values
        weight.copy_(values)
    words = model.model.decoder.embed_tokens.weight
    words[256:EOT] *= 0.2
    words[EOT] *= 3
    words[SOT:FIRST_TIMESTAMP] *= 0.5
    words[FIRST_TIMESTAMP:] *= 0.5
    for weight in model.parameters():
        weight.copy_(weight.to(torch.bfloat16).float())
    model.generation_config = transformers.GenerationConfig(**GENERATION)
    return model


CASES = {
    "detected": {},
    "timestamps": {"language": "en", "task": "transcribe", "return_timestamps": True},
    "cantonese": {"language": "yue", "task": "transcribe"},
    "translate": {"language": "su", "task": "translate"},
}


@torch.no_grad()
def answers(model, mel):
    return {name: model.generate(mel, max_new_tokens=40, **case)[0].tolist() for name, case in CASES.items()}


def plain(found):
    texts = [[token for token in tokens if token < EOT] for tokens in found.values()]
    ends = all(4 <= len(tokens) < 38 for tokens in found.values())
    return ends and all(len(text) >= 3 and len(set(text)) >= 3 for text in texts)


@torch.no_grad()
def main(fixtures):
    with wave.open(str(fixtures / "inputs/speech/sense_0880.wav")) as clip:
        samples = np.frombuffer(clip.readframes(clip.getnframes()), "<i2").astype(np.float32) / 32768
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    mel = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
    assert (mel[..., KEPT:] == mel[0, 0, -1]).all()
    noise = torch.Generator().manual_seed(1)
    for salt in range(1000):
        model = build(salt)
        found = answers(model, mel)
        if plain(found) and all(answers(model, mel + 2e-4 * torch.randn(mel.shape, generator=noise)) == found for _ in range(2)):
            break
    folder = fixtures / "models/whisper_v3"
    model.config.dtype = torch.bfloat16
    model.to(torch.bfloat16).save_pretrained(folder)
    extractor.save_pretrained(folder)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    encoded = model.model.encoder(mel).last_hidden_state
    ids = [SOT, SOT + 100, TRANSCRIBE, NO_TIMESTAMPS, 40, 41, 42, 300, 50000, 12, EOT]
    forced = model(encoder_outputs=(encoded,), decoder_input_ids=torch.tensor([ids]), output_attentions=True)
    # A part of the vocabulary, with all special tokens.
    columns = torch.tensor([*range(0, EOT, 389), *range(EOT, FIRST_TIMESTAMP), *range(FIRST_TIMESTAMP, VOCABULARY, 50)])
    languages = forced.logits[0, 0, SOT + 1 : SOT + 101].softmax(-1)
    tensors = {
        "short.mel_kept": mel[0, :, :KEPT],
        "short.mel_beyond": mel[0, 0, -1:],
        "short.encoder_out": encoded[0, ::10],
        "forced.ids": torch.tensor(ids, dtype=torch.int32),
        "forced.columns": columns.to(torch.int32),
        "forced.logits": forced.logits[0][:, columns],
        "forced.cross_attention": forced.cross_attentions[1][0, :, :, :400],
        "languages": languages,
    }
    assert answers(model, mel) == found
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, fixtures / "golden/whisper_v3.safetensors")
    golden = {
        "made_by": f"crates/models/tests/whisper_v3.py, transformers {transformers.__version__}, torch {torch.__version__}",
        "salt": salt,
        "detected": LANGUAGES[int(languages.argmax())],
        "cases": {name: {"options": CASES[name], "tokens": found[name]} for name in CASES},
    }
    for file in (folder / "model.safetensors", fixtures / "golden/whisper_v3.safetensors"):
        file.chmod(0o644)
    (fixtures / "golden/whisper_v3.json").write_text(json.dumps(golden, indent=1) + "\n")


main(Path(sys.argv[1]))
