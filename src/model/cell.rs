//! Something known of a model that is replaced whole while others read it.

use parking_lot::RwLock;
use std::sync::Arc;

/// What is known now, if anything; clones are of the same cell.
#[derive(Debug)]
pub struct Cell<T>(Arc<RwLock<Option<Arc<T>>>>);

impl<T> Cell<T> {
    /// What is known now.
    #[must_use]
    pub fn get(&self) -> Option<Arc<T>> {
        self.0.read().clone()
    }

    /// Replaces it; gives back what was known before.
    pub fn set(&self, value: Option<T>) -> Option<Arc<T>> {
        std::mem::replace(&mut *self.0.write(), value.map(Arc::new))
    }
}

impl<T> Clone for Cell<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Cell<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
