//! A recording as a stream of 16 kHz mono samples.

use symphonia::core::formats::Track;
use symphonia::core::packet::Packet;

use super::decoder::{Decoder, Failure};
use super::demuxer::{Demuxer, Step};
use super::flow::Flow;
use super::format::{Format, end_before_tags, recognise};
use super::isomp4::Edit;
use super::quiet::quietly;
use super::resampler::Resampler;
use super::source::{Patch, Source};
use super::{AudioInput, MAX_SECONDS, Result, cut_off, damaged, ebml, isomp4, mpeg, ogg, refuse, riff, unreadable};

/// Samples that one call of `read` appends, about.
const BLOCK: usize = 16 * 1024;
/// Packets of one call of `read`, which may be tiny: whoever calls may want to stop.
const MAX_PACKETS: usize = 256;
/// Packets at the start of MPEG audio that may need what was before the cut.
const FIRST_PACKETS: u64 = 4;
/// Packets in a row of which nothing becomes sound.
const MAX_SILENT_PACKETS: usize = 10_000;

/// Reads encoded audio as 16 kHz mono samples, from the start to the end and from the start again.
pub struct AudioReader {
    input: AudioInput,
    plan: Plan,
    /// `None` after a failure.
    state: Option<State>,
}

/// What was found out about the file before it is decoded.
#[derive(Debug, Default)]
struct Plan {
    format: Option<Format>,
    /// Bytes of the file in which the container is.
    start: u64,
    end: u64,
    patches: Vec<Patch>,
    edits: Vec<Edit>,
    /// MPEG audio: the padding that the header tells of is at the end of the file.
    padded: bool,
    /// Matroska: track, and nanoseconds of padding.
    padding: Option<(u64, u64)>,
}

impl AudioReader {
    /// Walks the whole container once.
    ///
    /// # Errors
    /// [`SpeechError::Audio`](crate::SpeechError::Audio): what is no audio, broken or not decoded here.
    pub fn open(input: &AudioInput) -> Result<Self> {
        guarded(|| {
            let plan = Plan::make(input)?;
            let state = State::new(input, &plan)?;
            Ok(Self { input: input.clone(), plan, state: Some(state) })
        })
    }

    /// Appends the next samples to `out`, about a second, or none for now. `false`: there were none left.
    ///
    /// # Errors
    /// [`SpeechError::Audio`](crate::SpeechError::Audio): what follows is broken; all later calls fail too. What was
    /// appended before is sound.
    pub fn read(&mut self, out: &mut Vec<f32>) -> Result<bool> {
        let Some(mut state) = self.state.take() else { return Err(gave_up()) };
        let more = guarded(|| state.read(out))?;
        self.state = Some(state);
        Ok(more)
    }

    /// Goes back to the start.
    ///
    /// # Errors
    /// As [`Self::open`], if the file has changed.
    pub fn rewind(&mut self) -> Result<()> {
        self.state = None;
        self.state = Some(guarded(|| State::new(&self.input, &self.plan))?);
        Ok(())
    }
}

/// Libraries panic on data that they did not expect; what they panicked with is not used again.
fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    quietly(run).unwrap_or_else(|| Err(gave_up()))
}

fn gave_up() -> crate::SpeechError {
    refuse("the audio is damaged: its decoder gave up on it")
}

impl Plan {
    fn make(input: &AudioInput) -> Result<Self> {
        let mut file = Source::open(input)?;
        let (format, start) = recognise(&mut file)?;
        let end = match format {
            // These do not pass over what stands behind them.
            Format::Flac | Format::Ogg | Format::Mp4 => end_before_tags(&mut file)?,
            _ => file.len(),
        };
        let mut plan = Self { format: Some(format), start, end, ..Self::default() };
        let mut source = plan.source(input)?;
        match format {
            Format::Wav => plan.patches = riff::check_wav(&mut source)?,
            Format::Aiff => riff::check_aiff(&mut source)?,
            Format::Ogg => ogg::check(source)?,
            Format::Matroska => plan.padding = ebml::check(source)?.padding,
            Format::Mp4 => plan.edits = isomp4::check(source)?,
            Format::Mpeg | Format::Adts => plan.padded = mpeg::check(source)?,
            // Its decoder checks every frame and the whole.
            Format::Flac => {}
        }
        for patch in &mut plan.patches {
            patch.at += start;
        }
        Ok(plan)
    }

    fn source(&self, input: &AudioInput) -> Result<Source> {
        Source::open(input)?.within(self.start, self.end, self.patches.clone()).map_err(|error| unreadable(&error))
    }
}

struct State {
    format: Format,
    demuxer: Demuxer,
    decoder: Decoder,
    flow: Flow,
    resampler: Option<Resampler>,
    track: Track,
    edit: Option<Edit>,
    padding: Option<(u64, u64)>,
    padded: bool,
    mono: Vec<f32>,
    /// Of the current stream, before anything is cut off.
    packets: u64,
    frames: u64,
    silent: usize,
    /// Of the recording so far.
    seconds: f64,
    ended: bool,
}

