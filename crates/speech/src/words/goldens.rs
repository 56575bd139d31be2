//! What transformers' DTW and median filter gave.

use safetensors::SafeTensors;

use super::dtw::{dynamic_time_warping, median_filter};

fn file() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/mel_dtw.safetensors");
    std::fs::read(path).unwrap()
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f32>) {
    let view = tensors.tensor(name).unwrap();
    let (bytes, _) = view.data().as_chunks::<4>();
    (view.shape().to_vec(), bytes.iter().map(|&four| f32::from_le_bytes(four)).collect())
}

fn indices(tensors: &SafeTensors<'_>, name: &str) -> Vec<usize> {
    let view = tensors.tensor(name).unwrap();
    let (bytes, _) = view.data().as_chunks::<4>();
    bytes.iter().map(|&four| i32::from_le_bytes(four) as usize).collect()
}

#[test]
fn paths_equal() {
    let file = file();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    for i in 0..4 {
        let (shape, cost) = floats(&tensors, &format!("dtw{i}.cost"));
        let (rows, columns): (Vec<usize>, Vec<usize>) = dynamic_time_warping(&cost, shape[1]).into_iter().unzip();
        assert_eq!(rows, indices(&tensors, &format!("dtw{i}.text_indices")), "{i}");
        assert_eq!(columns, indices(&tensors, &format!("dtw{i}.time_indices")), "{i}");
    }
}

#[test]
fn medians_equal() {
    let file = file();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    for i in 0..4 {
        let (shape, mut values) = floats(&tensors, &format!("median{i}.input"));
        let width = *shape.last().unwrap();
        let mut padded = Vec::new();
        values.chunks_exact_mut(width).for_each(|row| median_filter(row, &mut padded));
        assert_eq!(values, floats(&tensors, &format!("median{i}.width7")).1, "{i}");
    }
}
