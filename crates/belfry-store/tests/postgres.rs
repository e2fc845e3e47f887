//! The conformance suite on PostgreSQL, and what only several replicas or a server elsewhere can get wrong.

#![allow(clippy::unwrap_used, reason = "a test")]

mod conformance;

use belfry_store::{Database, Options, Store};
use conformance::Fixture;
use testkit::Postgres;

/// A database of its own on the server that the tests share.
struct Shared {
    server: &'static Postgres,
    name: String,
}

impl Shared {
    fn database(&self) -> Database {
        Database::at(&self.server.url(&self.name))
    }
}

impl Fixture for Shared {
    fn available() -> bool {
        let available = Postgres::shared().is_some();
        if !available {
            testkit::skip("PostgreSQL is missing");
        }
        available
    }

    fn create() -> Self {
        let server = Postgres::shared().unwrap();
        Self { server, name: server.database().unwrap() }
    }

    fn open(&self, options: Options) -> Store {
        Store::open_postgres(&self.database(), options).unwrap()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.server.remove_database(&self.name);
    }
}

conformance::suite!(Shared);
