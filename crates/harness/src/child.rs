//! Kills the processes that a test starts itself when the test ends, also after a failed assertion: a process left running takes
//! CPU time from every later test.

use std::{
    ops::{Deref, DerefMut},
    process::Child,
};

/// A child process. Killed on drop.
#[derive(Debug)]
pub struct KilledOnDrop(pub Child);

impl Deref for KilledOnDrop {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for KilledOnDrop {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // An error means that it has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
