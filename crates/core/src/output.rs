//! From token ids to text, off the engine's thread: one output thread per model turns each step's events into one batch.

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

use tsserve_engine::{Engine, EventKind, FinishReason, SequenceEvent, SequenceId, Timings};
use tsserve_text::Piece;

mod sequence;

pub use sequence::{Alternative, TokenInfo};
pub(crate) use sequence::{AnswerEnds, Registration};

use crate::speech::TranscribedSegment;

/// Receives one batch of events per engine step, on an output thread: hand them on, never block.
pub type OutputSink = dyn Fn(Vec<OutputEvent>) + Send + Sync;

/// One thing that happened to one request.
#[derive(Debug, Clone)]
pub struct OutputEvent {
    pub id: u64,
    pub kind: OutputKind,
}

#[derive(Debug, Clone)]
pub enum OutputKind {
    Started {
        prompt_tokens: usize,
        cached_tokens: usize,
    },
    Prefill {
        computed: usize,
    },
    /// The prompt's tokens in order, from the first on; may come in parts.
    Prompt {
        tokens: Vec<TokenInfo>,
    },
    /// Whole characters and special tokens in order. `tokens` only if log-probabilities were asked for: those whose
    /// text is out with this delta.
    Delta {
        pieces: Vec<Piece>,
        tokens: Option<Vec<TokenInfo>>,
        n_tokens: usize,
    },
    /// Last event.
    Finished {
        /// "stop", "length" or "aborted".
        reason: &'static str,
        stop_string: Option<String>,
        usage: Usage,
        timings: Timings,
    },
    /// A transcription's first: the recording was read.
    AudioStarted {
        /// Seconds.
        duration: f64,
    },
    /// Before the first segment.
    Language {
        /// ISO code.
        code: String,
        /// English, lower case.
        name: String,
        /// 0..=1 if it was detected.
        probability: Option<f32>,
    },
    Segment(Box<TranscribedSegment>),
    /// Seconds of the recording that are done.
    AudioProgress {
        seconds: f64,
    },
    /// Last event of a transcription.
    Transcribed {
        /// Positions of encoded audio.
        audio_tokens: usize,
        /// Tokens of the transcript.
        text_tokens: usize,
    },
    /// Last event.
    Failed {
        code: &'static str,
        message: String,
        /// The request's field that it is about, in the border's names.
        param: Option<&'static str>,
    },
}

impl OutputKind {
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Transcribed { .. } | Self::Failed { .. })
    }
}

/// Token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub completion_tokens: usize,
}

/// What the output thread is told.
pub(crate) enum OutputMessage {
    /// A request is about to be added to the engine.
    Register { id: u64, registration: Box<Registration> },
    /// Nothing more is to be said about a request.
    Forget { id: u64 },
    /// The events of one engine step.
    Step(Vec<SequenceEvent>),
}

/// Starts the output thread of a model. It ends when all senders are gone.
pub(crate) fn spawn(
    name: &str,
    messages: Receiver<OutputMessage>,
    engine: Weak<Engine>,
    sink: Arc<OutputSink>,
) -> std::io::Result<()> {
    let mut thread = OutputThread { sequences: HashMap::new(), engine, sink };
    std::thread::Builder::new().name(format!("output {name}")).spawn(move || {
        for message in messages {
            thread.handle(message);
        }
    })?;
    Ok(())
}

struct OutputThread {
    sequences: HashMap<u64, Registration>,
    /// Weak: the engine ends with its model, not with this thread.
    engine: Weak<Engine>,
    sink: Arc<OutputSink>,
}

impl OutputThread {
    fn handle(&mut self, message: OutputMessage) {
        match message {
            OutputMessage::Register { id, registration } => {
                self.sequences.insert(id, *registration);
            }
            OutputMessage::Forget { id } => {
                self.sequences.remove(&id);
            }
            OutputMessage::Step(events) => {
                let mut batch = Vec::with_capacity(events.len());
                for event in events {
                    self.translate(event, &mut batch);
                }
                if !batch.is_empty() {
                    (self.sink)(batch);
                }
            }
        }
    }

    /// Events of sequences that were forgotten, or that ended by a stop string a moment ago, are dropped.
    fn translate(&mut self, event: SequenceEvent, batch: &mut Vec<OutputEvent>) {
        let id = event.sequence.0;
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let mut say = |kind: OutputKind| batch.push(OutputEvent { id, kind });
        match event.kind {
            EventKind::Started { prompt_tokens, cached_tokens } => {
                sequence.start(prompt_tokens, cached_tokens);
                say(OutputKind::Started { prompt_tokens, cached_tokens });
                // The engine reports from position 1 on: nothing precedes the first token.
                if let Some(first) = sequence.first_prompt_token() {
                    say(OutputKind::Prompt { tokens: vec![first] });
                }
            }
            EventKind::Prefill { computed } => say(OutputKind::Prefill { computed }),
            EventKind::Prompt { tokens } => say(OutputKind::Prompt { tokens: sequence.prompt_tokens(tokens) }),
            EventKind::Tokens { tokens } => {
                let delta = sequence.push(tokens);
                say(delta.kind);
                if let Some(stop_string) = delta.stopped_by {
                    let timings = sequence.timings_now();
                    say(OutputKind::Finished {
                        reason: "stop",
                        stop_string: Some(stop_string),
                        usage: sequence.usage(),
                        timings,
                    });
                    self.sequences.remove(&id);
                    if let Some(engine) = self.engine.upgrade() {
                        engine.abort(SequenceId(id));
                    }
                }
            }
            EventKind::Finished { reason, timings } => {
                let (kind, stop_string) = sequence.finish();
                if let Some(kind) = kind {
                    say(kind);
                }
                let reason = match (reason, &stop_string) {
                    (_, Some(_)) | (FinishReason::Stop, _) => "stop",
                    (FinishReason::Length, _) => "length",
                    (FinishReason::Aborted, _) => "aborted",
                };
                say(OutputKind::Finished { reason, stop_string, usage: sequence.usage(), timings });
                self.sequences.remove(&id);
            }
            EventKind::Failed { code, message } => {
                say(OutputKind::Failed { code, message, param: None });
                self.sequences.remove(&id);
            }
        }
    }
}
