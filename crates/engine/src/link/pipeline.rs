//! Many commands in one round trip, for callers that write bulk data. A scan needs none: each of its slices is one
//! transaction.

use super::{
    connection::Link,
    encode::encode,
    error::{LinkError, ServerError},
    reply::Reply,
};

/// Commands to be sent in one write.
#[derive(Debug, Default)]
pub struct Pipeline {
    bytes: Vec<u8>,
    commands: usize,
}

impl Pipeline {
    /// Appends a command.
    pub fn add(&mut self, words: &[&[u8]]) {
        encode(&mut self.bytes, words);
        self.commands += 1;
    }
}

impl Link {
    /// Sends all commands of a pipeline and discards their replies, within the timeout of one reply.
    ///
    /// The link reads no reply while it writes. A pipeline whose replies exceed the output buffers of the server would
    /// block both sides until the timeout: a few thousand commands with short replies are fine.
    ///
    /// # Errors
    /// The connection failed, or the server answered with an error. All replies are read before an error reply is
    /// returned, so that the link stays usable.
    pub fn run(&mut self, pipeline: &Pipeline) -> Result<(), LinkError> {
        let refused = self.replies(pipeline)?.into_iter().find_map(|reply| match reply {
            Reply::Error(text) => Some(text),
            _ => None,
        });
        refused.map_or(Ok(()), |text| Err(LinkError::Server(ServerError(text))))
    }

    /// Sends all commands of a pipeline and returns their replies, errors among them. See [`Link::run`].
    ///
    /// # Errors
    /// The connection failed.
    pub fn replies(&mut self, pipeline: &Pipeline) -> Result<Vec<Reply>, LinkError> {
        self.out.clear();
        self.out.extend_from_slice(&pipeline.bytes);
        self.send()?;
        (0..pipeline.commands).map(|_| self.reader.reply(&mut self.wire)).collect()
    }
}
