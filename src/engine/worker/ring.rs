//! The layout of the shared memory, and the descriptors that cross in it.
//!
//! Each lane has a page of counters and two slots; a slot has room for the descriptors and tensors of a
//! batch and of its outputs. Everything read from the other side is checked against our own record.

use super::arena::Arena;
use crate::engine::EngineError;
use crate::tensor::{DataType, Shape};

/// Batches a lane holds: the one that runs and one ahead.
pub(super) const SLOTS: usize = 2;
const PAGE: usize = 4096;
pub(super) const DESCRIPTOR_BYTES: usize = 64 << 10;
/// Tensors start at multiples of this, the widest vector register's size.
const ALIGN: usize = 64;
const TENSORS_MAX: u32 = 1024;
const RANK_MAX: u8 = 32;

/// How the shared memory is divided.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Geometry {
    /// Lanes.
    pub lanes: usize,
    /// Bytes of tensors in one batch, for inputs and outputs each.
    pub area_bytes: usize,
}

/// Where the parts of one slot begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotPlace {
    pub request: usize,
    pub inputs: usize,
    pub answer: usize,
    pub outputs: usize,
}

impl Geometry {
    fn area(&self) -> usize {
        self.area_bytes.next_multiple_of(PAGE)
    }

    fn slot_bytes(&self) -> usize {
        2 * (DESCRIPTOR_BYTES + self.area())
    }

    fn lane_bytes(&self) -> usize {
        PAGE + SLOTS * self.slot_bytes()
    }

    /// Bytes of the whole memory.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.lanes * self.lane_bytes()
    }

    /// Where a lane counts the batches submitted to it.
    pub(super) fn submitted(&self, lane: usize) -> usize {
        lane * self.lane_bytes()
    }

    /// Where a lane counts the batches it completed; apart from the other, so that the sides do not share
    /// a cache line.
    pub(super) fn completed(&self, lane: usize) -> usize {
        self.submitted(lane) + 128
    }

    /// The slot of a lane's batch number `count`.
    pub(super) fn slot(&self, lane: usize, count: u32) -> SlotPlace {
        let slot = count as usize % SLOTS;
        let request = self.submitted(lane) + PAGE + slot * self.slot_bytes();
        let inputs = request + DESCRIPTOR_BYTES;
        let answer = inputs + self.area();
        SlotPlace { request, inputs, answer, outputs: answer + DESCRIPTOR_BYTES }
    }
}

/// One tensor in a slot's area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorPlace {
    pub datatype: DataType,
    pub shape: Vec<usize>,
    /// From the start of the area.
    pub offset: usize,
    pub bytes: usize,
}

/// What a worker says of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Outputs { service_ns: u64, tensors: Vec<TensorPlace> },
    Failed { error: EngineError },
}

/// Hands out room in a slot's area, one tensor after the other.
#[derive(Debug)]
pub(super) struct Area {
    used: usize,
    limit: usize,
    what: &'static str,
}

impl Area {
    pub(super) fn new(limit: usize, what: &'static str) -> Self {
        Self { used: 0, limit, what }
    }

    /// The offset of the next `bytes` bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Result<usize, EngineError> {
        let offset = self.used.next_multiple_of(ALIGN);
        let end = offset.saturating_add(bytes);
        if end > self.limit {
            let (what, limit) = (self.what, self.limit);
            return Err(EngineError::TooLarge { what, needed: end, limit });
        }
        self.used = end;
        Ok(offset)
    }
}

/// Writes a batch's descriptor.
pub(super) fn write_request(
    arena: &Arena,
    at: usize,
    batch: u64,
    tensors: &[TensorPlace],
) -> Result<(), EngineError> {
    let mut bytes = batch.to_le_bytes().to_vec();
    put_tensors(&mut bytes, tensors);
    put(arena, at, &bytes)
}

/// Reads a batch's descriptor.
pub(super) fn read_request(arena: &Arena, at: usize) -> Option<(u64, Vec<TensorPlace>)> {
    let mut bytes = arena.part(at, DESCRIPTOR_BYTES)?;
    let batch = take_u64(&mut bytes)?;
    Some((batch, take_tensors(&mut bytes)?))
}

/// Writes what came of a batch.
pub(super) fn write_answer(arena: &Arena, at: usize, batch: u64, answer: &Answer) {
    let mut bytes = batch.to_le_bytes().to_vec();
    match answer {
        Answer::Outputs { service_ns, tensors } => {
            bytes.push(0);
            bytes.extend(service_ns.to_le_bytes());
            put_tensors(&mut bytes, tensors);
        }
        Answer::Failed { error: EngineError::TooLarge { needed, limit, .. } } => {
            bytes.push(1);
            bytes.extend((*needed as u64).to_le_bytes());
            bytes.extend((*limit as u64).to_le_bytes());
        }
        Answer::Failed { error } => {
            let text = error.to_string();
            let mut end = text.len().min(DESCRIPTOR_BYTES / 2);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            bytes.push(2);
            bytes.extend((end as u64).to_le_bytes());
            bytes.extend(&text.as_bytes()[..end]);
        }
    }
    // A descriptor too long for its room is the daemon's to notice: it reads zeros.
    let _ = put(arena, at, &bytes);
}

