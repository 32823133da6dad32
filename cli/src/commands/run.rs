//! `trimtab run`: run a program of any kind as an instance.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::process::Signal;
use trimtab_client::client::Client;
use trimtab_client::registration::DRAIN_TIMEOUT;

use crate::actor::default_actor;
use crate::arguments::{GlobalArgs, duration, positive_duration};
use crate::failure::{Exit, Failure};
use crate::instance_flags::InstanceFlags;
use crate::logging::{self, LogFormat};
use crate::output::Output;
use crate::run::address::Address;
use crate::run::check::Check;
use crate::run::child::Program;
use crate::run::event::Rules;
use crate::run::journal::Journal;
use crate::run::restarts::Restart;
use crate::run::shell::{Plan, supervise};
use crate::run::thresholds::Thresholds;

pub(crate) const EXAMPLES: &str = "\
Starts the program, registers it when its check passes for the first time, and renews. While checks
fail it is STARTING, and callers leave it alone. On SIGTERM or Ctrl-C, and when its group is torn
down: DRAINING, until every caller has let go of it; then the stop signal; deregistered when it has
ended. A second SIGTERM skips the wait, a third kills. Other signals go to the program as they are,
its exit code comes back as it is, and it is told who it is by TRIMTAB_SERVICE, TRIMTAB_GROUP,
TRIMTAB_INSTANCE_ID, TRIMTAB_ADDRESS, TRIMTAB_ZONE and TRIMTAB_ENDPOINTS.

Checks:
  tcp, tcp://HOST:PORT             accepts a connection
  /PATH, http://HOST:PORT/PATH     answers a GET with a status from 200 to 399
  grpc, grpc://HOST:PORT/SERVICE   answers SERVING to grpc.health.v1.Health/Check
  Those without HOST:PORT ask at the address that callers connect to.

Examples:
  trimtab run --service catalog --group v42 --port 8080 -- ./server --port 8080
  trimtab run --service catalog --group v42 --port 8080 --check /health -- python3 app.py
  trimtab run --service catalog --group v42 --address 10.0.0.7:9000 --check grpc \\
      --restart on-failure -- ./server
  trimtab run --service catalog --group \"$GIT_SHA\" --host \"$POD_IP\" --port 8080 \\
      --check http://127.0.0.1:8081/ready --stop-timeout 30s -- java -jar app.jar";

/// The log lines of the client crate: a lost lease, say.
const LOG_DEFAULT: &str = "warn";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,

    /// The service
    #[arg(long)]
    service: String,

    /// The group: the release that the program is
    #[arg(long)]
    group: String,

    /// The port that callers connect to
    #[arg(long, required_unless_present = "address", conflicts_with = "address")]
    port: Option<u16>,

    /// The host that callers connect to, with --port
    #[arg(
        long,
        env = "TRIMTAB_HOST",
        hide_env_values = true,
        default_value = "127.0.0.1"
    )]
    host: String,

    /// Where callers connect to, instead of --host and --port
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,

    #[command(flatten)]
    instance: InstanceFlags,

    #[command(flatten)]
    checks: CheckFlags,

    #[command(flatten)]
    ends: EndFlags,
}

/// When it counts as able to serve.
#[derive(Debug, Args)]
#[command(next_help_heading = "Checks")]
struct CheckFlags {
    /// How to see that it can serve: see below
    #[arg(long, default_value = "tcp")]
    check: String,

    /// From one check to the next
    #[arg(long, value_parser = positive_duration, default_value = "2s", value_name = "DURATION")]
    check_interval: Duration,

    /// How long an answer may take
    #[arg(long, value_parser = positive_duration, default_value = "1s", value_name = "DURATION")]
    check_timeout: Duration,

    /// So many failed checks in a row and callers are told to leave it alone
    #[arg(long, default_value = "3", value_name = "CHECKS")]
    unready_after: NonZeroU32,

    /// So many passed checks in a row and they are told to come back
    #[arg(long, default_value = "1", value_name = "CHECKS")]
    ready_after: NonZeroU32,

    /// How long it may take until its first check passes; it is ended then
    #[arg(long, value_parser = positive_duration, default_value = "1m", value_name = "DURATION")]
    start_timeout: Duration,
}

