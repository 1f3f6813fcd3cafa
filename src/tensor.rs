//! Tensors as they travel: datatype, shape and little-endian bytes.
//!
//! The wire layout is also the layout in queues, caches and shared memory, so that a tensor is never
//! re-encoded on its way: elements in row-major order, `BYTES` elements each led by its length as a
//! little-endian `u32`.

use bytes::Bytes;
use std::fmt;

/// The datatypes of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl DataType {
    /// Every datatype, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The protocol's name, such as `FP32`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The datatype with this protocol name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// Bytes per element; none for `BYTES`, whose elements vary.
    #[must_use]
    pub const fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The size of a tensor along each axis; empty for a scalar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// The number of elements; none where the product overflows. An axis of size 0 makes it 0, wherever it stands.
    #[must_use]
    pub fn elements(&self) -> Option<usize> {
        if self.0.contains(&0) {
            return Some(0);
        }
        self.0.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim))
    }

    /// The axes' sizes as the protocol's signed numbers.
    #[must_use]
    pub fn to_wire(&self) -> Vec<i64> {
        self.0.iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, dim) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// A named tensor of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The name of the model's input.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The size along each axis.
    pub shape: Shape,
    /// The elements, in the wire layout.
    pub data: Bytes,
}

/// A named tensor of an answer, in as many pieces as its rows came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTensor {
    /// The name of the model's output.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The size along each axis.
    pub shape: Shape,
    /// The elements in the wire layout; the concatenation of these is the tensor.
    pub pieces: Vec<Bytes>,
}

impl OutputTensor {
    /// Bytes of the whole tensor.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// The whole tensor in one buffer.
    ///
    /// # Cost
    /// Free for a tensor of one piece, one copy otherwise.
    #[must_use]
    pub fn contiguous(&self) -> Bytes {
        if let [piece] = self.pieces.as_slice() {
            return piece.clone();
        }
        let mut whole = Vec::with_capacity(self.byte_len());
        self.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Bytes::from(whole)
    }
}

/// Cuts `BYTES` data into elements: the end of each, counted from the start of `data`.
///
/// # Errors
/// A sentence on what is wrong, when a length prefix is cut short or runs past the end.
pub fn bytes_element_ends(data: &[u8]) -> Result<Vec<usize>, String> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let Some(prefix) = data.get(at..at + 4) else {
            return Err(format!("element {} has a truncated length prefix", ends.len()));
        };
        let length = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
        let end = at + 4 + length;
        if end > data.len() {
            return Err(format!(
                "element {} claims {length} bytes, but only {} are left",
                ends.len(),
                data.len() - at - 4
            ));
        }
        ends.push(end);
        at = end;
    }
    Ok(ends)
}
