//! Counts the keys of an RDB file: all of them, those with a TTL, and those that were stale when the file was written.

use std::{collections::BTreeMap, io::BufRead};

use super::{
    reader::{RdbError, RdbReader},
    values::{Writer, skip_module_data, skip_value},
};

/// Counts of one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseCensus {
    /// All keys.
    pub keys: u64,
    /// Keys with a TTL.
    pub with_ttl: u64,
    /// Keys that had expired when the file was written.
    pub stale: u64,
    /// Bytes of the stale keys with their values in the encoding of the file, which is more compact than memory.
    pub stale_bytes: u64,
}

/// Counts of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// When the file was written, seconds since 1970; `None`: the file does not say.
    pub written_at: Option<u64>,
    /// The version of the server that wrote it.
    pub server: Option<String>,
    /// The counts of each database that holds keys.
    pub databases: BTreeMap<u32, DatabaseCensus>,
}

const EOF: u8 = 255;
const SELECT_DATABASE: u8 = 254;
const EXPIRES_AT_SECONDS: u8 = 253;
const EXPIRES_AT_MILLISECONDS: u8 = 252;
const SIZES: u8 = 251;
const AUXILIARY: u8 = 250;
const FREQUENCY: u8 = 249;
const IDLE: u8 = 248;
const MODULE_AUXILIARY: u8 = 247;
const FUNCTION: u8 = 245;
const SLOT_SIZES: u8 = 244;
const SLOT_IMPORT: u8 = 243;

/// Reads a file to its end mark. Keys are stale if they had expired when the file was written, or at `now` (seconds since
/// 1970) where it does not say when that was.
///
/// # Errors
/// The file is no RDB file, is cut short, cannot be read, or has values of an unknown type.
pub fn census(source: impl BufRead, now: u64) -> Result<Census, RdbError> {
    let mut reader = RdbReader::new(source);
    let writer = header(&mut reader)?;
    let mut found = Census::default();
    let (mut database, mut expires_at, mut begun) = (0, None, None);
    loop {
        let at = reader.position();
        let code = reader.byte()?;
        match code {
            EOF => return Ok(found),
            SELECT_DATABASE => database = u32::try_from(reader.length()?).unwrap_or(u32::MAX),
            EXPIRES_AT_SECONDS => {
                expires_at = Some(i64::from(i32::from_le_bytes(reader.bytes()?)) * 1_000);
                begun.get_or_insert(at);
            }
            EXPIRES_AT_MILLISECONDS => {
                expires_at = Some(i64::from_le_bytes(reader.bytes()?));
                begun.get_or_insert(at);
            }
            SIZES => (0..2).try_for_each(|_| reader.length().map(drop))?,
            AUXILIARY => auxiliary(&mut reader, &mut found)?,
            FREQUENCY => reader.skip(1)?,
            IDLE => drop(reader.length()?),
            MODULE_AUXILIARY => {
                (0..3).try_for_each(|_| reader.length().map(drop))?;
                skip_module_data(&mut reader)?;
            }
            FUNCTION => reader.skip_string()?,
            SLOT_SIZES => (0..3).try_for_each(|_| reader.length().map(drop))?,
            SLOT_IMPORT => {
                reader.skip_string()?;
                let ranges = reader.length()?;
                (0..ranges.saturating_mul(2)).try_for_each(|_| reader.length().map(drop))?;
            }
            kind => {
                reader.skip_string()?;
                skip_value(&mut reader, kind, writer)?;
                let written = found.written_at.unwrap_or(now).saturating_mul(1_000);
                let counts = found.databases.entry(database).or_default();
                counts.keys += 1;
                counts.with_ttl += u64::from(expires_at.is_some());
                if expires_at.take().is_some_and(|at| at < 0 || (at as u64) <= written) {
                    counts.stale += 1;
                    counts.stale_bytes += reader.position() - begun.unwrap_or(at);
                }
                begun = None;
            }
        }
    }
}

