//! The daemon's side of one lane: gathers batches into its slots and reads what came of them.

use super::arena::Arena;
use super::control::{Letter, ModelNumber, Order};
use super::reply;
use super::ring::{self, Area, DESCRIPTOR_BYTES, Geometry, SLOTS, TensorPlace};
use crate::engine::{BatchPlan, Begun, Completion, EngineError, Lane};
use crate::id::{BatchId, SessionId};
use crate::rows::{Block, Inputs};
use parking_lot::Mutex;
use rustix::thread::futex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// One lane of a worker.
#[derive(Debug)]
pub(super) struct WorkerLane {
    pub session: SessionId,
    /// The model among those of the worker.
    pub model: ModelNumber,
    /// The lane among those of the model.
    pub number: usize,
    pub arena: Arc<Arena>,
    pub geometry: Geometry,
    /// Whoever gathers or reads holds this, so that a slot has one user on this side.
    pub state: Mutex<LaneState>,
    pub orders: flume::Sender<Letter>,
    pub killer: Arc<super::process::Killer>,
}

/// The daemon's own record of what the lane has in hand; the worker's word is checked against it.
#[derive(Debug, Default)]
pub(super) struct LaneState {
    submitted: u32,
    completed: u32,
    in_hand: VecDeque<(BatchId, Arc<BatchPlan>)>,
    dead: bool,
}

impl WorkerLane {
    /// Takes the batches that the worker has completed since the last call.
    pub(super) fn collect(&self) -> Vec<Completion> {
        let mut state = self.state.lock();
        let word = self.arena.word(self.geometry.completed(self.number));
        let mut completions = Vec::new();
        // The worker cannot complete what was not submitted, whatever its counter says.
        while !state.in_hand.is_empty() && word.load(Ordering::Acquire) != state.completed {
            let Some((batch, plan)) = state.in_hand.pop_front() else { break };
            let result = self.read(state.completed, batch, &plan);
            state.completed = state.completed.wrapping_add(1);
            completions.push(Completion { session: self.session, batch, result });
        }
        completions
    }

    /// From now on batches are swallowed: the worker is gone.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.dead = true;
        state.in_hand.clear();
    }

    /// Batches completed so far; the count wraps.
    pub(super) fn completed(&self) -> u32 {
        self.state.lock().completed
    }

    fn read(
        &self,
        count: u32,
        batch: BatchId,
        plan: &BatchPlan,
    ) -> Result<(Block, Duration), EngineError> {
        let place = self.geometry.slot(self.number, count);
        let outside = || EngineError::Protocol("a slot outside the memory".into());
        let descriptor = self.arena.part(place.answer, DESCRIPTOR_BYTES).ok_or_else(outside)?;
        let outputs =
            self.arena.part(place.outputs, self.geometry.area_bytes).ok_or_else(outside)?;
        reply::read(batch, plan, descriptor, outputs)
    }

    fn gather(&self, count: u32, batch: BatchId, plan: &BatchPlan) -> Result<(), EngineError> {
        let place = self.geometry.slot(self.number, count);
        let runs = plan.borrowed();
        let Some((first, ..)) = runs.first() else {
            return Err(EngineError::Protocol("an empty batch".into()));
        };
        let mut area = Area::new(self.geometry.area_bytes, "inputs");
        let mut tensors = Vec::with_capacity(first.tensors.len());
        for (index, tensor) in first.tensors.iter().enumerate() {
            let bytes = Inputs::batch_bytes(index, &runs);
            let offset = area.take(bytes)?;
            let dest = self.arena.part_mut(place.inputs + offset, bytes);
            let dest = dest.ok_or_else(|| EngineError::Protocol("no room in the slot".into()))?;
            Inputs::gather(index, &runs, dest);
            let (datatype, shape) = (tensor.datatype, tensor.batch_shape(plan.rows()));
            tensors.push(TensorPlace { datatype, shape, offset, bytes });
        }
        ring::write_request(&self.arena, place.request, batch.0, &tensors)
    }
}

impl Lane for WorkerLane {
    fn begin(&self, batch: BatchId, plan: &Arc<BatchPlan>) -> Begun {
        let mut state = self.state.lock();
        if state.dead {
            return Begun::Started;
        }
        let refuse = |error| {
            Begun::Finished(Completion { session: self.session, batch, result: Err(error) })
        };
        if state.in_hand.len() >= SLOTS {
            return refuse(EngineError::Protocol("a third batch for two slots".into()));
        }
        if let Err(error) = self.gather(state.submitted, batch, plan) {
            return refuse(error);
        }
        state.in_hand.push_back((batch, plan.clone()));
        state.submitted = state.submitted.wrapping_add(1);
        let word = self.arena.word(self.geometry.submitted(self.number));
        word.store(state.submitted, Ordering::Release);
        // Waking nobody is no error.
        let _ = futex::wake(word, futex::Flags::empty(), 1);
        Begun::Started
    }

    fn terminate(&self, batch: BatchId) {
        // A full channel means the worker does not listen; the kill that follows needs no channel.
        let order = Order::Terminate { model: self.model, lane: self.number, batch: batch.0 };
        let _ = self.orders.try_send(Letter { order, memory: None });
    }

    fn kill(&self) {
        self.killer.kill();
    }

    fn is_dead(&self) -> bool {
        self.state.lock().dead
    }
}
