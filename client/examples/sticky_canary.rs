//! Calls the demo service for some users, each of whom meets one release while a rollout goes on.
//!
//! `cargo run -p trimtab-client --example sticky_canary [ENDPOINTS]`
//!
//! Shift the route while it runs, for example with `trimtab shift catalog v1=90
//! v2=10` and then `v1=50 v2=50`: users go over to v2 and none comes back.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tonic::Request;
use trimtab_client::Client;
use trimtab_client::sticky::StickyKey;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;

const USERS: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let client = Client::connect(&endpoints)?;
    let catalog = client.service("catalog").idempotent(true);
    let mut catalog = CatalogClient::new(catalog.may_be_absent().await?);
    let mut groups = vec![String::new(); USERS];
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        for (user, group) in groups.iter_mut().enumerate() {
            let mut request = Request::new(GetItemRequest {
                item_id: user as u64,
            });
            // Services that this one calls can go on with the bucket: it is in
            // the header `trimtab-bucket`.
            request
                .extensions_mut()
                .insert(StickyKey::new(format!("user {user}")));
            match catalog.get_item(request).await {
                Ok(item) => *group = item.into_inner().group,
                Err(status) => println!("failed: {}", status.message()),
            }
        }
        let on = |release: &str| groups.iter().filter(|it| **it == release).count();
        println!("users on v1: {}, on v2: {}", on("v1"), on("v2"));
    }
}
