//! Ids: our own, and those that an operator brings along from somewhere else.

use rand::{TryRng, rngs::SysRng};

use super::FleetError;

/// A new id: 32 hexadecimal digits, drawn at random.
pub fn new_id() -> String {
    hex::encode(random::<16>())
}

/// Whether this is an id: 32 hexadecimal digits, or a UUID in its usual form.
pub fn is_id(text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.len() {
        32 => is_hex(text),
        36 => text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(is_hex),
        _ => false,
    }
}

/// The id that was given, if it is one; a new one where none was given.
pub(super) fn given_or_new(field: &'static str, given: Option<&str>) -> Result<String, FleetError> {
    match given {
        None => Ok(new_id()),
        Some(id) if is_id(id) => Ok(id.to_owned()),
        Some(other) => Err(FleetError::Invalid {
            field,
            value: other.chars().take(80).collect(),
            remedy: "give 32 hexadecimal digits or a UUID (8-4-4-4-12), or leave it out",
        }),
    }
}

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without it no key and no nonce is safe, and nothing here could go on.
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_is_an_id_and_no_other() {
        let (one, other) = (new_id(), new_id());
        assert!(is_id(&one), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn hexadecimal_digits_and_uuids_are_ids_and_nothing_else_is() {
        for id in ["0123456789abcdef0123456789ABCDEF", "6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12"] {
            assert_eq!(given_or_new("id", Some(id)).expect("an id"), id, "as it was given");
        }
        for other in [
            "",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdeg",
            "6c9f1a3e5d0b-4f27-9a64-0d5c3e9b7a12-",
            "6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a1g",
            "６ｃ9f1a3e5d0b4f279a640d5c3e9b7a1",
            "{project_id}",
        ] {
            let error = given_or_new("project id", Some(other)).expect_err(other).to_string();
            assert!(error.contains("project id") && error.contains(&format!("{other:?}")), "{error}");
            assert!(error.contains("32 hexadecimal digits"), "{error}");
        }
    }
}
