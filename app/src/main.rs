//! The ingestor's one program: flags, settings, wiring, signals, exit codes.

mod api;
mod archive;
mod audit;
mod backends;
mod cli;
mod clock;
mod dead_letters;
mod explain;
mod health;
mod hours;
mod inbox;
mod ingest;
mod keys;
mod logging;
mod mappings;
mod overview;
mod populate;
mod print_pulses;
mod progress;
mod recover;
mod retention;
mod service;
mod settings;
mod signals;
mod usage;

use application::{flush_usage::FlushSummary, ports::Inbox, retry::Dependency};
use backends::{Backends, patiently, while_there};
use clap::{CommandFactory, Parser, error::ErrorKind};
use cli::{Cli, Command, Modes};
use retention::remove_old;
use settings::{Environment, Faults, Settings};
use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};
use tokio::{select, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Wrong usage or settings: nothing was done.
const WRONG_USAGE: u8 = 2;
const WHAT_TO_RUN: &str = "give modes to run, or one command, not both and not neither\n\n\
    `app --standalone` runs everything on one embedded file, without any server.\n\
    `app --worker`, `app --cron` and `app --api` run on RabbitMQ, Redis and PostgreSQL.\n\
    `app ingest FILE` counts a file, `app usage` prints the totals.";

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<audit::Exit>() => {
            error.downcast_ref().map_or(ExitCode::FAILURE, |exit: &audit::Exit| ExitCode::from(exit.0))
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "app: {}", told(&error));
            if error.is::<Faults>() { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(Command::Settings(arguments)) = &cli.command {
        let text = if arguments.env_example { settings::env_example() } else { settings::markdown() };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Mappings(command)) = &cli.command {
        return mappings::run(command, &mut io::stdout());
    }
    if cli.modes.any() == cli.command.is_some() {
        let usage = Cli::command().error(ErrorKind::MissingSubcommand, WHAT_TO_RUN);
        usage.exit();
    }
    let environment =
        Environment::collect(cli.overrides.into_settings(), std::env::vars_os(), Path::new(".env"));
    let settings = Settings::load(&environment)?;
    // The last thing to go: what happens until then is in its spans.
    let _export = logging::start(&settings.log)?;
    if let Some(Command::Health(arguments)) = &cli.command {
        return health::run(arguments, &settings).map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run_until_stopped(cli.modes, cli.command, settings));
    // A thread that reads standard input cannot be interrupted: nobody waits for it.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn run_until_stopped(modes: Modes, command: Option<Command>, settings: Settings) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut signals = JoinSet::new();
    signals.spawn(signals::watch(stop.clone())?);
    match command {
        None if modes.archive => archive::run(modes, &settings, stop).await,
        None => service::run(modes, settings, stop).await,
        Some(Command::Ingest(arguments)) => ingest::run(arguments, &settings, stop).await,
        Some(Command::Usage(arguments)) => {
            or_stopped(&stop, Box::pin(usage::run(arguments, &settings))).await
        }
        Some(Command::Flush) => or_stopped(&stop, Box::pin(flush(&settings))).await,
        Some(Command::Audit(arguments)) => {
            or_stopped(&stop, Box::pin(audit::run(&arguments, &settings))).await
        }
        Some(Command::Recover(arguments)) => {
            or_stopped(&stop, Box::pin(recover::run(&arguments, &settings))).await
        }
        Some(Command::Explain(arguments)) => {
            or_stopped(&stop, Box::pin(explain::run(arguments, &settings))).await
        }
        Some(Command::Migrate) => or_stopped(&stop, Box::pin(migrate(&settings))).await,
        Some(Command::Keys(command)) => or_stopped(&stop, Box::pin(keys::run(command, &settings))).await,
        Some(Command::DeadLetters(command)) => {
            or_stopped(&stop, Box::pin(dead_letters::run(command, &settings))).await
        }
        Some(Command::Webhooks(command)) => or_stopped(&stop, Box::pin(inbox::run(command, &settings))).await,
        Some(Command::Populate(arguments)) => populate::run(arguments, &settings, stop).await,
        Some(Command::Settings(_) | Command::Mappings(_) | Command::Health(_)) => Ok(()),
    }
}

/// For commands that may be cut off anywhere.
async fn or_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    select! {
        result = work => result,
        () = stop.cancelled() => anyhow::bail!("stopped before the end: repeat the command"),
    }
}

async fn flush(settings: &Settings) -> anyhow::Result<()> {
    let stores = settings.stores_or_embedded("app flush", "set neither, to flush the embedded file")?;
    let backends = patiently(async {
        let backends = Backends::open_held(&stores, &settings.counting).await?;
        backends.check_shard_count().await?;
        anyhow::Ok(backends)
    })
    .await?;
    let FlushSummary { rows, pulses, .. } = while_there(&backends.dependency, async {
        let flushed = backends.flush().await?;
        if let Some(inbox) = &backends.books.inbox {
            let (events, kept) = ("events of the inbox", settings.inbox.retention);
            remove_old(events, kept, &backends.dependency, |before| inbox.remove_done(before)).await?;
        }
        if let Some(file) = &backends.books.file {
            let (letters, kept) = ("dead letters", settings.letter_retention);
            remove_old(letters, kept, &backends.dependency, |before| file.remove_letters(before)).await?;
        }
        Ok(flushed)
    })
    .await?;
    writeln!(io::stdout(), "flushed {pulses} pulses into {rows} hourly totals")?;
    Ok(())
}

async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let ledger = settings.ledger();
    patiently(Dependency::new("ledger").hold(|| ledger.open(&settings.counting, true))).await?;
    writeln!(io::stdout(), "the tables of {ledger} are up to date")?;
    if let Some(archive) = patiently(archive::migrate(settings)).await? {
        writeln!(io::stdout(), "the tables of {archive} are up to date")?;
    }
    Ok(())
}

/// The error and its causes; those are left out that the text before them repeats already.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        if told.is_empty() {
            cause
        } else if told.ends_with(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}

/// Whether whoever reads our output has read enough, like `head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
