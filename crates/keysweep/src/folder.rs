//! The folder of a file: a new or replaced file survives a power cut only once its folder is synchronized.

use std::{fs::File, io, path::Path};

/// Returns the folder in which a file is; that of a bare name is the current one.
pub fn of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the name of a file durable.
///
/// # Errors
/// The folder cannot be opened or synchronized.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_bare_name_is_the_current_one() {
        for (path, folder) in [("key", "."), ("a/key", "a"), ("/key", "/"), ("./key", ".")] {
            assert_eq!(of(Path::new(path)), Path::new(folder));
            assert_eq!(sync(Path::new(path)).is_ok(), folder != "a", "{path}");
        }
    }
}
