//! Packets to mono samples at the track's own rate.

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known as codec;
use symphonia::core::codecs::audio::{AudioCodecId, AudioDecoder, AudioDecoderOptions};
use symphonia::core::formats::Track;
use symphonia::core::packet::Packet;

use super::aac;
use super::demuxer::plain;
use super::format::Format;
use super::opus::{self, OpusStream};
use super::{Result, check_size, refuse, vorbis};

/// Louder than any recording, even one of integers in float samples: the power of more would not fit into f32.
const MAX_SAMPLE: f32 = 1e8;
/// Samples per channel that a packet may promise: the decoder makes room for them.
const MAX_PACKET_FRAMES: u64 = 1 << 18;

pub(super) enum Decoder {
    Library { decoder: Box<dyn AudioDecoder>, interleaved: Vec<f32>, watch: Option<aac::Watch> },
    Opus(Box<OpusStream>),
}

/// Why a packet gave no samples.
pub(super) enum Failure {
    /// What the decoder says.
    Packet(String),
    Refused(crate::SpeechError),
}

impl Decoder {
    pub fn new(track: &Track, format: Format) -> Result<Self> {
        let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
            return Err(refuse("the audio is in a codec that is not known here"));
        };
        let channels = parameters.channels.as_ref().map_or(0, |channels| channels.count());
        check_size(parameters.sample_rate, channels)?;
        let head = parameters.extra_data.as_deref();
        if parameters.codec == codec::CODEC_ID_OPUS {
            return Ok(Self::Opus(Box::new(OpusStream::new(head.unwrap_or_default())?)));
        }
        if parameters.max_frames_per_packet.is_some_and(|frames| frames > MAX_PACKET_FRAMES) {
            return Err(refuse("the audio is damaged: its packets are of absurd size"));
        }
        if parameters.codec == codec::CODEC_ID_VORBIS {
            vorbis::check_header(head.unwrap_or_default())?;
        }
        let aac = parameters.codec == codec::CODEC_ID_AAC;
        if let (true, Some(config)) = (aac, head) {
            aac::check_config(config)?;
        }
        if aac && channels > 2 {
            return Err(refuse(format!("the audio is AAC with {channels} channels; one or two are decoded here")));
        }
        // Padding of MPEG audio is cut in `flow`: the demuxer guesses lengths and would cut by its guess.
        let options = AudioDecoderOptions::default().gapless(format != Format::Mpeg).verify(format == Format::Flac);
        let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options);
        match decoder {
            Ok(decoder) => Ok(Self::Library { decoder, interleaved: Vec::new(), watch: aac.then(aac::Watch::default) }),
            Err(error) => Err(refuse(match name(parameters.codec) {
                Some(name) => format!("the audio is {name}, which is not decoded here"),
                None => format!("the audio is of a kind that is not decoded here: {}", plain(&error)),
            })),
        }
    }

    /// Samples before the recording that the stream itself tells of, at the decoder's rate.
    pub fn pre_skip(&self) -> Option<u32> {
        match self {
            Self::Opus(stream) => Some(stream.pre_skip()),
            Self::Library { .. } => None,
        }
    }

    /// Replaces `mono` by the packet's samples and tells their rate.
    pub fn decode(&mut self, packet: &Packet, mono: &mut Vec<f32>) -> std::result::Result<u32, Failure> {
        mono.clear();
        let rate = match self {
            Self::Opus(stream) => {
                let channels = stream.channels();
                let samples = stream.decode(&packet.data).map_err(Failure::Packet)?;
                average(samples, channels, mono);
                // The demuxer of Ogg knows by how much the last packet is too long.
                let trim = usize::try_from(opus::in_samples(packet.trim_end.get())).unwrap_or(usize::MAX);
                mono.truncate(mono.len().saturating_sub(trim));
                opus::RATE
            }
            Self::Library { decoder, interleaved, watch } => {
                if let Some(watch) = watch {
                    watch.look(&packet.data).map_err(Failure::Refused)?;
                }
                let decoded = decoder.decode(packet).map_err(|error| Failure::Packet(plain(&error)))?;
                to_mono(&decoded, interleaved, mono).map_err(Failure::Refused)?
            }
        };
        match mono.iter().all(|sample| sample.abs() <= MAX_SAMPLE) {
            true => Ok(rate),
            false => Err(Failure::Packet("samples are no numbers, or far too large".to_owned())),
        }
    }

    /// What is to be said when all packets were decoded.
    pub fn finish(&mut self) -> std::result::Result<(), Failure> {
        let Self::Library { decoder, watch, .. } = self else { return Ok(()) };
        if let Some(watch) = watch {
            watch.finish().map_err(Failure::Refused)?;
        }
        match decoder.finalize().verify_ok {
            Some(false) => Err(Failure::Packet("the checksum of all samples does not fit".to_owned())),
            _ => Ok(()),
        }
    }
}

fn to_mono(decoded: &GenericAudioBufferRef<'_>, interleaved: &mut Vec<f32>, mono: &mut Vec<f32>) -> Result<u32> {
    let spec = decoded.spec();
    let channels = spec.channels().count();
    check_size(Some(spec.rate()), channels)?;
    if channels == 1 {
        decoded.copy_to_vec_interleaved(mono);
    } else {
        decoded.copy_to_vec_interleaved(interleaved);
        average(interleaved, channels, mono);
    }
    Ok(spec.rate())
}

fn average(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    let share = 1.0 / channels as f32;
    match channels {
        1 => mono.extend_from_slice(interleaved),
        _ => mono.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * share)),
    }
}

fn name(id: AudioCodecId) -> Option<&'static str> {
    Some(match id {
        codec::CODEC_ID_AAC => "AAC of a kind other than LC",
        codec::CODEC_ID_AC3 => "AC-3",
        codec::CODEC_ID_EAC3 => "E-AC-3",
        codec::CODEC_ID_AC4 => "AC-4",
        codec::CODEC_ID_DCA => "DTS",
        codec::CODEC_ID_TRUEHD => "TrueHD",
        codec::CODEC_ID_SPEEX => "Speex",
        codec::CODEC_ID_WMA => "WMA",
        codec::CODEC_ID_WAVPACK => "WavPack",
        codec::CODEC_ID_TTA => "True Audio",
        codec::CODEC_ID_MUSEPACK => "Musepack",
        codec::CODEC_ID_MONKEYS_AUDIO => "Monkey's Audio",
        _ => return None,
    })
}
