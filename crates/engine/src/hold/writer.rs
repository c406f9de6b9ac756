//! Writes one setting of a server: compares, sets, reads back. Nothing else is ever written, and no configuration file.

use super::{
    action::Outcome,
    baseline::{Baseline, Parameter},
    observation::setting,
    sentences::setting as shown,
};
use crate::{
    link::{Link, LinkError},
    stale::CycleSetting,
};

/// What a server says to CONFIG SET.
enum Answer {
    Set(CycleSetting),
    Refused(String),
    /// It was set, and cannot be read back.
    Unread,
}

/// Writes a value, if the settings are still those that the decision rests on. `record` is called before anything is written
/// and returns when the value is durable.
pub fn write(
    link: &mut Link,
    from: CycleSetting,
    parameter: Parameter,
    value: u32,
    mut record: impl FnMut(Parameter, u32) -> Result<(), String>,
) -> Outcome {
    let mut written = || -> Result<Outcome, LinkError> {
        match setting(link)? {
            Some(found) if found == from => {}
            Some(found) => {
                return Ok(Outcome::Failed(format!("{} was set meanwhile; nothing was written", shown(found))));
            }
            None => return Ok(Outcome::Failed("CONFIG GET is refused; grant +config|get".into())),
        }
        if let Err(cause) = record(parameter, value) {
            return Ok(Outcome::Failed(format!("the change cannot be recorded ({cause}); nothing was written")));
        }
        let found = match set(link, parameter, value)? {
            Answer::Set(found) => found,
            Answer::Refused(cause) => return Ok(Outcome::Failed(cause)),
            Answer::Unread => return Ok(Outcome::Unknown),
        };
        if found == parameter.with(from, value) {
            return Ok(Outcome::Done(found));
        }
        // A server may clamp what it is given. What it made of it must be known, so that it can be restored.
        let recorded = record(parameter, parameter.of(found));
        let restored = set(link, parameter, parameter.of(from))?;
        let directive = parameter.directive();
        let cause = format!("the server made {} of {directive} {value}, which was put back", parameter.of(found));
        Ok(match (recorded, restored) {
            (Ok(()), Answer::Set(found)) if found == from => Outcome::PutBack(cause),
            _ => Outcome::Unknown,
        })
    };
    written().unwrap_or(Outcome::Unknown)
}

/// Restores the server's own value of each setting that keysweep wrote. A value of others is left.
pub fn restore(link: &mut Link, baseline: &Baseline) -> Result<Outcome, LinkError> {
    let Some(mut found) = setting(link)? else {
        return Ok(Outcome::Failed("CONFIG GET is refused; grant +config|get".into()));
    };
    for parameter in Parameter::ALL {
        let (value, own) = (parameter.of(found), baseline.values(parameter).baseline);
        if value == own || !baseline.knows(parameter, value) {
            continue;
        }
        match set(link, parameter, own)? {
            Answer::Set(now) if parameter.of(now) == own => found = now,
            Answer::Set(now) => {
                let directive = parameter.directive();
                let value = parameter.of(now);
                return Ok(Outcome::Failed(format!("the server made {value} of {directive} {own}")));
            }
            Answer::Refused(cause) => return Ok(Outcome::Failed(cause)),
            Answer::Unread => return Ok(Outcome::Failed("CONFIG GET is refused; grant +config|get".into())),
        }
    }
    Ok(Outcome::Done(found))
}

/// Sets one value, and reads back what the server made of it. One parameter in each command: Redis 6.2 takes no more.
fn set(link: &mut Link, parameter: Parameter, value: u32) -> Result<Answer, LinkError> {
    let directive = parameter.directive();
    match link.call(&[b"CONFIG", b"SET", directive.as_bytes(), value.to_string().as_bytes()]) {
        Ok(_) => {}
        Err(LinkError::Server(error)) if error.is_refusal() => {
            let remedy = "grant +config|set, or raise the parameter in the provider's own settings";
            return Ok(Answer::Refused(format!("CONFIG SET {directive} is refused ({error}); {remedy}")));
        }
        Err(error) => return Err(error),
    }
    match setting(link)? {
        Some(found) => Ok(Answer::Set(found)),
        None => Ok(Answer::Unread),
    }
}
