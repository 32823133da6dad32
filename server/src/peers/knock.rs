//! Whether anyone still listens where a peer was: a killed process is found out at once, a slow one never.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Pauses before each knock, in milliseconds. A process that is killed closes
/// its connections and the socket it listens on one after the other: the first
/// knocks may find that one still open. Whoever is there after the last is
/// taken for alive.
const PAUSES_MS: [u64; 5] = [0, 2, 8, 20, 50];

/// A machine that is there answers a knock far sooner, however busy its
/// processes are: its kernel does.
const KNOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// Whether the machine at `address` says that no process listens there. A
/// machine that says nothing, or cannot be reached, tells nothing of the
/// process.
pub(super) async fn is_deserted(address: &str) -> bool {
    for pause in PAUSES_MS {
        sleep(Duration::from_millis(pause)).await;
        match timeout(KNOCK_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Err(error)) => return error.kind() == ErrorKind::ConnectionRefused,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_listens_is_there_however_silent_and_who_does_not_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound").to_string();
        assert!(!is_deserted(&address).await);
        drop(listener);
        assert!(is_deserted(&address).await);
        assert!(!is_deserted("no address").await);
    }
}
