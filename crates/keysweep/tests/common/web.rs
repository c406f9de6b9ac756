//! A server that is neither Redis nor Valkey.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

/// A web server that answers every request with 400, until it is dropped.
pub struct Web {
    port: u16,
    answering: Option<JoinHandle<()>>,
}

impl Web {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answering = thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut word = [0; 64];
                let read = stream.read(&mut word).unwrap_or(0);
                if word[..read].starts_with(b"END") {
                    break;
                }
                // A client that has hung up needs no answer.
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        Self { port, answering: Some(answering) }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let mut end = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        end.write_all(b"END").expect("it reads");
        self.answering.take().map(JoinHandle::join);
    }
}
