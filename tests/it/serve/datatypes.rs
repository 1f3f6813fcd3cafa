//! Every datatype, shape and manner of asking, in every form.

use super::ask::{Ask, Form, fp32, singles, tensor};
use super::daemon::{Setup, needs_runtime};
use graftd::tensor::{DataType, Tensor};

/// Every datatype and the model that answers it as it came.
const IDENTITIES: [(DataType, &str); 14] = [
    (DataType::Bool, "id_bool"),
    (DataType::Uint8, "id_uint8"),
    (DataType::Uint16, "id_uint16"),
    (DataType::Uint32, "id_uint32"),
    (DataType::Uint64, "id_uint64"),
    (DataType::Int8, "id_int8"),
    (DataType::Int16, "id_int16"),
    (DataType::Int32, "id_int32"),
    (DataType::Int64, "id_int64"),
    (DataType::Fp16, "id_fp16"),
    (DataType::Bf16, "id_bf16"),
    (DataType::Fp32, "id_fp32"),
    (DataType::Fp64, "id_fp64"),
    (DataType::Bytes, "id_string"),
];

/// Elements that any conversion would spoil: the largest, the smallest, and ones between.
fn elements(datatype: DataType, count: usize) -> Vec<u8> {
    let largest: Vec<u8> = match datatype {
        DataType::Bool => vec![1],
        DataType::Fp16 => vec![0xff, 0x7b],
        DataType::Bf16 => vec![0x7f, 0x7f],
        DataType::Fp32 => f32::MAX.to_le_bytes().to_vec(),
        DataType::Fp64 => f64::MAX.to_le_bytes().to_vec(),
        DataType::Bytes => b"\x05\0\0\0\xc3\xa9a\0b".to_vec(),
        other => vec![0xff; other.element_bytes().expect("a fixed size")],
    };
    let least = vec![0; datatype.element_bytes().unwrap_or(4)];
    let mut middle = largest.clone();
    if let Some(last) = middle.last_mut() {
        *last = if datatype == DataType::Bool { 0 } else { *last / 2 };
    }
    [largest, least, middle].into_iter().cycle().take(count).flatten().collect()
}

#[tokio::test]
async fn every_datatype_comes_back_as_it_was_sent() {
    needs_runtime!();
    let names = IDENTITIES.map(|(_, name)| name);
    let daemon = Setup::new(&names).flags(&["--max-batch-rows", "4"]).start().await;
    for (datatype, model) in IDENTITIES {
        for shape in [[3, 2], [1, 1], [9, 3], [0, 2], [2, 0], [0, 0]] {
            let data = elements(datatype, shape[0] * shape[1]);
            let x = tensor("x", datatype, &shape, data);
            let ask = Ask { id: "q-7".to_owned(), ..Ask::new(model, vec![x.clone()]) };
            for form in Form::ALL.into_iter().filter(|form| form.carries(datatype)) {
                let what = format!("{datatype} {shape:?} over {form:?}");
                // JSON has no form for half floats in an answer either.
                let got = ask.of(&daemon, form).await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
                assert_eq!(got.id, "q-7");
                assert_eq!(got.outputs, [Tensor { name: "y".to_owned(), ..x.clone() }], "{what}");
            }
        }
    }
}

/// More rows than there is memory for their keys, in a request of a hundred bytes.
#[tokio::test]
async fn rows_without_elements_cost_nothing_however_many_are_claimed() {
    needs_runtime!();
    let daemon = Setup::new(&["id_fp32", "strings_2d"]).start().await;
    for (model, datatype) in [("id_fp32", DataType::Fp32), ("strings_2d", DataType::Bytes)] {
        for shape in [[1 << 48, 0], [0, 1 << 48]] {
            let x = tensor("x", datatype, &shape, vec![]);
            for form in Form::ALL.into_iter().filter(|form| form.carries(datatype)) {
                let got = Ask::new(model, vec![x.clone()]).of(&daemon, form).await;
                let got = got.unwrap_or_else(|e| panic!("{model} {shape:?} over {form:?}: {e:?}"));
                assert_eq!(got.outputs, [Tensor { name: "y".to_owned(), ..x.clone() }]);
            }
        }
    }
}

