//! The only place where decisions meet the world.
//!
//! The scheduler stands behind one short lock, and whoever brings an event drives it: a connection's task
//! submits, decides and hands the batch over; whoever learns of a finished batch settles its flights,
//! starts the next one and wakes the waiters. The lock is held for microseconds and never across I/O or a
//! copy of tensors: what the scheduler wants done is collected under it and done after it.

mod call;
mod ledger;
pub mod leg;
pub mod lineage;
pub mod load;
pub mod pool;

pub use call::{Call, Order, Reply};

use crate::clock::Clock;
use crate::engine::{BatchPlan, Begun, Completion, CompletionSink, EngineError, Lane};
use crate::id::{BatchId, RequestId, SessionId, StageId};
use crate::metrics::{End, Metrics, ModelMetrics};
use crate::reactor::Alarm;
use crate::rows::Storage;
use crate::sched::config::{Config, StageConfig};
use crate::sched::event::{Event, Failure, Job, Outcome, RunReason};
use crate::sched::{Load, Scheduler, cost};
use crate::time::{MonoTime, nanos};
use ledger::{Ended, Entry, InHand, Ledger, Stand};
use lineage::Trail;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Orders to the pools that may wait; more than all pools could ever need at once.
const ORDERS_MAX: usize = 4096;

/// A batch to be handed over once the lock is free.
struct Run {
    lane: Arc<dyn Lane>,
    batch: BatchId,
    plan: Arc<BatchPlan>,
    reason: RunReason,
    in_hand: Arc<InHand>,
}

/// Everything to be done once the lock is free.
#[derive(Default)]
struct Outgoing {
    runs: Vec<Run>,
    replies: Vec<(oneshot::Sender<Reply>, Reply)>,
    /// The reply of the very request that is being submitted.
    direct: Option<Reply>,
    orders: Vec<Order>,
}

/// What the lock guards: decisions and what their numbers stand for, which must not part.
struct Core {
    sched: Scheduler,
    ledger: Ledger,
}

/// The driver.
pub struct Driver {
    core: Mutex<Core>,
    clock: Clock,
    requests: AtomicU64,
    sessions: AtomicU64,
    orders: flume::Sender<Order>,
    /// When the timer task wakes, in nanoseconds of the clock; the end of time while it need not.
    armed: AtomicU64,
    rearm: Notify,
    idle: Notify,
    /// Stages may have gone.
    gone: Notify,
    /// Sessions may have come.
    came: Notify,
    metrics: Arc<Metrics>,
    config: Config,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// A driver with an empty scheduler, and the orders that it will give to the pools.
    #[must_use]
    pub fn new(config: Config, metrics: Arc<Metrics>) -> (Arc<Self>, flume::Receiver<Order>) {
        let (orders, queue) = flume::bounded(ORDERS_MAX);
        let core = Core { sched: Scheduler::new(config.clone()), ledger: Ledger::default() };
        let driver = Self {
            core: Mutex::new(core),
            clock: Clock::start(),
            requests: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            orders,
            armed: AtomicU64::new(u64::MAX),
            rearm: Notify::new(),
            idle: Notify::new(),
            gone: Notify::new(),
            came: Notify::new(),
            metrics,
            config,
        };
        (Arc::new(driver), queue)
    }

    /// Runs a call to its end. Dropping the future withdraws the call.
    pub async fn call(self: &Arc<Self>, call: Call) -> Reply {
        let id = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let now = self.clock.now();
        let rows = call.keys.len();
        let entry = Entry {
            inputs: call.inputs.clone(),
            spec: call.spec.clone(),
            whole: call.whole,
            submitted: now,
            stand: Stand::New,
            landed: None,
            rows: vec![None; rows],
            routes: Vec::new(),
            trail: Trail::of(rows),
            way: call.way,
            projected: None,
            reply: None,
        };
        let job = Job {
            request: id,
            stage: call.spec.stage,
            class: call.class,
            row_bytes: call.inputs.row_bytes() as u64,
            rows: call.keys,
            deadline: call.timeout.map(|timeout| now.after(timeout)),
            target: call.target.map(|target| now.after(target)),
            priority: call.priority,
            sharing: call.sharing,
            path: call.path,
        };
        // Hits and refusals have their reply at once: no channel is made and nobody sleeps for them.
        let receiver = match self.submit(id, entry, job) {
            Ok(reply) => return reply,
            Err(receiver) => receiver,
        };
        let withdraw = Withdraw { driver: self, id, counts: &call.spec.counts, submitted: now };
        let reply = receiver.await;
        std::mem::forget(withdraw);
        reply.unwrap_or_else(|_| Reply {
            request: id,
            // The sender goes only with its reply; without one, the ledger and the scheduler disagree.
            outcome: Outcome::Failed(Failure { message: "the daemon lost its answer".into() }),
            rows: Vec::new(),
            routes: Vec::new(),
            trail: Trail::default(),
            submitted: now,
            phases: None,
        })
    }

