//! Random bytes of the operating system: for ids, keys and tokens.

use rand::{TryRng, rngs::SysRng};

/// Returns a new id: 32 hexadecimal digits, drawn at random.
pub fn new_id() -> String {
    hex::encode(bytes::<16>())
}

/// Returns random bytes that cannot be predicted.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without them no key and no nonce is safe, so the process cannot continue.
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::is_id;

    #[test]
    fn every_new_id_is_another_one() {
        let (one, other) = (new_id(), new_id());
        assert!(is_id(&one), "{one}");
        assert_ne!(one, other);
    }
}
