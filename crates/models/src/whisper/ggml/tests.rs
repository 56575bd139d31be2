use super::*;

/// Sizes in the order of files: those of tiny.en, but for one mel filter.
const SIZES: [u32; 11] = [51_864, 1500, 384, 6, 4, 448, 384, 6, 4, 1, 1];

/// A file with these words and tensors: name, dimensions innermost first, type number, bytes of data.
fn file(sizes: [u32; 11], words: &[&str], tensors: &[(&str, &[u32], u32, usize)]) -> Vec<u8> {
    let mut out = MAGIC.to_le_bytes().to_vec();
    let numbers = |out: &mut Vec<u8>, numbers: &[u32]| numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
    numbers(&mut out, &sizes);
    numbers(&mut out, &[1, 201]);
    out.extend([0; 4 * 201]);
    numbers(&mut out, &[words.len() as u32]);
    for word in words {
        numbers(&mut out, &[word.len() as u32]);
        out.extend(word.as_bytes());
    }
    for (name, dims, kind, bytes) in tensors {
        numbers(&mut out, &[dims.len() as u32, name.len() as u32, *kind]);
        numbers(&mut out, dims);
        out.extend(name.as_bytes());
        out.resize(out.len() + bytes, 0);
    }
    out
}

fn example() -> Vec<u8> {
    file(SIZES, &["a", "", "bc"], &[("x.weight", &[64, 2], 8, 136), ("x.bias", &[1, 3], 0, 12)])
}

fn refusal(bytes: &[u8]) -> String {
    match parse(bytes).unwrap_err() {
        Refusal::Broken(why) | Refusal::Unsupported(why) => why,
    }
}

#[test]
fn sizes_words_and_tensors_are_read() {
    let bytes = example();
    let Content { config, filters, words, tensors } = parse(&bytes).unwrap();
    assert_eq!((config.width, config.encoder_inner, config.vocab_size, config.n_mels), (384, 1536, 51_864, 1));
    assert_eq!(filters.len(), 4 * 201);
    assert_eq!(words.into_iter().map(|word| &bytes[word]).collect::<Vec<_>>(), [&b"a"[..], b"", b"bc"]);
    let (weight, bias) = (&tensors["x.weight"], &tensors["x.bias"]);
    assert_eq!((&weight.shape[..], weight.kind, weight.data.len()), (&[2, 64][..], WeightType::Q8_0, 136));
    assert_eq!((&bias.shape[..], bias.kind), (&[3, 1][..], WeightType::F32));
    assert_eq!(bias.data.end, bytes.len());
    assert!(is_ggml(&bytes[..40]) && !is_ggml(b"GGUF") && !is_ggml(&[]));
}

#[test]
fn broken_files_are_refused_in_words() {
    let good = example();
    let ends = [4 + 44 + 8 + 804 + 4 + 3 * 4 + 3, good.len() - 12 - 20 - 6, good.len()];
    for end in 0..good.len() {
        // Where a tensor ends the file may end.
        assert_eq!(parse(&good[..end]).is_ok(), ends.contains(&end), "cut at {end}");
    }
    // A byte that is not what it was is refused, or changes a value or a name, but never panics.
    for at in (0..good.len()).filter(|at| !(70..840).contains(at)) {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            if let Ok(content) = parse(&bad) {
                let tensors = content.tensors.values().map(|tensor| &tensor.data);
                assert!(tensors.chain(&content.words).all(|range| range.start <= range.end && range.end <= bad.len()));
            }
        }
    }
    let with = |index: usize, value: u32| {
        let mut sizes = SIZES;
        sizes[index] = value;
        file(sizes, &[], &[])
    };
    assert_eq!(refusal(b"GGUF"), "it does not start as whisper.cpp's files do");
    assert_eq!(refusal(&with(0, 32_000)), "it has a vocabulary of 32000 tokens, and Whisper's have 51864 to 51866");
    assert_eq!(refusal(&with(6, 512)), "its encoder is 384 wide and its decoder 512");
    assert_eq!(refusal(&with(9, 80)), "it has 1 mel filters of 201 bins, expected 80 of 201");
    assert!(refusal(&with(4, u32::MAX)).contains("encoder_layers = 4294967295, expected a whole number from 1 to 256"));
    assert!(refusal(&with(3, 5)).contains("width 384 with 5 heads"));
    assert_eq!(refusal(&with(10, 1003)), "its weights are quantised by version 1, and only version 2 is supported");
    assert!(parse(&with(10, 2009)).is_ok() && parse(&with(10, 0)).is_ok());
    let tensors = |tensors| refusal(&file(SIZES, &[], tensors));
    assert_eq!(tensors(&[("a", &[1], 0, 4), ("a", &[1], 0, 4)]), "tensor a occurs twice");
    assert_eq!(tensors(&[("a", &[1], 99, 4)]), "tensor a has type number 99, which is not supported");
    assert_eq!(tensors(&[("a", &[33], 8, 34)]), "tensor a of type Q8_0 has dimensions [33]");
    assert_eq!(
        tensors(&[("a", &[u32::MAX, u32::MAX, u32::MAX], 0, 4)]).split(" has ").next(),
        Some("tensor a of type F32")
    );
    assert_eq!(tensors(&[("a", &[0], 0, 4)]), "tensor a of type F32 has dimensions [0]");
    assert!(tensors(&[("a", &[1, 1, 1, 1, 1], 0, 4)]).starts_with("there is no tensor at"));
    let mut words = file(SIZES, &["a"], &[]);
    let at = words.len() - 9;
    words[at..at + 4].copy_from_slice(&60_000u32.to_le_bytes());
    assert_eq!(refusal(&words), "it has 60000 words in a vocabulary of 51864");
    let few = whole(parse(&example()).unwrap());
    assert_eq!(few, broken("its vocabulary has 3 words, expected at least 50256"));
}

#[test]
fn names_are_those_of_whisper_cpp() {
    for (name, own) in [
        ("encoder.conv2.bias", "encoder.conv2.bias"),
        ("encoder.embed_positions.weight", "encoder.positional_embedding"),
        ("decoder.embed_tokens.weight", "decoder.token_embedding.weight"),
        ("encoder.layer_norm.bias", "encoder.ln_post.bias"),
        ("decoder.layer_norm.weight", "decoder.ln.weight"),
        ("encoder.layers.3.final_layer_norm.bias", "encoder.blocks.3.mlp_ln.bias"),
        ("decoder.layers.11.encoder_attn_layer_norm.weight", "decoder.blocks.11.cross_attn_ln.weight"),
        ("encoder.layers.0.self_attn.k_proj.weight", "encoder.blocks.0.attn.key.weight"),
        ("decoder.layers.2.encoder_attn.out_proj.bias", "decoder.blocks.2.cross_attn.out.bias"),
        ("decoder.layers.2.fc2.weight", "decoder.blocks.2.mlp.2.weight"),
    ] {
        assert_eq!(own_name(name).as_deref(), Some(own));
    }
    assert_eq!(own_name("decoder.layers.2.fc3.weight"), None);
}
