//! The clock of a process, stepped while it runs: a library that is loaded before the C library and moves CLOCK_REALTIME. Clocks of
//! whole machines cannot be stepped in a test, and time namespaces leave this clock alone.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    offset = page == MAP_FAILED ? 0 : page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real) begin();
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && offset) time->tv_sec += *offset;
    return result;
}
"#;

/// The clock of the processes that are started with [`SteppedClock::environment`].
pub struct SteppedClock {
    library: PathBuf,
    offset: PathBuf,
}

impl SteppedClock {
    /// Compiles the library into this folder. The clock is right at first.
    ///
    /// # Panics
    /// If there is no C compiler, which Rust needs as well.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let (source, library, offset) = (folder.join("clock.c"), folder.join("clock.so"), folder.join("clock.offset"));
        fs::write(&source, SOURCE).expect("the folder can be written to");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source)
            .args(["-ldl"])
            .status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc cannot compile {}", source.display());
        fs::write(&offset, 0i64.to_ne_bytes()).expect("the folder can be written to");
        Self { library, offset }
    }

    /// Returns the environment of a process with this clock.
    #[must_use]
    pub fn environment(&self) -> [(&str, &str); 2] {
        [
            ("LD_PRELOAD", self.library.to_str().expect("a path in UTF-8")),
            ("STEPPED_CLOCK", self.offset.to_str().expect("a path in UTF-8")),
        ]
    }

    /// Steps the clock to so many seconds ahead of the machine's.
    pub fn step(&self, seconds: i64) {
        // Written in place: processes have the file mapped.
        let file = fs::File::options().write(true).open(&self.offset).expect("the file is there");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("it can be written to");
    }
}