    /// Submits a job: its reply, if that is there at once, or where it will come.
    fn submit(
        &self,
        id: RequestId,
        entry: Entry,
        job: Job,
    ) -> Result<Reply, oneshot::Receiver<Reply>> {
        let mut out = Outgoing::default();
        let answer = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            core.ledger.insert(id, entry);
            core.sched.handle(now, Event::Submit(job));
            core.collect(None, now, &mut out);
            self.arm(core.sched.next_wakeup());
            out.direct.take().ok_or_else(|| core.ledger.wait_for(id))
        };
        let follow_ups = self.perform(out);
        self.follow(follow_ups);
        answer
    }

    /// Tells the scheduler of an event and does what it wants done.
    pub fn event(&self, event: Event) {
        let follow_ups = self.step(event, None).0;
        self.follow(follow_ups);
    }

    /// A new session's number.
    #[must_use]
    pub fn session(&self) -> SessionId {
        SessionId(u32::try_from(self.sessions.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX))
    }

    /// Makes a lane known, and then its session to the scheduler.
    pub fn add_lane(&self, session: SessionId, lane: Arc<dyn Lane>, event: Event) {
        self.core.lock().ledger.lanes.insert(session, lane.clone());
        self.event(event);
        self.came.notify_waiters();
        // A process that ended before its session was known could tell nobody who knew it.
        if lane.is_dead() {
            self.session_gone(session);
        }
    }

    /// Lets a base or a head be submitted to, now that it is known how its batches are put together.
    pub fn add_leg(&self, stage: StageId, leg: leg::Leg, config: StageConfig) {
        self.core.lock().ledger.add_leg(stage, leg);
        self.event(Event::StageUp { stage, config });
    }

    /// Has the outputs of a base lie in memory so, from its next batch on.
    pub fn set_storage(&self, base: StageId, storage: Storage) {
        self.core.lock().ledger.set_storage(base, storage);
    }

    fn session_gone(&self, session: SessionId) {
        self.core.lock().ledger.session_gone(session);
        self.event(Event::SessionDown { session });
    }

    /// How much there is to do.
    #[must_use]
    pub fn load(&self) -> Load {
        self.core.lock().sched.load()
    }

    /// Rows of a stage that wait, and how long the first of them has.
    #[must_use]
    pub fn stage_queue(&self, stage: StageId) -> Option<(usize, Duration)> {
        self.core.lock().sched.stage_queue(stage)
    }

    /// What was learned of a stage's costs, of the `most` batch sizes that were seen most often.
    #[must_use]
    pub fn costs(&self, stage: StageId, most: usize) -> Option<Vec<cost::Learned>> {
        self.core.lock().sched.learned(stage, most)
    }

    /// Whether a stage has nothing to do, or had a batch end lately.
    #[must_use]
    pub fn stage_moves(&self, stage: StageId) -> bool {
        let core = self.core.lock();
        core.sched.stage_moves(stage, self.clock.now())
    }

    /// Checks the scheduler's tables against one another; for tests.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn verify(&self) -> Result<(), String> {
        let core = self.core.lock();
        core.sched.verify()?;
        let on_file = core.ledger.on_file();
        if core.sched.is_idle() && on_file != [0; 3] {
            let [requests, batches, parts] = on_file;
            return Err(format!(
                "idle, but {requests} requests, {batches} batches and {parts} base outputs are on file"
            ));
        }
        Ok(())
    }

    /// Waits until no request is in flight.
    pub async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.core.lock().sched.is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Where what happens is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Config {
        &self.config
    }

    /// Waits until the last row of a retired stage is answered.
    pub async fn stage_gone(&self, stage: StageId) {
        loop {
            let gone = self.gone.notified();
            if self.stage_queue(stage).is_none() {
                return;
            }
            gone.await;
        }
    }

    /// Waits until a stage has a session for everyday traffic, or is gone.
    pub async fn stage_serves(&self, stage: StageId) {
        loop {
            let came = self.came.notified();
            let gone = self.gone.notified();
            if self.core.lock().sched.stage_serves(stage) != Some(false) {
                return;
            }
            tokio::select! {
                () = came => {}
                () = gone => {}
            }
        }
    }

    /// The clock that all times are of.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Wakes the scheduler when it asks to be woken; runs for as long as the daemon.
    ///
    /// # Errors
    /// When the system gives no timer.
    pub async fn timers(self: Arc<Self>) -> std::io::Result<()> {
        let alarm = Alarm::new(self.clock)?;
        loop {
            let rearm = self.rearm.notified();
            let at = self.armed.load(Ordering::Acquire);
            let at = (at < u64::MAX).then(|| MonoTime::from_nanos(at));
            tokio::select! {
                rung = alarm.until(at) => {
                    rung?;
                    self.timeout();
                }
                () = rearm => {}
            }
        }
    }

    fn timeout(&self) {
        let mut out = Outgoing::default();
        let idle = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            core.sched.handle_timeout(now);
            core.collect(None, now, &mut out);
            let wakeup = core.sched.next_wakeup();
            self.armed.store(wakeup.map_or(u64::MAX, MonoTime::as_nanos), Ordering::Release);
            core.sched.is_idle()
        };
        if idle {
            self.idle.notify_waiters();
        }
        let follow_ups = self.perform(out);
        self.follow(follow_ups);
    }

    /// Every completion that came at once, and those that they bring about on this very thread.
    fn follow(&self, mut completions: Vec<Completion>) {
        while let Some(completion) = completions.pop() {
            completions.extend(self.settle(completion));
        }
    }

    /// Tells the scheduler what came of a batch, does what it wants done, and counts the batch.
    fn settle(&self, completion: Completion) -> Vec<Completion> {
        let start = self.clock.now();
        let (event, ended) = completed(completion);
        let (follow_ups, in_hand) = self.step(event, Some(&ended));
        // One whose session is gone was given back and is counted when it runs again.
        if let Some(in_hand) = in_hand {
            match &ended.outputs {
                Some((block, run)) => {
                    let scatter = self.clock.now().since(start);
                    in_hand.counts.batch_done(block.rows, [in_hand.gather(), *run, scatter]);
                }
                None => in_hand.counts.batch_failed(),
            }
        }
        follow_ups
    }

    fn step(&self, event: Event, ended: Option<&Ended>) -> (Vec<Completion>, Option<Arc<InHand>>) {
        let mut out = Outgoing::default();
        let (idle, in_hand) = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            core.sched.handle(now, event);
            core.collect(ended, now, &mut out);
            let in_hand = ended.and_then(|ended| core.ledger.strike(ended.batch));
            // Under the lock, so that the timer task cannot overwrite an earlier time with a later one.
            self.arm(core.sched.next_wakeup());
            (core.sched.is_idle(), in_hand)
        };
        if idle {
            self.idle.notify_waiters();
        }
        (self.perform(out), in_hand)
    }

    /// Has the timer task look again if it would wake too late.
    fn arm(&self, wakeup: Option<MonoTime>) {
        let Some(at) = wakeup.map(MonoTime::as_nanos) else { return };
        if self.armed.fetch_min(at, Ordering::AcqRel) > at {
            self.rearm.notify_one();
        }
    }

    /// Does what was collected: batches first, so that no session stands idle for the sake of a reply.
    fn perform(&self, out: Outgoing) -> Vec<Completion> {
        let mut finished = Vec::new();
        for Run { lane, batch, plan, reason, in_hand } in out.runs {
            let start = self.clock.now();
            let begun = lane.begin(batch, &plan);
            let mut gather = self.clock.now().since(start);
            if let Begun::Finished(Completion { result: Ok((_, run)), .. }) = &begun {
                gather = gather.saturating_sub(*run);
            }
            in_hand.gather_ns.store(nanos(gather), Ordering::Relaxed);
            in_hand.counts.batch_started(plan.rows(), reason);
            if let Begun::Finished(completion) = begun {
                finished.push(completion);
            }
        }
        for (sender, reply) in out.replies {
            // A caller that went away has withdrawn already, or is about to.
            let _ = sender.send(reply);
        }
        for order in out.orders {
            if let Order::Forget { .. } = order {
                self.gone.notify_waiters();
            }
            if self.orders.try_send(order).is_err() {
                tracing::error!("the pools do not keep up with the scheduler's orders");
            }
        }
        finished
    }
}

