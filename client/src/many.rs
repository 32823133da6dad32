//! Registering many instances with few calls.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, sleep};
use trimtab_proto::v1 as wire;
use trimtab_proto::v1::register_many_result::Result as Said;
use trimtab_proto::v1::registration_client::RegistrationClient;

use crate::backoff::Backoff;
use crate::cluster::{DEFAULT_DEADLINE, Repeat};
use crate::error::Error;
use crate::kept::{RETRY_FIRST, RETRY_MOST};
use crate::registration::{Prepared, Registration, RegistrationBuilder};

/// Registrations in one call: what the registry takes.
const REGISTRATIONS_MAX: usize = 1_000;

/// Those that such a call did not take are asked for alone, so many at a time:
/// each gets its own answer.
const ALONE_AT_ONCE: usize = 16;

/// See [`RegistrationBuilder::start_all`].
pub(crate) async fn start_all(
    builders: Vec<RegistrationBuilder>,
) -> Vec<Result<Registration, Error>> {
    let patience = builders.iter().map(RegistrationBuilder::patience).max();
    let until = Instant::now() + patience.unwrap_or_default();
    let mut results = Vec::with_capacity(builders.len());
    let mut builders = builders.into_iter();
    loop {
        let together: Vec<_> = (builders.by_ref().take(REGISTRATIONS_MAX))
            .map(RegistrationBuilder::prepare)
            .collect();
        if together.is_empty() {
            return results;
        }
        register_together(&together, until).await;
        let finished = stream::iter(together).map(|prepared| finish(prepared, until));
        let mut finished = finished.buffered(ALONE_AT_ONCE);
        while let Some(result) = finished.next().await {
            results.push(result);
        }
    }
}

/// Gives a lease to each that one call can give one to, trying as long as the
/// registry is away. Whoever has none then is asked for alone.
async fn register_together(together: &[Result<Prepared, Error>], until: Instant) {
    let waiting: Vec<&Prepared> = together.iter().flatten().collect();
    let Some(first) = waiting.first() else {
        return;
    };
    let cluster = first.kept().client.cluster();
    let request = wire::RegisterManyRequest {
        requests: waiting.iter().map(|it| it.kept().asks()).collect(),
    };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    loop {
        let remaining = until.saturating_duration_since(Instant::now());
        let deadline = remaining.min(DEFAULT_DEADLINE);
        let asked = cluster.call("RegisterMany", Repeat::Safe, deadline, |channel| {
            let request = request.clone();
            async move {
                RegistrationClient::new(channel)
                    .register_many(request)
                    .await
            }
        });
        let error = match asked.await {
            Ok(answer) => return take(&waiting, answer),
            Err(error) => error,
        };
        let wait: Duration = backoff.next(&mut rand::rng());
        if !error.is_transient() || wait >= remaining {
            tracing::debug!(%error, "not registered together, trying one by one");
            return;
        }
        sleep(wait).await;
    }
}

fn take(waiting: &[&Prepared], answer: wire::RegisterManyResponse) {
    for (prepared, result) in waiting.iter().zip(answer.results) {
        let Some(Said::Registered(granted)) = result.result else {
            continue;
        };
        if let Err(error) = prepared.kept().take(&granted) {
            tracing::debug!(%error, "not registered together, trying alone");
        }
    }
}

async fn finish(prepared: Result<Prepared, Error>, until: Instant) -> Result<Registration, Error> {
    let prepared = prepared?;
    if !prepared.kept().lease.is_held() {
        let remaining = until.saturating_duration_since(Instant::now());
        prepared.kept().register_within(remaining).await?;
    }
    Ok(prepared.begin())
}
