//! The server of the events port with nothing behind it: reads each event, and answers 202. What it reaches is the limit
//! that durable intake is measured against (`cargo xtask bench`).

use axum::body::Body;
use belfry::server::{self, Bounds, WholeRequest};
use http::{Response, StatusCode};
use tokio::sync::watch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener =
        server::bind("the address", &std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into())).await?;
    // The form in which `belfry serve` says it.
    eprintln!("{}", serde_json::json!({"message": "serving", "events": listener.local_addr()?.to_string()}));
    // It serves until it is killed.
    let (_stop, stopping) = watch::channel(false);
    server::serve(listener, Bounds::default(), stopping, |request| async move { answer(&request) }).await;
    Ok(())
}

fn answer(request: &WholeRequest) -> Response<Body> {
    match belfry_core::event::read(request.body()) {
        Ok(event) => {
            // So that no part of reading can be left out.
            std::hint::black_box(&event);
            server::empty(StatusCode::ACCEPTED)
        }
        Err(_) => server::empty(StatusCode::BAD_REQUEST),
    }
}
