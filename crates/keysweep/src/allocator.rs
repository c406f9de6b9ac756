//! Limits the free memory that the allocator of glibc keeps after a burst of large replies. By default it has up to eight arenas for
//! each core and returns only the free memory at the end of an arena: after replies in a hundred threads the process would keep
//! most of their memory, which counts against the limit of a container. Other C libraries need no configuration.

#[cfg(target_env = "gnu")]
mod glibc {
    use std::ffi::c_int;

    /// Size from which a block is a mapping of its own, which is given back when it is free.
    pub const MMAP_THRESHOLD: c_int = -3;
    /// Most arenas.
    pub const ARENA_MAX: c_int = -8;

    // SAFETY: both change only how memory is kept that is free, and may be called at any time, from any thread.
    #[allow(unsafe_code)]
    unsafe extern "C" {
        pub safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
        pub safe fn malloc_trim(pad: usize) -> c_int;
    }
}

/// Has the threads of this process share a few arenas, and large blocks be given back at once. For the time before the first thread
/// begins: arenas that exist stay.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    {
        // Zero would mean that a value is not accepted, and that all stays as it is.
        glibc::mallopt(glibc::ARENA_MAX, 4);
        glibc::mallopt(glibc::MMAP_THRESHOLD, 128 << 10);
    }
}

/// Gives the memory that is free back to the system. Takes milliseconds, in which other threads may wait for memory.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    glibc::malloc_trim(0);
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::{fs, thread};

    use super::*;

    /// Returns the memory of this process that is not that of files, bytes.
    fn held() -> u64 {
        let status = fs::read_to_string("/proc/self/status").expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a field");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    #[test]
    fn memory_between_what_is_still_used_is_given_back() {
        // Small texts, of which one in a thousand stays: the free ones are not at the end of the arena.
        let kept = thread::spawn(|| {
            let texts: Vec<String> = (0..200_000).map(|number| format!("{number:0200}")).collect();
            texts.into_iter().step_by(1_000).collect::<Vec<_>>()
        });
        let kept = kept.join().expect("no panic");
        let before = held();
        give_back();
        let after = held();
        assert!(after + (20 << 20) < before, "{before} bytes before and {after} after, of {} texts", kept.len());
    }
}
