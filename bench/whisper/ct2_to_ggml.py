"""CTranslate2's Whisper weights in the file format of whisper.cpp, in f16: `ct2_to_ggml.py FOLDER FILTERS.safetensors OUT.bin`.

So that all contenders of the benchmark compute with the same numbers. Needs numpy only.
"""

import json
import struct
import sys

import numpy

TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def read_ct2(path):
    with open(path, "rb") as file:
        data = file.read()
    at = 0

    def take(layout):
        nonlocal at
        values = struct.unpack_from("<" + layout, data, at)
        at += struct.calcsize("<" + layout)
        return values[0]

    def text():
        nonlocal at
        length = take("H")
        value = data[at : at + length - 1].decode()
        at += length
        return value

    take("I")
    text()
    take("I")
    tensors = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        kind, size = TYPES[take("B")], take("I")
        tensors[name] = numpy.frombuffer(data, kind, size // numpy.dtype(kind).itemsize, at).reshape(shape)
        at += size
    return tensors


def gpt2_bytes():
    """The byte that each character of a byte-level vocabulary stands for."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def filters_of(path):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        start, end = header["filters80"]["data_offsets"]
        file.seek(8 + length + start)
        values = numpy.frombuffer(file.read(end - start), "<f4")
    return values.reshape(header["filters80"]["shape"]).T


def named(tensors, part, layers):
    """Pairs of whisper.cpp's name and tensor for one half of the network."""
    yield f"{part}.positional_embedding", tensors[f"{part}/position_encodings/encodings"]
    if part == "encoder":
        for conv in ("conv1", "conv2"):
            yield f"encoder.{conv}.weight", tensors[f"encoder/{conv}/weight"]
            yield f"encoder.{conv}.bias", tensors[f"encoder/{conv}/bias"].reshape(-1, 1)
    else:
        yield "decoder.token_embedding.weight", tensors["decoder/embeddings/weight"]
    last = "ln_post" if part == "encoder" else "ln"
    yield f"{part}.{last}.weight", tensors[f"{part}/layer_norm/gamma"]
    yield f"{part}.{last}.bias", tensors[f"{part}/layer_norm/beta"]
    for layer in range(layers):
        here, there = f"{part}/layer_{layer}", f"{part}.blocks.{layer}"

        def norm(source, target):
            yield f"{there}.{target}.weight", tensors[f"{here}/{source}/layer_norm/gamma"]
            yield f"{there}.{target}.bias", tensors[f"{here}/{source}/layer_norm/beta"]

        def linear(source, target, rows=slice(None), bias=True):
            yield f"{there}.{target}.weight", tensors[f"{here}/{source}/weight"][rows]
            if bias:
                yield f"{there}.{target}.bias", tensors[f"{here}/{source}/bias"][rows]

        width = tensors[f"{here}/self_attention/linear_1/weight"].shape[0]
        q, k, v = (slice(i * width, (i + 1) * width) for i in range(3))
        yield from norm("self_attention", "attn_ln")
        yield from linear("self_attention/linear_0", "attn.query", q)
        yield from linear("self_attention/linear_0", "attn.key", k, bias=False)
        yield from linear("self_attention/linear_0", "attn.value", v)
        yield from linear("self_attention/linear_1", "attn.out")
        if part == "decoder":
            yield from norm("attention", "cross_attn_ln")
            yield from linear("attention/linear_0", "cross_attn.query")
            yield from linear("attention/linear_1", "cross_attn.key", q, bias=False)
            yield from linear("attention/linear_1", "cross_attn.value", k)
            yield from linear("attention/linear_2", "cross_attn.out")
        yield from norm("ffn", "mlp_ln")
        yield from linear("ffn/linear_0", "mlp.0")
        yield from linear("ffn/linear_1", "mlp.2")


def main(folder, filters_path, out):
    tensors = read_ct2(f"{folder}/model.bin")
    with open(f"{folder}/vocabulary.json", encoding="utf-8") as file:
        vocabulary = json.load(file)
    filters = filters_of(filters_path)
    n_vocab, width = tensors["decoder/embeddings/weight"].shape
    counts = [len({n.split("/")[1] for n in tensors if n.startswith(f"{p}/layer_") and n.split("/")[1] != "layer_norm"}) for p in ("encoder", "decoder")]
    contexts = [tensors[f"{p}/position_encodings/encodings"].shape[0] for p in ("encoder", "decoder")]
    heads = width // 64
    letters = gpt2_bytes()
    words = vocabulary[: vocabulary.index("<|endoftext|>")]
    with open(out, "wb") as file:
        file.write(struct.pack("<I", 0x67676D6C))
        file.write(struct.pack("<11i", n_vocab, contexts[0], width, heads, counts[0], contexts[1], width, heads, counts[1], filters.shape[0], 1))
        file.write(struct.pack("<2i", *filters.shape))
        file.write(numpy.ascontiguousarray(filters, "<f4").tobytes())
        file.write(struct.pack("<i", len(words)))
        for word in words:
            raw = bytes(letters[letter] for letter in word)
            file.write(struct.pack("<i", len(raw)) + raw)
        for part, layers in (("encoder", counts[0]), ("decoder", counts[1])):
            for name, tensor in named(tensors, part, layers):
                half = tensor.ndim > 1 and "positional" not in name and not name.endswith("bias")
                raw = name.encode()
                file.write(struct.pack("<3i", tensor.ndim, len(raw), int(half)))
                file.write(struct.pack(f"<{tensor.ndim}i", *reversed(tensor.shape)) + raw)
                file.write(numpy.ascontiguousarray(tensor, "<f2" if half else "<f4").tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
