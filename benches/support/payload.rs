//! Requests for any model: made from its metadata, the same rows for the socket and for the engine.

use super::client::Client;
use graftd::engine::BatchPlan;
use graftd::rows::{InputTensor, Inputs};
use graftd::tensor::DataType;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Rows for a model.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    model: String,
    rows: usize,
    inputs: Vec<(String, InputTensor)>,
}

/// An encoded request whose rows can be made unlike all others.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The whole request, head and body.
    pub bytes: Vec<u8>,
    /// Where the rows of the input that tells rows apart begin.
    stamp_at: Vec<usize>,
    datatype: DataType,
}

/// Sizes of axes that vary and are no batch axis: sentences of 32 tokens, lines of text 48 by 320.
fn fill(model: &str, axis: usize) -> usize {
    match (model, axis) {
        ("ocr_rec", 2) => 48,
        ("ocr_rec", _) => 320,
        _ => 32,
    }
}

impl Payload {
    /// Rows as a served model wants them.
    pub(crate) fn of(socket: &Path, model: &str, rows: usize) -> Self {
        let path = format!("/v2/models/{model}");
        let head = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
        let body = Client::connect(socket).call(head.as_bytes());
        let metadata: Value = serde_json::from_slice(&body).expect("metadata in JSON");
        let inputs = metadata["inputs"].as_array().expect("its inputs");
        let inputs = inputs.iter().map(|input| tensor(input, model, rows)).collect();
        Self { model: model.to_owned(), rows, inputs }
    }

    /// The rows as an engine takes them.
    pub(crate) fn inputs(&self) -> Arc<Inputs> {
        let tensors = self.inputs.iter().map(|(_, tensor)| tensor.clone()).collect();
        Arc::new(Inputs { tensors, rows: self.rows })
    }

    /// A batch of `copies` requests like this one.
    pub(crate) fn plan(&self, copies: usize) -> Arc<BatchPlan> {
        let mut plan = BatchPlan { whole: true, ..BatchPlan::default() };
        for _ in 0..copies {
            let inputs = self.inputs();
            (0..self.rows).for_each(|row| plan.push(inputs.clone(), row));
        }
        Arc::new(plan)
    }

    /// The request over HTTP, tensors in binary; `kept` lets its rows be kept and found again.
    pub(crate) fn request(&self, kept: bool) -> Request {
        let described = self.inputs.iter().map(|(name, tensor)| {
            json!({
                "name": name, "shape": tensor.shape, "datatype": tensor.datatype.name(),
                "parameters": {"binary_data_size": tensor.data.len()},
            })
        });
        let mut parameters = json!({"binary_data_output": true});
        if !kept {
            parameters["no_cache"] = json!(true);
        }
        let inputs: Vec<Value> = described.collect();
        let text = json!({"parameters": parameters, "inputs": inputs}).to_string();
        let binary: usize = self.inputs.iter().map(|(_, tensor)| tensor.data.len()).sum();
        let head = format!(
            "POST /v2/models/{}/infer HTTP/1.1\r\nhost: bench\r\n\
             inference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n{text}",
            self.model,
            text.len(),
            text.len() + binary
        );
        let mut bytes = head.into_bytes();
        let mut stamp_at = Vec::new();
        let mut datatype = DataType::Fp32;
        for (name, tensor) in &self.inputs {
            if stamp_at.is_empty() && constant(name).is_none() {
                let row = tensor.data.len() / self.rows;
                stamp_at = (0..self.rows).map(|number| bytes.len() + number * row).collect();
                datatype = tensor.datatype;
            }
            bytes.extend_from_slice(&tensor.data);
        }
        Request { bytes, stamp_at, datatype }
    }
}

impl Request {
    /// Makes the rows the ones with these numbers; no two numbers give the same row.
    pub(crate) fn stamp(&self, bytes: &mut [u8], numbers: &mut impl Iterator<Item = u64>) {
        for &at in &self.stamp_at {
            stamp(self.datatype, &mut bytes[at..], numbers.next().unwrap_or(0));
        }
    }
}

/// Writes a number as the first elements of a row, in values that any model takes.
fn stamp(datatype: DataType, row: &mut [u8], number: u64) {
    let low = |bits: u32| u32::try_from(number & ((1 << bits) - 1)).unwrap_or(0);
    // Digits to the base of 200: file bytes, token numbers and the like.
    let digit = |place: u32| (number / 200_u64.pow(place)) % 200;
    match datatype {
        // Between one half and one, all 2^23 of them.
        DataType::Fp32 => row[..4].copy_from_slice(&(0x3f00_0000 | low(23)).to_le_bytes()),
        DataType::Fp16 => {
            let halves = [low(10), low(20) >> 10].map(|bits| 0x3800 | (bits as u16));
            row[..2].copy_from_slice(&halves[0].to_le_bytes());
            row[2..4].copy_from_slice(&halves[1].to_le_bytes());
        }
        DataType::Int32 => (0..4_u32).for_each(|place| {
            let at = 4 * place as usize;
            row[at..at + 4].copy_from_slice(&(digit(place) as u32).to_le_bytes());
        }),
        DataType::Int64 => (0..4_u32).for_each(|place| {
            let at = 8 * place as usize;
            row[at..at + 8].copy_from_slice(&digit(place).to_le_bytes());
        }),
        other => panic!("no benchmark uses rows of {other}"),
    }
}

/// What inputs hold that do not tell rows apart.
fn constant(name: &str) -> Option<u64> {
    match name {
        mask if mask.contains("mask") => Some(1),
        kind if kind.contains("type") || kind.contains("segment") => Some(0),
        _ => None,
    }
}

fn tensor(input: &Value, model: &str, rows: usize) -> (String, InputTensor) {
    let name = input["name"].as_str().expect("a name").to_owned();
    let datatype = input["datatype"].as_str().and_then(DataType::from_name).expect("a datatype");
    let dims = input["shape"].as_array().expect("a shape");
    let size = |(axis, dim): (usize, &Value)| match usize::try_from(dim.as_i64().unwrap_or(-1)) {
        Ok(size) => size,
        Err(_) if axis == 0 => rows,
        Err(_) => fill(model, axis),
    };
    let shape: Vec<usize> = dims.iter().enumerate().map(size).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut data = Vec::new();
    for _ in 0..shape.iter().product::<usize>() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let unit = (state >> 40) as f32 / (1_u32 << 24) as f32;
        let whole = constant(&name).unwrap_or(state % 200);
        match datatype {
            DataType::Fp32 => data.extend(unit.to_le_bytes()),
            DataType::Fp16 => data.extend(half::f16::from_f32(unit).to_le_bytes()),
            DataType::Int32 => data.extend((whole as u32).to_le_bytes()),
            DataType::Int64 => data.extend(whole.to_le_bytes()),
            other => panic!("no benchmark uses {other}"),
        }
    }
    let tensor = InputTensor {
        datatype,
        shape,
        axis: Some(0),
        data: data.into(),
        row_ends: Vec::new(),
        storage: graftd::rows::Storage::Exact,
    };
    (name, tensor)
}
