//! A vocabulary, a recording and a network whose answers tests write down.

use std::collections::HashMap;
use std::ops::Range;

use crate::{
    AudioId, CacheId, DecodeRow, Features, NetworkError, NetworkShape, SpecialTokens, SpeechError, Vocabulary,
    WhisperNetwork,
};

pub const END: u32 = 300;
pub const START: u32 = 301;
pub const EN: u32 = 302;
pub const TRANSCRIBE: u32 = 307;
pub const PREVIOUS: u32 = 309;
pub const NO_SPEECH: u32 = 310;
pub const NO_TIMESTAMPS: u32 = 311;
pub const FIRST: u32 = 312;

/// The token of a time in hundredths of a second, which must be even.
pub fn at(hundredths: u32) -> u32 {
    FIRST + hundredths / 2
}

pub fn special_tokens() -> SpecialTokens {
    SpecialTokens {
        end_of_text: END,
        start_of_transcript: START,
        start_of_previous: PREVIOUS,
        start_of_lm: Some(308),
        no_speech: NO_SPEECH,
        no_timestamps: NO_TIMESTAMPS,
        first_timestamp: FIRST,
        transcribe: Some(TRANSCRIBE),
        translate: Some(306),
        languages: [("en", EN), ("zh", 303), ("de", 304), ("fr", 305)].map(|(code, id)| (code.to_owned(), id)).into(),
        suppressed: vec![u32::from(b'['), u32::from(b'#')],
        begin_suppressed: vec![u32::from(b' '), END],
        alignment_heads: vec![(0, 0), (1, 1)],
    }
}

/// Ids below 256 are bytes, those behind them are `words`.
pub struct Words(pub Vec<&'static str>);

impl Words {
    /// Tokens of a text, the longest words first.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        let (mut rest, mut ids) = (text, Vec::new());
        while !rest.is_empty() {
            let known = self.0.iter().enumerate().filter(|(_, word)| rest.starts_with(**word));
            if let Some((index, word)) = known.max_by_key(|(_, word)| word.len()) {
                ids.push(256 + index as u32);
                rest = &rest[word.len()..];
            } else {
                let first = rest.chars().next().unwrap().len_utf8();
                ids.extend(rest[..first].bytes().map(u32::from));
                rest = &rest[first..];
            }
        }
        ids
    }
}

impl Vocabulary for Words {
    fn decode(&self, tokens: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &token in tokens.iter().filter(|&&token| token < END) {
            match token.checked_sub(256) {
                None => bytes.push(token as u8),
                Some(word) => bytes.extend(self.0.get(word as usize).unwrap_or(&"?").bytes()),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        self.ids(text)
    }
}

/// In these a frame says which one it is: hardly any loudness, less and less.
pub fn numbered(frame: usize) -> f32 {
    -(frame as f32 + 1.0) / (1 << 20) as f32
}

/// A recording of so many frames in which somebody speaks all the time, of two values each: its number, and how loud it
/// is. What is no content is 0.
pub struct Recording {
    pub n_frames: usize,
    pub speech: Vec<Range<usize>>,
    /// Energy of single frames, elsewhere 1.
    pub quiet: HashMap<usize, f32>,
}

impl Recording {
    pub fn new(n_frames: usize) -> Self {
        Self { n_frames, speech: std::iter::once(0..n_frames).collect(), quiet: HashMap::new() }
    }
}

impl Features for Recording {
    fn n_mels(&self) -> usize {
        2
    }

    fn n_frames(&self) -> usize {
        self.n_frames
    }

    fn duration(&self) -> f64 {
        self.n_frames as f64 / 100.0
    }

    fn window(&mut self, start: usize, content: Range<usize>, out: &mut [f32]) -> Result<(), SpeechError> {
        assert!(content.end <= self.n_frames && content.start == start && content.len() <= out.len() / 2);
        let frames = out.len() / 2;
        let (numbers, loudness) = out.split_at_mut(frames);
        for (frame, (number, loud)) in (start..).zip(numbers.iter_mut().zip(loudness)) {
            let known = (numbered(frame), *self.quiet.get(&frame).unwrap_or(&1.0));
            (*number, *loud) = if content.contains(&frame) { known } else { (0.0, 0.0) };
        }
        Ok(())
    }

    fn speech(&mut self) -> Result<Vec<Range<usize>>, SpeechError> {
        Ok(self.speech.clone())
    }
}

/// Scores of tokens each of which looks at a range of positions.
pub fn attend(tokens: usize, positions: usize, at: impl Fn(usize) -> Range<usize>) -> Vec<f32> {
    let score = |token: usize, position: usize| if at(token).contains(&position) { 5.0 } else { 0.0 };
    (0..tokens)
        .flat_map(|token| (0..positions).map(move |position| (token, position)))
        .map(|(t, p)| score(t, p))
        .collect()
}

/// What the scripted network is asked: a window and all tokens of a hypothesis.
pub struct Asked<'a> {
    pub start: usize,
    pub tokens: &'a [u32],
}

impl Asked<'_> {
    /// Tokens after the start sequence.
    pub fn sampled(&self) -> &[u32] {
        let start = self.tokens.iter().position(|&token| token == START).unwrap();
        let text = self.tokens[start + 1..].iter().position(|&token| !(EN..=NO_TIMESTAMPS).contains(&token));
        text.map_or(&[], |text| &self.tokens[start + 1 + text..])
    }

