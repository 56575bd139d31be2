use super::*;

/// A file with these variables: name, shape, type number, data.
fn file(variables: &[(&str, &[u32], u8, &[u8])], aliases: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let name = |out: &mut Vec<u8>, name: &str| {
        out.extend((name.len() as u16 + 1).to_le_bytes());
        out.extend(name.as_bytes());
        out.push(0);
    };
    out.extend(VERSION.to_le_bytes());
    name(&mut out, "WhisperSpec");
    out.extend(REVISION.to_le_bytes());
    out.extend((variables.len() as u32).to_le_bytes());
    for (variable, shape, kind, data) in variables {
        name(&mut out, variable);
        out.push(shape.len() as u8);
        shape.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
        out.push(*kind);
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(*data);
    }
    out.extend((aliases.len() as u32).to_le_bytes());
    for (alias, variable) in aliases {
        name(&mut out, alias);
        name(&mut out, variable);
    }
    out
}

fn example() -> Vec<u8> {
    let scales: Vec<u8> = [2.0f32, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let variables: [(&str, &[u32], u8, &[u8]); 4] = [
        ("a/num_heads", &[], 2, &[8, 0]),
        ("a/weight", &[2, 3], 1, &[2, 254, 6, 4, 8, 252]),
        ("a/weight_scale", &[2], 0, &scales),
        ("b", &[1, 2], 4, &[0, 0x3c, 0, 0xc0]),
    ];
    file(&variables, &[("c", "b")])
}

#[test]
fn variables_and_their_other_names_are_read() {
    let bytes = example();
    let variables = parse(&bytes).unwrap();
    assert_eq!(variables.len(), 5);
    assert_eq!(variables["c"], variables["b"]);
    assert_eq!((&variables["b"].shape[..], variables["b"].kind), (&[1, 2][..], Kind::F16));
    let data = |name: &str| &bytes[variables[name].start..][..variables[name].len];
    assert_eq!(data("a/num_heads"), [8, 0]);
    let stored = Stored {
        element: Element::Int8 { scales: data("a/weight_scale") },
        n_rows: 2,
        n_cols: 3,
        bytes: data("a/weight"),
    };
    assert_eq!(stored.values(), [1.0, -1.0, 3.0, 1.0, 2.0, -1.0]);
    assert!(is_ct2(&bytes[..40]) && !is_ct2(b"PK\x03\x04") && !is_ct2(&[]));
}

#[test]
fn broken_files_are_refused_in_words() {
    let good = example();
    for end in 0..good.len() {
        let refusal = parse(&good[..end]).unwrap_err();
        assert!(matches!(refusal, Refusal::Broken(_)), "cut at {end}: {refusal:?}");
    }
    // A byte that is not what it was is refused, or changes a value or a name, but never panics.
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            if let Ok(variables) = parse(&bad) {
                assert!(variables.values().all(|variable| variable.start + variable.len <= bad.len()));
            }
        }
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(parse(&longer), broken("1 bytes follow its end"));
    let mut version = good;
    version[0] = 5;
    assert!(matches!(parse(&version), Err(Refusal::Unsupported(what)) if what.contains("version 5")));
    let huge = file(&[("a", &[u32::MAX, u32::MAX, u32::MAX], 0, &[0; 4])], &[]);
    assert!(matches!(parse(&huge), Err(Refusal::Broken(what)) if what.contains("4 bytes for dimensions")));
    let twice = file(&[("a", &[1], 1, &[0]), ("a", &[1], 1, &[0])], &[]);
    assert_eq!(parse(&twice), broken("variable a occurs twice"));
    let dangling = file(&[("a", &[1], 1, &[0])], &[("b", "c")]);
    assert_eq!(parse(&dangling), broken("b is said to be c, which is not there"));
}

#[test]
fn names_are_those_of_transformers() {
    let place_of = |name: &str| {
        let Place { name, part, parts } = place(name).unwrap();
        (name, part, parts)
    };
    let whole = |name: &str| (name.to_owned(), 0, 1);
    assert_eq!(place_of("encoder.conv2.bias"), whole("encoder/conv2/bias"));
    assert_eq!(place_of("decoder.embed_positions.weight"), whole("decoder/position_encodings/encodings"));
    assert_eq!(place_of("decoder.embed_tokens.weight"), whole("decoder/embeddings/weight"));
    assert_eq!(place_of("encoder.layer_norm.bias"), whole("encoder/layer_norm/beta"));
    let norm = "decoder.layers.11.encoder_attn_layer_norm.weight";
    assert_eq!(place_of(norm), whole("decoder/layer_11/attention/layer_norm/gamma"));
    let v = "encoder.layers.0.self_attn.v_proj.bias";
    assert_eq!(place_of(v), ("encoder/layer_0/self_attention/linear_0/bias".to_owned(), 2, 3));
    let k = "decoder.layers.3.encoder_attn.k_proj.weight";
    assert_eq!(place_of(k), ("decoder/layer_3/attention/linear_1/weight".to_owned(), 0, 2));
    assert_eq!(place_of("decoder.layers.3.fc2.bias"), whole("decoder/layer_3/ffn/linear_1/bias"));
    assert_eq!(place("decoder.layers.3.fc3.bias"), None);
}
