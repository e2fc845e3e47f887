//! What every request to the API server goes through: the limit of `--kube-api-qps`, and the eye on whether the API
//! server answers.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use kube::client::Body;
use tokio::time::{Instant, Sleep};
use tower::{BoxError, Layer, Service};

use crate::{bucket::Bucket, error::chain, outage::Reach};

/// Makes [`Transport`]s.
pub(crate) struct TransportLayer {
    pub(crate) reach: Arc<Reach>,
    /// Requests per second; zero or less: no limit.
    pub(crate) qps: f32,
    pub(crate) burst: u32,
}

impl<S> Layer<S> for TransportLayer {
    type Service = Transport<S>;

    fn layer(&self, inner: S) -> Transport<S> {
        let limited = self.qps > 0.0 && self.qps.is_finite();
        let bucket = limited.then(|| Bucket::new(f64::from(self.qps), self.burst, Instant::now()));
        Transport { inner, reach: self.reach.clone(), bucket, waits: None, granted: false }
    }
}

/// The service around the client's own.
pub(crate) struct Transport<S> {
    inner: S,
    reach: Arc<Reach>,
    bucket: Option<Bucket>,
    waits: Option<Pin<Box<Sleep>>>,
    granted: bool,
}

impl<S, B> Service<Request<Body>> for Transport<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        while !self.granted {
            if let Some(waits) = &mut self.waits {
                ready!(waits.as_mut().poll(cx));
                self.waits = None;
            }
            match self.bucket.as_mut().map(|bucket| bucket.take(Instant::now())) {
                None | Some(Ok(())) => self.granted = true,
                Some(Err(wait)) => self.waits = Some(Box::pin(tokio::time::sleep(wait))),
            }
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.granted = false;
        let answer = self.inner.call(request);
        let reach = self.reach.clone();
        Box::pin(async move {
            let answer = answer.await;
            match &answer {
                Ok(_) => reach.answered(),
                Err(error) => reach.unreachable(chain(error.as_ref())),
            }
            answer
        })
    }
}
