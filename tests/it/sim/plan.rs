//! What a seed stands for: limits, stages, sessions, jobs, and which rows are guilty of what.

use super::rng::{Rng, mix};
use graftd::id::{ClassKey, DeviceId, RequestId, RowKey, StageId};
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{Job, Priority, Sharing};
use graftd::time::MonoTime;
use std::time::Duration;

/// What running a row does, written into its key so that everybody can look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Good,
    /// Its batch gets an error.
    Bad,
    /// Its process dies.
    Poison,
    /// Its run does not end until it is asked to.
    Hang,
    /// Its run does not end until the process does.
    DeafHang,
}

impl Truth {
    pub(super) fn of(key: &RowKey) -> Self {
        match key.0[31] {
            1 => Self::Bad,
            2 => Self::Poison,
            3 => Self::Hang,
            4 => Self::DeafHang,
            _ => Self::Good,
        }
    }

    /// Whether a row like this may end the process that runs it alone.
    pub(super) fn is_fatal(self) -> bool {
        matches!(self, Self::Poison | Self::Hang | Self::DeafHang)
    }
}

/// Whether faults go on to the end of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They go on, sessions may stay away, and the run is cut off somewhere.
    Safety,
    /// They stop, and then everything must heal.
    Liveness,
}

/// How likely each fault is.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// Guilty keys of each kind in a thousand.
    bad: u64,
    poison: u64,
    hang: u64,
    /// Serving processes that end for no reason of a row's.
    pub(super) deaths: usize,
    /// Isolation sessions that cannot be started, in a hundred.
    pub(super) isolation_fails: u64,
    /// Dead sessions that are not replaced, in a hundred.
    pub(super) lost_for_good: u64,
}

#[derive(Clone, Debug)]
pub(super) struct StagePlan {
    pub(super) id: StageId,
    pub(super) config: StageConfig,
    /// Process and device slots of each serving session.
    pub(super) sessions: Vec<(u32, u32)>,
    pub(super) run_us: u64,
    pub(super) row_us: u64,
    pub(super) output_bytes: u64,
    classes: u64,
    keys: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) mode: Mode,
    pub(super) config: Config,
    pub(super) stages: Vec<StagePlan>,
    /// Comes up while others run; its number is one more than the last of `stages`.
    pub(super) late_stage: Option<StagePlan>,
    /// Which of `stages` retires half-way.
    pub(super) retires: Option<StageId>,
    /// Which of `stages` gets other sessions, for batches of so many rows, when two thirds of the jobs came.
    pub(super) replaces: Option<(StageId, usize)>,
    pub(super) jobs: usize,
    pub(super) gap_us: u64,
    pub(super) faults: Faults,
    /// Timer calls that come late, in a hundred.
    pub(super) late_timers: u64,
    cancels: u64,
    deadlines: u64,
    all_shared: u64,
}

fn draw_config(rng: &mut Rng) -> Config {
    let devices = rng.range(1, 2) as u16;
    Config {
        devices: (0..devices).map(|id| (DeviceId(id), rng.range(1, 3) as u32)).collect(),
        requests_max: rng.pick(&[6, 30, 200]),
        rows_max: rng.pick(&[50, 150, 1_000]),
        bytes_max: rng.pick(&[20_000, 100_000, 1 << 30]),
        flight_waiters_max: rng.pick(&[3, 12, 1_000]),
        base_cache_bytes: 0,
        cache_bytes: rng.pick(&[0, 4_096, 12_288, 65_536]),
        priority_step: rng.pick(&[Duration::ZERO, Duration::from_micros(500), 5 * MS]),
        watchdog_floor: 200 * MS,
        watchdog_grace: 20 * MS,
        quarantine_ttl: rng.pick(&[10 * MS, 2_000 * MS]),
        quarantine_max: rng.count(1, 8),
        isolation_idle: rng.pick(&[5 * MS, 300 * MS]),
        rest_after: 60_000 * MS,
    }
}

const MS: Duration = Duration::from_millis(1);

fn draw_stage(rng: &mut Rng, id: u32, devices: usize) -> StagePlan {
    let batch_rows_max = rng.pick(&[1, 4, 8, 16]);
    let mut preferred: Vec<usize> = [2, 4, 6, 8, 16]
        .into_iter()
        .filter(|&size| size <= batch_rows_max && rng.percent(50))
        .collect();
    if rng.percent(60) {
        preferred.clear();
    }
    let shares_process = rng.percent(50);
    let sessions = (0..rng.range(1, 3) as u32)
        .map(|n| (if shares_process { id * 10 } else { id * 10 + n }, rng.range(1, 2) as u32))
        .collect();
    StagePlan {
        id: StageId(id),
        config: StageConfig {
            device: DeviceId(rng.count(0, devices - 1) as u16),
            batch_rows_max,
            batch_rows_knee: rng.count(1, batch_rows_max),
            batch_rows_preferred: preferred,
            queue_rows_max: rng.percent(15).then(|| rng.range(1, 20) as usize),
            queue_delay: if rng.percent(60) { Duration::ZERO } else { rng.micros(200, 4_000) },
            join: rng.percent(85),
            store: rng.percent(70),
            ..StageConfig::default()
        },
        sessions,
        run_us: rng.range(10, 1_500),
        row_us: rng.range(1, 200),
        output_bytes: rng.pick(&[8, 100, 250, 1_000, 5_000]),
        classes: rng.range(1, 3),
        keys: rng.pick(&[4, 40, 400]),
    }
}