impl State {
    fn new(input: &AudioInput, plan: &Plan) -> Result<Self> {
        let format = plan.format.ok_or_else(gave_up)?;
        let mut demuxer = Demuxer::new(plan.source(input)?, format)?;
        let (track, decoder) = demuxer.pick()?;
        Ok(Self {
            format,
            demuxer,
            decoder,
            flow: Flow::default(),
            resampler: None,
            edit: plan.edits.iter().find(|edit| edit.track == track.id).copied(),
            padding: plan.padding.filter(|(padded, _)| *padded == u64::from(track.id)),
            padded: plan.padded,
            track,
            mono: Vec::new(),
            packets: 0,
            frames: 0,
            silent: 0,
            seconds: 0.0,
            ended: false,
        })
    }

    fn read(&mut self, out: &mut Vec<f32>) -> Result<bool> {
        let before = out.len();
        for _ in 0..MAX_PACKETS {
            if self.ended || out.len() - before >= BLOCK {
                break;
            }
            match self.demuxer.next(self.seconds)? {
                Step::Packet(packet) => self.packet(&packet, out)?,
                Step::Reset => {
                    self.finish_stream()?;
                    (self.track, self.decoder) = self.demuxer.pick()?;
                    (self.packets, self.frames) = (0, 0);
                    continue;
                }
                Step::End => {
                    self.finish_stream()?;
                    self.finish(out)?;
                }
            }
            if self.is_over() {
                self.finish(out)?;
            }
        }
        Ok(out.len() > before || !self.ended)
    }

    fn packet(&mut self, packet: &Packet, out: &mut Vec<f32>) -> Result<()> {
        self.packets += 1;
        if self.format == Format::Flac && packet.pts.get() != self.frames as i64 {
            return Err(damaged("frames are missing", Some(self.seconds)));
        }
        let rate = match self.decoder.decode(packet, &mut self.mono) {
            Ok(rate) => rate,
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Packet(_))
                if self.format == Format::Mpeg && self.frames == 0 && self.packets <= FIRST_PACKETS =>
            {
                return Ok(());
            }
            Err(Failure::Packet(what)) => return Err(damaged(&what, Some(self.seconds))),
        };
        if self.frames == 0 && !self.mono.is_empty() {
            self.flow = self.start(packet, rate);
        }
        self.silent = if self.mono.is_empty() { self.silent + 1 } else { 0 };
        if self.silent > MAX_SILENT_PACKETS {
            return Err(damaged("it goes on with packets that hold no sound", Some(self.seconds)));
        }
        self.frames += self.mono.len() as u64;
        self.flow.pass(&mut self.mono);
        self.seconds += self.mono.len() as f64 / f64::from(rate);
        if self.seconds > MAX_SECONDS as f64 {
            return Err(refuse(format!("the audio is longer than {} hours", MAX_SECONDS / 3600)));
        }
        if let Some(old) = self.resampler.as_mut().filter(|resampler| resampler.rate() != rate) {
            old.finish(out)?;
            self.resampler = None;
        }
        let resampler = match &mut self.resampler {
            Some(resampler) => resampler,
            none => none.insert(Resampler::new(rate)?),
        };
        resampler.push(&self.mono, out)
    }

    /// What is cut off a stream that begins with `packet`.
    fn start(&self, packet: &Packet, rate: u32) -> Flow {
        let frames = |seconds: f64| (seconds * f64::from(rate)).round() as u64;
        let skip = match (&self.edit, self.decoder.pre_skip()) {
            (Some(edit), _) => frames(edit.skip),
            (None, Some(pre_skip)) => u64::from(pre_skip),
            (None, None) => match self.format {
                Format::Mpeg => u64::from(self.track.delay.unwrap_or(0)),
                // Time before 0 is the codec's delay.
                Format::Matroska if packet.pts.is_negative() => {
                    let base = self
                        .track
                        .time_base
                        .map_or(0.0, |base| f64::from(base.numer.get()) / f64::from(base.denom.get()));
                    frames(packet.pts.get().unsigned_abs() as f64 * base)
                }
                _ => 0,
            },
        };
        let hold = match self.format {
            Format::Mpeg if self.padded => self.track.padding.unwrap_or(0) as usize,
            Format::Matroska if self.decoder.pre_skip().is_some() => {
                // Nanoseconds; never more than a packet.
                let padding = self.padding.map_or(0, |(_, padding)| padding.min(1_000_000_000));
                frames(padding as f64 / 1e9) as usize
            }
            _ => 0,
        };
        Flow::new(skip, hold)
    }

    /// Whether what follows was cut away by an edit list, which counts whole packets at the end.
    fn is_over(&self) -> bool {
        let (Some(end), Some(resampler)) = (self.edit.and_then(|edit| edit.end), &self.resampler) else { return false };
        !self.ended && self.frames as f64 >= end * f64::from(resampler.rate())
    }

    fn finish(&mut self, out: &mut Vec<f32>) -> Result<()> {
        self.ended = true;
        if self.seconds == 0.0 {
            return Err(refuse("the audio has no samples"));
        }
        self.resampler.as_mut().map_or(Ok(()), |resampler| resampler.finish(out))
    }

    fn finish_stream(&mut self) -> Result<()> {
        if let (Format::Flac, Some(promised)) = (self.format, self.track.num_frames)
            && self.frames < promised
        {
            return Err(cut_off("the FLAC file promises more", Some(self.seconds)));
        }
        match self.decoder.finish() {
            Ok(()) => Ok(()),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Packet(what)) => Err(damaged(&what, None)),
        }
    }
}
