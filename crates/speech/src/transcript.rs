//! What a transcription tells, in order.

/// A token of the text with the natural logarithm of its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub id: u32,
    /// The token's own text; U+FFFD where it is part of a character.
    pub text: String,
    pub logprob: f32,
}

/// A word with its times in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// With the space before it and the punctuation around it.
    pub text: String,
    pub start: f64,
    pub end: f64,
    /// 0..=1
    pub probability: f32,
}

/// A piece of the transcript. Times in seconds of the recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// From 0, in the order they are told.
    pub id: usize,
    /// Frame (of 10 ms) at which the window began that this comes from.
    pub seek: usize,
    pub start: f64,
    pub end: f64,
    /// With the space before it.
    pub text: String,
    /// With timestamps where they were decoded.
    pub tokens: Vec<u32>,
    pub temperature: f32,
    pub avg_logprob: f32,
    pub compression_ratio: f32,
    pub no_speech_prob: f32,
    /// If they were wanted.
    pub words: Vec<Word>,
    /// If they were wanted; text tokens only.
    pub logprobs: Vec<TokenLogprob>,
}

/// One thing that became known. Segments come in order of time.
#[derive(Debug, Clone, PartialEq)]
pub enum TranscriptEvent {
    /// First: the recording was read.
    Started {
        /// Seconds.
        duration: f64,
    },
    /// Before the first segment.
    Language {
        /// ISO code.
        code: String,
        /// 0..=1 if it was detected.
        probability: Option<f32>,
    },
    Segment(Segment),
    /// Seconds of the recording that are done.
    Progress {
        seconds: f64,
    },
    /// Last.
    Finished {
        /// Tokens that were decoded, those of dropped attempts included.
        decoded_tokens: usize,
        /// Tokens of the transcript.
        text_tokens: usize,
        /// Windows of 30 seconds that were encoded.
        windows: usize,
    },
}
