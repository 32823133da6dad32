//! `trimtab register`: hold one instance's registration, for trying things.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use trimtab_client::client::Client;
use trimtab_client::registration::DRAIN_TIMEOUT;

use crate::actor::default_actor;
use crate::arguments::{GlobalArgs, duration};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::asked_to_stop;
use crate::wait::span;

pub(crate) const EXAMPLES: &str = "\
Registers the instance, renews it, and gives it back on Ctrl-C or when its group is torn down:
DRAINING first, until every caller has let go of it. Programs do the same with the client crate.
The first group of a service gets all calls; any later one is dark until a shift.

Examples:
  trimtab register catalog v41 127.0.0.1:9001
  trimtab register catalog v42 127.0.0.1:9002 --id web-12 --zone a --capacity 200
  trimtab register catalog v42 127.0.0.1:9003 --metadata build=1234 --ttl 5s";

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The service
    service: String,

    /// The group: the release that the instance runs
    group: String,

    /// Where callers connect to
    #[arg(value_name = "HOST:PORT")]
    address: String,

    /// Unique within the service; one that is kept over restarts keeps what operators set on it
    /// [default: random]
    #[arg(long)]
    id: Option<String>,

    /// The failure domain it is in
    #[arg(long)]
    zone: Option<String>,

    /// Its weight within its group, 1 to 10,000 [default: 100]
    #[arg(long, value_name = "N")]
    capacity: Option<u32>,

    /// What callers can read about it; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,

    /// How long it stays registered without renewal, 1s to 10m [default: 15s]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    ttl: Option<Duration>,
}

/// What is printed once it is registered.
#[derive(Debug, Serialize)]
struct Registered<'a> {
    service: &'a str,
    group: &'a str,
    id: &'a str,
    address: &'a str,
}

pub(crate) async fn run(
    args: &RegisterArgs,
    global: &GlobalArgs,
    output: Output,
) -> Result<(), Failure> {
    let client = Client::builder()
        .name(format!("trimtab register by {}", default_actor()))
        .connect(&global.endpoints)?;
    let mut instance = client.register(&args.service, &args.group, &args.address);
    if let Some(id) = &args.id {
        instance = instance.id(id);
    }
    if let Some(zone) = &args.zone {
        instance = instance.zone(zone);
    }
    if let Some(capacity) = args.capacity {
        instance = instance.capacity(capacity);
    }
    if let Some(ttl) = args.ttl {
        instance = instance.ttl(ttl);
    }
    if let Some(within) = global.timeout {
        instance = instance.within(within);
    }
    for (key, value) in &args.metadata {
        instance = instance.metadata(key, value);
    }
    let registration = instance.start().await?;
    let registered = Registered {
        service: &args.service,
        group: &args.group,
        id: registration.id(),
        address: &args.address,
    };
    output.line(&registered, |it| {
        format!(
            "{} of {} {} is registered at {}\n",
            it.id, it.service, it.group, it.address
        )
    })?;
    if output.is_attended() {
        output.note("renewing; Ctrl-C gives it back");
    }
    tokio::select! {
        asked = asked_to_stop() => asked?,
        () = registration.retired() => output.note("the group is being torn down"),
    }
    let wait = global.timeout.unwrap_or(DRAIN_TIMEOUT);
    let drained = registration.drain(wait).await?;
    if !drained.complete {
        output.warnings(&[format!(
            "gave it back after {}, before these callers had let go of it: {}",
            span(wait),
            drained.laggards.join(", ")
        )]);
    }
    Ok(())
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE, for example build=1234"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_pairs() {
        let read = |text| pair(text).map(|(key, value)| format!("{key}:{value}"));
        assert_eq!(read("build=12=34").as_deref(), Ok("build:12=34"));
        assert_eq!(read("empty=").as_deref(), Ok("empty:"));
        assert!(read("=x").is_err());
        assert!(read("build").unwrap_err().contains("\"build\""));
    }
}
