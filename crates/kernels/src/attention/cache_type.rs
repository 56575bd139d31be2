//! How a cache keeps keys and values, and how long its pages are.

use std::fmt;

use super::PAGE;
use super::q8;

/// How a cache keeps keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheType {
    /// Half precision, as the weights of most models are published.
    #[default]
    F16,
    /// 8-bit integers with scales, in little more than half the bytes. Keys have a scale for each 32 dimensions, which
    /// are rotated before; values one for all.
    Q8_0,
}

impl CacheType {
    pub const ALL: [Self; 2] = [Self::F16, Self::Q8_0];

    /// The name by which it is asked for and printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cache_type| cache_type.name() == name)
    }

    /// Bytes of one block of one layer, all its heads.
    pub const fn bytes_per_block(self, n_kv_heads: usize, head_dim: usize) -> usize {
        n_kv_heads * self.page_bytes(head_dim)
    }

    /// Bytes of one page, a multiple of 64.
    pub(super) const fn page_bytes(self, head_dim: usize) -> usize {
        self.key_bytes(head_dim) + self.value_bytes(head_dim)
    }

    /// Bytes of a page's keys, with which it starts.
    pub(super) const fn key_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F16 => PAGE * head_dim * size_of::<u16>(),
            Self::Q8_0 => q8::key_bytes(head_dim),
        }
    }

    /// Bytes of a page's values, which come after its keys.
    pub(super) const fn value_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F16 => PAGE * head_dim * size_of::<u16>(),
            Self::Q8_0 => q8::value_bytes(head_dim),
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
