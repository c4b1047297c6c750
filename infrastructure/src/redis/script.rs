//! The scripts, each one atomic step on one shard.

use super::keys;
use application::mutation::Mutation;
use domain::Shard;
use redis::{Cmd, ToRedisArgs};
use std::sync::LazyLock;

/// A script by its hash; Redis keeps it until it restarts.
#[derive(Debug)]
pub(super) struct Script {
    code: String,
    hash: String,
}

const GUARD: &str = include_str!("scripts/guard.lua");
const BUCKETS: &str = include_str!("scripts/buckets.lua");
/// Refused up front when Redis is full.
const MAY_ADD: &str = "#!lua\n";
/// Runs also when Redis is full.
const MAY_REMOVE: &str = "#!lua flags=allow-oom\n";
const READS: &str = "#!lua flags=no-writes,allow-oom\n";

/// It would add to what is stored.
pub(super) static APPLY: LazyLock<Script> = LazyLock::new(|| {
    let code = with_buckets(MAY_ADD, include_str!("scripts/apply.lua"));
    if Mutation::NoGenerationCheck.is_on() {
        return Script::new(code.replace("generation, sequence = meta[3]", "generation, sequence = ARGV[3]"));
    }
    Script::new(code)
});
/// See [`APPLY`].
pub(super) static CREATE: LazyLock<Script> =
    LazyLock::new(|| Script::new(with_buckets(MAY_ADD, include_str!("scripts/create.lua"))));
/// Without it, a full Redis could never be emptied.
pub(super) static SEAL: LazyLock<Script> = LazyLock::new(|| {
    let rename = if Mutation::Rename.is_on() { include_str!("scripts/rename.lua") } else { "" };
    Script::new(with_buckets(MAY_REMOVE, &[rename, include_str!("scripts/seal.lua")].concat()))
});
/// See [`SEAL`].
pub(super) static DELETE: LazyLock<Script> =
    LazyLock::new(|| Script::new([MAY_REMOVE, GUARD, include_str!("scripts/delete.lua")].concat()));
/// See [`SEAL`].
pub(super) static DROP: LazyLock<Script> =
    LazyLock::new(|| Script::new(with_buckets(MAY_REMOVE, include_str!("scripts/drop.lua"))));

/// As [`APPLY`]: what could not be counted when Redis is full is not suspected either.
pub(super) static TAKE_ALONE: LazyLock<Script> =
    LazyLock::new(|| Script::new([MAY_ADD, include_str!("scripts/take_alone.lua")].concat()));

/// See [`APPLY`].
pub(super) static SETTLE_LOG: LazyLock<Script> =
    LazyLock::new(|| Script::new([MAY_ADD, include_str!("scripts/settle_log.lua")].concat()));

/// A shard may have to be brought back before anything can be flushed.
pub(super) static RESTORE: LazyLock<Script> =
    LazyLock::new(|| Script::new(with_buckets(MAY_REMOVE, include_str!("scripts/restore.lua"))));
/// See [`RESTORE`].
pub(super) static SWEEP: LazyLock<Script> =
    LazyLock::new(|| Script::new([MAY_REMOVE, GUARD, include_str!("scripts/sweep.lua")].concat()));

/// What the audit compares.
pub(super) static CUT: LazyLock<Script> =
    LazyLock::new(|| Script::new(with_buckets(READS, include_str!("scripts/cut.lua"))));
/// See [`CUT`].
pub(super) static RECOUNT: LazyLock<Script> =
    LazyLock::new(|| Script::new(with_buckets(READS, include_str!("scripts/recount.lua"))));
/// What is remembered of single pulses.
pub(super) static LOOK_UP: LazyLock<Script> =
    LazyLock::new(|| Script::new(with_buckets(READS, include_str!("scripts/look_up.lua"))));

/// A script that knows the buckets: as a function, so that nothing is made of it where it is not called.
fn with_buckets(start: &str, code: &str) -> String {
    [start, GUARD, "local function layouts()\n", BUCKETS, "end\n", code].concat()
}

impl Script {
    fn new(code: impl Into<String>) -> Self {
        let code = code.into();
        Self { hash: redis::Script::new(&code).get_hash().to_owned(), code }
    }

    /// The command that makes Redis know the script.
    pub(super) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.code);
        command
    }

    /// A call on a shard, with room for so many arguments of so many bytes together.
    ///
    /// The second key is one that never exists. A server of a cluster runs nothing that names a key that it has and one
    /// that it has not while it hands their slot over (`TRYAGAIN`): no script meets half of a shard.
    pub(super) fn on(&self, shard: Shard, arguments: usize, bytes: usize) -> Invocation {
        let mut command = Cmd::with_capacity(arguments + 5, bytes + 128);
        command.arg("EVALSHA").arg(&self.hash).arg(2).arg(keys::meta(shard)).arg(keys::never(shard));
        Invocation { command }
    }
}

/// A script with its arguments.
pub(super) struct Invocation {
    command: Cmd,
}

impl Invocation {
    /// Adds an argument.
    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.command.arg(argument);
        self
    }

    pub(super) const fn command(&self) -> &Cmd {
        &self.command
    }
}
