//! The ledger's promises, each on a database of its own on one server.

use super::connect;
use application::contract::ledger::FreshBooks;
use infrastructure::{postgres::PostgresLedger, test_servers::postgres::PostgresServer};
use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicU32, Ordering},
};

/// The server of all tests that run at the moment: the last one takes it down.
fn server() -> Arc<PostgresServer> {
    static SERVER: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
    let mut shared = SERVER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(PostgresServer::start());
        *shared = Arc::downgrade(&server);
        server
    })
}

pub(crate) struct Database {
    pub(crate) url: String,
    _server: Arc<PostgresServer>,
}

impl FreshBooks for Database {
    type Ledger = PostgresLedger;

    async fn open(&self) -> PostgresLedger {
        connect(&self.url).await
    }
}

pub(crate) async fn fresh() -> Database {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = server();
    let url = server.create_database(&format!("books_{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    connect(&url).await.migrate().await.expect("the schema is made");
    Database { url, _server: server }
}

application::ledger_contract!(fresh());
application::queries_contract!(fresh());
application::recovery_books_contract!(fresh());
