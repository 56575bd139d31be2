//! A loaded Whisper network on the CPU kernels.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tsserve_engine::ComputePool;
use tsserve_kernels::attention::Panels;
use tsserve_kernels::{Level, MAX_BLOCK_ROWS, Team};

use super::arithmetic::Arithmetic;
use super::checkpoint::WhisperCheckpoint;
use super::config::WhisperConfig;
use super::decoder::{DecoderBuffers, Forward, Head, Parts, Pass, Tap};
use super::encoder::{EncoderBuffers, Encoding};
use super::error::WhisperError;
use super::places::Places;
use super::precision::{Formats, Precision};
use super::rows::Products;
use super::step::{MAX_ROWS, Step};
use super::weights::{Decoder, Encoder, Packer};
use crate::config::ConfigError;
use crate::cpu::shared::Shared;
use crate::error::ModelError;

/// Bytes ahead of the weight stream that may be prefetched, how much faster than not at all that must be, and how long
/// it is tried out.
const PREFETCH: [usize; 3] = [0, 8 << 10, 16 << 10];
const WORTH_IT: f64 = 0.95;
const PATIENCE: Duration = Duration::from_millis(60);

/// Bytes of weights that caches hold: they are not prefetched.
const OF_CACHES: usize = 8 << 20;

/// How a network is to run.
#[derive(Debug, Clone)]
pub struct WhisperOptions {
    /// Instruction set to use; one that the machine has.
    pub level: Level,
    /// Threads that compute, the caller's among them.
    pub threads: usize,
    pub precision: Precision,
    /// In the fast mode; `None`: what is fastest on this machine.
    pub arithmetic: Option<Arithmetic>,
    /// Encoded windows that may be alive at a time.
    pub max_windows: usize,
    /// Caches that may be alive at a time; one more is kept for alignments.
    pub max_caches: usize,
    /// Leased for each layer of the encoder and each pass of the decoder.
    pub pool: ComputePool,
}

/// Tokens that one hypothesis appends to its cache.
#[derive(Debug, Clone, Copy)]
pub struct WhisperRow<'a> {
    /// An encoded window.
    pub audio: u32,
    pub cache: u32,
    /// At least one; cache and tokens together at most `text_context`.
    pub tokens: &'a [u32],
    /// Indices into `tokens`, ascending, after which logits are wanted.
    pub wanted: &'a [usize],
}

/// A loaded Whisper network: encoder, decoder, and the memory of windows and caches.
///
/// A row's values depend neither on the other rows of a call nor on how its tokens were split over calls, to the bit.
#[derive(Debug)]
pub struct WhisperModel {
    config: WhisperConfig,
    encoder: Encoder,
    decoder: Decoder,
    arithmetic: Arithmetic,
    products: Products,
    prefetch: usize,
    team: Arc<Team>,
    pool: ComputePool,
    /// How cross-attention's keys and values and the caches lie.
    cross: Panels,
    cached: Panels,
    windows: Places,
    caches: Places,
    encoder_buffers: EncoderBuffers,
    decoder_buffers: DecoderBuffers,
    step: Step,
}

impl WhisperModel {
    /// Packs all weights. `progress` hears how many of how many parts are packed, from (0, n) to (n, n).
    ///
    /// # Errors
    /// `ModelError` where a tensor is missing or broken.
    pub fn load(
        checkpoint: &WhisperCheckpoint,
        options: WhisperOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let config = checkpoint.config.clone();
        let threads = options.threads;
        let team = crate::cpu::team(threads)
            .map_err(|error| ConfigError::Unsupported { what: format!("a team of {threads} threads ({error})") })?;
        let total = config.encoder_layers + config.decoder_layers + 1;
        let mut done = 0;
        progress(0, total);
        let mut count = || {
            done += 1;
            progress(done, total);
        };
        let packer = Packer { checkpoint, threads };
        let Formats { arithmetic, products, encoder: many_rows, decoder, head, attended, kept } =
            Formats::of(&options, packer.float_format()?);
        let encoder = packer.encoder(many_rows, &mut count)?;
        let decoder = packer.decoder(decoder, head, many_rows, &mut count)?;
        let (encoder_head, decoder_head) = (config.width / config.encoder_heads, config.width / config.decoder_heads);
        let cross = Panels::new(kept, decoder_head, config.audio_context);
        let cached = Panels::new(kept, decoder_head, config.text_context);
        let attended = Panels::new(attended, encoder_head, config.audio_context);
        let heads = config.decoder_layers * config.decoder_heads;
        let n_threads = team.n_threads();
        let mut model = Self {
            arithmetic,
            products,
            prefetch: 0,
            windows: Places::new("window", heads * cross.bytes(), options.max_windows),
            caches: Places::new("cache", heads * cached.bytes(), options.max_caches + 1),
            encoder_buffers: EncoderBuffers::new(&config, products.level, attended, n_threads),
            decoder_buffers: DecoderBuffers::new(&config, n_threads),
            step: Step::default(),
            config,
            encoder,
            decoder,
            team,
            pool: options.pool,
            cross,
            cached,
        };
        if model.decoder.bytes_per_token() > OF_CACHES {
            model.choose_prefetch();
        }
        Ok(model)
    }

