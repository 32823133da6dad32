//! Calls a service over HTTP/1 with hyper's client: each call asks for an instance, and says how it went.
//!
//! `cargo run -p trimtab-client --example http_caller SERVICE [ENDPOINTS]`
//!
//! Any other client, for any other protocol, does the same. For clients that
//! are tower services there is `trimtab_client::layer`.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use trimtab_client::{Balancer, Client};

type Http = HttpClient<HttpConnector, Empty<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let service = arguments.next().ok_or("say which service")?;
    let endpoints = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let client = Client::connect(&endpoints)?;
    let instances = client.service(service).tcp().may_be_absent().await?;
    let http: Http = HttpClient::builder(TokioExecutor::new()).build_http();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        match get(&http, &instances, "/").await {
            Ok(said) => println!("{said}"),
            Err(error) => println!("failed: {error}"),
        }
    }
}

async fn get(http: &Http, instances: &Balancer, path: &str) -> Result<String, Box<dyn Error>> {
    let picked = instances.pick().await?;
    let uri = format!("http://{}{path}", picked.address()).parse()?;
    let (group, address) = (picked.group().to_owned(), picked.address().to_owned());
    match http.get(uri).await {
        Err(error) => {
            // Nobody else is sent there until it can be connected to.
            picked.unreachable();
            Err(error.into())
        }
        Ok(response) if response.status().is_server_error() => {
            picked.failure();
            Err(format!("{} from {address} ({group})", response.status()).into())
        }
        Ok(response) => {
            let body = response.into_body().collect().await?.to_bytes();
            picked.success();
            let text = String::from_utf8_lossy(&body);
            Ok(format!("{text} from {group} at {address}"))
        }
    }
}
