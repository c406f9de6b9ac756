//! For any bytes of a peer, in any pieces, the reader never panics, never hangs and never allocates more than the bytes
//! that arrive.
#![no_main]

use keysweep_engine::link::{LinkError, Reader, ReplyLimit, Source};
use libfuzzer_sys::fuzz_target;

/// Returns the input in pieces of a size that the input itself selects.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl Source for Pieces<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        let size = self.size.min(self.bytes.len()).min(buffer.len());
        if size == 0 {
            return Err(LinkError::Closed);
        }
        buffer[..size].copy_from_slice(&self.bytes[..size]);
        self.bytes = &self.bytes[size..];
        Ok(size)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    let source = || Pieces { bytes, size: usize::from(*size) + 1 };
    let mut one = source();
    let mut reader = Reader::default();
    while reader.reply(&mut one, &mut ReplyLimit::ROLE.budget()).is_ok() {}
    let mut other = source();
    let mut reader = Reader::default();
    while reader.scan_reply(&mut other).is_ok() {}
});