    /// Tokens before the start of the transcript.
    pub fn before(&self) -> &[u32] {
        &self.tokens[..self.tokens.iter().position(|&token| token == START).unwrap()]
    }
}

/// Scores of the tokens of a window by one head.
type Attention<'a> = Box<dyn Fn(&Asked<'_>, (usize, usize)) -> Vec<f32> + Send + 'a>;
type Script<'a> = Box<dyn FnMut(&Asked<'_>, &mut [f32]) + Send + 'a>;

/// A network that a closure plays: it writes the logits after the tokens it is shown. Misuse panics.
pub struct Scripted<'a> {
    shape: NetworkShape,
    script: Script<'a>,
    /// Cross-attention scores of a head, `[tokens][positions]`; by default each token looks at its own ten positions.
    pub attention: Option<Attention<'a>>,
    audios: HashMap<u32, (usize, usize)>,
    caches: HashMap<u32, Vec<u32>>,
    next: u32,
    /// (start, end of content) of every encoded window.
    pub encoded: Vec<(usize, usize)>,
    /// (audios, caches) that were held at the same time at most.
    pub most: (usize, usize),
    /// Rows of every call of `decode`.
    pub calls: Vec<usize>,
    /// Fails at the call of this number.
    pub fails_at: Option<usize>,
}

impl<'a> Scripted<'a> {
    pub fn new(audio_context: usize, script: impl FnMut(&Asked<'_>, &mut [f32]) + Send + 'a) -> Self {
        let shape = NetworkShape {
            n_mels: 2,
            window_frames: audio_context * 2,
            audio_context,
            text_context: 448,
            vocab_size: FIRST as usize + audio_context + 1,
            decoder_layers: 2,
            decoder_heads: 2,
        };
        Self {
            shape,
            script: Box::new(script),
            attention: None,
            audios: HashMap::new(),
            caches: HashMap::new(),
            next: 0,
            encoded: Vec::new(),
            most: (0, 0),
            calls: Vec::new(),
            fails_at: None,
        }
    }

    /// A network that says these tokens in each window, whose number comes first, and then ends.
    pub fn saying(audio_context: usize, mut says: impl FnMut(usize) -> Vec<u32> + Send + 'a) -> Self {
        Self::new(audio_context, move |asked, logits| {
            let said = says(asked.start);
            let next = said.get(asked.sampled().len()).copied().unwrap_or(END);
            logits[next as usize] = 20.0;
        })
    }

    pub fn text_context(mut self, tokens: usize) -> Self {
        self.shape.text_context = tokens;
        self
    }

    /// Audios and caches that nobody released.
    pub fn held(&self) -> usize {
        self.audios.len() + self.caches.len()
    }

    fn answer(&mut self, audio: AudioId, tokens: &[u32], logits: &mut Vec<f32>) {
        let (start, _) = self.audios[&audio.0];
        let from = logits.len();
        logits.resize(from + self.shape.vocab_size, 0.0);
        (self.script)(&Asked { start, tokens }, &mut logits[from..]);
    }
}

impl WhisperNetwork for Scripted<'_> {
    fn shape(&self) -> &NetworkShape {
        &self.shape
    }

