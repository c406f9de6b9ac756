//! Names and values of the keys of a data set.
//!
//! A scan reads only key names, which are binary and up to 512 MB long. The value of a key decides the cost of freeing it.

use redis::Pipeline;

/// Number of elements that one command adds to a collection, so that no command blocks the server for long.
const ELEMENTS_PER_COMMAND: usize = 1_000;

/// Type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    String,
    /// A hash.
    Hash,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A stream.
    Stream,
}

impl Kind {
    /// All types.
    pub const ALL: [Self; 6] = [Self::String, Self::Hash, Self::List, Self::Set, Self::SortedSet, Self::Stream];

    /// Adds the commands that fill `key` with `elements` elements of `bytes` bytes each.
    pub(crate) fn fill(self, pipeline: &mut Pipeline, key: &[u8], elements: usize, bytes: usize) {
        let value = vec![b'v'; bytes];
        // Members of a set must differ.
        let member = |element: usize| [format!("{element}:").as_bytes(), &value].concat();
        let adds = match self {
            Self::String => {
                pipeline.cmd("SET").arg(key).arg(value).ignore();
                return;
            }
            Self::Stream => {
                for element in 1..=elements {
                    let id = format!("{element}-1");
                    pipeline.cmd("XADD").arg(key).arg(id).arg("field").arg(&value).ignore();
                }
                return;
            }
            Self::Hash => "HSET",
            Self::List => "RPUSH",
            Self::Set => "SADD",
            Self::SortedSet => "ZADD",
        };
        for first in (0..elements).step_by(ELEMENTS_PER_COMMAND) {
            let mut command = redis::cmd(adds);
            command.arg(key);
            for element in first..elements.min(first + ELEMENTS_PER_COMMAND) {
                match self {
                    Self::Hash => command.arg(format!("field:{element}")).arg(&value),
                    Self::SortedSet => command.arg(element).arg(member(element)),
                    Self::Set => command.arg(member(element)),
                    _ => command.arg(&value),
                };
            }
            pipeline.add_command(command).ignore();
        }
    }
}

/// Form of key names. Every name begins with `live:` or `stale:` after the data set's prefix, so that a test can identify the
/// remaining keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Short text, such as `stale:17`.
    Plain,
    /// All 256 byte values: line ends, zeroes, invalid UTF-8, and bytes that look like RESP.
    Binary,
    /// 64 KB long.
    Long,
}

impl Names {
    /// Length of [`Names::Long`] in bytes.
    pub const LONG: usize = 64 * 1_024;

    pub(crate) fn name(self, prefix: &str, is_stale: bool, number: u64) -> Vec<u8> {
        let mut name = format!("{prefix}{}:{number}", if is_stale { "stale" } else { "live" }).into_bytes();
        match self {
            Self::Plain => {}
            Self::Binary => {
                name.extend(b":\r\n$-1\r\n*0\r\n");
                name.extend(0..=u8::MAX);
            }
            Self::Long => {
                name.push(b':');
                name.resize(Self::LONG, b'x');
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_names_hold_all_byte_values() {
        let name = Names::Binary.name("", true, 7);
        assert!(name.starts_with(b"stale:7:"));
        assert!((0..=u8::MAX).all(|byte| name.contains(&byte)));
    }

    #[test]
    fn long_names_differ_and_are_64_kb() {
        let (first, second) = (Names::Long.name("", false, 1), Names::Long.name("", false, 11));
        assert_ne!(first, second);
        assert_eq!((first.len(), second.len()), (Names::LONG, Names::LONG));
    }
}