/// How it ends, and whether it begins again.
#[derive(Debug, Args)]
#[command(next_help_heading = "End and restart")]
struct EndFlags {
    /// How long callers may take to let go of it before it is asked to end [default: --timeout, or
    /// 10s]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    drain_timeout: Option<Duration>,

    /// What asks it to end
    #[arg(long, value_enum, ignore_case = true, default_value_t = StopSignal::Term)]
    stop_signal: StopSignal,

    /// How long it may take to end before it is killed
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "DURATION")]
    stop_timeout: Duration,

    /// Whether it is started again when it ends by itself
    #[arg(long, value_enum, default_value_t = Restart::Never)]
    restart: Restart,

    /// Give up after so many restarts in a row; one that has served for a minute counts as the
    /// first again
    #[arg(long, default_value = "10", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    restart_limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StopSignal {
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
}

pub(crate) async fn run(
    args: &RunArgs,
    global: &GlobalArgs,
    output: Output,
) -> Result<ExitCode, Failure> {
    let format = if output.is_json() {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    logging::start(LOG_DEFAULT, format)?;
    let plan = args.plan(global, output)?;
    supervise(plan).await?.conclude()
}

impl RunArgs {
    /// What is to be done. Whatever can be found wrong without the registry is
    /// found here, before the program is started.
    fn plan(&self, global: &GlobalArgs, output: Output) -> Result<Plan, Failure> {
        let invalid = |message: String| Failure::new(Exit::InvalidArgument, message);
        let address = match (&self.address, self.port) {
            (Some(address), _) => Address::parse(address),
            (None, port) => Address::new(&self.host, port.unwrap_or_default()),
        };
        let address = address.map_err(invalid)?;
        if let Some(warning) = address.warning(&global.endpoints) {
            output.warnings(&[warning]);
        }
        let address = address.to_string();
        let check = Check::parse(&self.checks.check, &address).map_err(invalid)?;
        let flags = self.instance.identified();
        flags.check(&self.service, &self.group).map_err(invalid)?;
        let id = flags.id.clone().unwrap_or_default();
        let program = Program::find(&self.program, self.environment(&id, &address, global))?;
        let client = Client::builder()
            .name(format!("trimtab run by {}", default_actor()))
            .connect(&global.endpoints)?;
        Ok(Plan {
            program,
            journal: Journal {
                output,
                service: self.service.clone(),
                group: self.group.clone(),
                id,
                address: address.clone(),
                check: check.to_string(),
            },
            instance: flags.apply(client.register(&self.service, &self.group, &address)),
            check,
            check_timeout: self.checks.check_timeout,
            stop_signal: self.ends.stop_signal.into(),
            rules: self.rules(global),
        })
    }

    fn rules(&self, global: &GlobalArgs) -> Rules {
        let drain = self.ends.drain_timeout.or(global.timeout);
        Rules {
            start_within: self.checks.start_timeout,
            check_interval: self.checks.check_interval,
            thresholds: Thresholds {
                unready_after: self.checks.unready_after,
                ready_after: self.checks.ready_after,
            },
            drain_within: drain.unwrap_or(DRAIN_TIMEOUT),
            stop_within: self.ends.stop_timeout,
            restart: self.ends.restart,
            restart_limit: self.ends.restart_limit,
        }
    }

    /// What the program is told of itself.
    fn environment(
        &self,
        id: &str,
        address: &str,
        global: &GlobalArgs,
    ) -> Vec<(&'static str, String)> {
        let zone = self.instance.zone.clone().unwrap_or_default();
        vec![
            ("TRIMTAB_SERVICE", self.service.clone()),
            ("TRIMTAB_GROUP", self.group.clone()),
            ("TRIMTAB_INSTANCE_ID", id.to_owned()),
            ("TRIMTAB_ADDRESS", address.to_owned()),
            ("TRIMTAB_ZONE", zone),
            ("TRIMTAB_ENDPOINTS", global.endpoints.clone()),
        ]
    }
}

impl From<StopSignal> for Signal {
    fn from(signal: StopSignal) -> Self {
        match signal {
            StopSignal::Term => Self::TERM,
            StopSignal::Int => Self::INT,
            StopSignal::Quit => Self::QUIT,
            StopSignal::Hup => Self::HUP,
            StopSignal::Usr1 => Self::USR1,
            StopSignal::Usr2 => Self::USR2,
        }
    }
}
