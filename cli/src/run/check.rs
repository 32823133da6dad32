//! Whether a program can serve: an HTTP request, a TCP connect, or a question of gRPC's health protocol.

use std::fmt;
use std::time::Duration;

use http::{Request, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::wait::span;

/// What may be asked of a program, as `--check` takes it.
const FORMS: &str = "write http://HOST:PORT/PATH, /PATH, tcp, tcp://HOST:PORT, grpc or \
                     grpc://HOST:PORT/SERVICE";

/// Where a URL without a port leads.
const HTTP_PORT: u16 = 80;

/// How a program is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// Answers a GET with a status from 200 to 399.
    Http { address: String, path: String },
    /// Accepts a connection.
    Tcp { address: String },
    /// Answers SERVING for a service; the empty name means the whole server.
    Grpc { address: String, service: String },
}

impl Check {
    /// Reads `text`; where it names no address, `registered` is meant: what
    /// callers connect to.
    ///
    /// # Errors
    /// What is wrong with it, and how it is written.
    pub(crate) fn parse(text: &str, registered: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("--check {text:?}: {why}; {FORMS}"));
        if text.starts_with('/') {
            return Self::parse(&format!("http://{registered}{text}"), registered);
        }
        let address = registered.to_owned();
        match text {
            "tcp" => return Ok(Self::Tcp { address }),
            "grpc" => {
                let service = String::new();
                return Ok(Self::Grpc { address, service });
            }
            _ => {}
        }
        let Ok(uri) = text.parse::<Uri>() else {
            return wrong("it cannot be read");
        };
        let Some(authority) = uri.authority() else {
            return wrong("it cannot be read");
        };
        if authority.as_str().contains('@') {
            return wrong("it has a user name");
        }
        let port = match (uri.port_u16(), uri.scheme_str()) {
            (Some(port), _) if port > 0 => port,
            (None, Some("http")) if authority.as_str() == authority.host() => HTTP_PORT,
            _ => return wrong("it has no port"),
        };
        let address = format!("{}:{port}", authority.host());
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        match uri.scheme_str() {
            Some("http") => Ok(Self::Http {
                address,
                path: path.to_owned(),
            }),
            Some("tcp") if matches!(path, "" | "/") => Ok(Self::Tcp { address }),
            Some("tcp") => wrong("a connect has no path"),
            Some("grpc") => Ok(Self::Grpc {
                address,
                service: path.trim_start_matches('/').to_owned(),
            }),
            Some("https") => wrong("TLS is not spoken"),
            _ => wrong("there is no such check"),
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why the program does not count as able to serve.
    pub(crate) async fn ask(&self, within: Duration) -> Result<(), String> {
        let asked = async {
            match self {
                Self::Http { address, path } => ask_http(address, path).await,
                Self::Tcp { address } => connect(address).await.map(drop),
                Self::Grpc { address, service } => ask_grpc(address, service).await,
            }
        };
        let answered = timeout(within, asked).await;
        let late = |_| Err(format!("no answer within {}", span(within)));
        answered
            .unwrap_or_else(late)
            .map_err(|reason| format!("{self}: {reason}"))
    }
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    let connected = TcpStream::connect(address).await;
    connected.map_err(|error| error.to_string())
}

async fn ask_http(address: &str, path: &str) -> Result<(), String> {
    let request = Request::get(path)
        .header(header::HOST, address)
        .header(header::USER_AGENT, "trimtab-run")
        .header(header::CONNECTION, "close")
        .body(Empty::<&'static [u8]>::new())
        .map_err(|error| error.to_string())?;
    let stream = TokioIo::new(connect(address).await?);
    let (mut sender, connection) = http1::handshake(stream)
        .await
        .map_err(|error| error.to_string())?;
    // It lives as long as the question, and its end may come with the answer.
    // The body is not read.
    let connection = async {
        let _ = connection.await;
        std::future::pending().await
    };
    let status = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(|error| error.to_string())?.status(),
        never = connection => never,
    };
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(format!("answered {status}"))
    }
}

