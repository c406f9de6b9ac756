//! An estimate from an RDB file: a census of a server that need not be reached.

use std::io::BufRead;

use super::report::{Bytes, DatabaseEstimate, Estimate, Finding, Method, PrimaryEstimate};
use crate::{
    rdb::{Census, RdbError, census},
    stale::Share,
};

/// Formats seconds since 1970 as a time in UTC, for people.
fn utc(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "at an impossible time".to_owned(), |time| format!("at {time}"))
}

/// Counts the stale keys of an RDB file as of the time at which it was written. Bytes are those of the file, in which values
/// are more compact than in memory. `now`: seconds since 1970, for a file that does not say when it was written.
///
/// # Errors
/// It is no RDB file, is cut short, cannot be read, or holds values of an unknown type.
pub fn estimate_rdb(source: impl BufRead, name: &str, now: u64) -> Result<Estimate, RdbError> {
    let Census { written_at, server, databases } = census(source, now)?;
    let databases: Vec<DatabaseEstimate> = databases
        .into_iter()
        .map(|(database, counts)| {
            let share = counts.stale as f64 / counts.keys.max(1) as f64;
            let bytes = counts.stale_bytes as f64;
            let finding = Finding::of_keys(counts.keys, counts.with_ttl)
                .with_share(Share::exact(share), Method::Rdb)
                .with_bytes(Some(Bytes { bytes, interval: Some((bytes, bytes)) }));
            DatabaseEstimate { database, finding }
        })
        .collect();
    let finding = match databases.is_empty() {
        true => Finding::default().with_share(Share::default(), Method::Rdb),
        false => Finding::sum(databases.iter().map(|database| &database.finding)),
    };
    let when = written_at.map_or_else(|| "at an unknown time".to_owned(), utc);
    let note = format!(
        "written {when} by {}; bytes in the file's own encoding",
        server.as_deref().unwrap_or("an unknown server")
    );
    let primary = PrimaryEstimate {
        address: name.to_owned(),
        source: name.to_owned(),
        finding,
        databases,
        notes: vec![note],
        ..PrimaryEstimate::default()
    };
    let primaries = vec![primary];
    Ok(Estimate { target: name.to_owned(), total: Finding::total(&primaries), primaries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_an_exact_estimate() {
        let mut bytes = b"REDIS0011\xfa\x05ctime\xc2\x00\x10\x00\x00\xfe\x00".to_vec();
        for key in 0..10u8 {
            if key < 4 {
                bytes.extend([&b"\xfc"[..], &(u64::from(key) + 4_095_998).to_le_bytes()].concat());
            }
            bytes.extend([0, 1, key, 1, b'v']);
        }
        bytes.push(255);
        let found = estimate_rdb(&bytes[..], "dump.rdb", 0).expect("an estimate");
        let total = &found.total;
        assert_eq!((total.keys, total.keys_with_ttl, total.stale_keys), (10, 4, Some(3)));
        assert_eq!((total.share, total.share_low, total.share_high), (Some(0.3), Some(0.3), Some(0.3)));
        assert_eq!((total.share_of_expiring, total.bytes, total.bytes_high), (Some(0.75), Some(42), Some(42)));
        assert_eq!((total.method, total.expiry_rate, total.steady), (Some(Method::Rdb), None, None));
        assert!(found.primaries[0].notes[0].starts_with("written at 1970-01-01T01:08:16Z by an unknown server"));
        let empty = estimate_rdb(&b"REDIS0011\xff"[..], "dump.rdb", 0).expect("an estimate");
        assert_eq!((empty.total.keys, empty.total.share), (0, Some(0.0)));
    }
}
