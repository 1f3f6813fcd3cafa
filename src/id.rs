//! Names of things: newtypes that cannot be mixed up and on which no arithmetic is done.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One request that was accepted for scheduling; numbers are never used twice.
    RequestId(u64)
);
number!(
    /// One batch that was handed to a session; numbers are never used twice.
    BatchId(u64)
);
number!(
    /// One warm session; a session that is replaced gets a new number.
    SessionId(u32)
);
number!(
    /// One stage: a graph that runs as one pool. Reloaded content is a new stage.
    StageId(u32)
);
number!(
    /// A device that sessions run on.
    DeviceId(u16)
);
number!(
    /// Who asks: derived from the peer's credentials, never from what the peer says.
    Tenant(u64)
);

/// The content of one row of one stage for one tenant: equal keys mean equal answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(pub [u8; 32]);

/// What rows must have in common to run in one batch: row shapes and the inputs without a batch axis.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassKey(pub [u8; 16]);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..8], f)
    }
}

impl fmt::Debug for ClassKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..8], f)
    }
}
