//! A tiny checkpoint of large-v3's kind against what transformers computes with it (`whisper_v3.py`): 128 mel bins, a
//! vocabulary with 100 languages, fewer layers in the decoder than in the encoder.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not seen as tests")]

mod speech;

use speech::{Golden, json, open, teacher_forced, tiny, v3_features, worst};
use tsserve_models::cpu::Level;
use tsserve_models::whisper::Precision;

const NAME: &str = "whisper_v3";

#[test]
fn it_computes_what_transformers_does() {
    let golden = Golden::load(NAME);
    let (mel, ids, columns) = (v3_features(&golden), golden.ids("forced.ids"), golden.ids("forced.columns"));
    for level in Level::available() {
        let mut model = tiny(NAME, level, Precision::Exact);
        let audio = model.encode(&mel).unwrap()[0];
        let width = model.config().width;
        // Every tenth position is recorded.
        let found: Vec<f32> = model.last_encoded().chunks(width).step_by(10).flatten().copied().collect();
        let encoder = worst(&found, &golden.values("short.encoder_out"));
        let vocab_size = model.config().vocab_size;
        let logits = teacher_forced(&mut model, audio, &ids);
        let of_columns = |row: &[f32]| columns.iter().map(|&column| row[column as usize]).collect::<Vec<_>>();
        let found: Vec<f32> = logits.chunks(vocab_size).flat_map(of_columns).collect();
        let decoder = worst(&found, &golden.values("forced.logits"));
        println!("{level}: encoder {encoder:.1e}, logits {decoder:.1e}");
        assert!(encoder < 1e-4 && decoder < 1e-4, "{level}: {encoder:.1e} {decoder:.1e}");

        let languages = &logits[50_259..50_359];
        let sum: f32 = languages.iter().map(|logit| logit.exp()).sum();
        let found: Vec<f32> = languages.iter().map(|logit| logit.exp() / sum).collect();
        assert!(worst(&found, &golden.values("languages")) < 1e-5, "{level}");
    }
}

#[test]
fn words_are_heard_where_transformers_attends() {
    let golden = Golden::load(NAME);
    let ids = golden.ids("forced.ids");
    let mut model = tiny(NAME, Level::detect(), Precision::Exact);
    let audio = model.encode(&v3_features(&golden)).unwrap()[0];
    let mut scores = Vec::new();
    model.align(audio, &ids, &[(1, 0)], &mut scores, &mut |_, _| {}).unwrap();
    let mut found = Vec::new();
    for row in scores.chunks(1500) {
        let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
        let sum: f32 = row.iter().map(|x| (x - max).exp()).sum();
        // The first 400 positions are recorded.
        found.extend(row[..400].iter().map(|x| (x - max).exp() / sum));
    }
    assert!(worst(&found, &golden.values("forced.cross_attention")) < 2e-5);
    let unknown = model.align(audio, &ids, &[(2, 0)], &mut scores, &mut |_, _| {}).unwrap_err();
    assert_eq!(unknown.to_string(), "the decoder has no head 0 of layer 2");
}

#[test]
fn it_has_a_hundred_languages() {
    let checkpoint = open(NAME);
    let config = &checkpoint.config;
    assert_eq!((config.n_mels, config.encoder_layers, config.decoder_layers), (128, 3, 2));
    let special = &checkpoint.special_ids;
    assert_eq!((special.languages.len(), special.languages[99].clone()), (100, ("yue".to_owned(), 50_358)));
    let generation = json(&format!("models/{NAME}/generation_config.json"));
    assert_eq!(generation["lang_to_id"]["<|yue|>"], 50_358);
    assert_eq!((special.translate, special.transcribe), (Some(50_359), Some(50_360)));
    assert_eq!((special.no_speech, special.no_timestamps, special.first_timestamp), (50_363, 50_364, 50_365));
    assert_eq!(special.alignment_heads, [(1, 0)]);
}
