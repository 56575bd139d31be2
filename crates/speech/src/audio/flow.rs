//! What of the decoded samples belongs to the recording.

/// Drops samples at the beginning, and holds back those that are dropped if nothing follows.
#[derive(Debug, Default)]
pub(super) struct Flow {
    skip: u64,
    hold: usize,
    held: Vec<f32>,
}

impl Flow {
    pub fn new(skip: u64, hold: usize) -> Self {
        Self { skip, hold, held: Vec::new() }
    }

    /// Turns decoded samples into those that are known to be the recording's.
    pub fn pass(&mut self, samples: &mut Vec<f32>) {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(samples.len());
        self.skip -= skipped as u64;
        samples.drain(..skipped);
        if self.hold > 0 {
            self.held.append(samples);
            let known = self.held.len().saturating_sub(self.hold);
            samples.extend(self.held.drain(..known));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_dropped_at_any_cut() {
        for size in [1, 2, 3, 7, 50] {
            let all: Vec<f32> = (0..50).map(|i| i as f32).collect();
            let mut flow = Flow::new(9, 4);
            let mut kept = Vec::new();
            for part in all.chunks(size) {
                let mut part = part.to_vec();
                flow.pass(&mut part);
                kept.extend(part);
            }
            assert_eq!(kept, all[9..46]);
        }
    }
}