/// Reads what came of a batch; none where it makes no sense.
///
/// `bytes` is the room for the descriptor, which the worker may still be writing to.
pub(super) fn read_answer(mut bytes: &[u8]) -> Option<(u64, Answer)> {
    let batch = take_u64(&mut bytes)?;
    let answer = match take(&mut bytes, 1)?[0] {
        0 => {
            let service_ns = take_u64(&mut bytes)?;
            Answer::Outputs { service_ns, tensors: take_tensors(&mut bytes)? }
        }
        1 => {
            let (needed, limit) = (take_usize(&mut bytes)?, take_usize(&mut bytes)?);
            Answer::Failed { error: EngineError::TooLarge { what: "outputs", needed, limit } }
        }
        2 => {
            let length = take_usize(&mut bytes)?;
            // Copied before it is looked at: a text must not change once it was found to be UTF-8.
            let text = take(&mut bytes, length)?.to_vec();
            Answer::Failed { error: EngineError::model(String::from_utf8_lossy(&text)) }
        }
        _ => return None,
    };
    Some((batch, answer))
}

fn put(arena: &Arena, at: usize, bytes: &[u8]) -> Result<(), EngineError> {
    let limit = DESCRIPTOR_BYTES;
    let what = "descriptors";
    if bytes.len() > limit {
        return Err(EngineError::TooLarge { what, needed: bytes.len(), limit });
    }
    let room = arena.part_mut(at, bytes.len());
    let room = room.ok_or(EngineError::TooLarge { what, needed: bytes.len(), limit: 0 })?;
    room.copy_from_slice(bytes);
    Ok(())
}

fn put_tensors(bytes: &mut Vec<u8>, tensors: &[TensorPlace]) {
    bytes.extend(u32::try_from(tensors.len()).unwrap_or(u32::MAX).to_le_bytes());
    for tensor in tensors {
        let rank = u8::try_from(tensor.shape.len()).unwrap_or(u8::MAX);
        bytes.extend([tensor.datatype as u8, rank]);
        let numbers = tensor.shape.iter().chain([&tensor.offset, &tensor.bytes]);
        numbers.for_each(|&number| bytes.extend((number as u64).to_le_bytes()));
    }
}

fn take_tensors(bytes: &mut &[u8]) -> Option<Vec<TensorPlace>> {
    let count = u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?);
    if count > TENSORS_MAX {
        return None;
    }
    (0..count).map(|_| take_tensor(bytes)).collect()
}

fn take_tensor(bytes: &mut &[u8]) -> Option<TensorPlace> {
    let head = take(bytes, 2)?;
    let datatype = *DataType::ALL.get(usize::from(head[0]))?;
    let rank = head[1];
    if rank > RANK_MAX {
        return None;
    }
    let shape = (0..rank).map(|_| take_usize(bytes)).collect::<Option<Vec<_>>>()?;
    let (offset, length) = (take_usize(bytes)?, take_usize(bytes)?);
    let elements = Shape(shape.clone()).elements()?;
    let expected = datatype.element_bytes().map(|size| elements.checked_mul(size));
    if expected.is_some_and(|expected| expected != Some(length)) {
        return None;
    }
    Some(TensorPlace { datatype, shape, offset, bytes: length })
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?))
}

fn take_usize(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(take_u64(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GEOMETRY: Geometry = Geometry { lanes: 2, area_bytes: 4096 };

    #[test]
    fn slots_do_not_overlap() {
        let mut parts = Vec::new();
        for (lane, count) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let SlotPlace { request, inputs, answer, outputs } = GEOMETRY.slot(lane, count);
            parts.push((request, DESCRIPTOR_BYTES));
            parts.push((inputs, 4096));
            parts.push((answer, DESCRIPTOR_BYTES));
            parts.push((outputs, 4096));
        }
        parts.sort_unstable();
        assert!(parts.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        let (last, length) = parts[parts.len() - 1];
        assert!(last + length <= GEOMETRY.total_bytes());
    }

    #[test]
    fn descriptors_come_back_as_they_went() {
        let (arena, _fd) = Arena::create(GEOMETRY.total_bytes()).unwrap();
        let at = GEOMETRY.slot(1, 1);
        let (datatype, shape) = (DataType::Fp32, vec![2, 3]);
        let tensors = vec![TensorPlace { datatype, shape, offset: 64, bytes: 24 }];
        write_request(&arena, at.request, 7, &tensors).unwrap();
        assert_eq!(read_request(&arena, at.request), Some((7, tensors.clone())));
        let answers = [
            Answer::Outputs { service_ns: 5, tensors },
            Answer::Failed { error: EngineError::model("no such row") },
            Answer::Failed {
                error: EngineError::TooLarge { what: "outputs", needed: 9, limit: 8 },
            },
        ];
        for answer in answers {
            write_answer(&arena, at.answer, 8, &answer);
            let bytes = arena.part(at.answer, DESCRIPTOR_BYTES).unwrap();
            assert_eq!(read_answer(bytes), Some((8, answer)));
        }
    }

    proptest! {
        #[test]
        fn a_hostile_worker_makes_no_sense_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = read_answer(&bytes);
        }
    }
}
