//! Made-up rows for a model, and how far apart two answers are.
//!
//! Whether rows are independent is found by running them alone and beside mates of very different
//! magnitude: ordinary mates hide a scale or a maximum taken over the whole batch. Pure: rows in, verdict
//! out; who runs them is the loader.

use super::TensorSpec;
use crate::graph::Dim;
use crate::rows::{Block, BlockTensor, InputTensor, Inputs, Storage};
use crate::tensor::DataType;
use half::{bf16, f16};

/// How made-up rows look: what a model accepts is found by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The size of every axis that varies and is no batch axis.
    pub fill: usize,
    /// The largest value of integer tensors, as many models take them for indices.
    pub int_max: i64,
    /// The value of single integers without a batch axis, such as a sampling rate.
    pub scalar: i64,
}

/// What the values of a row are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Between -1 and 1, by seed.
    Normal(u64),
    /// The same, times a factor.
    Scaled(u64, f32),
    /// One value everywhere; integers stay as in `Normal(0)`.
    Constant(f32),
}

/// The samples to try, the likeliest first.
pub fn samples(inputs: &[TensorSpec]) -> impl Iterator<Item = Sample> {
    // 512 and 576 are frames of speech models; multiples of 32 suit images; 1 suits nearly everything.
    const FILLS: [usize; 14] = [16, 32, 64, 128, 256, 512, 576, 320, 640, 48, 8, 4, 2, 1];
    let varies = |spec: &TensorSpec| {
        spec.dims
            .iter()
            .flatten()
            .enumerate()
            .any(|(axis, dim)| !matches!(dim, Dim::Fixed(_)) && Some(axis) != spec.axis)
    };
    let integer = |spec: &TensorSpec| {
        !matches!(
            spec.datatype,
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 | DataType::Bytes
        )
    };
    let fills = if inputs.iter().any(varies) { &FILLS[..] } else { &FILLS[..1] };
    let scalars = inputs.iter().any(|spec| integer(spec) && is_scalar(spec));
    let scalars: &[i64] = if scalars { &[16_000, 1, 0] } else { &[0] };
    let maxima: &[i64] = if inputs.iter().any(integer) { &[7, 1, 0] } else { &[0] };
    fills.iter().flat_map(move |&fill| {
        maxima.iter().flat_map(move |&int_max| {
            scalars.iter().map(move |&scalar| Sample { fill, int_max, scalar })
        })
    })
}

/// One made-up row; for a model without rows, one request.
#[must_use]
pub fn row(specs: &[TensorSpec], sample: Sample, kind: Kind) -> Inputs {
    let tensor = |(number, spec): (usize, &TensorSpec)| {
        let dims = spec.dims.as_deref().unwrap_or_default();
        let size = |(axis, dim): (usize, &Dim)| match dim {
            _ if Some(axis) == spec.axis => 1,
            Dim::Fixed(size) => *size,
            // The first axis of a model without rows is most likely a batch all the same.
            Dim::Named(_) | Dim::Unknown if axis == 0 && spec.axis.is_none() && dims.len() > 1 => 1,
            Dim::Named(_) | Dim::Unknown => sample.fill,
        };
        let shape: Vec<usize> = dims.iter().enumerate().map(size).collect();
        let count = shape.iter().product();
        // Inputs that all rows share must be equal in all rows.
        let kind = if spec.axis.is_none() { Kind::Normal(0) } else { kind };
        let scalar = is_scalar(spec).then_some(sample.scalar);
        let data = values(spec.datatype, count, sample, scalar, kind, number as u64);
        let row_ends = if spec.datatype == DataType::Bytes && spec.axis.is_some() {
            vec![data.len()]
        } else {
            vec![]
        };
        let (datatype, axis) = (spec.datatype, spec.axis);
        InputTensor { datatype, shape, axis, data: data.into(), row_ends, storage: Storage::Exact }
    };
    Inputs { tensors: specs.iter().enumerate().map(tensor).collect(), rows: 1 }
}