/// Reads `REDIS` and four digits, or `VALKEY` and three.
fn header<R: BufRead>(reader: &mut RdbReader<R>) -> Result<Writer, RdbError> {
    let magic: [u8; 9] = reader.bytes().map_err(|error| match error {
        RdbError::Truncated(_) => RdbError::NotRdb,
        other => other,
    })?;
    let is_version = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    match (magic.strip_prefix(b"REDIS"), magic.strip_prefix(b"VALKEY")) {
        (Some(version), _) if is_version(version) => Ok(Writer::Redis),
        (_, Some(version)) if is_version(version) => Ok(Writer::Valkey),
        _ => Err(RdbError::NotRdb),
    }
}

fn auxiliary<R: BufRead>(reader: &mut RdbReader<R>, found: &mut Census) -> Result<(), RdbError> {
    let (name, value) = (reader.short_string()?, reader.short_string()?);
    match name.as_deref() {
        Some("ctime") => found.written_at = value.and_then(|value| value.parse().ok()),
        Some("redis-ver") => found.server = value.map(|version| format!("redis {version}")),
        Some("valkey-ver") => found.server = value.map(|version| format!("valkey {version}")),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn file(body: &[&[u8]]) -> Vec<u8> {
        [&b"REDIS0011"[..]].iter().chain(body).chain([&&b"\xff12345678"[..]]).flat_map(|part| part.to_vec()).collect()
    }

    fn expiring(milliseconds: u64, key: &[u8]) -> Vec<u8> {
        [&[EXPIRES_AT_MILLISECONDS][..], &milliseconds.to_le_bytes(), key].concat()
    }

    #[test]
    fn keys_are_counted_by_database_and_by_the_time_of_the_file() {
        let bytes = file(&[
            b"\xfa\x09redis-ver\x067.0.15\xfa\x05ctime\xc2\x00\x10\x00\x00",
            b"\xfe\x00\xfb\x03\x02\x00\x01a\x01b",
            &expiring(4_096_000, b"\x00\x01b\x04long"),
            &expiring(4_096_001, b"\xf8\x05\x00\x01c\x01d"),
            b"\xfe\x03\xfd\x01\x00\x00\x00\xf9\x07\x00\x01d\xc0\x05",
        ]);
        let found = census(&bytes[..], NOW).expect("a census");
        assert_eq!((found.written_at, found.server.as_deref()), (Some(4_096), Some("redis 7.0.15")));
        let first = DatabaseCensus { keys: 3, with_ttl: 2, stale: 1, stale_bytes: 9 + 1 + 2 + 5 };
        let second = DatabaseCensus { keys: 1, with_ttl: 1, stale: 1, stale_bytes: 5 + 2 + 1 + 2 + 2 };
        assert_eq!(found.databases, BTreeMap::from([(0, first), (3, second)]));
    }

    #[test]
    fn a_file_without_a_time_is_read_as_of_now() {
        let key = |milliseconds| file(&[&expiring(milliseconds, b"\x00\x01b\x01a")]);
        let stale = |milliseconds| census(&key(milliseconds)[..], NOW).expect("a census").databases[&0].stale;
        assert_eq!((stale(NOW * 1_000), stale(NOW * 1_000 + 1)), (1, 0));
    }

    #[test]
    fn every_type_of_value_is_skipped_to_its_end() {
        let stream_id = [0u8; 16];
        let word = [0u8; 8];
        let groups = |kind: u8| {
            let mut bytes = b"\x01\x05group\x01\x02".to_vec();
            bytes.extend(if kind == 15 { &b""[..] } else { b"\x03" });
            bytes.extend([&b"\x01"[..], &stream_id, &word, b"\x01\x01\x08consumer", &word].concat());
            bytes.extend(if kind == 21 { &word[..] } else { b"" });
            bytes.extend([&b"\x01"[..], &stream_id].concat());
            bytes
        };
        let stream = |kind: u8| {
            let numbers: &[u8] = if kind == 15 { b"\x01\x02\x03" } else { b"\x01\x02\x03\x04\x05\x06\x07\x08" };
            [&[1, 16][..], &stream_id, b"\x02lp", numbers, &groups(kind)].concat()
        };
        let values: Vec<(u8, Vec<u8>)> = vec![
            (0, b"\x01a".to_vec()),
            (1, b"\x02\x01a\x01b".to_vec()),
            (2, b"\x01\x01a".to_vec()),
            (3, b"\x03\x01a\x031.5\x01b\xfe\x01c\xfd".to_vec()),
            (4, b"\x01\x01f\x01v".to_vec()),
            (5, [&b"\x01\x01a"[..], &word].concat()),
            (
                7,
                [&b"\x81\x00\x00\x00\x00\x00\x00\x00\x01\x01\x05\x02\x06\x03abcd\x04"[..], &word, b"\x05\x01s\x00"]
                    .concat(),
            ),
            (9, b"\x01z".to_vec()),
            (10, b"\x01z".to_vec()),
            (11, b"\x01z".to_vec()),
            (12, b"\x01z".to_vec()),
            (13, b"\x01z".to_vec()),
            (14, b"\x01\x01z".to_vec()),
            (15, stream(15)),
            (16, b"\x01z".to_vec()),
            (17, b"\x01z".to_vec()),
            (18, b"\x01\x02\x01z".to_vec()),
            (19, stream(19)),
            (20, b"\x01z".to_vec()),
            (21, stream(21)),
            (24, [&word[..], b"\x01\x05\x01f\x01v"].concat()),
            (25, [&word[..], b"\x02lp"].concat()),
        ];
        for (kind, value) in values {
            let bytes = file(&[&[kind], b"\x01k", &value, b"\x00\x05after\x01v"]);
            let found = census(&bytes[..], NOW).unwrap_or_else(|error| panic!("type {kind}: {error}"));
            assert_eq!(found.databases[&0].keys, 2, "type {kind}");
            for cut in 9..bytes.len() - 9 {
                let error = census(&bytes[..cut], NOW).expect_err("it is cut short");
                assert!(matches!(error, RdbError::Truncated(_)), "type {kind}, cut at {cut}: {error}");
            }
        }
        let fields = [&b"VALKEY080\x16\x01k\x01\x01f\x01v"[..], &word, b"\xff"].concat();
        assert_eq!(census(&fields[..], NOW).expect("a census").databases[&0].keys, 1, "fields with TTLs of Valkey 9");
    }

    #[test]
    fn records_beside_keys_are_skipped() {
        let bytes = file(&[
            b"\xf5\x04code",
            b"\xf7\x81\x00\x00\x00\x00\x00\x00\x00\x01\x02\x01\x05\x01s\x00",
            b"\xf3\x03job\x02\x00\x05\x07\x09",
            b"\xf4\x05\x01\x01\x00\x01k\x01v",
        ]);
        assert_eq!(census(&bytes[..], NOW).expect("a census").databases[&0].keys, 1);
    }

    #[test]
    fn other_files_are_refused_with_the_position() {
        for bytes in [&b""[..], b"REDIS", b"PK\x03\x04 a zip file", b"REDISabcd", b"VALKEY0x0"] {
            assert!(matches!(census(bytes, NOW), Err(RdbError::NotRdb)), "{bytes:?}");
        }
        let error = census(&file(&[b"\x1f\x01k\x01v"])[..], NOW).expect_err("an unknown type");
        assert!(error.to_string().contains("unknown type 31 at byte 11"), "{error}");
        let error = census(&file(&[b"\x16\x01k\x00"])[..], NOW).expect_err("only Valkey's type 22 is known");
        assert!(matches!(error, RdbError::Unknown { code: 22, .. }));
    }
}