async fn ask_grpc(address: &str, service: &str) -> Result<(), String> {
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    // Its own message only says that there was a transport error.
    drop(connect(address).await?);
    let channel = endpoint
        .connect()
        .await
        .map_err(|_| "does not speak HTTP/2".to_owned())?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    match answer.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(status) => Err(format!("answered {}", status.as_str_name())),
        Err(status) => Err(format!(
            "answered {:?} {:?}",
            status.code(),
            status.message()
        )),
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { address, path } => write!(f, "GET http://{address}{path}"),
            Self::Tcp { address } => write!(f, "connect to {address}"),
            Self::Grpc { address, service } if service.is_empty() => {
                write!(f, "gRPC health of {address}")
            }
            Self::Grpc { address, service } => {
                write!(f, "gRPC health of {service} at {address}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn read(text: &str) -> Result<String, String> {
        Check::parse(text, "10.0.0.7:8080").map(|check| check.to_string())
    }

    #[test]
    fn checks_are_written_as_urls_or_by_their_kind_alone() {
        let same = |text: &str, said: &str| assert_eq!(read(text).as_deref(), Ok(said));
        same("tcp", "connect to 10.0.0.7:8080");
        same("tcp://127.0.0.1:9", "connect to 127.0.0.1:9");
        same("grpc", "gRPC health of 10.0.0.7:8080");
        same(
            "grpc://[::1]:9/demo.Catalog",
            "gRPC health of demo.Catalog at [::1]:9",
        );
        same("/health?deep=1", "GET http://10.0.0.7:8080/health?deep=1");
        same("http://localhost/up", "GET http://localhost:80/up");
        same("http://127.0.0.1:81", "GET http://127.0.0.1:81/");
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        for (text, why) in [
            ("https://127.0.0.1:1/", "TLS"),
            ("tcp://127.0.0.1", "no port"),
            ("grpc://127.0.0.1:0", "no port"),
            ("http://127.0.0.1:", "no port"),
            ("tcp://127.0.0.1:1/x", "no path"),
            ("udp://127.0.0.1:1", "no such check"),
            ("http://me@127.0.0.1:1/", "user name"),
            ("health", "no port"),
            ("", "cannot be read"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(error.contains("grpc://"), "{error}");
        }
    }

    /// Answers one request with `answer`.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap() == 0 {
                    return;
                }
                seen.extend(byte);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    async fn get(answer: &'static str) -> Result<(), String> {
        let address = server(answer).await;
        let check = Check::parse(&format!("http://{address}/health"), "").unwrap();
        check.ask(PATIENCE).await
    }

    #[tokio::test]
    async fn an_http_status_decides() {
        assert_eq!(get("HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert_eq!(
            get("HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n").await,
            Ok(())
        );
        // One that never ends is not waited for.
        let endless = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx";
        assert_eq!(get(endless).await, Ok(()));
        let down = get("HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
        assert!(
            down.unwrap_err()
                .ends_with("answered 503 Service Unavailable")
        );
        assert!(get("SSH-2.0-OpenSSH\r\n\r\n").await.is_err());
        assert!(get("").await.is_err());
    }

    #[tokio::test]
    async fn a_listener_that_says_nothing_passes_a_connect_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ask = async |text: &str, within| {
            let check = Check::parse(text, &address).unwrap();
            check.ask(within).await
        };
        assert_eq!(ask("tcp", PATIENCE).await, Ok(()));
        let short = Duration::from_millis(50);
        for text in ["/", "grpc"] {
            let error = ask(text, short).await.unwrap_err();
            assert!(error.ends_with("no answer within 50 ms"), "{error}");
        }
        drop(listener);
        for text in ["tcp", "/", "grpc"] {
            let error = ask(text, PATIENCE).await.unwrap_err();
            assert!(error.contains("refused"), "{error}");
        }
    }

    #[tokio::test]
    async fn grpc_is_asked_for_one_service_or_for_all() {
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        let ask = async |text: &str| {
            let check = Check::parse(&text.replace("ADDRESS", &address), &address).unwrap();
            check.ask(PATIENCE).await
        };
        assert_eq!(ask("grpc").await, Ok(()));
        let unknown = ask("grpc://ADDRESS/demo.Catalog").await.unwrap_err();
        assert!(unknown.contains("NotFound"), "{unknown}");
        let not_serving = tonic_health::ServingStatus::NotServing;
        reporter
            .set_service_status("demo.Catalog", not_serving)
            .await;
        let down = ask("grpc://ADDRESS/demo.Catalog").await.unwrap_err();
        assert!(down.ends_with("answered NOT_SERVING"), "{down}");
    }
}