    fn encode(&mut self, mels: &[f32]) -> Result<Vec<AudioId>, NetworkError> {
        let size = self.shape.n_mels * self.shape.window_frames;
        assert!(!mels.is_empty() && mels.len().is_multiple_of(size));
        let ids = mels.chunks(size).map(|mel| {
            self.next += 1;
            let numbers = &mel[..mel.len() / 2];
            let start = ((numbers[0] * -((1 << 20) as f32)) as usize).saturating_sub(1);
            let window = (start, start + numbers.iter().filter(|&&number| number < 0.0).count());
            self.audios.insert(self.next, window);
            self.encoded.push(window);
            AudioId(self.next)
        });
        Ok(ids.collect())
    }

    fn release_audio(&mut self, audio: AudioId) {
        assert!(self.audios.remove(&audio.0).is_some());
    }

    fn new_cache(&mut self) -> Result<CacheId, NetworkError> {
        self.next += 1;
        self.caches.insert(self.next, Vec::new());
        Ok(CacheId(self.next))
    }

    fn release_cache(&mut self, cache: CacheId) {
        assert!(self.caches.remove(&cache.0).is_some());
    }

    fn copy_cache(&mut self, from: CacheId, to: CacheId) {
        assert_ne!(from, to);
        let tokens = self.caches[&from.0].clone();
        *self.caches.get_mut(&to.0).unwrap() = tokens;
    }

    fn truncate_cache(&mut self, cache: CacheId, len: usize) {
        self.caches.get_mut(&cache.0).unwrap().truncate(len);
    }

    fn decode(&mut self, rows: &[DecodeRow<'_>], logits: &mut Vec<f32>) -> Result<(), NetworkError> {
        self.calls.push(rows.len());
        self.most = (self.most.0.max(self.audios.len()), self.most.1.max(self.caches.len()));
        if self.fails_at.is_some_and(|call| self.calls.len() > call) {
            return Err(NetworkError("out of memory".into()));
        }
        logits.clear();
        for (index, row) in rows.iter().enumerate() {
            assert!(!row.tokens.is_empty() && rows[..index].iter().all(|other| other.cache != row.cache));
            assert!(row.tokens.iter().all(|&token| (token as usize) < self.shape.vocab_size));
            let cache = self.caches.get_mut(&row.cache.0).unwrap();
            let before = cache.len();
            cache.extend(row.tokens);
            assert!(cache.len() <= self.shape.text_context);
            let tokens = cache.clone();
            for &wanted in row.wanted {
                self.answer(row.audio, &tokens[..before + wanted + 1], logits);
            }
        }
        Ok(())
    }

    fn align(
        &mut self,
        audio: AudioId,
        tokens: &[u32],
        heads: &[(usize, usize)],
        scores: &mut Vec<f32>,
        logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        assert!(tokens.len() <= self.shape.text_context);
        assert!(heads.iter().all(|&(l, h)| l < self.shape.decoder_layers && h < self.shape.decoder_heads));
        let mut row = Vec::new();
        for index in 0..tokens.len() {
            row.clear();
            self.answer(audio, &tokens[..=index], &mut row);
            logits(index, &row);
        }
        scores.clear();
        let positions = self.shape.audio_context;
        let asked = Asked { start: self.audios[&audio.0].0, tokens };
        for &head in heads {
            match &self.attention {
                Some(attention) => scores.extend(attention(&asked, head)),
                None => scores.extend(attend(tokens.len(), positions, |token| token * 10..token * 10 + 10)),
            }
        }
        assert_eq!(scores.len(), heads.len() * tokens.len() * positions);
        Ok(())
    }
}
