//! `trimtab watch`: follow what callers are told about a service.

use clap::Args;
use trimtab_client::operator::service_status::{InstanceStatus, ServiceView};
use trimtab_client::operator::watch::WatchEvent;

use crate::actor::default_actor;
use crate::change::route_line;
use crate::failure::Failure;
use crate::session::Session;
use crate::settings;

pub(crate) const EXAMPLES: &str = "\
One line for how it is now and one for each change, until Ctrl-C. It goes on with another replica
when the one it asks is lost.

Examples:
  trimtab watch catalog
  trimtab watch catalog --output json | jq -c '{revision, weights: .route.weights}'";

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The service
    service: String,
}

pub(crate) async fn run(args: &WatchArgs, session: &Session) -> Result<(), Failure> {
    let name = format!("trimtab watch of {}", default_actor());
    let mut watch = session.operator.watch(&args.service, &name);
    let mut lost = false;
    loop {
        match watch.next().await {
            Ok(event) => {
                session.output.line(&event, line)?;
                lost = false;
            }
            // Whoever follows wants to go on following, and to be told once.
            Err(error) if error.is_transient() => {
                if !lost {
                    session.output.warnings(&[error.to_string()]);
                }
                lost = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn line(event: &WatchEvent) -> String {
    match event {
        WatchEvent::View(view) => view_line(view),
        WatchEvent::Absent { service, revision } => {
            format!("{revision}  {service} is not registered\n")
        }
    }
}

fn view_line(view: &ServiceView) -> String {
    let ready: Vec<String> = view
        .groups
        .iter()
        .map(|group| {
            let mut all = view.instances.iter().filter(|i| i.group == group.name);
            let instances = all.clone().count();
            let ready = all.by_ref().filter(|i| i.status == InstanceStatus::Ready);
            format!(
                "{} {} {}/{instances} ready",
                group.name,
                group.state,
                ready.count()
            )
        })
        .collect();
    let policy = settings::unusual(&view.route.policy);
    format!(
        "{}  {}: {}; {}{}\n",
        view.revision,
        view.service,
        route_line(&view.route),
        ready.join(", "),
        policy.map_or(String::new(), |unusual| format!("; {unusual}"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use trimtab_client::operator::change::Route;
    use trimtab_client::operator::service_status::{GroupState, Instance, ViewGroup};

    fn instance(id: &str, status: InstanceStatus) -> Instance {
        Instance {
            id: id.into(),
            group: "v41".into(),
            address: "127.0.0.1:9000".into(),
            zone: String::new(),
            capacity: 100,
            status,
            metadata: [].into(),
        }
    }

    #[test]
    fn a_view_is_one_line() {
        let mut view = ServiceView {
            service: "catalog".into(),
            revision: 8_812,
            route_revision: 8_810,
            route: Route {
                weights: [("v41".to_owned(), 10_000)].into(),
                ..Route::default()
            },
            groups: vec![ViewGroup {
                name: "v41".into(),
                state: GroupState::Active,
            }],
            instances: vec![
                instance("a", InstanceStatus::Ready),
                instance("b", InstanceStatus::Suspect),
            ],
            possibly_stale: false,
        };
        assert_eq!(
            line(&WatchEvent::View(view.clone())),
            "8812  catalog: v41 100%; v41 active 1/2 ready\n"
        );
        view.route.policy.prefer_zone = true;
        assert_eq!(
            line(&WatchEvent::View(view)),
            "8812  catalog: v41 100%; v41 active 1/2 ready; prefer-zone on\n"
        );
    }
}
