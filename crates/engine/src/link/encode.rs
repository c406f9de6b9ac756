//! Commands in the form that servers read.

/// Appends a command to `out`.
pub(super) fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.push(b'*');
    digits(out, words.len() as u64);
    for word in words {
        out.push(b'$');
        digits(out, word.len() as u64);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn digits(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(Digits::of(value).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal, without allocation: a slice encodes several, thousands of times a second.
pub(super) struct Digits {
    buffer: [u8; 20],
    from: usize,
}

impl Digits {
    pub fn of(mut value: u64) -> Self {
        let mut digits = Self { buffer: [0; 20], from: 20 };
        loop {
            digits.from -= 1;
            digits.buffer[digits.from] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return digits;
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.from..]
    }
}