    /// Sets how far ahead passes of few rows prefetch weights to what is fastest on this machine. Distances are tried
    /// in turns, so that a neighbour on the machine disturbs all alike.
    fn choose_prefetch(&mut self) {
        let Ok(audio) = self.windows.take() else { return };
        if let Ok(cache) = self.new_cache() {
            let row = WhisperRow { audio: audio as u32, cache, tokens: &[0], wanted: &[0] };
            let (started, mut logits) = (Instant::now(), Vec::new());
            let mut best = [Duration::MAX; PREFETCH.len()];
            // The first one touches the memory that is measured.
            let mut measures = self.decode(&[row], &mut logits).is_ok();
            while measures && started.elapsed() < PATIENCE {
                for (best, distance) in best.iter_mut().zip(PREFETCH) {
                    self.prefetch = distance;
                    let started = Instant::now();
                    measures &= self.truncate_cache(cache, 0).is_ok() && self.decode(&[row], &mut logits).is_ok();
                    *best = started.elapsed().min(*best);
                }
            }
            let without = best[0].mul_f64(WORTH_IT);
            let fastest = (1..PREFETCH.len()).min_by_key(|&i| best[i]).filter(|&i| best[i] < without);
            self.prefetch = PREFETCH[fastest.unwrap_or(0)];
            self.release_cache(cache);
        }
        self.windows.release(audio);
    }

    pub fn config(&self) -> &WhisperConfig {
        &self.config
    }

