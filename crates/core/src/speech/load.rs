//! From the files of a speech model to its transcriptions.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tsserve_engine::ComputePool;
use tsserve_models::candle::{DeviceKind, Dtype};
use tsserve_models::config::ConfigError;
use tsserve_models::cpu::Quantization;
use tsserve_models::error::ModelError;
use tsserve_models::whisper::{Precision, WhisperCheckpoint, WhisperModel, WhisperOptions, WhisperSpecialIds};
use tsserve_speech::{MelFilters, SpecialTokens, non_speech_tokens};
use tsserve_text::Tokenizer;

use super::cpu_whisper::CpuWhisper;
use super::jobs::Jobs;
use super::model::SpeechModel;
use super::network::SharedNetwork;
use super::vocabulary::SpeechVocabulary;
use crate::error::CoreError;
use crate::hub::ResolvedModel;
use crate::loader::{DEFAULT_MAX_QUEUE, check_cancel};
use crate::machine::thread_count;
use crate::memory::{available_memory, check_weights};
use crate::options::{LoadOptions, LoadProgress, LoadedModel, ModelKind};
use crate::output::OutputSink;
use crate::runner::level;

/// Transcriptions that run at once: each would only get its share of the cores.
const MAX_RUNNING: usize = 4;
/// What one transcription takes of the network: the windows of a batch, and their hypotheses.
const WINDOWS_EACH: usize = super::request::MAX_SPEECH_BATCH;
const CACHES_EACH: usize = 64;

/// Is a speech model here?
pub(crate) fn is_speech(path: &Path) -> bool {
    WhisperCheckpoint::is_here(path)
}

pub(crate) fn load(
    handle: u32,
    resolved: ResolvedModel,
    options: &LoadOptions,
    started: Instant,
    sink: Arc<OutputSink>,
    progress: &mut dyn FnMut(LoadProgress),
    cancel: &AtomicBool,
) -> Result<SpeechModel, CoreError> {
    let mut warnings = resolved.warnings;
    let checkpoint = WhisperCheckpoint::open(&resolved.path)?;
    let (tokens, vocabulary) = vocabulary(&checkpoint)?;
    let exact = match (options.device, options.dtype) {
        (DeviceKind::Cuda | DeviceKind::Metal, _) => {
            warnings.push("speech models are computed on the CPU, whatever the device".to_owned());
            options.dtype == Some(Dtype::F32)
        }
        (_, Some(Dtype::F16 | Dtype::Bf16)) => {
            warnings.push("dtype f16 and bf16 have no effect on a speech model: f32 is exact, auto is fast".to_owned());
            false
        }
        (_, dtype) => dtype == Some(Dtype::F32),
    };
    if options.kv_cache_type.is_some() {
        warnings.push("kv-cache-type has no effect on a speech model".to_owned());
    }
    let config = checkpoint.config.clone();
    let sizes = checkpoint.weight_files().into_iter().filter_map(|file| file.metadata().ok());
    let weight_bytes: u64 = sizes.map(|metadata| metadata.len()).sum();
    check_weights(&resolved.id, weight_bytes, available_memory()).map_err(CoreError::TooLarge)?;
    let level = level()?;
    let threads = options.threads.unwrap_or_else(thread_count);
    check_cancel(cancel)?;
    let precision =
        if exact { Precision::Exact } else { Precision::Fast(options.quantization.unwrap_or(Quantization::Q8_0)) };
    let network = WhisperModel::load(
        &checkpoint,
        WhisperOptions {
            level,
            threads,
            precision,
            arithmetic: None,
            max_windows: MAX_RUNNING * WINDOWS_EACH,
            max_caches: MAX_RUNNING * CACHES_EACH,
            pool: ComputePool::process(),
        },
        &mut |done, total| progress(LoadProgress::Weights { done: done as u64, total: total as u64 }),
    )?;
    check_cancel(cancel)?;
    let info = LoadedModel {
        handle,
        id: resolved.id,
        kind: ModelKind::Speech,
        languages: tokens.languages.iter().map(|(code, _)| code.clone()).collect(),
        family: "whisper".to_owned(),
        weight_format: checkpoint.format_summary(),
        parameters: checkpoint.n_parameters(),
        weight_bytes: network.weight_bytes() as u64,
        bytes_per_token: network.bytes_per_token() as u64,
        operations_per_prompt_token: None,
        answer_token_seconds: None,
        prompt_token_seconds: None,
        vocab_size: config.vocab_size,
        context_length: config.text_context,
        max_model_len: config.text_context,
        max_num_seqs: MAX_RUNNING,
        max_batch_tokens: config.text_context,
        kv_bytes: 0,
        kv_cache_type: None,
        kv_blocks: 0,
        block_size: 0,
        device: "cpu".to_owned(),
        dtype: if exact { "f32" } else { "packed" }.to_owned(),
        cpu_level: level.name().to_owned(),
        threads,
        load_seconds: started.elapsed().as_secs_f64(),
        warnings,
        chat_template: None,
        chat_templates: std::collections::BTreeMap::new(),
        special_tokens: std::collections::BTreeMap::new(),
        end_token_ids: vec![tokens.end_of_text],
        generation_config: None,
    };
    Ok(SpeechModel {
        info,
        vocabulary: Arc::new(vocabulary),
        tokens: Arc::new(tokens),
        network: SharedNetwork::new(Box::new(CpuWhisper::new(network))),
        jobs: Jobs::new(MAX_RUNNING, options.max_queue.unwrap_or(DEFAULT_MAX_QUEUE)),
        sink,
    })
}

