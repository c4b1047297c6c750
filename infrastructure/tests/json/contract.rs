//! The contract suite, each test on a folder of its own.

use crate::fixture::Books;
use application::contract::ledger::FreshBooks;
use infrastructure::json::JsonLedger;

impl FreshBooks for Books {
    type Ledger = JsonLedger;

    async fn open(&self) -> JsonLedger {
        self.ledger()
    }

    fn takes_sku(&self, sku: &str) -> bool {
        sku.len() <= 200
    }
}

application::ledger_contract!(std::future::ready(Books::new()));
