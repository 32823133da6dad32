//! A program to be supervised: does what a test tells it over a connection, and says what happens to it.
//!
//! It is this test binary again, so that nothing else needs to be built.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Where the test listens for its stand-ins.
const CONTROL: &str = "STAND_IN_CONTROL";

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command line of a stand-in.
pub(crate) fn command() -> Vec<String> {
    let myself = env::current_exe().unwrap();
    let mut command = vec![myself.to_str().unwrap().to_owned()];
    let arguments = ["--exact", "stand_in::play", "--ignored", "--nocapture"];
    command.extend(arguments.map(str::to_owned));
    command
}

/// Where stand-ins come in.
pub(crate) struct Control {
    listener: TcpListener,
}

/// One stand-in, as the test sees it.
pub(crate) struct StandIn {
    pub(crate) process: i32,
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Control {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    /// What the supervisor's environment must have.
    pub(crate) fn environment(&self) -> (&'static str, String) {
        (CONTROL, self.listener.local_addr().unwrap().to_string())
    }

    /// The next one that is started.
    pub(crate) async fn stand_in(&self) -> StandIn {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted.expect("it is started").unwrap();
        let (reader, writer) = stream.into_split();
        let mut stand_in = StandIn {
            process: 0,
            lines: BufReader::new(reader).lines(),
            writer,
        };
        let first = stand_in.line().await;
        stand_in.process = first.strip_prefix("started ").unwrap().parse().unwrap();
        stand_in
    }

    /// Has another one been started?
    pub(crate) async fn is_quiet(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.listener.accept() => false,
            () = std::future::ready(()) => true,
        }
    }
}

impl StandIn {
    /// The next thing it says.
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("it says something").unwrap().expect("it lives")
    }

    /// Waits until it says `wanted`, whatever it says before.
    pub(crate) async fn until(&mut self, wanted: &str) {
        let said = async { while self.line().await != wanted {} };
        let said = timeout(PATIENCE, said).await;
        said.unwrap_or_else(|_| panic!("it does not say {wanted:?}"));
    }

    pub(crate) async fn tell(&mut self, order: &str) {
        let line = format!("{order}\n");
        self.writer.write_all(line.as_bytes()).await.unwrap();
    }

    /// Tells it something, and gives what it says to that.
    pub(crate) async fn ask(&mut self, order: &str) -> String {
        self.tell(order).await;
        self.line().await
    }

    /// What it has said up to now: nothing that has reached it is missing.
    pub(crate) async fn said(&mut self) -> Vec<String> {
        self.tell("ping").await;
        let mut said = Vec::new();
        loop {
            match self.line().await {
                line if line == "pong" => return said,
                line => said.push(line),
            }
        }
    }

    /// Waits until it is dead.
    pub(crate) async fn died(mut self) {
        let end = async { while let Ok(Some(_)) = self.lines.next_line().await {} };
        timeout(PATIENCE, end).await.expect("it dies");
    }
}

/// Not a test: what a supervised program does. Does nothing unless a test
/// started it.
#[test]
#[ignore = "plays the supervised program"]
fn play() {
    let Ok(control) = env::var(CONTROL) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.unwrap().block_on(perform(&control));
}

async fn perform(control: &str) {
    let (said, mut to_say) = mpsc::unbounded_channel::<String>();
    let signals = [
        ("TERM", SignalKind::terminate()),
        ("INT", SignalKind::interrupt()),
        ("QUIT", SignalKind::quit()),
        ("HUP", SignalKind::hangup()),
        ("USR1", SignalKind::user_defined1()),
        ("USR2", SignalKind::user_defined2()),
        ("WINCH", SignalKind::window_change()),
    ];
    for (name, kind) in signals {
        let (mut signals, said) = (signal(kind).unwrap(), said.clone());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let _ = said.send(format!("signal {name}"));
            }
        });
    }
    let stream = TcpStream::connect(control).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut orders = BufReader::new(reader).lines();
    said.send(format!("started {}", std::process::id()))
        .unwrap();
    let is_well = Arc::new(AtomicBool::new(true));
    loop {
        tokio::select! {
            biased;
            Some(line) = to_say.recv() => {
                writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            }
            order = orders.next_line() => match order {
                Ok(Some(order)) => obey(&order, &is_well, &said).await,
                // The test is over.
                _ => std::process::exit(0),
            }
        }
    }
}

async fn obey(order: &str, is_well: &Arc<AtomicBool>, said: &mpsc::UnboundedSender<String>) {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    match verb {
        "ping" => said.send("pong".into()).unwrap(),
        "serve" => serve(Arc::clone(is_well), said.clone()).await,
        "serve-grpc" => serve_grpc().await,
        "well" => is_well.store(true, Ordering::SeqCst),
        "ill" => is_well.store(false, Ordering::SeqCst),
        "exit" => std::process::exit(rest.parse().unwrap()),
        "env" => {
            let value = env::var(rest).unwrap_or_else(|_| "(unset)".into());
            said.send(value).unwrap();
        }
        // One that outlives its parent, in the same process group.
        "beget" => {
            let mut child = Command::new("sleep").arg("600").spawn().unwrap();
            said.send(child.id().to_string()).unwrap();
            std::thread::spawn(move || child.wait());
        }
        "orphan" => {
            let script = "sleep 0 & exec true";
            let status = Command::new("sh").args(["-c", script]).status().unwrap();
            said.send(format!("left an orphan: {status}")).unwrap();
        }
        "zombies" => {
            while zombies_of_process_1() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
            said.send("none".into()).unwrap();
        }
        other => panic!("{other:?} is no order"),
    }
}

/// Answers every request as well or ill, and says that it was asked.
async fn serve(is_well: Arc<AtomicBool>, said: mpsc::UnboundedSender<String>) {
    let listener = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => seen.push(byte),
                    Err(_) => break,
                }
            }
            if seen.is_empty() {
                // Somebody only looked whether it listens.
                continue;
            }
            let answer = if is_well.load(Ordering::SeqCst) {
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
            } else {
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = said.send("asked".into());
        }
    });
}

async fn serve_grpc() {
    let (_, service) = tonic_health::server::health_reporter();
    let incoming = tonic::transport::server::TcpIncoming::from(listen().await);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
}

async fn listen() -> TcpListener {
    let address = env::var("TRIMTAB_ADDRESS").unwrap();
    TcpListener::bind(address).await.unwrap()
}

fn zombies_of_process_1() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap();
    let stats = processes.filter_map(|entry| {
        let path = entry.ok()?.path().join("stat");
        std::fs::read_to_string(path).ok()
    });
    stats
        .filter(|stat| {
            // After the name, which is in parentheses: the state and the parent.
            let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
            rest.starts_with("Z 1 ")
        })
        .count()
}

/// Says on stderr what a test that cannot run here needs.
pub(crate) fn skip(what: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {what}");
}

/// Does this run well here?
pub(crate) fn works(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
