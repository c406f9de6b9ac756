//! The lengths and strings of which RDB files consist.

use std::io::{self, BufRead};

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RdbError {
    /// The file begins with something else.
    #[error("not an RDB file: it does not begin with REDIS or VALKEY and a version")]
    NotRdb,
    /// The file ends in the middle.
    #[error("the RDB file ends at byte {0}, before its end mark; copy it again after the save has finished")]
    Truncated(u64),
    /// A type of value or a record that this version does not know: its length is unknown, so that nothing after it can be read.
    #[error(
        "the RDB file has an unknown {what} {code} at byte {at}; files of Redis 6.2 to 8.2 and Valkey 7.2 to 9.1 can be read"
    )]
    Unknown {
        /// `type` or `length`.
        what: &'static str,
        /// Its number.
        code: u8,
        /// Position in the file.
        at: u64,
    },
    /// The file cannot be read.
    #[error("the RDB file cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads a file from its start to its end and counts the bytes.
pub(super) struct RdbReader<R> {
    source: R,
    position: u64,
}

/// A length, or the form of a string that has none.
enum Length {
    Plain(u64),
    Encoded(u8),
}

impl<R: BufRead> RdbReader<R> {
    pub fn new(source: R) -> Self {
        Self { source, position: 0 }
    }

    /// Returns the bytes that were read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn byte(&mut self) -> Result<u8, RdbError> {
        Ok(self.bytes::<1>()?[0])
    }

    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| self.failed(error))?;
        self.position += N as u64;
        Ok(bytes)
    }

    /// Skips bytes without keeping them.
    pub fn skip(&mut self, mut bytes: u64) -> Result<(), RdbError> {
        while bytes > 0 {
            let available = match self.source.fill_buf() {
                Ok(buffer) => buffer.len() as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if available == 0 {
                return Err(RdbError::Truncated(self.position));
            }
            let step = bytes.min(available);
            self.source.consume(step as usize);
            self.position += step;
            bytes -= step;
        }
        Ok(())
    }

    /// Reads a length.
    pub fn length(&mut self) -> Result<u64, RdbError> {
        let at = self.position;
        match self.any_length()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(code) => Err(RdbError::Unknown { what: "length", code, at }),
        }
    }

    /// Skips a string.
    pub fn skip_string(&mut self) -> Result<(), RdbError> {
        let at = self.position;
        match self.any_length()? {
            Length::Plain(length) => self.skip(length),
            Length::Encoded(0) => self.skip(1),
            Length::Encoded(1) => self.skip(2),
            Length::Encoded(2) => self.skip(4),
            // LZF: the compressed length, the original one, the compressed bytes.
            Length::Encoded(3) => {
                let compressed = self.length()?;
                self.length()?;
                self.skip(compressed)
            }
            Length::Encoded(code) => Err(RdbError::Unknown { what: "length", code, at }),
        }
    }

    /// Reads a short string: a name, or a number in decimal or binary. `None`: it is longer, or compressed.
    pub fn short_string(&mut self) -> Result<Option<String>, RdbError> {
        let at = self.position;
        match self.any_length()? {
            Length::Plain(length) if length <= 64 => {
                let mut text = String::new();
                for _ in 0..length {
                    text.push(char::from(self.byte()?));
                }
                Ok(Some(text))
            }
            Length::Plain(length) => self.skip(length).map(|()| None),
            Length::Encoded(0) => Ok(Some(i8::from_le_bytes(self.bytes()?).to_string())),
            Length::Encoded(1) => Ok(Some(i16::from_le_bytes(self.bytes()?).to_string())),
            Length::Encoded(2) => Ok(Some(i32::from_le_bytes(self.bytes()?).to_string())),
            Length::Encoded(3) => {
                let compressed = self.length()?;
                self.length()?;
                self.skip(compressed).map(|()| None)
            }
            Length::Encoded(code) => Err(RdbError::Unknown { what: "length", code, at }),
        }
    }

    fn any_length(&mut self) -> Result<Length, RdbError> {
        let at = self.position;
        let first = self.byte()?;
        let low = u64::from(first & 0x3f);
        Ok(match first >> 6 {
            0 => Length::Plain(low),
            1 => Length::Plain(low << 8 | u64::from(self.byte()?)),
            3 => Length::Encoded(first & 0x3f),
            _ => match first {
                0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.bytes()?))),
                0x81 => Length::Plain(u64::from_be_bytes(self.bytes()?)),
                code => return Err(RdbError::Unknown { what: "length", code, at }),
            },
        })
    }

    fn failed(&self, error: io::Error) -> RdbError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => RdbError::Truncated(self.position),
            _ => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_four_forms() {
        let read = |bytes: &[u8]| RdbReader::new(bytes).length().ok();
        assert_eq!(read(&[0x2a]), Some(42));
        assert_eq!(read(&[0x41, 0x02]), Some(258));
        assert_eq!(read(&[0x80, 0, 1, 0, 0]), Some(65_536));
        assert_eq!(read(&[0x81, 0, 0, 0, 1, 0, 0, 0, 0]), Some(1 << 32));
        assert_eq!((read(&[0xc0]), read(&[0x82, 0]), read(&[0x80, 0])), (None, None, None));
    }

    #[test]
    fn a_string_is_skipped_in_every_form() {
        for bytes in [&b"\x03abc"[..], b"\xc0\x01", b"\xc1\x01\x02", b"\xc2\x01\x02\x03\x04", b"\xc3\x02\x40\xff12"] {
            let mut reader = RdbReader::new(bytes);
            reader.skip_string().expect("a string");
            assert_eq!(reader.position(), bytes.len() as u64, "{bytes:?}");
            let mut cut = RdbReader::new(&bytes[..bytes.len() - 1]);
            assert!(matches!(cut.skip_string(), Err(RdbError::Truncated(_))), "{bytes:?}");
        }
    }
}
