//! Bytes of a file, taken one after the other, each only if it is there.

use std::ops::Range;
use std::path::Path;

use crate::weights::WeightsError;

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Broken(String),
    Unsupported(String),
}

impl Refusal {
    pub(super) fn of(self, file: &Path) -> WeightsError {
        let file = file.to_owned();
        match self {
            Self::Broken(reason) => WeightsError::Broken { file, reason },
            Self::Unsupported(reason) => WeightsError::Unsupported { file, reason },
        }
    }
}

pub(super) fn broken<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Broken(reason.into()))
}

pub(super) struct Reader<'a> {
    file: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn left(&self) -> usize {
        self.file.len() - self.position
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Refusal> {
        if n > self.left() {
            return broken(format!("it is truncated: {n} bytes expected at {}, {} left", self.position, self.left()));
        }
        let bytes = &self.file[self.position..self.position + n];
        self.position += n;
        Ok(bytes)
    }

    /// Where the next `n` bytes are.
    pub(super) fn range(&mut self, n: usize) -> Result<Range<usize>, Refusal> {
        let start = self.position;
        self.take(n).map(|bytes| start..start + bytes.len())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refusal> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn size(&mut self) -> Result<usize, Refusal> {
        self.u32().map(|n| n as usize)
    }
}
