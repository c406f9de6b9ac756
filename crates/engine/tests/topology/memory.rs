//! The program around a holder, whose records end with it.

use std::sync::{Mutex, PoisonError};

use keysweep_engine::{Address, BaselineRecord, BaselineRegistry, Change, HolderHost};

/// Keeps records and changes in memory.
#[derive(Default)]
pub struct Memory {
    records: Mutex<Vec<BaselineRecord>>,
    changes: Mutex<Vec<Change>>,
}

impl Memory {
    /// Returns the records of all servers.
    pub fn records(&self) -> Vec<BaselineRecord> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what was changed, the first change first.
    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl BaselineRegistry for Memory {
    fn find(&self, address: &Address) -> Result<Option<BaselineRecord>, String> {
        Ok(self.records().into_iter().find(|record| record.address == *address))
    }

    fn unrestored(&self, target: &str) -> Result<Vec<BaselineRecord>, String> {
        Ok(self.records().into_iter().filter(|record| record.target == target && !record.is_restored).collect())
    }

    fn save(&self, record: &BaselineRecord) -> Result<(), String> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.retain(|one| one.address != record.address);
        records.push(record.clone());
        Ok(())
    }
}

impl HolderHost for Memory {
    fn registry(&self) -> &dyn BaselineRegistry {
        self
    }

    fn may_write(&self) -> bool {
        true
    }

    fn scan(&self, _: &Address) {}

    fn is_scanning(&self, _: &Address) -> bool {
        false
    }

    fn changed(&self, change: &Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change.clone());
    }
}
