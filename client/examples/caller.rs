//! Calls the demo service ten times a second and says which group answered.
//!
//! `cargo run -p trimtab-client --example caller [ENDPOINTS]`

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use trimtab_client::Client;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let client = Client::connect(&endpoints)?;
    let catalog = client
        .service("catalog")
        .idempotent(true)
        .may_be_absent()
        .await?;
    let mut catalog = CatalogClient::new(catalog);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for item_id in 0.. {
        ticks.tick().await;
        match catalog.get_item(GetItemRequest { item_id }).await {
            Ok(item) => {
                let item = item.into_inner();
                println!("{} from {} ({})", item.title, item.group, item.instance_id);
            }
            Err(status) => println!("failed: {}", status.message()),
        }
    }
    Ok(())
}
