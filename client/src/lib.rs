//! What a process links to call services through Trimtab, or to be called.
//!
//! # To call a service
//!
//! Connect to the replicas, name the service, and use what you get in place of
//! a channel:
//!
//! ```no_run
//! # use trimtab_proto::demo::v1::{GetItemRequest, catalog_client::CatalogClient};
//! use trimtab_client::Client;
//!
//! # async fn caller() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:7070,127.0.0.1:7071,127.0.0.1:7072")?;
//! let mut catalog = CatalogClient::new(client.service("catalog").await?);
//! let item = catalog.get_item(GetItemRequest { item_id: 7 }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A caller never names a group. Which release answers is the route's affair,
//! and changes under a running caller without a failed call.
//!
//! A [`Balancer`] is a [`tower::Service`] and cheap to clone. For any protocol
//! but HTTP/2, ask it for an address and say how the call went:
//!
//! ```no_run
//! # use trimtab_client::Client;
//! # async fn call_by_other_means(address: &str) -> bool { true }
//! # async fn caller(client: Client) -> Result<(), trimtab_client::Error> {
//! let catalog = client.service("catalog").tcp().await?;
//! let picked = catalog.pick().await?;
//! if call_by_other_means(picked.address()).await {
//!     picked.success();
//! } else {
//!     picked.unreachable();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # To be called
//!
//! Register when the instance listens; drain before it stops listening:
//!
//! ```no_run
//! # use trimtab_client::Client;
//! # async fn stop_signal() {}
//! # async fn instance() -> Result<(), trimtab_client::Error> {
//! let client = Client::connect("127.0.0.1:7070")?;
//! let registration = client.register("catalog", "v42", "127.0.0.1:8080").start().await?;
//! tokio::select! {
//!     () = stop_signal() => {}
//!     () = registration.retired() => {}
//! }
//! registration.drain(trimtab_client::registration::DRAIN_TIMEOUT).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # For more
//!
//! - HTTP clients that are tower services: [`layer`]; balancers by name:
//!   [`Client::make_balancer`].
//! - One user, one release, while a rollout goes on: [`sticky`].
//! - Why an instance is called or not: [`Balancer::explain`]. What is counted
//!   for metrics: `docs/telemetry-of-callers.md`.
//! - To start while the registry is down: [`client::ClientBuilder::cache_dir`].
//! - To test what you write: [`testing`].
//! - Programs that run: `client/examples` has a caller, an instance, an HTTP
//!   caller, a sticky canary and a graceful shutdown. The tests run them.
//!
//! # What it promises
//!
//! Each row names the tests that hold it, by their module: those of
//! `tests/scenarios`, `tests/failures` and `tests/examples` run against real
//! servers, the others are beside the code. The simulation of the workspace
//! holds most rows a second time, under faults (`docs/promises.md`).
//!
//! | promise | how | held by |
//! |---|---|---|
//! | Shares are those of the route, whatever the number of instances: exactly none at 0, exactly all at 100 %, and within one call over the calls since the route changed. | Groups take turns in an order built for it, not by chance; each process begins elsewhere. | `calls::every_run_has_the_shares_within_one_call_also_over_a_switch`, `published_failures::eighty_to_twenty_over_nine_instances_and_two`, `published_failures::one_percent_under_endpoint_churn` |
//! | Calls with a key stay with one group while weights move one way, and shares are exact over keys. | [`sticky`] | `promises::shares_are_exact_over_buckets`, `promises::raising_a_later_share_moves_buckets_forward_only`, `examples::users_of_a_canary_go_over_and_none_comes_back` |
//! | No call goes to an instance that is not connected while another is. | Connections are made ahead of need, to all groups, and kept by this crate. | `published_failures::a_dead_endpoint_that_is_reported_ready`, `calls::no_call_fails_when_an_instance_is_killed` |
//! | The share of a group that cannot be reached goes to the other weighted groups in proportion; if there is none, to groups that carried traffic before; to groups that never did only where the route's policy says so. It is logged. | See [`Balancer`]. | `published_failures::an_empty_group_that_drops_its_share`, `promises::an_unreachable_group_moves_its_own_buckets_only_and_by_weight` |
//! | Within a group the policy of the route decides, by capacity; a zone keeps no more calls than it has ready capacity for; a group that is new to traffic warms up if the policy says so. | [`policy`] | `promises::a_zone_keeps_the_calls_it_has_capacity_for_under_every_policy`, `published_failures::a_balancer_that_sends_a_new_instance_everything`, `published_failures::a_cold_group_hit_at_full_load` |
//! | An instance that is busy or slow gets fewer calls than the others, by its capacity; one that was slow is tried again. | Of two drawn by capacity the one that costs less: calls in flight times peak-EWMA latency (`docs/balancing.md`). | `picker::calls_follow_capacity_and_avoid_the_busy`, `promises::a_slow_instance_gets_less_and_is_tried_again` |
//! | For every instance there is an answer to why it takes calls or not. | [`Balancer::explain`] | `sticky::explain_says_why_not`, `golden::the_table_is_as_it_was`, `golden::what_programs_read_is_as_it_was` |
//! | A process that was stopped or starved does not take its peers for dead. | Of the time that a ping may take, only what this process had counts. | `fair_sleep::a_process_that_was_stopped_gives_its_peers_their_time` |
//! | An instance that fails its calls, more than its group does, gets none for a while; a group that fails as a whole is called, and the few that nobody doubts do not get all calls of the many that are in doubt. | [`policy::OutlierPolicy`] | `outliers::an_instance_that_fails_five_calls_in_a_row_gets_no_more`, `outliers::a_group_that_fails_as_a_whole_is_called_nevertheless`, `outliers::one_that_hangs_is_left_out_when_callers_drop_their_calls`, `promises::those_in_doubt_take_calls_only_where_the_others_are_too_few` |
//! | A call is sent twice only where that is safe: when the first instance has certainly not seen it, or when the caller says so ([`call::Idempotent`], [`client::ServiceBuilder::idempotent`]) and nothing of an answer's body was passed on; and within a budget of a fifth of all calls. | It goes to an instance that it was not sent to yet, while there is one. | `calls::a_call_that_may_not_be_repeated_says_that_it_broke_off` |
//! | A call that may be sent twice does not wait for an instance that hangs: after a third of the time it has, or some seconds when it has no limit, another instance is asked as well. | Deadlines ([`call::Deadline`], `grpc-timeout`) are carried: each instance is told how much time is left. | `deadlines::another_instance_is_asked_after_a_third_of_the_time_and_told_what_is_left`, `deadlines::another_instance_is_asked_after_a_while_when_the_caller_said_nothing_of_time` |
//! | With one of five instances dead, frozen, slow, resetting or failing, no call that may be sent twice fails, whether it has a limit or not; nor when a canary fails as a whole. | All of the above. | `survival::no_call_fails_when_each_of_five_fails_in_turn`, `survival::no_call_without_a_limit_fails_when_one_of_five_is_stuck`, `canary::no_retry_safe_call_fails_with_a_canary_of_four_that_fail` |
//! | A caller connects to a subset of each group where the policy says so; one that is down is replaced by the next in the caller's own order. | [`policy::Policy::subset_size`], by rendezvous hashing. | `connections::a_caller_keeps_to_its_subset_and_replaces_who_is_down`, `subset::a_thousand_callers_spread_over_a_thousand_instances` |
//! | Calls go on without a registry, and revisions never go back. | The last view is kept; the watch is resumed by revision on any replica, with jitter, and as slowly as a replica that stops asks for. | `watching::traffic_goes_on_without_a_registry`, `watching::a_watch_resumes_by_revision_on_another_replica_and_confirms_there`, `watching::a_revision_never_goes_back`, `course::a_replica_that_stops_says_how_soon_to_leave_it` |
//! | A process starts without a registry. | The last view on disk: checked, versioned, written whole, never believed more than the registry. | `cold_start::calls_succeed_from_the_disk_until_the_registry_is_back`, `cold_start::a_file_that_cannot_be_used_never_fails_a_start`, `codec::every_bit_and_every_length_counts` |
//! | A registry that takes away most of what is connected, without a reason, empties nobody. | What it takes is kept for a minute, and called while what is left would not stand the calls (`docs/liveness.md`). | `shrinking::what_a_view_takes_away_beyond_belief_rests_only_while_enough_are_left`, `shrinking::draining_a_switch_and_a_teardown_are_believed` |
//! | Whatever a registry says, no call panics and no memory grows; a view that was damaged is asked for again. | Checksums, bounds. | `absurd::nothing_a_registry_says_breaks_a_caller`, `absurd::a_replica_that_only_talks_makes_no_queue_grow`, `watching::a_damaged_view_is_asked_for_again`, `ill_peers::a_registry_with_details_that_cannot_be_read_is_asked_again` |
//! | Whatever an instance says, or does not read, no call panics, outlasts its deadline or makes memory grow; until its answer begins, a call that may be sent twice is answered by another instance. | HTTP/2's own rules, bounds; what cannot be read is taken out. | `ill_peers::whatever_comes_instead_of_the_answer_calls_end`, `ill_peers::however_an_answer_is_damaged_calls_end`, `ill_peers::what_may_be_repeated_is_answered_by_another_instance`, `floods::no_flood_is_kept_or_keeps_a_call`, `floods::an_answer_ends_at_its_deadline_though_there_is_always_more_of_it` |
//! | When the registry says that this caller uses a revision, it does. | The receipt is sent after the last call that was begun by an older one. | `watching::a_receipt_is_sent_for_every_view_used_and_not_before` |
//! | An instance that is drained gets nothing new, and what it is answering is awaited. | [`registration::Registration::drain`] | `leaving::no_call_fails_when_instances_leave_in_order`, `leaving::a_caller_that_hangs_is_waited_for_no_longer_than_said`, `examples::a_server_that_stops_in_order_fails_no_call` |
//! | Nothing is left running when the last client, balancer and registration of a process are dropped. | All tasks belong to one of them. | `ending::no_task_outlives_what_was_dropped`, `ending::no_connection_outlives_what_was_dropped` |
//!
//! # For operators
//!
//! [`operator`] is what deploy scripts need: shifts, rollbacks, receipts. The
//! command line is built on it.

