//! Replies of a server, as values.

/// Most keys that a count is taken for. A server would need terabytes for as many; a larger number is an absurd one, and sums
/// of absurd ones would overflow.
const MAX_KEYS: u64 = 1 << 36;

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3…`
    Bulk(Vec<u8>),
    /// `$-1` or `*-1`
    Nil,
    /// `*2…`
    Array(Vec<Reply>),
}

impl Reply {
    /// Returns the text of a simple or bulk string in UTF-8; `None` for any other reply.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(text) => Some(text),
            Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Returns the value of an integer reply, or of a string in decimal.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            other => other.text()?.parse().ok(),
        }
    }

    /// Returns the time in a reply to TIME, microseconds since 1970.
    pub fn time(&self) -> Option<i64> {
        let Self::Array(parts) = self else { return None };
        parts.first()?.integer()?.checked_mul(1_000_000)?.checked_add(parts.get(1)?.integer()?)
    }

    /// Returns the value as a number of keys, 0 to 2^36.
    pub fn keys(&self) -> Option<u64> {
        self.integer().map(|keys| (keys.max(0) as u64).min(MAX_KEYS))
    }
}

/// The reply to a SCAN, without the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanReply {
    /// The next cursor and how many keys were returned.
    Page {
        /// 0: the iteration is complete.
        cursor: u64,
        /// Keys returned, repeats included.
        keys: u64,
    },
    /// The server's error.
    Error(String),
}

/// Header of an array whose elements are read one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArrayHeader {
    /// This many elements follow.
    Length(u64),
    /// A null array: a transaction that was not executed.
    Nil,
    /// The server's error instead of an array.
    Error(String),
}
