//! The database that a URL names.

use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Link, LinkError},
    target::Address,
};

/// Refuses a database that the server does not have: scanning it would look like a successful scan of an empty one.
pub(super) fn find_database(link: &mut Link, address: &Address, wanted: u32) -> Result<(), ShardError> {
    let mut selects = |database: u32| match link.call(&[b"SELECT", database.to_string().as_bytes()]) {
        Ok(_) => Ok(true),
        Err(LinkError::Server(error)) if error.is_about_absent_database() => Ok(false),
        // Refused: the checks that follow will report what is lost.
        Err(LinkError::Server(error)) if error.is_refusal() => Ok(true),
        Err(error) => Err(ShardError::at(address, error)),
    };
    // Bisects the number of databases, because CONFIG GET needs a right that a sweep can do without. Database 0 always
    // exists. Only a missing database reaches the end, and then this link is not used again.
    let (mut there, mut absent) = (0, wanted);
    if wanted == 0 || selects(wanted)? {
        return if wanted == 0 { Ok(()) } else { selects(0).map(drop) };
    }
    while absent - there > 1 {
        let middle = there + (absent - there) / 2;
        match selects(middle)? {
            true => there = middle,
            false => absent = middle,
        }
    }
    let has = match absent {
        1 => "database 0 only".to_owned(),
        number => format!("{number} databases, 0 to {there}"),
    };
    let sentence = format!("{address} has {has}, but the URL names database {wanted}; name another, or none for all");
    Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)))
}