/// The vocabulary that is in the file of weights, or beside it.
fn vocabulary(checkpoint: &WhisperCheckpoint) -> Result<(SpecialTokens, SpeechVocabulary), CoreError> {
    let mut tokens = special_tokens(&checkpoint.special_ids);
    if let Some(words) = checkpoint.words() {
        check_filters(checkpoint)?;
        let tokenizer = Tokenizer::from_ranks(&words.text, &words.special)?;
        let vocabulary = SpeechVocabulary::new(tokenizer, &tokens);
        tokens.suppressed = non_speech_tokens(&vocabulary);
        return Ok((tokens, vocabulary));
    }
    let tokenizer_json = checkpoint.folder().join("tokenizer.json");
    if !tokenizer_json.is_file() {
        return Err(CoreError::NoTokenizer);
    }
    let vocabulary = SpeechVocabulary::new(Tokenizer::from_json_file(&tokenizer_json)?, &tokens);
    Ok((tokens, vocabulary))
}

/// Mel filters of a file must be those that features are made with here; they differ in the last digits at most.
fn check_filters(checkpoint: &WhisperCheckpoint) -> Result<(), CoreError> {
    const NEAR: f32 = 1e-6;
    let n_mels = checkpoint.config.n_mels;
    let expected = MelFilters::new(n_mels).dense();
    let expected = (0..n_mels).flat_map(|mel| expected.iter().skip(mel).step_by(n_mels));
    let found = checkpoint.mel_filters().unwrap_or_default();
    // A difference with a NaN is not near.
    if found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < NEAR) {
        return Ok(());
    }
    let what = "a Whisper model with other mel filters than Slaney's".to_owned();
    Err(ModelError::from(ConfigError::Unsupported { what }).into())
}

fn special_tokens(ids: &WhisperSpecialIds) -> SpecialTokens {
    SpecialTokens {
        end_of_text: ids.end_of_text,
        start_of_transcript: ids.start_of_transcript,
        start_of_previous: ids.start_of_previous,
        start_of_lm: ids.start_of_lm,
        no_speech: ids.no_speech,
        no_timestamps: ids.no_timestamps,
        first_timestamp: ids.first_timestamp,
        transcribe: ids.transcribe,
        translate: ids.translate,
        languages: ids.languages.clone(),
        suppressed: ids.suppressed.clone(),
        begin_suppressed: ids.begin_suppressed.clone(),
        alignment_heads: ids.alignment_heads.clone(),
    }
}
