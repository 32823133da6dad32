//! Measures how long it takes from an instance's death until callers avoid it, views call it SUSPECT, and it is removed.
//!
//! ```text
//! cargo run -p trimtab-tests --example liveness_times            # or only some: kill, stop, cut
//! ```
//!
//! Three replicas and the callers run in this process, each instance that is
//! to die in one of its own: one of three in each of twenty services, with the
//! default TTL, over loopback. They die a quarter of a second
//! after each other, so at all moments between two renewals, in three ways:
//! `kill -9` (connections are reset), SIGSTOP (they stay, and nothing answers),
//! and a cut network (nothing that it sends arrives). The last needs Linux,
//! root and iptables; the program then runs in a network namespace of its own.
//! Takes two minutes and prints a table, each time as median
//! and worst.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures, and tells"
)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};
use tonic::Request;
use trimtab_client::client::Client;
use trimtab_client::operator::Operator;
use trimtab_client::operator::service_status::InstanceStatus;
use trimtab_client::operator::watch::WatchEvent;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::instance::Instance;

/// Services, and so deaths, of each kind.
const TRIALS: usize = 20;
/// Between two deaths: together they cover a third of the TTL, the time
/// between two renewals.
const STAGGER: Duration = Duration::from_millis(250);
/// How long a caller waits for an answer. Whoever meets the dead waits in vain.
const DEADLINE: Duration = Duration::from_secs(1);
/// Between two calls of one caller.
const PACE: Duration = Duration::from_millis(20);
/// No death takes longer to be noticed: TTL, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// The first user id of the instances that a cut is to hit.
const USER: u32 = 42_000;
/// Says to ourselves that we are in a namespace already.
const INSIDE: &str = "TRIMTAB_LIVENESS_TIMES_INSIDE";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    Killed,
    Stopped,
    CutOff,
}

impl Death {
    fn told(self) -> &'static str {
        match self {
            Death::Killed => "`kill -9`",
            Death::Stopped => "SIGSTOP",
            Death::CutOff => "network cut",
        }
    }

    /// As an argument of this program.
    fn named(self) -> String {
        match self {
            Death::Killed => "kill".to_owned(),
            Death::Stopped => "stop".to_owned(),
            Death::CutOff => "cut".to_owned(),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let [_, role, service, id, endpoints] = arguments.as_slice()
        && role == "instance"
    {
        return runtime.block_on(be_an_instance(service, id, endpoints));
    }
    let mut deaths = vec![Death::Killed, Death::Stopped];
    match (std::env::var_os(INSIDE), cuts_can_be_made()) {
        (Some(_), _) => {
            run("ip", &["link", "set", "lo", "up"]);
            deaths.push(Death::CutOff);
        }
        (None, true) => {
            let program = std::env::current_exe().expect("this program");
            let mut inside = Command::new("unshare");
            inside.arg("-n").arg(program).args(&arguments[1..]);
            let error = inside.env(INSIDE, "1").exec();
            panic!("unshare: {error}");
        }
        (None, false) => eprintln!("NOTICE: no cut network: it takes Linux, root and iptables"),
    }
    println!(
        "| death | last call that failed begun after | calls that failed, of 50 a second | SUSPECT after | removed after |"
    );
    println!("|---|---|---|---|---|");
    deaths.retain(|death| arguments.len() < 2 || arguments.contains(&death.named()));
    for death in deaths {
        println!("{}", runtime.block_on(measure(death)));
    }
}

/// Whether a process may make a network of its own and lose packets in it.
fn cuts_can_be_made() -> bool {
    let rule = "iptables -A OUTPUT -m owner --uid-owner 42000 -j DROP";
    let tried = Command::new("unshare")
        .args(["-n", "sh", "-c", rule])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "{program}");
}

/// The process that will die.
async fn be_an_instance(service: &str, id: &str, endpoints: &str) {
    let instance = Instance::start("v1", id);
    let client = Client::connect(endpoints).expect("valid endpoints");
    let registration = client.register(service, "v1", instance.address());
    let registered = registration.id(id).start().await.expect("registered");
    println!("registered");
    registered.retired().await;
}

/// An instance in a process of its own, until dropped.
struct Victim {
    process: Child,
    user: Option<u32>,
    died: Instant,
}