    /// What the encoder computes with.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.encoder.bytes() + self.decoder.bytes()
    }

    /// Bytes of weights, and of one window's keys and values, that one token reads.
    pub fn bytes_per_token(&self) -> usize {
        let heads = self.config.decoder_layers * self.config.decoder_heads;
        self.decoder.bytes_per_token() + heads * self.cross.bytes()
    }

    /// Encodes windows, each `[n_mels][window_frames]`, one after the other in `mels`. The answers are kept until they
    /// are released.
    ///
    /// # Errors
    /// There is no room for as many windows, `mels` are not whole windows, or a worker failed. Then none is kept.
    pub fn encode(&mut self, mels: &[f32]) -> Result<Vec<u32>, WhisperError> {
        let len = self.config.n_mels * self.config.window_frames();
        if !mels.len().is_multiple_of(len) {
            return Err(WhisperError::Input(format!("{} features are not windows of {len}", mels.len())));
        }
        let mut ids = Vec::with_capacity(mels.len() / len);
        for mel in mels.chunks_exact(len) {
            match self.encode_one(mel) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    ids.into_iter().for_each(|id| self.release_audio(id));
                    return Err(error);
                }
            }
        }
        Ok(ids)
    }

    fn encode_one(&mut self, mel: &[f32]) -> Result<u32, WhisperError> {
        let place = self.windows.take()?;
        let encoding = Encoding {
            config: &self.config,
            encoder: &self.encoder,
            decoder: &self.decoder,
            products: self.products,
            cross: self.cross,
            team: &self.team,
            pool: &self.pool,
        };
        let (buffers, memory) = (&mut self.encoder_buffers, &mut self.windows.get_mut(place)?.memory);
        let done = caught(|| encoding.run(buffers, mel, memory));
        if done.is_err() {
            self.windows.release(place);
        }
        done.map(|()| place as u32)
    }

    /// What the encoder made of the window that was encoded last, `[audio_context][width]`.
    pub fn last_encoded(&self) -> &[f32] {
        &self.encoder_buffers.x
    }

    pub fn release_audio(&mut self, audio: u32) {
        self.windows.release(audio as usize);
    }

    /// An empty cache.
    ///
    /// # Errors
    /// As many as were allowed at load are in use.
    pub fn new_cache(&mut self) -> Result<u32, WhisperError> {
        // The last one is for alignments.
        if self.caches.n_used() + 1 >= self.caches.limit() {
            return Err(WhisperError::Full { what: "cache", limit: self.caches.limit() - 1 });
        }
        self.caches.take().map(|place| place as u32)
    }

    pub fn release_cache(&mut self, cache: u32) {
        self.caches.release(cache as usize);
    }

    /// Makes `to` what `from` is.
    ///
    /// # Errors
    /// One of them is not in use.
    pub fn copy_cache(&mut self, from: u32, to: u32) -> Result<(), WhisperError> {
        if from == to {
            return self.caches.get(from as usize).map(|_| ());
        }
        let (panels, bytes) = (self.cached, self.cached.bytes());
        let (from, to) = self.caches.get_pair(from as usize, to as usize)?;
        to.len = from.len;
        for (from, into) in from.memory.chunks_exact(bytes).zip(to.memory.chunks_exact_mut(bytes)) {
            panels.copy(from, into, to.len);
        }
        Ok(())
    }

    /// Forgets what came after the first `len` tokens.
    ///
    /// # Errors
    /// The cache is not in use.
    pub fn truncate_cache(&mut self, cache: u32, len: usize) -> Result<(), WhisperError> {
        let cache = self.caches.get_mut(cache as usize)?;
        cache.len = cache.len.min(len);
        Ok(())
    }

    /// Appends each row's tokens to its cache and writes the logits that were wanted to `logits`, in place of what it
    /// held: `[wanted of all rows, in order][vocab_size]`.
    ///
    /// # Errors
    /// Rows that make no sense, before anything is computed; or a worker failed: then each cache holds what it held
    /// before the call, or that and a part of the row's tokens.
    pub fn decode(&mut self, rows: &[WhisperRow<'_>], logits: &mut Vec<f32>) -> Result<(), WhisperError> {
        for (index, row) in rows.iter().enumerate() {
            self.check(row)?;
            if rows[..index].iter().any(|other| other.cache == row.cache) {
                return Err(WhisperError::Input(format!("cache {} comes twice", row.cache)));
            }
        }
        let n_wanted: usize = rows.iter().map(|row| row.wanted.len()).sum();
        let vocab_size = self.config.vocab_size;
        // Every value is written.
        logits.resize(n_wanted * vocab_size, 0.0);
        self.passes(rows, None, &mut Answer::All(logits))
    }

    /// One pass over `tokens` without a cache, for the timing of words. Writes to `scores` the cross-attention of
    /// `heads` (layer, head) before softmax, scaled: `[heads][tokens][audio_context]`. `logits` is called for each
    /// index of `tokens` in turn with the logits after that token.
    ///
    /// # Errors
    /// Tokens or heads that make no sense, or a worker failed.
    pub fn align(
        &mut self,
        audio: u32,
        tokens: &[u32],
        heads: &[(usize, usize)],
        scores: &mut Vec<f32>,
        logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), WhisperError> {
        let WhisperConfig { decoder_layers, decoder_heads, audio_context, .. } = self.config;
        if let Some((layer, head)) = heads.iter().find(|(l, h)| *l >= decoder_layers || *h >= decoder_heads) {
            return Err(WhisperError::Input(format!("the decoder has no head {head} of layer {layer}")));
        }
        scores.clear();
        scores.resize(heads.len() * tokens.len() * audio_context, 0.0);
        let cache = self.caches.take()? as u32;
        let wanted: Vec<usize> = (0..tokens.len()).collect();
        let row = WhisperRow { audio, cache, tokens, wanted: &wanted };
        let answer = self.check(&row).and_then(|()| {
            let tap = Tap { heads, scores: Shared::new(scores), n_tokens: tokens.len() };
            let mut some = vec![0.0; MAX_BLOCK_ROWS * self.config.vocab_size];
            self.passes(&[row], Some(&tap), &mut Answer::Each(&mut some, logits))
        });
        self.caches.release(cache as usize);
        answer
    }

    fn check(&self, row: &WhisperRow<'_>) -> Result<(), WhisperError> {
        let WhisperConfig { vocab_size, text_context, .. } = self.config;
        let refuse = |what: String| Err(WhisperError::Input(what));
        self.windows.get(row.audio as usize)?;
        let len = self.caches.get(row.cache as usize)?.len;
        let n = row.tokens.len();
        if n == 0 {
            return refuse("a row without tokens".to_owned());
        }
        if n > text_context - len {
            return refuse(format!("{n} tokens after {len}, at most {text_context} fit the decoder"));
        }
        if let Some(token) = row.tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return refuse(format!("token {token} of a vocabulary of {vocab_size}"));
        }
        if row.wanted.iter().any(|&index| index >= n) || !row.wanted.is_sorted_by(|a, b| a < b) {
            return refuse(format!("logits after tokens {:?} of {n}", row.wanted));
        }
        Ok(())
    }

    /// Computes rows that were checked, as many at once as there is room for.
    fn passes(
        &mut self,
        rows: &[WhisperRow<'_>],
        tap: Option<&Tap<'_>>,
        answer: &mut Answer<'_>,
    ) -> Result<(), WhisperError> {
        // Rows of one window side by side, otherwise in order; with the place of each row's first logits.
        let mut order: Vec<(usize, usize)> = Vec::with_capacity(rows.len());
        let mut place = 0;
        for (index, row) in rows.iter().enumerate() {
            order.push((index, place));
            place += row.wanted.len();
        }
        order.sort_by_key(|&(index, _)| {
            let audio = rows[index].audio;
            rows.iter().position(|row| row.audio == audio)
        });
        self.step.clear();
        for (index, place) in order {
            let row = &rows[index];
            let mut done = 0;
            while done < row.tokens.len() {
                if self.step.n_rows() == MAX_ROWS {
                    self.pass(tap, answer)?;
                }
                let n = (MAX_ROWS - self.step.n_rows()).min(row.tokens.len() - done);
                let first = self.step.n_rows();
                let start = self.caches.get(row.cache as usize)?.len;
                let tokens = &row.tokens[done..done + n];
                self.step.push(row.audio as usize, row.cache as usize, start, tokens);
                let wanted = row.wanted.iter().enumerate().filter(|(_, index)| (done..done + n).contains(*index));
                self.step.wanted.extend(wanted.map(|(i, index)| (first + index - done, place + i)));
                done += n;
            }
        }
        self.pass(tap, answer)
    }

    /// Computes the step and clears it.
    fn pass(&mut self, tap: Option<&Tap<'_>>, answer: &mut Answer<'_>) -> Result<(), WhisperError> {
        let computed = caught(|| self.forward(tap, answer));
        if computed.is_ok() {
            for unit in &self.step.units {
                self.caches.get_mut(unit.cache)?.len = unit.start + unit.n;
            }
        }
        self.step.clear();
        computed
    }

    fn forward(&mut self, tap: Option<&Tap<'_>>, answer: &mut Answer<'_>) {
        if self.step.n_rows() == 0 {
            return;
        }
        let Products { level, .. } = self.products;
        let lease = self.pool.lease();
        let n_rows = self.step.n_rows();
        let units = &self.step.units;
        let caches = self.caches.iter_mut().enumerate().map(|(index, place)| {
            units.iter().any(|unit| unit.cache == index).then(|| Shared::new(&mut place.memory[..]))
        });
        let caches: Vec<_> = caches.collect();
        let windows: Vec<_> = self.windows.iter().map(|place| &place.memory[..]).collect();
        let pass = Pass {
            config: &self.config,
            decoder: &self.decoder,
            level,
            prefetch: self.prefetch,
            step: &self.step,
            panels: self.cached,
            caches: &caches,
            cross: self.cross,
            windows: &windows,
            tap,
        };
        let parts = Parts::new(&mut self.decoder_buffers, n_rows);
        self.team.run(&|worker| Forward { pass: &pass, parts: &parts, worker }.run());
        drop(lease);

        let vocab_size = self.config.vocab_size;
        let head = Head { config: &self.config, decoder: &self.decoder, level, prefetch: self.prefetch };
        let mut logits = |wanted: &[(usize, usize)], out: &mut [f32]| {
            let _lease = self.pool.lease();
            head.logits(&self.team, &mut self.decoder_buffers, wanted, out);
        };
        for wanted in self.step.wanted.chunks(MAX_BLOCK_ROWS) {
            match answer {
                Answer::All(all) => logits(wanted, all),
                Answer::Each(some, each) => {
                    let mut here = [(0, 0); MAX_BLOCK_ROWS];
                    for (i, (here, (row, _))) in here.iter_mut().zip(wanted).enumerate() {
                        *here = (*row, i);
                    }
                    logits(&here[..wanted.len()], some);
                    for (values, (_, place)) in some.chunks_exact(vocab_size).zip(wanted) {
                        each(*place, values);
                    }
                }
            }
        }
    }
}

/// Where logits go: to their places among all, or one after the other through memory for a few.
enum Answer<'a> {
    All(&'a mut [f32]),
    Each(&'a mut [f32], &'a mut dyn FnMut(usize, &[f32])),
}

/// Runs `work`; a panic in it is an error.
fn caught(work: impl FnOnce()) -> Result<(), WhisperError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| WhisperError::Failed(message(&*payload)))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a worker panicked").to_owned()
}
