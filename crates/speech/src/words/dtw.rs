//! Dynamic time warping and the median filter before it, after `timing.py` of openai/whisper.

/// The path of least cost through `cost`, `[rows][columns]`, from the first cell to the last: pairs (row, column) that
/// rise by one in one or both. As in the original, a step of one column is taken unless another one is cheaper than
/// both others: also where those two are equal and cheaper.
pub(crate) fn dynamic_time_warping(cost: &[f32], columns: usize) -> Vec<(usize, usize)> {
    if columns == 0 || cost.is_empty() {
        return Vec::new();
    }
    let rows = cost.len() / columns;
    // Sums of the row above and of this one, with a border before the first column.
    let (mut above, mut own) = (vec![f32::INFINITY; columns + 1], vec![f32::INFINITY; columns + 1]);
    above[0] = 0.0;
    let mut steps = vec![Step::Column; rows * columns];
    for (costs, steps) in cost.chunks_exact(columns).zip(steps.chunks_exact_mut(columns)) {
        own[0] = f32::INFINITY;
        for j in 0..columns {
            let (both, row, column) = (above[j], above[j + 1], own[j]);
            let (least, step) = if both < row && both < column {
                (both, Step::Both)
            } else if row < both && row < column {
                (row, Step::Row)
            } else {
                (column, Step::Column)
            };
            own[j + 1] = costs[j] + least;
            steps[j] = step;
        }
        std::mem::swap(&mut above, &mut own);
    }
    trace(&steps, rows, columns)
}

/// Which way a cell was reached.
#[derive(Debug, Clone, Copy)]
enum Step {
    Both,
    Row,
    Column,
}

fn trace(steps: &[Step], rows: usize, columns: usize) -> Vec<(usize, usize)> {
    let (mut i, mut j) = (rows - 1, columns - 1);
    let mut path = vec![(i, j)];
    while i > 0 || j > 0 {
        // Along the borders there is one way only.
        match steps[i * columns + j] {
            _ if i == 0 => j -= 1,
            _ if j == 0 => i -= 1,
            Step::Both => (i, j) = (i - 1, j - 1),
            Step::Row => i -= 1,
            Step::Column => j -= 1,
        }
        path.push((i, j));
    }
    path.reverse();
    path
}

/// Median of 7 along a row, the row reflected at its ends (without repeating the end itself). A row of up to 3 values
/// stays as it is.
pub(crate) fn median_filter(row: &mut [f32], padded: &mut Vec<f32>) {
    const HALF: usize = 3;
    let len = row.len();
    if len <= HALF {
        return;
    }
    padded.clear();
    padded.extend((1..=HALF).rev().map(|i| row[i]));
    padded.extend_from_slice(row);
    padded.extend((2..=HALF + 1).map(|i| row[len - i]));
    for (value, window) in row.iter_mut().zip(padded.array_windows::<7>()) {
        *value = median(*window);
    }
}

/// The middle one of seven, by the exchanges of N. Devillard, "Fast median search" (1998).
fn median(mut p: [f32; 7]) -> f32 {
    const EXCHANGES: [(usize, usize); 13] =
        [(0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4)];
    for (low, high) in EXCHANGES {
        let (a, b) = (p[low], p[high]);
        (p[low], p[high]) = (a.min(b), a.max(b));
    }
    p[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network of exchanges that sorts all rows of zeros and ones right sorts every row right.
    #[test]
    fn the_median_network_is_right_for_all_rows_of_zeros_and_ones() {
        for bits in 0..128u32 {
            let row: [f32; 7] = std::array::from_fn(|i| ((bits >> i) & 1) as f32);
            assert_eq!(median(row), if bits.count_ones() >= 4 { 1.0 } else { 0.0 }, "{row:?}");
        }
    }

    #[test]
    fn short_rows_are_not_filtered() {
        let mut row = [3.0, 1.0, 2.0];
        median_filter(&mut row, &mut Vec::new());
        assert_eq!(row, [3.0, 1.0, 2.0]);
    }

    #[test]
    fn rows_are_reflected_at_their_ends() {
        // Around the first value: 4 3 2 [1] 2 3 4.
        let mut row = [1.0, 2.0, 3.0, 4.0];
        median_filter(&mut row, &mut Vec::new());
        assert_eq!(row, [3.0, 3.0, 2.0, 2.0]);
    }

    #[test]
    fn the_path_follows_the_cheap_cells() {
        let cost = [0.0, 1.0, 1.0, 1.0, 0.0, -1.0, 1.0, 1.0, 0.0];
        assert_eq!(dynamic_time_warping(&cost, 3), [(0, 0), (1, 1), (1, 2), (2, 2)]);
        let equal = [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        assert_eq!(dynamic_time_warping(&equal, 3), [(0, 0), (1, 1), (2, 1), (2, 2)]);
        assert_eq!(dynamic_time_warping(&[1.0, 2.0], 2), [(0, 0), (0, 1)]);
        assert_eq!(dynamic_time_warping(&[1.0, 2.0], 1), [(0, 0), (1, 0)]);
        assert_eq!(dynamic_time_warping(&[], 0), []);
    }
}
