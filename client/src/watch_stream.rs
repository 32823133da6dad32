//! One watch stream, from hello to its end: carries a conversation over a connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use trimtab_proto::v1 as wire;
use trimtab_proto::v1::discovery_client::DiscoveryClient;

use crate::cluster::{Line, MESSAGE_BYTES_MAX, describe};
use crate::conversation::{Conversation, Ended, OPEN_TIMEOUT};
use crate::subscription::Subscriptions;

/// Messages handed to the transport but not sent yet; more wait in order.
const UNSENT_MAX: usize = 64;

/// Runs the stream of a conversation to its end.
pub(crate) async fn follow(
    conversation: &mut Conversation,
    subscriptions: &Arc<Subscriptions>,
    channel: Line,
) -> Ended {
    let (sender, receiver) = mpsc::channel(UNSENT_MAX);
    // Puts what is ready into the channel before there is anyone to wait for.
    while conversation.has_requests()
        && let Ok(permit) = sender.try_reserve()
        && let Some(request) = conversation.next_request()
    {
        permit.send(request);
    }
    let mut client = DiscoveryClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let opened = timeout(OPEN_TIMEOUT, client.watch(ReceiverStream::new(receiver))).await;
    match opened {
        Ok(Ok(answers)) => {
            let ended = converse(conversation, subscriptions, answers.into_inner(), sender);
            ended.await.unwrap_or_else(|ended| ended)
        }
        Ok(Err(status)) => Ended::Broken(describe(&status)),
        Err(_) => Ended::Broken(format!("no answer within {OPEN_TIMEOUT:.1?}")),
    }
}

async fn converse(
    conversation: &mut Conversation,
    subscriptions: &Arc<Subscriptions>,
    mut answers: Streaming<wire::WatchResponse>,
    sender: mpsc::Sender<wire::WatchRequest>,
) -> Result<Ended, Ended> {
    let opened = Instant::now();
    // Made anew by the welcome, which says how often.
    let mut reports = reports_every(OPEN_TIMEOUT);
    loop {
        let due = conversation.due();
        tokio::select! {
            () = sleep_until(opened + due.unwrap_or_default()), if due.is_some() => {
                if let Some(ended) = conversation.overdue(opened.elapsed()) {
                    return Ok(ended);
                }
            }
            answer = answers.message() => match answer {
                Ok(Some(answer)) => {
                    let heard = conversation.hear(opened.elapsed(), answer, &mut rand::rng())?;
                    if let Some(interval) = heard {
                        reports = reports_every(interval);
                    }
                }
                Ok(None) => return Ok(Ended::Broken("the replica ended the stream".to_owned())),
                Err(status) => return Ok(Ended::Broken(describe(&status))),
            },
            () = subscriptions.changed.notified() => conversation.followed_changed()?,
            _ = reports.tick(), if conversation.was_welcome() => {
                conversation.report(Instant::now());
            }
            // Never waits for the transport while views wait to be read.
            permit = sender.reserve(), if conversation.has_requests() => match permit {
                Ok(permit) => if let Some(request) = conversation.next_request() {
                    permit.send(request);
                },
                Err(_) => {
                    return Ok(Ended::Broken("the stream takes no more requests".to_owned()));
                }
            },
        }
    }
}

fn reports_every(period: Duration) -> Interval {
    // Somewhere within the first period, as processes start together.
    let first = period.mul_f64(rand::random_range(0.1..=1.0));
    let mut reports = interval_at(Instant::now() + first, period);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    reports
}
