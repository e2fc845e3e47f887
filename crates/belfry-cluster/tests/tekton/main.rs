//! Tekton's runs of `FluxDeploymentWait` on a real API server with Tekton's own CRDs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod contract;
mod harness;
mod lifecycle;
mod recorded;
mod walkthrough;
mod world;
