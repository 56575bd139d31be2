//! What a caller may say about a transcription.

/// What is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    #[default]
    Transcribe,
    /// Into English.
    Translate,
}

/// Whose long-form rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rules {
    /// openai/whisper.
    #[default]
    Openai,
    /// Hugging Face transformers: for tests, whose goldens come from there.
    Transformers,
}

/// How freely tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub enum Temperature {
    /// Tried in order until an answer passes the thresholds. `[0.0, 0.2, …, 1.0]` by default.
    Ladder(Vec<f32>),
}

impl Default for Temperature {
    fn default() -> Self {
        Self::Ladder(vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    }
}

/// How a long recording is cut.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Chunking {
    /// Window after window, each from where the last one's text ended, with the text before as context.
    #[default]
    Sequential,
    /// At silence, several windows at once, each on its own.
    Batched {
        /// Windows that are decoded together.
        batch: usize,
    },
}

/// What is wanted. `Default` is what openai/whisper does without options.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscribeOptions {
    pub task: Task,
    /// ISO code or English name; `None`: detected.
    pub language: Option<String>,
    /// Text that is thought to precede.
    pub prompt: Option<String>,
    /// The prompt precedes every window, not only the first.
    pub carry_prompt: bool,
    pub temperature: Temperature,
    /// At temperature 0; `None` or 1: greedy.
    pub beam_size: Option<usize>,
    /// How long beams are searched, as a multiple of their number.
    pub patience: f32,
    /// Above temperature 0; drawn answers of which the likeliest is taken.
    pub best_of: usize,
    /// Without them a window is one segment.
    pub timestamps: bool,
    pub word_timestamps: bool,
    pub condition_on_previous_text: bool,
    pub compression_ratio_threshold: Option<f32>,
    pub logprob_threshold: Option<f32>,
    pub no_speech_threshold: Option<f32>,
    /// Seconds; with word timestamps: silence around likely hallucinations of which is skipped.
    pub hallucination_silence_threshold: Option<f32>,
    pub chunking: Chunking,
    /// What nobody speaks in is not decoded.
    pub skip_silence: bool,
    /// Log-probability of each token.
    pub logprobs: bool,
    pub rules: Rules,
    /// For temperatures above 0.
    pub seed: u64,
}

impl Default for TranscribeOptions {
    fn default() -> Self {
        Self {
            task: Task::default(),
            language: None,
            prompt: None,
            carry_prompt: false,
            temperature: Temperature::default(),
            beam_size: None,
            patience: 1.0,
            best_of: 5,
            timestamps: true,
            word_timestamps: false,
            condition_on_previous_text: true,
            compression_ratio_threshold: Some(2.4),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
            hallucination_silence_threshold: None,
            chunking: Chunking::default(),
            skip_silence: false,
            logprobs: false,
            rules: Rules::default(),
            seed: 0,
        }
    }
}
