//! Bytes for tensors: aligned for every vector register and, when large, for huge pages.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of small buffers: a cache line, and a 512-bit register.
const LINE: usize = 64;
/// Alignment of buffers of at least this size: a huge page of x86-64 and most aarch64.
const HUGE: usize = 2 << 20;

/// Zeroed bytes, aligned to 64, and to 2 MiB with huge pages asked for where they are at least that long.
#[derive(Debug)]
pub struct AlignedBytes {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its bytes like a Vec<u8>.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `len` zero bytes. Those of large buffers take no memory until they are written.
    pub fn zeroed(len: usize) -> Self {
        let start = if len == 0 { NonNull::dangling() } else { allocate(len) };
        Self { start, len }
    }
}

/// # Panics
/// On sizes beyond what memory can be, as `Vec` does.
#[expect(clippy::expect_used, reason = "a capacity overflow, which Vec answers with a panic too")]
fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, if len >= HUGE { HUGE } else { LINE }).expect("a size that fits memory")
}

/// Memory of the allocator. With an alignment beyond malloc's it writes the zeros itself.
fn allocate_heap(len: usize) -> NonNull<u8> {
    let layout = layout(len);
    // SAFETY: `len`, the layout's size, is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(not(unix))]
fn allocate(len: usize) -> NonNull<u8> {
    allocate_heap(len)
}

/// # Safety
/// `start` is what `allocate(len)` gave, and is not used again.
#[cfg(not(unix))]
unsafe fn free(start: NonNull<u8>, len: usize) {
    // SAFETY: allocated with this layout.
    unsafe { dealloc(start.as_ptr(), layout(len)) };
}

/// Large buffers are mappings of their own: zero without being written, and huge pages are asked for before the first
/// write, after which it would be too late.
#[cfg(unix)]
fn allocate(len: usize) -> NonNull<u8> {
    if len < HUGE {
        return allocate_heap(len);
    }
    let layout = layout(len);
    let kept = mapped(len);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, wherever there is room.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), kept + HUGE, access, kind, -1, 0) };
    if map == libc::MAP_FAILED {
        handle_alloc_error(layout);
    }
    let before = map.align_offset(HUGE);
    // SAFETY: the kept bytes start within the first HUGE of the mapping, so all ranges lie in it. What is unmapped is
    // used by nobody. The advice may fail, which does not matter.
    unsafe {
        let start = map.add(before);
        if before > 0 {
            libc::munmap(map, before);
        }
        if before < HUGE {
            libc::munmap(start.add(kept), HUGE - before);
        }
        #[cfg(target_os = "linux")]
        libc::madvise(start, kept, libc::MADV_HUGEPAGE);
        NonNull::new_unchecked(start.cast())
    }
}

/// Bytes mapped for `len`: whole pages of any system, and no more, so that the end takes no huge page for itself.
#[cfg(unix)]
fn mapped(len: usize) -> usize {
    len.next_multiple_of(64 << 10)
}

/// # Safety
/// `start` is what `allocate(len)` gave, and is not used again.
#[cfg(unix)]
unsafe fn free(start: NonNull<u8>, len: usize) {
    if len < HUGE {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(start.as_ptr(), layout(len)) };
    } else {
        // SAFETY: the mapping that was kept.
        unsafe { libc::munmap(start.as_ptr().cast(), mapped(len)) };
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `len` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated so, and not freed before.
            unsafe { free(self.start, self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_zero_and_aligned() {
        for len in [0, 1, 64, 5000, HUGE, HUGE + 1] {
            let mut bytes = AlignedBytes::zeroed(len);
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|&b| b == 0));
            if len > 0 {
                assert_eq!(bytes.as_ptr() as usize % if len >= HUGE { HUGE } else { LINE }, 0);
                bytes[len - 1] = 7;
                assert_eq!(bytes[len - 1], 7);
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn large_buffers_take_memory_when_written() {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = resident();
        let mut bytes = AlignedBytes::zeroed(1 << 30);
        bytes[123 << 20] = 1;
        // Other tests take some meanwhile.
        assert!(resident() < before + (512 << 20));
    }
}