impl Victim {
    fn start(death: Death, number: usize, service: &str, endpoints: &str) -> Victim {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["instance", service, "victim", endpoints]);
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let user = (death == Death::CutOff).then(|| USER + number as u32);
        if let Some(user) = user {
            command.uid(user);
        }
        let mut process = command.spawn().expect("an instance");
        let stdout = process.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "registered\n");
        let died = Instant::now();
        Victim {
            process,
            user,
            died,
        }
    }

    fn die(&mut self, death: Death) {
        let id = self.process.id().to_string();
        match death {
            Death::Killed => self.process.kill().expect("killed"),
            Death::Stopped => run("kill", &["-STOP", &id]),
            Death::CutOff => {
                let user = self.user.unwrap_or_default().to_string();
                let rule = [
                    "-A",
                    "OUTPUT",
                    "-m",
                    "owner",
                    "--uid-owner",
                    &user,
                    "-j",
                    "DROP",
                ];
                run("iptables", &rule);
                // What the kernel says for a socket that was closed has no owner.
                for port in ports_of(&user) {
                    let rule = ["-A", "OUTPUT", "-p", "tcp", "--sport", &port, "-j", "DROP"];
                    run("iptables", &rule);
                }
            }
        }
        self.died = Instant::now();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The ports that a user's sockets have, as the kernel lists them.
fn ports_of(user: &str) -> Vec<String> {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let fields = sockets.lines().skip(1).map(str::split_whitespace);
    let port = |mut fields: std::str::SplitWhitespace<'_>| {
        let (_, port) = fields.nth(1)?.split_once(':')?;
        let is_his = fields.nth(5)? == user;
        let port = u16::from_str_radix(port, 16).ok()?;
        is_his.then(|| port.to_string())
    };
    fields.filter_map(port).collect()
}

/// When views first called the victim SUSPECT, and first were without it.
type Seen = (Option<Instant>, Option<Instant>);

fn watch(operator: &Operator, service: &str) -> JoinHandle<Seen> {
    let mut watch = operator.watch(service, "liveness-times");
    tokio::spawn(async move {
        let mut seen = (None, None);
        while seen.1.is_none() {
            let Ok(WatchEvent::View(view)) = watch.next().await else {
                continue;
            };
            let mut instances = view.instances.iter();
            match instances.find(|instance| instance.id == "victim") {
                Some(found) if found.status == InstanceStatus::Suspect => {
                    seen.0.get_or_insert_with(Instant::now);
                }
                Some(_) => {}
                None => seen.1 = Some(Instant::now()),
            }
        }
        seen
    })
}

/// When calls began that failed.
type Suffered = Arc<Mutex<Vec<Instant>>>;

fn call(client: &Client, service: &str, suffered: &Suffered) -> JoinHandle<()> {
    let (client, service, suffered) = (client.clone(), service.to_owned(), Arc::clone(suffered));
    tokio::spawn(async move {
        let balancer = client.service(service).await.expect("a service");
        let catalog = CatalogClient::new(balancer);
        let mut ticks = interval(PACE);
        loop {
            let begun = ticks.tick().await;
            let (mut catalog, suffered) = (catalog.clone(), Arc::clone(&suffered));
            tokio::spawn(async move {
                let mut request = Request::new(GetItemRequest { item_id: 7 });
                request.set_timeout(DEADLINE);
                let answer = timeout(DEADLINE, catalog.get_item(request)).await;
                if !matches!(answer, Ok(Ok(_))) {
                    let mut suffered = suffered.lock().expect("nobody panics");
                    suffered.push(begun);
                }
            });
        }
    })
}

/// One kind of death, in all services.
async fn measure(death: Death) -> String {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let client = Client::connect(&endpoints).expect("valid endpoints");
    let operator = cluster.operator();
    let mut kept = Vec::new();
    let mut trials = Vec::new();
    for number in 0..TRIALS {
        let service = format!("service-{number}");
        for id in ["a", "b"] {
            let instance = Instance::start("v1", id);
            let registration = client.register(service.clone(), "v1", instance.address());
            let registered = registration.id(id).start().await.expect("registered");
            kept.push((instance, registered));
        }
        let victim = Victim::start(death, number, &service, &endpoints);
        let suffered = Suffered::default();
        let caller = call(&client, &service, &suffered);
        trials.push((victim, watch(&operator, &service), caller, suffered));
    }
    // Connections stand, and all renewed once.
    sleep(Duration::from_secs(6)).await;
    let mut times = [const { Vec::new() }; 3];
    let mut met = Vec::new();
    let mut deaths = Vec::new();
    for (mut victim, seen, caller, suffered) in trials {
        suffered.lock().expect("nobody panics").clear();
        victim.die(death);
        deaths.push((victim, seen, caller, suffered));
        sleep(STAGGER).await;
    }
    for (victim, seen, caller, suffered) in deaths {
        let seen = timeout(PATIENCE, seen).await.expect("removed in time");
        let (suspect, removed) = seen.expect("watched");
        sleep(DEADLINE).await;
        caller.abort();
        let suffered = suffered.lock().expect("nobody panics");
        let last = suffered.iter().max().copied();
        let after = |at: Option<Instant>| at.unwrap_or(victim.died).duration_since(victim.died);
        met.push(suffered.len());
        for (times, at) in times.iter_mut().zip([last, suspect, removed]) {
            times.push(after(at));
        }
    }
    let [avoided, suspect, removed] = times.map(told);
    met.sort_unstable();
    let met = format!("{} / {}", met[met.len() / 2], met[met.len() - 1]);
    format!(
        "| {} | {avoided} | {met} | {suspect} | {removed} |",
        death.told()
    )
}

/// Median and worst.
fn told(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    format!("{:.2} / {:.2} s", median.as_secs_f64(), worst.as_secs_f64())
}