/// One number, the same for all rows.
fn is_scalar(spec: &TensorSpec) -> bool {
    let single = |dims: &Vec<Dim>| dims.iter().all(|dim| *dim == Dim::Fixed(1));
    spec.axis.is_none() && spec.dims.as_ref().is_some_and(single)
}

fn values(
    datatype: DataType,
    count: usize,
    sample: Sample,
    scalar: Option<i64>,
    kind: Kind,
    stream: u64,
) -> Vec<u8> {
    let seed = match kind {
        Kind::Normal(seed) | Kind::Scaled(seed, _) => seed,
        Kind::Constant(_) => 0,
    };
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (stream + 1);
    let mut bytes = Vec::new();
    for place in 0..count {
        state = mix(state);
        let float = || {
            let unit = (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
            match kind {
                Kind::Normal(_) => unit,
                Kind::Scaled(_, factor) => unit * factor,
                Kind::Constant(value) => value,
            }
        };
        // Masks made of zeros alone are an edge of their own, so the first value is never zero.
        let whole = scalar.unwrap_or_else(|| {
            let value = i64::try_from(state >> 33).unwrap_or(0) % (sample.int_max + 1);
            if place == 0 { value.max(1).min(sample.int_max) } else { value }
        });
        match datatype {
            DataType::Bool => bytes.push(u8::from(whole & 1 == 1)),
            DataType::Uint8 | DataType::Int8 => bytes.extend((whole as u8).to_le_bytes()),
            DataType::Uint16 | DataType::Int16 => bytes.extend((whole as u16).to_le_bytes()),
            DataType::Uint32 | DataType::Int32 => bytes.extend((whole as u32).to_le_bytes()),
            DataType::Uint64 | DataType::Int64 => bytes.extend(whole.to_le_bytes()),
            DataType::Fp16 => bytes.extend(f16::from_f32(float()).to_le_bytes()),
            DataType::Bf16 => bytes.extend(bf16::from_f32(float()).to_le_bytes()),
            DataType::Fp32 => bytes.extend(float().to_le_bytes()),
            DataType::Fp64 => bytes.extend(f64::from(float()).to_le_bytes()),
            DataType::Bytes => {
                let word = WORDS[(state >> 33) as usize % WORDS.len()];
                bytes.extend(u32::try_from(word.len()).unwrap_or(0).to_le_bytes());
                bytes.extend(word.as_bytes());
            }
        }
    }
    bytes
}

const WORDS: [&str; 6] = ["the", "graft", "holds well", "in spring", "12", "grün"];

/// One step of the splitmix generator.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let a = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    b ^ (b >> 31)
}

/// Where each output's batch axis is, from its shapes with one, two and three rows.
///
/// # Errors
/// A sentence, when an output's shape is no function of the rows alone.
pub fn output_axes(one: &Block, two: &Block, three: &Block) -> Result<Vec<Option<usize>>, String> {
    let shapes = one.tensors.iter().zip(&two.tensors).zip(&three.tensors);
    shapes
        .enumerate()
        .map(|(number, ((one, two), three))| {
            let (a, b, c) = (&one.shape, &two.shape, &three.shape);
            if a == b && b == c {
                return Ok(None);
            }
            let grows = |&axis: &usize| {
                let sizes = [a.get(axis), b.get(axis), c.get(axis)];
                let others = |x: &[usize], y: &[usize]| {
                    x.len() == y.len() && (0..x.len()).all(|i| i == axis || x[i] == y[i])
                };
                sizes == [Some(&1), Some(&2), Some(&3)] && others(a, b) && others(b, c)
            };
            (0..a.len()).find(grows).map(Some).ok_or_else(|| {
                format!("output {number} has shapes {a:?}, {b:?} and {c:?} for 1, 2 and 3 rows")
            })
        })
        .collect()
}

