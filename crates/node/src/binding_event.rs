use napi_derive::napi;
use tsserve_core::{OutputEvent, OutputKind, Piece, TokenInfo};

use crate::BindingSegment;

/// One thing that happened to one generation or transcription; which fields are set follows from `type`.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone, Default)]
pub struct BindingEvent {
    /// The id that `generate` or `transcribe` was called with.
    pub id: i64,
    #[napi(
        ts_type = "'started' | 'prefill' | 'prompt' | 'delta' | 'finished' | 'failed' | 'audio_started' | 'language' | 'segment' | 'audio_progress' | 'transcribed'"
    )]
    pub r#type: &'static str,
    /// started, finished: tokens.
    pub prompt_tokens: Option<u32>,
    /// started, finished: tokens of the prompt that came from the prefix cache.
    pub cached_tokens: Option<u32>,
    /// prefill: tokens of the prompt computed so far.
    pub computed: Option<u32>,
    /// delta: whole characters and special tokens, in order.
    pub pieces: Option<Vec<BindingPiece>>,
    /// delta: tokens generated for it.
    pub n_tokens: Option<u32>,
    /// prompt, delta: only if log-probabilities were asked for.
    pub tokens: Option<Vec<BindingToken>>,
    /// finished: "stop" | "length" | "aborted".
    pub reason: Option<&'static str>,
    /// finished: the stop string that was met.
    pub stop_string: Option<String>,
    /// finished: tokens.
    pub completion_tokens: Option<u32>,
    /// finished: seconds.
    pub queued_seconds: Option<f64>,
    pub prefill_seconds: Option<f64>,
    pub decode_seconds: Option<f64>,
    /// audio_started: seconds.
    pub duration: Option<f64>,
    /// language: its English name, lower case.
    pub name: Option<String>,
    /// language: 0..1 if it was detected.
    pub probability: Option<f64>,
    pub segment: Option<BindingSegment>,
    /// audio_progress: seconds of the recording that are done.
    pub seconds: Option<f64>,
    /// transcribed: positions of encoded audio, and tokens of the transcript.
    pub audio_tokens: Option<u32>,
    pub text_tokens: Option<u32>,
    /// failed: one of `EngineErrorCode`; language: its ISO code.
    pub code: Option<String>,
    /// failed: one sentence.
    pub message: Option<String>,
    /// failed: the request's field that it is about.
    pub param: Option<&'static str>,
}

/// A run of text, or one special token.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingPiece {
    pub text: String,
    /// The special token's id.
    pub special: Option<u32>,
}

/// A token with its log-probability.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingToken {
    pub id: u32,
    pub text: String,
    pub bytes: Vec<u8>,
    pub logprob: Option<f64>,
    pub top: Option<Vec<BindingAlternative>>,
}

/// A token that could have been.
#[napi(object, object_from_js = false)]
#[derive(Debug, Clone)]
pub struct BindingAlternative {
    pub id: u32,
    pub text: String,
    pub bytes: Vec<u8>,
    pub logprob: f64,
}

impl From<OutputEvent> for BindingEvent {
    fn from(event: OutputEvent) -> Self {
        let base = Self { id: event.id as i64, ..Self::default() };
        match event.kind {
            OutputKind::Started { prompt_tokens, cached_tokens } => Self {
                r#type: "started",
                prompt_tokens: Some(prompt_tokens as u32),
                cached_tokens: Some(cached_tokens as u32),
                ..base
            },
            OutputKind::Prefill { computed } => Self { r#type: "prefill", computed: Some(computed as u32), ..base },
            OutputKind::Prompt { tokens } => {
                Self { r#type: "prompt", tokens: Some(tokens.into_iter().map(Into::into).collect()), ..base }
            }
            OutputKind::Delta { pieces, tokens, n_tokens } => Self {
                r#type: "delta",
                pieces: Some(pieces.into_iter().map(Into::into).collect()),
                tokens: tokens.map(|tokens| tokens.into_iter().map(Into::into).collect()),
                n_tokens: Some(n_tokens as u32),
                ..base
            },
            OutputKind::Finished { reason, stop_string, usage, timings } => Self {
                r#type: "finished",
                reason: Some(reason),
                stop_string,
                prompt_tokens: Some(usage.prompt_tokens as u32),
                cached_tokens: Some(usage.cached_tokens as u32),
                completion_tokens: Some(usage.completion_tokens as u32),
                queued_seconds: Some(timings.queued),
                prefill_seconds: Some(timings.prefill),
                decode_seconds: Some(timings.decode),
                ..base
            },
            OutputKind::AudioStarted { duration } => Self { r#type: "audio_started", duration: Some(duration), ..base },
            OutputKind::Language { code, name, probability } => Self {
                r#type: "language",
                code: Some(code),
                name: Some(name),
                probability: probability.map(f64::from),
                ..base
            },
            OutputKind::Segment(segment) => Self { r#type: "segment", segment: Some((*segment).into()), ..base },
            OutputKind::AudioProgress { seconds } => Self { r#type: "audio_progress", seconds: Some(seconds), ..base },
            OutputKind::Transcribed { audio_tokens, text_tokens } => Self {
                r#type: "transcribed",
                audio_tokens: Some(audio_tokens as u32),
                text_tokens: Some(text_tokens as u32),
                ..base
            },
            OutputKind::Failed { code, message, param } => {
                Self { r#type: "failed", code: Some(code.into()), message: Some(message), param, ..base }
            }
        }
    }
}

impl From<Piece> for BindingPiece {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Text(text) => Self { text, special: None },
            Piece::Special { id, text } => Self { text, special: Some(id) },
        }
    }
}

impl From<TokenInfo> for BindingToken {
    fn from(token: TokenInfo) -> Self {
        Self {
            id: token.id,
            text: token.text,
            bytes: token.bytes,
            logprob: token.logprob.map(f64::from),
            top: (!token.top.is_empty()).then(|| {
                token
                    .top
                    .into_iter()
                    .map(|t| BindingAlternative {
                        id: t.id,
                        text: t.text,
                        bytes: t.bytes,
                        logprob: f64::from(t.logprob),
                    })
                    .collect()
            }),
        }
    }
}
