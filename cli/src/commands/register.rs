//! `trimtab register`: hold one instance's registration, for trying things.

use clap::Args;
use serde::Serialize;
use trimtab_client::client::Client;
use trimtab_client::registration::DRAIN_TIMEOUT;

use crate::actor::default_actor;
use crate::arguments::GlobalArgs;
use crate::failure::Failure;
use crate::instance_flags::InstanceFlags;
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

    #[command(flatten)]
    instance: InstanceFlags,
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
    let instance = client.register(&args.service, &args.group, &args.address);
    let mut instance = args.instance.apply(instance);
    if let Some(within) = global.timeout {
        instance = instance.within(within);
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