fn draw_faults(rng: &mut Rng, mode: Mode) -> Faults {
    let safety = mode == Mode::Safety;
    if rng.percent(25) {
        let lost_for_good = 0;
        return Faults { bad: 0, poison: 0, hang: 0, deaths: 0, isolation_fails: 0, lost_for_good };
    }
    Faults {
        bad: rng.pick(&[0, 10, 60]),
        poison: rng.pick(&[0, 8, 30]),
        hang: rng.pick(&[0, 5, 15]),
        deaths: rng.count(0, 3),
        isolation_fails: rng.pick(&[0, 20, 60]),
        lost_for_good: if safety { rng.pick(&[0, 30]) } else { 0 },
    }
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mode = if seed.is_multiple_of(2) { Mode::Liveness } else { Mode::Safety };
        let config = draw_config(&mut rng);
        let devices = config.devices.len();
        let count = rng.range(1, 3) as u32;
        let stages: Vec<_> = (0..count).map(|id| draw_stage(&mut rng, id, devices)).collect();
        let late_stage = rng.percent(25).then(|| draw_stage(&mut rng, count, devices));
        Self {
            seed,
            mode,
            stages,
            late_stage,
            retires: rng.percent(25).then_some(StageId(0)),
            jobs: rng.count(20, 90),
            gap_us: rng.pick(&[30, 200, 1_500]),
            faults: draw_faults(&mut rng, mode),
            late_timers: rng.pick(&[0, 0, 30]),
            cancels: rng.pick(&[0, 10, 40]),
            deadlines: rng.pick(&[0, 30, 60]),
            all_shared: rng.pick(&[40, 80, 100]),
            replaces: rng.percent(40).then(|| (StageId(0), rng.count(1, 9))),
            config,
        }
    }

    pub(super) fn stage(&self, id: StageId) -> Option<&StagePlan> {
        self.stages.iter().chain(&self.late_stage).find(|stage| stage.id == id)
    }

    /// The key of a row of a stage. Equal content has equal shapes, so the class is part of it.
    fn key(&self, stage: &StagePlan, class: u64, number: u64) -> RowKey {
        let content = mix(self.seed) ^ (u64::from(stage.id.0) << 40) ^ (class << 32) ^ number;
        let mut key = [0; 32];
        for (word, bytes) in (0_u64..).zip(key.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&mix(content.wrapping_add(word << 50)).to_le_bytes());
        }
        let Faults { bad, poison, hang, .. } = self.faults;
        let lot = mix(content ^ 0xFA17) % 1_000;
        key[31] = match () {
            () if lot < bad => 1,
            () if lot < bad + poison => 2,
            () if lot < bad + poison + hang => 3 + (lot % 2) as u8,
            () => 0,
        };
        RowKey(key)
    }

    /// A job for one of the stages; `faulty` says whether its rows may be guilty of something.
    pub(super) fn job(&self, rng: &mut Rng, id: RequestId, now: MonoTime, faulty: bool) -> Job {
        let known = self.stages.len() + usize::from(self.late_stage.is_some());
        let stage = self.stage(StageId(rng.count(0, known - 1) as u32)).expect("one of them");
        let class = rng.range(0, stage.classes - 1);
        let rows = match rng.range(0, 9) {
            0..=5 => 1,
            6..=8 => rng.count(2, 8),
            _ => rng.count(9, 40),
        };
        let row = |rng: &mut Rng| {
            loop {
                let number = rng.popular(stage.keys);
                let key = self.key(stage, class, number);
                if faulty || Truth::of(&key) == Truth::Good {
                    return key;
                }
                let key = self.key(stage, class, stage.keys + rng.range(0, 1 << 20));
                if Truth::of(&key) == Truth::Good {
                    return key;
                }
            }
        };
        let mut class_key = [0; 16];
        class_key[0] = stage.id.0 as u8;
        class_key[1] = class as u8;
        let sharing = match rng.percent(self.all_shared) {
            true => Sharing::ALL,
            false if rng.percent(40) => Sharing::NONE,
            false => {
                Sharing { join: rng.percent(50), lookup: rng.percent(50), store: rng.percent(50) }
            }
        };
        let deadline = rng.percent(self.deadlines).then(|| now.after(rng.micros(0, 20_000)));
        let target = rng.percent(self.deadlines / 2).then(|| now.after(rng.micros(0, 20_000)));
        Job {
            request: id,
            stage: stage.id,
            class: ClassKey(class_key),
            rows: (0..rows).map(|_| row(rng)).collect(),
            row_bytes: rng.pick(&[16, 300, 2_000]),
            deadline,
            target,
            priority: Priority::new(if rng.percent(60) { 5 } else { rng.range(1, 9) }),
            sharing,
            path: None,
        }
    }

    pub(super) fn cancels(&self, rng: &mut Rng) -> bool {
        rng.percent(self.cancels)
    }
}
