//! Sizes, padded bytes and cut outputs, by example.

use super::*;
use crate::graph::{Dim, Port};

fn spec(name: &str, datatype: DataType, dims: &[Dim]) -> TensorSpec {
    TensorSpec::new(&Port { name: name.into(), datatype, dims: Some(dims.to_vec()) }, Some(0))
}

fn inputs_of() -> Vec<TensorSpec> {
    let long = || Dim::Named("long".into());
    vec![
        spec("x", DataType::Uint8, &[Dim::Unknown, long(), Dim::Fixed(2)]),
        spec("mask", DataType::Int16, &[Dim::Unknown, long()]),
    ]
}

fn outputs_of() -> Vec<TensorSpec> {
    vec![
        spec("y", DataType::Uint8, &[Dim::Unknown, Dim::Unknown]),
        spec("pooled", DataType::Uint8, &[Dim::Unknown, Dim::Fixed(3)]),
    ]
}

fn declared(sizes: &str) -> Vec<Declared> {
    #[derive(serde::Deserialize)]
    struct File {
        padding: Vec<Declared>,
    }
    let text = format!(
        "[[padding]]\ninputs = {{ x = {{ axis = 'long', value = 9 }}, mask = {{ axis = 1 }} }}\n\
         mask = 'mask'\n{sizes}\noutputs = {{ y = 1 }}"
    );
    toml::from_str::<File>(&text).unwrap().padding
}

fn padding(sizes: &str) -> Padding {
    Padding::new(&declared(sizes), &inputs_of(), &outputs_of()).unwrap()
}

fn request(rows: usize, size: usize) -> Inputs {
    let count = u8::try_from(rows * size * 2).unwrap();
    let tensor = |datatype, shape: &[usize], data: Vec<u8>| InputTensor {
        datatype,
        shape: shape.to_vec(),
        axis: Some(0),
        data: data.into(),
        row_ends: vec![],
        storage: crate::rows::Storage::Exact,
    };
    let x = tensor(DataType::Uint8, &[rows, size, 2], (0..count).collect());
    let mask = tensor(DataType::Int16, &[rows, size], ones(DataType::Int16, rows * size));
    Inputs { tensors: vec![x, mask], rows }
}

#[test]
fn rows_are_padded_to_the_next_size() {
    let padding = padding("to = [4, 2]");
    let (padded, cuts) = padding.pad(&request(2, 3), &inputs_of()).unwrap().unwrap();
    assert_eq!(padded.tensors[0].shape, [2, 4, 2]);
    assert_eq!(padded.tensors[0].data, [0, 1, 2, 3, 4, 5, 9, 9, 6, 7, 8, 9, 10, 11, 9, 9][..]);
    assert_eq!(padded.tensors[1].data, [1, 0, 1, 0, 1, 0, 0, 0].repeat(2)[..]);
    assert_eq!(cuts, [Cut { output: 0, axis: 1, padded: 4, size: 3 }]);
    for size in [2, 4, 5] {
        assert!(padding.pad(&request(1, size), &inputs_of()).unwrap().is_none(), "{size}");
    }
    let (padded, _) =
        self::padding("multiple = 4").pad(&request(1, 5), &inputs_of()).unwrap().unwrap();
    assert_eq!(padded.tensors[1].shape, [1, 8]);
}

#[test]
fn sizes_that_differ_are_named_and_little_input_makes_no_large_padding() {
    let mut unequal = request(1, 3);
    unequal.tensors[1] = request(1, 4).tensors[1].clone();
    let error = padding("to = [4]").pad(&unequal, &inputs_of()).unwrap_err();
    assert!(
        error.message.contains("'mask' has 3") || error.message.contains("'x' has 3"),
        "{error}"
    );
    let large = padding("to = [1048576]");
    assert!(large.pad(&request(60, 2), &inputs_of()).unwrap().is_none());
}

#[test]
fn outputs_are_cut_back() {
    let cuts = [Cut { output: 0, axis: 1, padded: 4, size: 3 }];
    let output = |shape: &[usize], data: Vec<u8>| OutputTensor {
        name: "y".into(),
        datatype: DataType::Uint8,
        shape: Shape(shape.to_vec()),
        pieces: vec![data.into()],
    };
    let short = cut_output(output(&[2, 4], (0..8).collect()), &cuts, 0).unwrap();
    assert_eq!(
        (short.shape.0.as_slice(), &short.contiguous()[..]),
        (&[2, 3][..], &[0, 1, 2, 4, 5, 6][..])
    );
    let other = output(&[2, 3], (0..6).collect());
    assert_eq!(cut_output(other.clone(), &cuts, 1).unwrap(), other);
    assert!(cut_output(other, &cuts, 0).unwrap_err().contains("not 4 along axis 1"));
}

#[test]
fn a_mask_that_is_left_out_says_that_all_is_real() {
    let padding = padding("to = [4]");
    let x = |shape: &[usize], bytes: usize| Tensor {
        name: "x".into(),
        datatype: DataType::Uint8,
        shape: Shape(shape.to_vec()),
        data: vec![0; bytes].into(),
    };
    let mask = padding.mask(1, &inputs_of(), &[x(&[2, 3, 2], 12)]).unwrap();
    assert_eq!((mask.name.as_str(), mask.shape.0.as_slice()), ("mask", &[2, 3][..]));
    assert_eq!(mask.data, [1, 0].repeat(6)[..]);
    assert_eq!(padding.mask(0, &inputs_of(), &[]), None);
    assert_eq!(padding.mask(1, &inputs_of(), &[]), None);
    assert_eq!(padding.mask(1, &inputs_of(), &[x(&[1 << 30, 1 << 30, 0], 0)]), None);
}

#[test]
fn what_cannot_be_padded_is_refused_by_name() {
    let good = declared("to = [4]").remove(0);
    type Spoil = fn(&mut Declared);
    let table: [(Spoil, &str); 8] = [
        (|d| d.to = None, "expected either to = [SIZES] or multiple = N"),
        (|d| d.to = Some(vec![]), "pads to 0; expected sizes of 2"),
        (|d| d.inputs.clear(), "inputs names none"),
        (|d| d.mask = Some("x2".into()), "mask 'x2' is not among inputs"),
        (
            |d| d.outputs = [("z".into(), Axis::Number(1))].into(),
            "no output 'z'; its outputs are y, pooled",
        ),
        (
            |d| d.outputs = [("pooled".into(), Axis::Number(1))].into(),
            "output 'pooled' axis 1 cannot be",
        ),
        (
            |d| d.inputs.get_mut("x").unwrap().axis = Axis::Number(0),
            "input 'x' axis 0 cannot be padded; expected one of [-1, -1, 2]",
        ),
        (|d| d.inputs.get_mut("x").unwrap().value = 0.5, "input 'x' value 0.5 is no UINT8"),
    ];
    for (spoil, expected) in table {
        let mut declared = good.clone();
        spoil(&mut declared);
        let why = Padding::new(&[declared], &inputs_of(), &outputs_of()).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
    let twice = [good.clone(), good];
    let why = Padding::new(&twice, &inputs_of(), &outputs_of()).unwrap_err();
    assert!(why.contains("padded twice"), "{why}");
}

#[test]
fn trials_cover_little_and_much_padding() {
    assert_eq!(padding("to = [4, 8]").trials(), [1, 3, 5, 7]);
    assert_eq!(padding("multiple = 8").trials(), [1, 7, 9, 15, 25, 31]);
    assert_eq!(padding("multiple = 2").trials(), [1, 3, 7]);
}
