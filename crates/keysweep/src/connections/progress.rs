//! A byte stream whose peer must read. Reads have deadlines of their own; without one for writes, a client that asks and does not
//! read keeps its connection for ever.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How slowly a client may read what is written to it.
#[derive(Debug, Clone, Copy)]
pub struct WriteLimits {
    /// How long it may read nothing.
    pub stall: Duration,
    /// In this time, while there is more to write than it has read…
    pub window: Duration,
    /// …it must read so many bytes. A byte now and then ends no stall.
    pub least: usize,
}

impl Default for WriteLimits {
    /// 30 s without a byte, and 1 KiB a second.
    fn default() -> Self {
        Self { stall: Duration::from_secs(30), window: Duration::from_secs(60), least: 60 * 1024 }
    }
}

/// A time in which the client has kept a write waiting.
struct Window {
    began: Instant,
    written: usize,
}

/// A byte stream that fails if its peer reads too slowly.
pub(super) struct Progress<I> {
    io: I,
    limits: WriteLimits,
    /// Since when the write that waits has made no progress.
    stalled_since: Option<Instant>,
    window: Option<Window>,
    /// Wakes the writer when a limit is reached; made when a write waits for the first time.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<I> Progress<I> {
    pub(super) fn new(io: I, limits: WriteLimits) -> Self {
        Self { io, limits, stalled_since: None, window: None, timer: None }
    }

    /// Judges the outcome of a write or a flush.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        written: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let now = Instant::now();
        if let Poll::Ready(done) = outcome {
            let waited_since = self.stalled_since.take();
            if let (Ok(done), Some(window)) = (&done, &mut self.window) {
                window.written += written(done);
                let (ends, written) = (window.began + self.limits.window, window.written);
                if now >= ends {
                    self.window = None;
                    // A write that began to wait later says nothing about this window: there was nothing to read before.
                    if waited_since.is_some_and(|since| since < ends) && written < self.limits.least {
                        return Poll::Ready(Err(too_slow()));
                    }
                }
            }
            return Poll::Ready(done);
        }
        loop {
            let now = Instant::now();
            let stalled_since = *self.stalled_since.get_or_insert(now);
            let window = self.window.get_or_insert(Window { began: now, written: 0 });
            let (stall_ends, window_ends) = (stalled_since + self.limits.stall, window.began + self.limits.window);
            let is_too_slow = now >= window_ends && window.written < self.limits.least;
            if now >= stall_ends || is_too_slow {
                return Poll::Ready(Err(too_slow()));
            }
            if now >= window_ends {
                self.window = None;
                continue;
            }
            let next = stall_ends.min(window_ends);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            // It wakes the writer at the next limit, which the loop judges.
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the client does not read")
}

impl<I: AsyncRead + Unpin> AsyncRead for Progress<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Progress<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(cx, outcome, |written| *written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.judge(cx, outcome, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.judge(cx, outcome, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx);
        self.judge(cx, outcome, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, thread};

    use super::*;

    const WINDOW: Duration = Duration::from_millis(40);

    /// A stream whose peer reads one byte when it is told to.
    struct Peer {
        reads: bool,
    }

    impl AsyncWrite for Peer {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            if self.reads { Poll::Ready(Ok(1)) } else { Poll::Pending }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn write(stream: &mut Progress<Peer>, reads: bool) -> Poll<io::Result<usize>> {
        stream.io.reads = reads;
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, b"some"))).await
    }

    fn stream() -> Progress<Peer> {
        let limits = WriteLimits { stall: Duration::from_secs(60), window: WINDOW, least: 1_000 };
        Progress::new(Peer { reads: false }, limits)
    }

    #[tokio::test]
    async fn a_byte_at_the_end_of_a_window_does_not_save_a_slow_reader() {
        let mut stream = stream();
        assert!(write(&mut stream, false).await.is_pending());
        thread::sleep(WINDOW * 2);
        let late = write(&mut stream, true).await;
        assert!(matches!(&late, Poll::Ready(Err(error)) if error.kind() == ErrorKind::TimedOut), "{late:?}");
    }

    #[tokio::test]
    async fn a_reader_with_nothing_to_read_for_a_while_is_not_slow() {
        let mut stream = stream();
        assert!(write(&mut stream, false).await.is_pending());
        assert!(matches!(write(&mut stream, true).await, Poll::Ready(Ok(1))));
        thread::sleep(WINDOW * 2);
        assert!(matches!(write(&mut stream, true).await, Poll::Ready(Ok(1))), "the service wrote nothing meanwhile");
    }
}