/// What came of a batch, as the scheduler hears of it and as the ledger needs it.
fn completed(completion: Completion) -> (Event, Ended) {
    let Completion { session, batch, result } = completion;
    match result {
        Ok((block, service)) => {
            let row_bytes = block.kept_row_bytes() as u64;
            let outputs = Some((Arc::new(block), service));
            (Event::Done { session, batch, service, row_bytes }, Ended { batch, outputs })
        }
        Err(error) => {
            if let EngineError::Protocol(what) = &error {
                tracing::error!("session {session}: {what}");
            }
            let failure = Failure { message: error.to_string().into() };
            (Event::Failed { session, batch, failure }, Ended { batch, outputs: None })
        }
    }
}

impl Core {
    fn collect(&mut self, ended: Option<&Ended>, now: MonoTime, out: &mut Outgoing) {
        while let Some(action) = self.sched.poll() {
            self.ledger.apply(action, ended, now, out);
        }
    }
}

impl CompletionSink for Driver {
    fn complete(&self, completion: Completion) {
        let follow_ups = self.settle(completion);
        self.follow(follow_ups);
    }
}

impl crate::engine::worker::WorkerEvents for Driver {
    fn worker_died(&self, sessions: &[SessionId], how: &str) {
        self.metrics.worker_died();
        sessions.iter().for_each(|&session| self.session_gone(session));
        let order = Order::Died { sessions: sessions.to_vec(), how: how.to_owned() };
        if self.orders.try_send(order).is_err() {
            tracing::error!("the pools do not keep up with dying workers");
        }
    }
}

/// Withdraws a call whose caller went away.
struct Withdraw<'a> {
    driver: &'a Driver,
    id: RequestId,
    counts: &'a ModelMetrics,
    submitted: MonoTime,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let waited = self.driver.clock.now().since(self.submitted);
        self.counts.ended(End::Cancelled, waited);
        self.driver.event(Event::Cancel(self.id));
    }
}
