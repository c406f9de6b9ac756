//! One key of a data set: how it is named and what it holds.
//!
//! A sweep reads nothing but names, and must not trip over any: names are binary and up to 512 MB. What a
//! key holds decides what freeing it costs the server.

use redis::Pipeline;

/// Elements that one command adds to a collection: more would be a command that blocks the server for long.
const ELEMENTS_PER_COMMAND: usize = 1_000;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    String,
    /// A hash of as many fields as the data set's `elements`.
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
    /// All of them.
    pub const ALL: [Self; 6] = [Self::String, Self::Hash, Self::List, Self::Set, Self::SortedSet, Self::Stream];

    /// Adds the commands that fill `key`: with `elements` elements, their values of `bytes` bytes each.
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

/// How keys are named. Every name begins with `live:` or `dead:` (after the data set's prefix), so that a test
/// can tell what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Short text, such as `dead:17`.
    Plain,
    /// With all 256 byte values in it: ends of lines, zeroes, what is no UTF-8, and what looks like RESP.
    Binary,
    /// 64 KB long.
    Long,
}

impl Names {
    /// The length of [`Names::Long`] in bytes.
    pub const LONG: usize = 64 * 1_024;

    pub(crate) fn name(self, prefix: &str, is_dead: bool, number: u64) -> Vec<u8> {
        let mut name = format!("{prefix}{}:{number}", if is_dead { "dead" } else { "live" }).into_bytes();
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
        assert!(name.starts_with(b"dead:7:"));
        assert!((0..=u8::MAX).all(|byte| name.contains(&byte)));
    }

    #[test]
    fn long_names_differ_and_are_64_kb() {
        let (first, second) = (Names::Long.name("", false, 1), Names::Long.name("", false, 11));
        assert_ne!(first, second);
        assert_eq!((first.len(), second.len()), (Names::LONG, Names::LONG));
    }
}
