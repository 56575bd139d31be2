//! Which parts of a recording are looked at.

use std::ops::Range;

/// Frame ranges in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Regions(Vec<Range<usize>>);

impl Regions {
    /// All of a recording.
    pub fn whole(n_frames: usize) -> Self {
        Self::new(std::iter::once(0..n_frames).collect(), n_frames)
    }

    /// Ranges of a recording; they may touch, overlap or reach beyond it.
    pub fn new(mut ranges: Vec<Range<usize>>, n_frames: usize) -> Self {
        ranges.iter_mut().for_each(|range| range.end = range.end.min(n_frames));
        ranges.retain(|range| range.start < range.end);
        ranges.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Self(joined)
    }

    pub fn ranges(&self) -> &[Range<usize>] {
        &self.0
    }

    /// Whether some of it lies in a window.
    pub fn touch(&self, window: &Range<usize>) -> bool {
        self.window(window.start, window.len()).is_some_and(|found| found.start < window.end)
    }

    /// The next window of at most `longest` frames from `seek` on: it begins where there is something, and ends with
    /// the last of it. Gaps within a window stay: they cost nothing.
    pub fn window(&self, seek: usize, longest: usize) -> Option<Range<usize>> {
        let next = self.0.partition_point(|range| range.end <= seek);
        let start = self.0.get(next)?.start.max(seek);
        let limit = start + longest;
        let within = self.0.partition_point(|range| range.start < limit);
        let end = self.0.get(within.checked_sub(1)?)?.end.min(limit);
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_put_in_order() {
        let regions = Regions::new(vec![50..80, 0..10, 10..20, 70..300, 40..40], 100);
        assert_eq!(regions.ranges(), [0..20, 50..100]);
        assert_eq!(Regions::whole(0).ranges(), []);
    }

    #[test]
    fn windows_jump_over_gaps_and_end_with_speech() {
        let regions = Regions::new(vec![10..20, 50..100, 400..1000], 1000);
        assert_eq!(regions.window(0, 60), Some(10..70));
        assert_eq!(regions.window(0, 30), Some(10..20), "what follows does not fit");
        assert_eq!(regions.window(70, 60), Some(70..100));
        assert_eq!(regions.window(100, 60), Some(400..460));
        assert_eq!(regions.window(990, 60), Some(990..1000));
        assert_eq!(regions.window(1000, 60), None);
        assert_eq!(Regions::whole(100).window(30, 60), Some(30..90));
        assert!(regions.touch(&(0..11)) && regions.touch(&(90..400)) && regions.touch(&(0..1000)));
        assert!(!regions.touch(&(0..10)) && !regions.touch(&(100..400)) && !regions.touch(&(1000..1100)));
    }
}
