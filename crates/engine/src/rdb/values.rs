//! Values in RDB files, skipped by their types.

use std::io::BufRead;

use super::reader::{RdbError, RdbReader};

/// Which server wrote a file: the two have given the same number to different types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    Redis,
    Valkey,
}

/// Bytes of the ID of an entry in a stream.
const STREAM_ID: u64 = 16;
/// Bytes of a time in milliseconds, and of a binary double.
const WORD: u64 = 8;

/// Skips the value of a key.
pub(super) fn skip_value<R: BufRead>(reader: &mut RdbReader<R>, kind: u8, writer: Writer) -> Result<(), RdbError> {
    let at = reader.position();
    match (kind, writer) {
        // A string, or a small collection in one string: zipmap, ziplist, intset, listpack.
        (0 | 9..=13 | 16 | 17 | 20, _) => reader.skip_string(),
        // Lists and sets.
        (1 | 2 | 14, _) => repeat(reader, RdbReader::skip_string),
        (3, _) => repeat(reader, |reader| {
            reader.skip_string()?;
            skip_old_score(reader)
        }),
        (4, _) => repeat(reader, skip_pair),
        (5, _) => repeat(reader, |reader| {
            reader.skip_string()?;
            reader.skip(WORD)
        }),
        (7, _) => {
            reader.length()?;
            skip_module_data(reader)
        }
        (18, _) => repeat(reader, |reader| {
            reader.length()?;
            reader.skip_string()
        }),
        (15 | 19 | 21, _) => skip_stream(reader, kind),
        // A hash whose fields have TTLs.
        (22, Writer::Valkey) => repeat(reader, |reader| {
            skip_pair(reader)?;
            reader.skip(WORD)
        }),
        (24, Writer::Redis) => {
            reader.skip(WORD)?;
            repeat(reader, |reader| {
                reader.length()?;
                skip_pair(reader)
            })
        }
        (25, Writer::Redis) => {
            reader.skip(WORD)?;
            reader.skip_string()
        }
        (code, _) => Err(RdbError::Unknown { what: "type", code, at: at.saturating_sub(1) }),
    }
}

/// Skips the data of a module, which says of each part what it is.
pub(super) fn skip_module_data<R: BufRead>(reader: &mut RdbReader<R>) -> Result<(), RdbError> {
    loop {
        let at = reader.position();
        match reader.length()? {
            0 => return Ok(()),
            1 | 2 => drop(reader.length()?),
            3 => reader.skip(4)?,
            4 => reader.skip(WORD)?,
            5 => reader.skip_string()?,
            code => return Err(RdbError::Unknown { what: "type", code: code.min(255) as u8, at }),
        }
    }
}

/// Skips a number of elements that a length announces.
fn repeat<R: BufRead>(
    reader: &mut RdbReader<R>,
    element: impl Fn(&mut RdbReader<R>) -> Result<(), RdbError>,
) -> Result<(), RdbError> {
    let elements = reader.length()?;
    (0..elements).try_for_each(|_| element(reader))
}

fn skip_pair<R: BufRead>(reader: &mut RdbReader<R>) -> Result<(), RdbError> {
    reader.skip_string()?;
    reader.skip_string()
}

/// Skips a score in decimal; three lengths stand for what is not a finite number.
fn skip_old_score<R: BufRead>(reader: &mut RdbReader<R>) -> Result<(), RdbError> {
    match reader.byte()? {
        253..=255 => Ok(()),
        length => reader.skip(u64::from(length)),
    }
}

/// Skips a stream. Types 19 (Redis 7.0) and 21 (Redis 7.2) have added numbers.
fn skip_stream<R: BufRead>(reader: &mut RdbReader<R>, kind: u8) -> Result<(), RdbError> {
    let lengths = |reader: &mut RdbReader<R>, count: u32| (0..count).try_for_each(|_| reader.length().map(drop));
    repeat(reader, skip_pair)?;
    // Entries and the last ID; then the first ID, the highest deleted one and the entries ever added.
    lengths(reader, if kind == 15 { 3 } else { 8 })?;
    repeat(reader, |reader| {
        reader.skip_string()?;
        // The last ID that was delivered; then the entries read.
        lengths(reader, if kind == 15 { 2 } else { 3 })?;
        repeat(reader, |reader| {
            reader.skip(STREAM_ID + WORD)?;
            reader.length().map(drop)
        })?;
        repeat(reader, |reader| {
            reader.skip_string()?;
            // When the consumer was seen; then when it was active.
            reader.skip(if kind == 21 { 2 * WORD } else { WORD })?;
            repeat(reader, |reader| reader.skip(STREAM_ID))
        })
    })
}
