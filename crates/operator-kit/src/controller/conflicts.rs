//! Conflicts in a row: one is a lost race, many are a cause that lasts.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// From so many conflicts in a row on, the object is not tried again at once, and the conflict is told: another client writes the same object
/// again and again, or a watch does not show what the API server has.
pub const LASTING_CONFLICT: u32 = 10;

/// What a conflict that lasts means, for its message.
pub const LASTING_CONFLICT_ADVICE: &str = "this happens at every try: another client changes the same object again and again, or this operator's watch of \
    it is behind. To see who writes it, kubectl get that object with -o yaml --show-managed-fields";

/// Counts the conflicts in a row of each object, under a key such as its UID.
#[derive(Debug, Default)]
pub struct Conflicts(Mutex<HashMap<String, u32>>);

impl Conflicts {
    /// Records how a try ended, and returns whether the conflict lasts.
    pub fn record(&self, key: &str, is_conflict: bool) -> bool {
        let mut all = self.lock();
        if !is_conflict {
            all.remove(key);
            return false;
        }
        let count = all.entry(key.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count >= LASTING_CONFLICT
    }

    /// The object under this key is gone.
    pub fn forget(&self, key: &str) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_last_when_nothing_ends_their_row() {
        let conflicts = Conflicts::default();
        let first_lasting = || (1..100).find(|_| conflicts.record("a", true));
        assert_eq!(first_lasting(), Some(LASTING_CONFLICT));
        assert!(conflicts.record("a", true) && !conflicts.record("b", true));
        assert!(!conflicts.record("a", false));
        assert_eq!(first_lasting(), Some(LASTING_CONFLICT));
        conflicts.forget("a");
        assert!(!conflicts.record("a", true));
    }
}
