//! A server that can be killed as a process is: at once, with all its connections.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;

/// Whatever is waited for comes in milliseconds; a busy machine may take long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime of its own, so that dropping it ends everything in it.
pub struct Process {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Process {
    /// Runs `serve` on a free port of loopback, or on the port of a process
    /// that was killed.
    pub async fn start<F, Fut>(address: Option<SocketAddr>, serve: F) -> Self
    where
        F: FnOnce(TcpListenerStream) -> Fut,
        Fut: Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
    {
        let address = address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let begun = Instant::now();
        let listener = loop {
            let bound = std::net::TcpListener::bind(address);
            match bound {
                Ok(listener) => break listener,
                Err(error) if begun.elapsed() > PATIENCE => panic!("{address}: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let incoming = {
            let _in_runtime = runtime.enter();
            TcpListenerStream::new(TcpListener::from_std(listener).unwrap())
        };
        let served = serve(incoming);
        runtime.spawn(async move {
            served.await.unwrap();
        });
        Self {
            runtime: Some(runtime),
            address,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// No goodbye; all its sockets are closed when this returns.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for on a thread that runs another.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE));
            ended.join().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