/// Sizes below which a value of each output counts as nothing, from the answers to single rows.
///
/// A thousandth of an ordinary row's values and a millionth of the largest: where an output saturates to
/// 1e-23, twice as much is no influence of another row.
#[must_use]
pub fn floors(solo: &[Block]) -> Vec<f64> {
    let Some(ordinary) = solo.first() else { return Vec::new() };
    let size = |block: &Block, output: usize| block.tensors.get(output).map_or(0.0, largest);
    (0..ordinary.tensors.len())
        .map(|output| {
            let most = solo.iter().map(|block| size(block, output)).fold(0.0, f64::max);
            (1e-3 * size(ordinary, output)).max(1e-6 * most).max(f64::MIN_POSITIVE)
        })
        .collect()
}

/// The largest finite value.
fn largest(tensor: &BlockTensor) -> f64 {
    let values = floats(tensor).unwrap_or_default();
    values.iter().filter(|x| x.is_finite()).fold(0.0, |most, x| most.max(x.abs()))
}

/// How far two answers to the same row are apart: the largest difference over all outputs, relative to
/// the largest value of the row or the output's floor; 0 where they are equal to the bit, infinite where
/// they differ in kind.
#[must_use]
pub fn difference(solo: &Block, in_batch: &Block, floors: &[f64]) -> f64 {
    let floors = floors.iter().copied().chain(std::iter::repeat(f64::MIN_POSITIVE));
    let pairs = solo.tensors.iter().zip(&in_batch.tensors).zip(floors);
    pairs.map(|((a, b), floor)| tensor_difference(a, b, floor)).fold(0.0, f64::max)
}

fn tensor_difference(a: &BlockTensor, b: &BlockTensor, floor: f64) -> f64 {
    if a.shape != b.shape || a.data.len() != b.data.len() {
        return f64::INFINITY;
    }
    if a.data == b.data {
        return 0.0;
    }
    let scale = largest(a).max(floor);
    let (Some(a), Some(b)) = (floats(a), floats(b)) else { return f64::INFINITY };
    a.iter()
        .zip(&b)
        .map(|(a, b)| match (a - b).abs() {
            _ if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) => 0.0,
            apart if apart.is_nan() => f64::INFINITY,
            apart => apart / scale,
        })
        .fold(0.0, f64::max)
}

fn floats(tensor: &BlockTensor) -> Option<Vec<f64>> {
    let data = &tensor.data;
    Some(match tensor.datatype {
        DataType::Fp16 => {
            data.as_chunks().0.iter().map(|&c| f16::from_le_bytes(c).to_f64()).collect()
        }
        DataType::Bf16 => {
            data.as_chunks().0.iter().map(|&c| bf16::from_le_bytes(c).to_f64()).collect()
        }
        DataType::Fp32 => {
            data.as_chunks().0.iter().map(|&c| f64::from(f32::from_le_bytes(c))).collect()
        }
        DataType::Fp64 => data.as_chunks().0.iter().map(|&c| f64::from_le_bytes(c)).collect(),
        _ => return None,
    })
}

/// The largest difference that is still rounding, for the outputs of a model.
#[must_use]
pub fn tolerance(block: &Block) -> f64 {
    let of = |tensor: &BlockTensor| match tensor.datatype {
        DataType::Bf16 => 5e-2,
        DataType::Fp16 => 1e-2,
        _ => 1e-4,
    };
    block.tensors.iter().map(of).fold(1e-4, f64::max)
}

