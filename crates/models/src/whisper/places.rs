//! Memory that is handed out and taken back: windows and caches.

use tsserve_kernels::AlignedBytes;

use super::error::WhisperError;

/// Equal pieces of memory, each with a length of its own meaning. Memory is allocated when a place is first used, and
/// kept for the next one.
#[derive(Debug)]
pub(super) struct Places {
    what: &'static str,
    bytes: usize,
    limit: usize,
    places: Vec<Place>,
}

#[derive(Debug)]
pub(super) struct Place {
    pub memory: AlignedBytes,
    /// Tokens in a cache.
    pub len: usize,
    used: bool,
}

impl Places {
    pub(super) fn new(what: &'static str, bytes: usize, limit: usize) -> Self {
        Self { what, bytes, limit, places: Vec::new() }
    }

    /// A place with length 0, and whatever content.
    pub(super) fn take(&mut self) -> Result<usize, WhisperError> {
        let index = match self.places.iter().position(|place| !place.used) {
            Some(index) => index,
            None if self.places.len() < self.limit => {
                self.places.push(Place { memory: AlignedBytes::zeroed(self.bytes), len: 0, used: false });
                self.places.len() - 1
            }
            None => return Err(WhisperError::Full { what: self.what, limit: self.limit }),
        };
        self.places[index].used = true;
        self.places[index].len = 0;
        Ok(index)
    }

    /// Gives a place back; one that is not in use stays as it is.
    pub(super) fn release(&mut self, index: usize) {
        if let Some(place) = self.places.get_mut(index) {
            place.used = false;
        }
    }

    /// The place, if it is in use.
    pub(super) fn get(&self, index: usize) -> Result<&Place, WhisperError> {
        self.places.get(index).filter(|place| place.used).ok_or_else(|| self.unknown(index))
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Result<&mut Place, WhisperError> {
        self.get(index)?;
        Ok(&mut self.places[index])
    }

    /// Two different places.
    pub(super) fn get_pair(&mut self, from: usize, to: usize) -> Result<(&Place, &mut Place), WhisperError> {
        self.get(from)?;
        self.get(to)?;
        let unknown = self.unknown(to);
        self.places.get_disjoint_mut([from, to]).map(|[from, to]| (&*from, to)).map_err(|_| unknown)
    }

    /// All places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.places.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.places.iter_mut()
    }

    /// How many may be in use.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// How many are in use.
    pub(super) fn n_used(&self) -> usize {
        self.places.iter().filter(|place| place.used).count()
    }

    fn unknown(&self, index: usize) -> WhisperError {
        WhisperError::Input(format!("there is no {} {index}", self.what))
    }
}
