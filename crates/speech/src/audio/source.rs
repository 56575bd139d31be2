//! The bytes of a recording, from a file or from memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use symphonia::core::io::MediaSource;

use super::{AudioInput, Result, refuse};

/// Bytes that are read in place of the file's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patch {
    /// Offset in the file.
    pub at: u64,
    pub bytes: [u8; 4],
}

#[derive(Debug)]
enum Data {
    File(File),
    Bytes(Arc<[u8]>),
}

/// Reads from `start` on; positions count from there.
#[derive(Debug)]
pub(super) struct Source {
    data: Data,
    /// Offset in the file of this source's position 0.
    start: u64,
    /// Offset in the file of what is read next.
    at: u64,
    /// Length of the file when it was opened: what is appended later is not read.
    end: u64,
    patches: Vec<Patch>,
}

impl Source {
    pub fn open(input: &AudioInput) -> Result<Self> {
        let (data, end) = match input {
            AudioInput::Path(path) => {
                let refused = |error: io::Error| refuse(format!("the audio file cannot be opened: {error}"));
                // Looked at before it is opened: opening a pipe waits for whoever writes it.
                let metadata = std::fs::metadata(path).map_err(refused)?;
                if !metadata.is_file() {
                    return Err(refuse("the path of the audio is not that of a file"));
                }
                (Data::File(File::open(path).map_err(refused)?), metadata.len())
            }
            AudioInput::Bytes { bytes, .. } => (Data::Bytes(Arc::clone(bytes)), bytes.len() as u64),
        };
        Ok(Self { data, start: 0, at: 0, end, patches: Vec::new() })
    }

    /// The same bytes without the first `start` and those from `end` on, with patches.
    pub fn within(mut self, start: u64, end: u64, patches: Vec<Patch>) -> io::Result<Self> {
        self.end = self.end.min(end);
        self.start = start.min(self.end);
        self.patches = patches;
        self.seek(SeekFrom::Start(0))?;
        Ok(self)
    }

    /// Bytes from position 0 to the end.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// As many bytes from `at` on as there are, at most `len`.
    pub fn peek(&mut self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = len.min(usize::try_from(self.len().saturating_sub(at)).unwrap_or(usize::MAX));
        let mut bytes = vec![0; len];
        self.seek(SeekFrom::Start(at))?;
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = match &mut self.data {
            Data::File(file) => file.read(&mut buffer[..wanted])?,
            Data::Bytes(bytes) => {
                // Memory holds less than usize::MAX bytes, so `at` fits.
                let at = self.at as usize;
                buffer[..wanted].copy_from_slice(&bytes[at..at + wanted]);
                wanted
            }
        };
        for patch in &self.patches {
            for (i, &byte) in patch.bytes.iter().enumerate() {
                let at = patch.at + i as u64;
                if (self.at..self.at + read as u64).contains(&at) {
                    buffer[(at - self.at) as usize] = byte;
                }
            }
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(offset) => self.start.checked_add(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
            SeekFrom::End(offset) => self.end.checked_add_signed(offset),
        };
        let Some(at) = at.filter(|at| *at >= self.start) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        // Behind the end there is nothing to read.
        self.at = at.min(self.end);
        if let Data::File(file) = &mut self.data {
            file.seek(SeekFrom::Start(self.at))?;
        }
        Ok(self.at - self.start)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_show_in_reads_of_any_cut() {
        let bytes: Arc<[u8]> = (0..20).collect();
        let input = AudioInput::Bytes { bytes, name: None };
        for size in 1..=18 {
            let patch = Patch { at: 7, bytes: [90, 91, 92, 93] };
            let mut source = Source::open(&input).unwrap().within(2, 20, vec![patch]).unwrap();
            let mut read = Vec::new();
            let mut buffer = vec![0; size];
            loop {
                let n = source.read(&mut buffer).unwrap();
                if n == 0 {
                    break;
                }
                read.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(read, [2, 3, 4, 5, 6, 90, 91, 92, 93, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert!(Source::open(&AudioInput::Path(std::env::temp_dir())).is_err());
        assert!(Source::open(&AudioInput::Path("/nowhere/at/all.wav".into())).is_err());
    }
}
