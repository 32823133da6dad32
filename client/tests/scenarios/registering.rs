//! How an instance comes, stays and leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_client::registration::{Readiness, Registration, RegistrationBuilder};
use trimtab_proto::v1 as wire;
use wire::InstanceStatus::{Draining, Ready, Starting};

use crate::process::eventually;
use crate::registry::{Registry, State};

fn instance(client: &Client, id: &str) -> RegistrationBuilder {
    client.register("catalog", "v1", "127.0.0.1:8080").id(id)
}

fn renewals(state: &State, id: &str) -> u64 {
    state
        .renewals
        .lock()
        .unwrap()
        .get(id)
        .copied()
        .unwrap_or_default()
}

async fn is_renewed(state: &State, registration: &Registration) {
    let enough = renewals(state, registration.id()) + 3;
    eventually("it is renewed", || {
        renewals(state, registration.id()) >= enough
    })
    .await;
}

fn registered(state: &State) -> usize {
    state.registered.lock().unwrap().len()
}

#[tokio::test]
async fn what_is_said_arrives_and_is_renewed_on_one_stream() {
    let registry = Registry::start().await;
    let client = Client::connect(&registry.endpoint()).unwrap();
    let first = instance(&client, "a")
        .zone("z1")
        .capacity(200)
        .metadata("build", "77");
    let first = first.ttl(Duration::from_secs(3)).start().await.unwrap();
    let second = instance(&client, "b").starting().start().await.unwrap();
    is_renewed(&registry.state, &first).await;
    is_renewed(&registry.state, &second).await;
    assert_eq!(registry.state.renew_streams.load(Ordering::SeqCst), 1);

    let requests = registry.state.registered.lock().unwrap().clone();
    let said = requests[0].instance.clone().unwrap();
    assert_eq!((&*requests[0].service, &*said.group), ("catalog", "v1"));
    assert_eq!(
        (&*said.zone, said.capacity, said.status()),
        ("z1", 200, Ready)
    );
    assert_eq!(said.metadata["build"], "77");
    assert_eq!(requests[0].ttl.unwrap().seconds, 3);
    assert_eq!(requests[1].instance.as_ref().unwrap().status(), Starting);

    second.set_readiness(Readiness::Ready).await.unwrap();
    assert_eq!(
        *registry.state.statuses.lock().unwrap(),
        [("b".to_owned(), Ready)]
    );
}

#[tokio::test]
async fn a_lost_lease_is_registered_anew_as_it_was_wished_last() {
    let registry = Registry::start().await;
    let client = Client::connect(&registry.endpoint()).unwrap();
    let registration = instance(&client, "a").starting().start().await.unwrap();
    registration.set_readiness(Readiness::Ready).await.unwrap();
    registry.state.leases.lock().unwrap().clear();
    eventually("it is registered again", || {
        registered(&registry.state) == 2
    })
    .await;
    is_renewed(&registry.state, &registration).await;
    let again = registry.state.registered.lock().unwrap()[1].clone();
    assert_eq!(again.instance.unwrap().status(), Ready);
    assert_eq!(registered(&registry.state), 2);
}

#[tokio::test]
async fn renewals_move_to_another_replica() {
    let mut first = Registry::start().await;
    let mut second = Registry::replica(None, Arc::clone(&first.state)).await;
    let endpoints = format!("{},{}", first.endpoint(), second.endpoint());
    let client = Client::connect(&endpoints).unwrap();
    let registration = instance(&client, "a").start().await.unwrap();
    is_renewed(&first.state, &registration).await;
    first.kill();
    is_renewed(&first.state, &registration).await;
    first.restart().await;
    second.kill();
    is_renewed(&first.state, &registration).await;
    assert_eq!(registered(&first.state), 1);
}

#[tokio::test]
async fn starting_waits_for_the_registry() {
    let mut registry = Registry::start().await;
    registry.kill();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let hasty = instance(&client, "a")
        .within(Duration::from_millis(50))
        .start()
        .await;
    assert!(matches!(hasty, Err(Error::Unavailable { .. })), "{hasty:?}");
    let starting = tokio::spawn(instance(&client, "a").start());
    registry.restart().await;
    starting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refusal_is_final() {
    let registry = Registry::start().await;
    registry
        .state
        .refuse_registration
        .store(true, Ordering::SeqCst);
    let client = Client::connect(&registry.endpoint()).unwrap();
    let error = instance(&client, "a").start().await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused(text) if text.contains("torn down")),
        "{error}"
    );
    registry
        .state
        .refuse_registration
        .store(false, Ordering::SeqCst);
    let first = instance(&client, "a").start().await.unwrap();
    let error = instance(&client, "a").start().await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    first.deregister().await.unwrap();
    instance(&client, "a").start().await.unwrap();
}

#[tokio::test]
async fn draining_waits_for_the_receipts_and_then_leaves() {
    let registry = Registry::start().await;
    let client = Client::connect(&registry.endpoint()).unwrap();
    let registration = instance(&client, "a").start().await.unwrap();
    let draining = tokio::spawn(registration.drain(Duration::from_secs(20)));
    eventually("receipts are asked for", || {
        registry.state.receipts_asked.load(Ordering::SeqCst) == 1
    })
    .await;
    assert_eq!(
        *registry.state.statuses.lock().unwrap(),
        [("a".to_owned(), Draining)]
    );
    assert!(registry.state.deregistered.lock().unwrap().is_empty());
    registry
        .state
        .receipts_complete
        .store(true, Ordering::SeqCst);
    let drained = draining.await.unwrap().unwrap();
    assert!(drained.complete);
    assert_eq!(*registry.state.deregistered.lock().unwrap(), ["a"]);
    assert_eq!(registered(&registry.state), 1);
}

#[tokio::test]
async fn draining_ends_in_time_also_without_receipts() {
    let registry = Registry::start().await;
    let client = Client::connect(&registry.endpoint()).unwrap();
    let registration = instance(&client, "a").start().await.unwrap();
    let drained = registration.drain(Duration::from_millis(50)).await.unwrap();
    assert!(!drained.complete);
    assert_eq!(*registry.state.deregistered.lock().unwrap(), ["a"]);
}

#[tokio::test]
async fn an_instance_hears_that_it_is_to_leave() {
    let registry = Registry::start().await;
    let client = Client::connect(&registry.endpoint()).unwrap();
    let staying = instance(&client, "a").start().await.unwrap();
    let leaving = instance(&client, "b").start().await.unwrap();
    registry.state.retire.lock().unwrap().insert("b".to_owned());
    leaving.retired().await;
    assert!(leaving.is_retired() && !staying.is_retired());
}

#[tokio::test]
async fn a_dropped_registration_is_not_renewed_any_more() {
    let registry = Registry::start().await;
    let client = Client::connect(&registry.endpoint()).unwrap();
    let dropped = instance(&client, "a").start().await.unwrap();
    let kept = instance(&client, "b").start().await.unwrap();
    drop(client);
    is_renewed(&registry.state, &dropped).await;
    drop(dropped);
    is_renewed(&registry.state, &kept).await;
    let before = renewals(&registry.state, "a");
    is_renewed(&registry.state, &kept).await;
    assert_eq!(renewals(&registry.state, "a"), before);
    drop(kept);
    eventually("the stream ends", || {
        registry.state.renew_streams.load(Ordering::SeqCst) == 0
    })
    .await;
    assert!(registry.state.deregistered.lock().unwrap().is_empty());
}
