//! Buffers that the threads of a team write together.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice whose parts are written by several threads. Who asks for a part states that nobody else has it.
#[derive(Debug)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: it hands out parts only through unsafe functions whose callers keep them apart.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// The part `range`, to write.
    ///
    /// # Safety
    /// Until the next join nobody else reads or writes what is in it.
    ///
    /// # Panics
    /// If the range is not in the slice.
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part outside of a shared buffer");
        // SAFETY: in bounds, and exclusive as the caller states.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The part `range`, to read.
    ///
    /// # Safety
    /// Until the next join nobody writes what is in it.
    ///
    /// # Panics
    /// If the range is not in the slice.
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &'a [T] {
        // SAFETY: as the caller states; shared with other readers only.
        unsafe { self.part(range) }
    }

    /// Pointer to element `at`, for kernels that write a pattern of their own.
    ///
    /// # Panics
    /// If it is not in the slice.
    pub(crate) fn at(&self, at: usize) -> *mut T {
        assert!(at < self.len, "a pointer outside of a shared buffer");
        // SAFETY: in bounds.
        unsafe { self.start.add(at) }
    }
}
