//! What a caller may say about a transcription.

/// Hypotheses of one window at most.
pub const MAX_HYPOTHESES: usize = 32;
/// Windows decoded together at most.
pub const MAX_BATCH: usize = 64;

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
        /// Windows that are decoded together, up to [`MAX_BATCH`].
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
    /// At temperature 0; `None` or 1: greedy. Up to [`MAX_HYPOTHESES`].
    pub beam_size: Option<usize>,
    /// How long beams are searched, as a multiple of their number.
    pub patience: f32,
    /// Above temperature 0; drawn answers of which the likeliest is taken. Up to [`MAX_HYPOTHESES`].
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
    /// What nobody speaks in is not decoded: windows begin and end with speech.
    pub skip_silence: bool,
    /// Log-probability of each token among those that the rules allowed in its place.
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

impl TranscribeOptions {
    /// Encoded windows that a transcription holds at most.
    #[must_use]
    pub fn most_windows(&self) -> usize {
        match self.chunking {
            Chunking::Sequential => 1,
            Chunking::Batched { batch } => batch.clamp(1, MAX_BATCH),
        }
    }

    /// Caches that it holds at most: one for each window's prompt, and the other hypotheses of those that are decoded
    /// together.
    #[must_use]
    pub fn most_caches(&self) -> usize {
        let Temperature::Ladder(ladder) = &self.temperature;
        let others = ladder.iter().map(|&temperature| self.together(temperature) * (self.hypotheses(temperature) - 1));
        self.most_windows() + others.max().unwrap_or(0)
    }

    /// Hypotheses of a window at a temperature.
    pub(crate) fn hypotheses(&self, temperature: f32) -> usize {
        let wanted = if temperature > 0.0 { self.best_of } else { self.beam_size.unwrap_or(1) };
        wanted.clamp(1, MAX_HYPOTHESES)
    }

    /// Windows that are decoded together at a temperature: as many hypotheses in all as there are windows, but at least
    /// one.
    pub(crate) fn together(&self, temperature: f32) -> usize {
        (self.most_windows() / self.hypotheses(temperature)).max(1)
    }
}
