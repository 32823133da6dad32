//! `trimtab services`: what is registered.

use trimtab_client::operator::service_status::ServiceList;

use crate::failure::Failure;
use crate::session::Session;
use crate::table::{Table, count};

pub(crate) const EXAMPLES: &str = "\
Examples:
  trimtab services
  trimtab services --output json | jq -r '.services[].service'";

pub(crate) async fn run(session: &Session) -> Result<(), Failure> {
    let list = session.operator.list_services().await?;
    session.output.result(&list, table)?;
    session.note_if_stale(list.possibly_stale);
    Ok(())
}

fn table(list: &ServiceList) -> String {
    let mut table = Table::new(&["SERVICE", ">GROUPS", ">INSTANCES", ">READY", ">REVISION"]);
    for service in &list.services {
        table.row([
            service.service.clone().into(),
            count(service.groups.into()).into(),
            count(service.instances.into()).into(),
            count(service.ready.into()).into(),
            service.revision.to_string().into(),
        ]);
    }
    table.render()
}
