//! Many commands in one round trip: what a scan asks before its first slice, and bulk data of other callers.

use std::vec;

use super::{
    budget::ReplyLimit,
    connection::{Link, optional},
    encode::encode,
    error::{LinkError, ServerError},
    info::Info,
    memory::Held,
    reply::Reply,
};

/// Commands to be sent in one write.
#[derive(Debug, Default)]
pub struct Pipeline {
    bytes: Vec<u8>,
    /// The limit of the reply to each command.
    limits: Vec<ReplyLimit>,
}

impl Pipeline {
    /// Appends a command.
    pub fn add(&mut self, words: &[&[u8]]) {
        encode(&mut self.bytes, words);
        self.limits.push(ReplyLimit::of(words));
    }

    /// Appends an INFO for each of these sections: servers before Redis 7.0 take one at a time.
    pub(crate) fn add_info(&mut self, sections: &[&str]) {
        sections.iter().for_each(|section| self.add(&[b"INFO", section.as_bytes()]));
    }

    /// Appends a CONFIG GET for each of these settings, by their exact names: a wildcard does not show hidden settings.
    pub(crate) fn add_settings(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.add(&[b"CONFIG", b"GET", name.as_bytes()]));
    }
}

/// Replies to a pipeline, to be taken in the order of its commands.
#[derive(Debug)]
pub(crate) struct Replies {
    replies: vec::IntoIter<Reply>,
    memory: Held,
}

impl Replies {
    /// Takes the reply to one command; an error reply is [`LinkError::Server`].
    pub fn take(&mut self) -> Result<Reply, LinkError> {
        match self.replies.next() {
            Some(Reply::Error(text)) => Err(LinkError::Server(ServerError(text))),
            Some(reply) => Ok(reply),
            None => Err(LinkError::Protocol("fewer replies than commands")),
        }
    }

    /// Takes the reply to a command that the caller can do without. `None`: the server refuses it, in whatever words.
    pub fn optional(&mut self) -> Result<Option<Reply>, LinkError> {
        optional(self.take())
    }

    /// Takes the replies to INFO for so many sections; `None` where INFO is refused.
    pub fn info(&mut self, sections: usize) -> Result<Option<Info>, LinkError> {
        let (mut text, mut refused) = (String::new(), None);
        for _ in 0..sections {
            match self.take() {
                // The path of a file in it may have another encoding.
                Ok(Reply::Bulk(bytes)) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(_) => {}
                Err(LinkError::Server(error)) => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if error.is_refusal() => Ok(None),
            Some(error) => Err(LinkError::Server(error)),
            None => Info::read(&text).within(&self.memory).map(Some),
        }
    }

    /// Takes the reply to a CONFIG GET; `None` where CONFIG is refused or the setting unknown.
    pub fn setting(&mut self) -> Result<Option<String>, LinkError> {
        match self.take() {
            Ok(Reply::Array(pair)) => Ok(pair.get(1).and_then(Reply::text).map(str::to_owned)),
            Ok(_) | Err(LinkError::Server(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Link {
    /// Returns the fields of `INFO sections…`, in one round trip; `None` where INFO is refused.
    pub fn info(&mut self, sections: &[&str]) -> Result<Option<Info>, LinkError> {
        let mut pipeline = Pipeline::default();
        pipeline.add_info(sections);
        self.ask(&pipeline)?.info(sections.len())
    }

    /// Sends all commands of a pipeline and discards their replies, within the timeout of one reply.
    ///
    /// The link reads no reply while it writes. A pipeline whose replies exceed the output buffers of the server would
    /// block both sides until the timeout: a few thousand commands with short replies are fine.
    ///
    /// # Errors
    /// The connection failed, or the server answered with an error. All replies are read before an error reply is
    /// returned, so that the link stays usable.
    pub fn run(&mut self, pipeline: &Pipeline) -> Result<(), LinkError> {
        self.send_pipeline(pipeline)?;
        let mut refused = None;
        for _ in &pipeline.limits {
            if let Reply::Error(text) = self.read_reply(&mut ReplyLimit::SHORT.budget())? {
                refused.get_or_insert(text);
            }
        }
        refused.map_or(Ok(()), |text| Err(LinkError::Server(ServerError(text))))
    }

    /// Sends all commands of a pipeline and returns their replies, errors among them, each within its limit and all within one.
    /// See [`Link::run`].
    ///
    /// # Errors
    /// The connection failed.
    pub fn replies(&mut self, pipeline: &Pipeline) -> Result<Vec<Reply>, LinkError> {
        self.send_pipeline(pipeline)?;
        // All replies are held at the same time.
        let mut all = ReplyLimit::TOPOLOGY.budget();
        pipeline.limits.iter().map(|limit| all.within(*limit, |budget| self.read_reply(budget))).collect()
    }

    fn send_pipeline(&mut self, pipeline: &Pipeline) -> Result<(), LinkError> {
        self.out.clear();
        self.out.extend_from_slice(&pipeline.bytes);
        self.send()
    }

    /// Sends all commands of a pipeline. Returns their replies. See [`Link::run`].
    pub(crate) fn ask(&mut self, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        let replies = self.replies(pipeline)?.into_iter();
        Ok(Replies { replies, memory: self.reader.hand_over() })
    }
}