#[tokio::test]
async fn half_floats_that_json_cannot_hold_are_refused() {
    needs_runtime!();
    let daemon = Setup::new(&["id_fp16"]).start().await;
    let ask = Ask::new("id_fp16", vec![tensor("x", DataType::Fp16, &[1, 1], vec![0, 0x3c])]);
    // The input goes as bytes, and the answer was asked for as JSON.
    let refused = ask.of(&daemon, Form::Mixed).await.expect_err("no JSON for FP16");
    assert_eq!(refused.code, 400);
    assert!(refused.message.contains("'y'") && refused.message.contains("binary"), "{refused:?}");
}

#[tokio::test]
async fn scalars_and_inputs_without_rows() {
    needs_runtime!();
    let daemon = Setup::new(&["scalar_io", "loop", "no_batch", "state_axis1"]).start().await;
    for form in Form::ALL {
        let got = Ask::new("scalar_io", vec![fp32("x", &[], &[1.5])]).of(&daemon, form).await;
        assert_eq!(got.expect("an answer").outputs, [fp32("y", &[], &[3.0])], "{form:?}");
        let trips = tensor("trips", DataType::Int64, &[], 7_i64.to_le_bytes().to_vec());
        let got = Ask::new("loop", vec![trips.clone()]).of(&daemon, form).await;
        let total = Tensor { name: "total".to_owned(), ..trips };
        assert_eq!(got.expect("an answer").outputs, [total], "{form:?}");
        let sum = Ask::new("no_batch", vec![fp32("x", &[3], &[1.0, 2.0, 4.0])]);
        assert_eq!(
            sum.of(&daemon, form).await.expect("an answer").outputs,
            [fp32("y", &[], &[7.0])],
            "{form:?}"
        );
        let state = |rows: usize| {
            let x: Vec<f32> = (0..rows * 8).map(|n| n as f32 / 16.0).collect();
            let rate = tensor("sr", DataType::Int64, &[], 16_000_i64.to_le_bytes().to_vec());
            let state = fp32("state", &[2, rows, 4], &vec![0.25; rows * 8]);
            Ask::new("state_axis1", vec![state, rate, fp32("x", &[rows, 8], &x)])
        };
        let two = state(2).of(&daemon, form).await.expect("an answer").outputs;
        let one = state(1).of(&daemon, form).await.expect("an answer").outputs;
        assert_eq!((&two[1].shape.0[..], &one[1].shape.0[..]), (&[2, 2, 4][..], &[2, 1, 4][..]));
        let close = singles(&one[0]).into_iter().zip(singles(&two[0]));
        assert!(close.into_iter().all(|(a, b)| (a - b).abs() < 1e-5), "{form:?}");
    }
}

#[tokio::test]
async fn outputs_come_as_they_are_asked_for() {
    needs_runtime!();
    let daemon = Setup::new(&["two_outputs", "passthrough", "weird_names"]).start().await;
    let x = fp32("x", &[2, 4], &[0.0, 3.0, 1.0, 2.0, 5.0, 4.0, 0.0, 1.0]);
    for form in Form::ALL {
        let ask = Ask::new("two_outputs", vec![x.clone()]);
        for (wanted, names) in [
            (&[][..], &["label", "probabilities"][..]),
            (&["probabilities"][..], &["probabilities"][..]),
            (&["probabilities", "label"][..], &["probabilities", "label"][..]),
        ] {
            let got = ask.clone().outputs(wanted).of(&daemon, form).await.expect("an answer");
            let found: Vec<&str> = got.outputs.iter().map(|output| output.name.as_str()).collect();
            assert_eq!(found, names, "{form:?}");
        }
        let tag = tensor("tag", DataType::Int64, &[2], [7_i64, -7].map(i64::to_le_bytes).concat());
        let ask = Ask::new("passthrough", vec![x.clone(), tag.clone()]).outputs(&["tag", "y"]);
        let got = ask.of(&daemon, form).await.expect("an answer");
        assert_eq!(got.outputs[0], tag, "{form:?}");
        assert_eq!(singles(&got.outputs[1])[..2], [1.0, 4.0], "{form:?}");
    }
    let long = "i".repeat(369);
    let names = ["serving_default_x:0", "scope/in put;2", "7", &long];
    let inputs = names.iter().map(|name| fp32(name, &[1, 2], &[1.0, 2.0])).collect();
    let got = Ask::new("weird_names", inputs).of(&daemon, Form::Binary).await.expect("an answer");
    assert_eq!(got.outputs[1], fp32("a/b;c", &[1, 2], &[2.0, 3.0]));
}