/// The smallest batch size within 5 % of the best throughput, and the best itself, from the time that a
/// batch of each size takes.
///
/// # Source
/// The knee of scheduling by learned costs, as ARCHITECTURE.md gives it.
#[must_use]
pub fn knee(times_ns: &[(usize, u64)]) -> (usize, usize) {
    let rate = |&(rows, ns): &(usize, u64)| rows as f64 / ns.max(1) as f64;
    let best = times_ns.iter().map(rate).fold(0.0, f64::max);
    let knee = times_ns.iter().find(|time| rate(time) >= 0.95 * best).map_or(1, |&(rows, _)| rows);
    let top =
        times_ns.iter().rev().find(|time| rate(time) >= 0.95 * best).map_or(1, |&(rows, _)| rows);
    (knee, top.max(knee))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Port;
    use std::sync::Arc;

    fn block(shape: &[usize], values: &[f32]) -> Block {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = BlockTensor {
            datatype: DataType::Fp32,
            shape: shape.to_vec(),
            axis: None,
            data: data.into(),
            row_ends: vec![],
            storage: Storage::Exact,
        };
        Block { tensors: vec![tensor], rows: 1 }
    }

    #[test]
    fn differences_are_relative_to_the_row() {
        let a = block(&[2], &[1000.0, 1.0]);
        assert_eq!(difference(&a, &a, &[]), 0.0);
        assert!((difference(&a, &block(&[2], &[1000.0, 2.0]), &[]) - 1e-3).abs() < 1e-9);
        assert_eq!(difference(&a, &block(&[2], &[f32::NAN, 1.0]), &[]), f64::INFINITY);
        let nan = block(&[2], &[f32::NAN, 1.0]);
        assert_eq!(difference(&nan, &nan, &[]), 0.0);
        assert_eq!(difference(&a, &block(&[1, 2], &[1000.0, 1.0]), &[]), f64::INFINITY);
    }

    #[test]
    fn saturated_outputs_are_judged_by_the_outputs_size() {
        let (ordinary, tiny) = (block(&[1], &[0.5]), block(&[1], &[1e-23]));
        let floors = floors(&[ordinary, tiny.clone()]);
        assert!(difference(&tiny, &block(&[1], &[3e-23]), &floors) < 1e-15);
        assert!(difference(&tiny, &block(&[1], &[1e-4]), &floors) > 0.1);
    }

    #[test]
    fn batch_axes_of_outputs_follow_from_shapes() {
        let shaped = |shape: &[usize]| block(shape, &[]);
        let axes =
            |a: &[usize], b: &[usize], c: &[usize]| output_axes(&shaped(a), &shaped(b), &shaped(c));
        assert_eq!(axes(&[1, 4], &[2, 4], &[3, 4]), Ok(vec![Some(0)]));
        assert_eq!(axes(&[2, 1], &[2, 2], &[2, 3]), Ok(vec![Some(1)]));
        assert_eq!(axes(&[7], &[7], &[7]), Ok(vec![None]));
        assert!(axes(&[2, 5], &[2, 7], &[2, 9]).is_err());
    }

    #[test]
    fn the_knee_is_the_first_size_that_is_nearly_best() {
        assert_eq!(knee(&[(1, 100), (2, 199), (4, 400)]), (1, 4));
        assert_eq!(knee(&[(1, 100), (2, 110), (4, 130), (8, 250)]), (4, 8));
        assert_eq!(knee(&[(1, 100), (2, 300)]), (1, 1));
        assert_eq!(knee(&[]), (1, 1));
    }

    #[test]
    fn made_up_rows_have_the_declared_form() {
        let dims = Some(vec![Dim::Unknown, Dim::Fixed(3), Dim::Named("n".into())]);
        let port = |datatype| Port { name: "x".into(), datatype, dims: dims.clone() };
        let spec = |datatype, axis| TensorSpec::new(&port(datatype), axis);
        let specs = [spec(DataType::Bytes, Some(0)), spec(DataType::Fp16, None)];
        let sample = samples(&specs).next().unwrap();
        let row = Arc::new(row(&specs, sample, Kind::Normal(3)));
        assert_eq!(row.tensors[0].shape, [1, 3, 16]);
        assert_eq!(crate::tensor::bytes_element_ends(&row.tensors[0].data).unwrap().len(), 48);
        assert_eq!(row.tensors[1].data.len(), 2 * 48);
    }
}
