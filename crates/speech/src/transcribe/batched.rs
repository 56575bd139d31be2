//! Several pieces of a recording at once, each on its own: no text is carried from one to the next.

use std::collections::VecDeque;
use std::ops::Range;

use super::Run;
use super::chunks::{Chunks, Piece};
use super::cut::Draft;
use super::window::Progress;
use crate::decode::{Decoded, Prompt, Window, prompt_text};
use crate::error::SpeechError;
use crate::time::seconds;

/// Pieces that wait for an earlier one, for each that is decoded.
const WAITING: usize = 4;

/// A piece of the recording on its way.
struct Chunk {
    piece: Piece,
    /// What is done of it.
    seek: usize,
    progress: Progress,
    /// (window's beginning, its answer, its segments)
    windows: Vec<(usize, Decoded, Vec<Draft>)>,
}

impl Chunk {
    fn new(piece: Piece) -> Self {
        let mut progress = Progress::default();
        // Speech begins with the piece: before it there was a pause, or it was cut from what goes before.
        progress.last_speech = seconds(piece.range.start);
        Self { seek: piece.range.start, piece, progress, windows: Vec::new() }
    }

    fn is_done(&self) -> bool {
        self.seek >= self.piece.range.end
    }
}

pub(super) fn transcribe(run: &mut Run<'_>, batch: usize) -> Result<(), SpeechError> {
    let speech = run.speech()?.ranges().to_vec();
    let mut coming = Chunks::new(speech, run.window_frames());
    let prompt = run.options().prompt.as_deref().filter(|prompt| !prompt.trim().is_empty());
    let initial = prompt.map_or_else(Vec::new, |prompt| run.decoder.vocabulary.encode(&prompt_text(prompt)));
    let mut queue: VecDeque<Chunk> = VecDeque::new();
    let mut begun = false;
    loop {
        let mut open = queue.iter().filter(|chunk| !chunk.is_done()).count();
        while open < batch && queue.len() < batch * WAITING {
            let Some(piece) = coming.next(run.features)? else { break };
            queue.push_back(Chunk::new(piece));
            open += 1;
        }
        if queue.is_empty() {
            break;
        }
        // The first piece goes alone where more than a batch follows, so that its text is there after one window and
        // not after a batch of them. Where all pieces are one batch, decoding them together saves more than that gains.
        let together = if begun || coming.is_empty() { batch } else { 1 };
        begun = true;
        step(run, &mut queue, together, &initial)?;
        while let Some(chunk) = queue.front_mut() {
            for (seek, decoded, drafts) in chunk.windows.drain(..) {
                run.tell(drafts, &decoded, seek);
            }
            if !chunk.is_done() {
                break;
            }
            run.progress(chunk.piece.range.end);
            queue.pop_front();
        }
    }
    run.progress(run.n_frames);
    Ok(())
}

/// Decodes a window of each of the first open pieces. One that ends before its piece does is followed by another.
fn step(run: &mut Run<'_>, queue: &mut VecDeque<Chunk>, batch: usize, initial: &[u32]) -> Result<(), SpeechError> {
    let mut chunks: Vec<&mut Chunk> = queue.iter_mut().filter(|chunk| !chunk.is_done()).take(batch).collect();
    let ranges: Vec<Range<usize>> = chunks.iter().map(|chunk| chunk.seek..chunk.piece.range.end).collect();
    let audios = run.encode_with(chunks.len(), |index, mel| chunks[index].piece.rest(chunks[index].seek, mel))?;
    let Some(&first) = audios.first() else { return Ok(()) };
    run.know_language(first)?;
    let prompt = Prompt::new(run.decoder.tokens, initial, &run.window_start(), run.session.shape().text_context);
    let windows: Vec<Window> = audios
        .iter()
        .zip(&ranges)
        .map(|(&audio, range)| Window { audio, prompt: prompt.clone(), seek: range.start })
        .collect();
    let decoded = run.decoder.decode(&mut run.session, &windows)?;
    for (((chunk, range), audio), decoded) in chunks.iter_mut().zip(ranges).zip(audios).zip(decoded) {
        let outcome = run.finish(&decoded, audio, range.clone(), chunk.piece.range.end, &mut chunk.progress)?;
        run.session.release(audio);
        chunk.windows.push((range.start, decoded, outcome.drafts));
        chunk.seek = outcome.next;
    }
    Ok(())
}
