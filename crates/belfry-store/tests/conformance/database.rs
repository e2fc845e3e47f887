//! PostgreSQL for a test: a database of its own on the server that all tests share.

use belfry_store::{Database, Options, Store};
use testkit::Postgres;

use crate::conformance::Fixture;

/// Removed at the end.
pub struct Shared {
    server: &'static Postgres,
    name: String,
}

impl Shared {
    pub fn database(&self) -> Database {
        Database::at(&self.server.url(&self.name))
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql).unwrap()
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
