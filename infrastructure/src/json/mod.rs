//! Books in a folder: one state file that is replaced whole, and a file for each product made from it.
//!
//! The state file `.pulse-ledger.json` is the truth: totals, flush records, watermarks and the registry, of one moment. A
//! step takes the lock of the folder, reads the state, changes it, writes it beside, syncs it, renames it into place and
//! syncs the folder; so a step is there as a whole or not at all, whatever ends the program. Only then are the files of the
//! products made anew where they differ, each replaced whole too: they follow the state, and the next step or start makes
//! up for what a crash left out.
//!
//! Every step reads and writes the whole state and holds it in memory: books for some 100,000 hourly totals, not for
//! millions. The file grows by about 100 bytes for each hourly total; the flush records in it are bounded.
//!
//! - `folder`: the lock, and files that are replaced whole; `state`: what the state file holds, and how it is written.
//! - `rendering`: the files of the products.
//! - `ledger`, `registry`, `reader`, `queries`: the books (`UsageLedger`, `ShardRegistry`, `UsageReader`, `UsageQueries`);
//!   `audit` shows them to an audit (`BooksAudit`).

mod audit;
mod folder;
mod ledger;
mod queries;
mod reader;
mod registry;
mod rendering;
mod state;

use application::ports::PortError;
use folder::Folder;
use state::State;
use std::path::{Path, PathBuf};
use tokio::task::spawn_blocking;

/// Books in a folder. Any number of programs may use them at once; one at a time writes.
#[derive(Clone, Debug)]
pub struct JsonLedger {
    folder: Folder,
}

/// What a step has done with the state.
enum Step<T> {
    /// Nothing: it was so already.
    Kept(T),
    /// It is to be written.
    Changed(T),
}

impl JsonLedger {
    /// The books in this folder. Nothing is read or made yet: the first step that writes makes the folder.
    ///
    /// # Errors
    /// Permanent where the working directory, which a relative path starts from, is gone.
    pub fn new(folder: &Path) -> Result<Self, PortError> {
        let absolute = std::path::absolute(folder);
        let path = absolute.map_err(|error| PortError::permanent("find the folder of the books", error))?;
        Ok(Self { folder: Folder::new(path) })
    }

    /// The file that is there once anything was written to books in this folder.
    #[must_use]
    pub fn state_file(folder: &Path) -> PathBuf {
        folder.join(folder::STATE)
    }

    /// Makes the files of the products anew where they are missing or behind the state, as after a crash.
    ///
    /// # Errors
    /// Transient while another process holds the books. Permanent where the state cannot be read, or files not written.
    pub async fn refresh(&self) -> Result<(), PortError> {
        const OPERATION: &str = "bring the files of the JSON ledger up to date";
        let folder = self.folder.clone();
        blocking(OPERATION, move || {
            if !folder.has_state() {
                return Ok(());
            }
            let locked = folder.lock(OPERATION)?;
            match locked.load()? {
                Some(state) => locked.render(&state),
                None => Ok(()),
            }
        })
        .await
    }

    /// Looks at the state as of one moment. Needs no lock: the file is replaced whole.
    async fn look<T: Send + 'static>(
        &self,
        operation: &'static str,
        look: impl FnOnce(State) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let folder = self.folder.clone();
        blocking(operation, move || look(folder.read(operation)?.unwrap_or_default())).await
    }

    /// Changes the state in one step, and makes the files of the products after it where they may have changed.
    ///
    /// What returned is on the disk, also where it was there already: another program may have died right after it put
    /// the file into place.
    async fn step<T: Send + 'static>(
        &self,
        operation: &'static str,
        renders: bool,
        change: impl FnOnce(&mut State) -> Result<Step<T>, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let folder = self.folder.clone();
        blocking(operation, move || {
            let locked = folder.lock(operation)?;
            let found = locked.load()?;
            let is_first = found.is_none();
            let mut state = found.unwrap_or_default();
            let value = match change(&mut state)? {
                Step::Changed(value) => {
                    locked.store(&state, is_first)?;
                    value
                }
                Step::Kept(value) => {
                    locked.sync()?;
                    value
                }
            };
            if renders {
                locked.render(&state)?;
            }
            Ok(value)
        })
        .await
    }
}

/// Runs what waits for the disk where it keeps nobody waiting. Dropped, it still goes on to its end.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(PortError::permanent(operation, error)))
}