pub mod balancer;
pub mod call;
pub mod client;
pub mod cluster;
pub mod error;
pub mod explain;
pub mod layer;
pub mod make_balancer;
pub mod operator;
pub mod policy;
pub mod registration;
pub mod response_body;
#[doc(hidden)]
pub mod simulation;
pub mod sticky;
pub mod testing;
#[doc(hidden)]
pub mod workbench;

mod attempt;
mod backoff;
mod buckets;
mod budget;
mod cache;
mod chance;
mod connection;
mod continuity;
mod conversation;
mod convert;
mod course;
mod coverage;
mod crew;
mod deadline;
mod delta;
mod details;
mod endpoint;
mod exchange;
mod fair_sleep;
#[cfg(test)]
mod fakes;
mod heard;
mod http2;
mod incoming;
mod kept;
mod latency;
mod lineup;
mod load;
mod maglev;
mod many;
mod meter;
mod outcome;
mod outgoing;
mod outlier;
mod patience;
mod picker;
mod place;
mod pool;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod published_failures;
mod record;
mod renewal;
mod replay;
mod resolver;
mod sampler;
mod schedules;
mod serial;
mod shared;
mod shares;
mod shrink;
mod side;
mod subscription;
mod subset;
mod ticket;
mod turns;
mod view;
mod vigil;
mod vitals;
mod warm_up;
mod watch_stream;
mod watcher;
mod zones;

pub use balancer::Balancer;
pub use client::Client;
pub use error::Error;
