//! The ingestor's one program: flags, settings, wiring, signals, exit codes.

mod cli;
mod hours;
mod logging;
mod populate;
mod progress;
mod settings;
mod signals;
mod usage;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use settings::{Environment, Faults, Settings};
use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

/// Wrong usage or settings: nothing was done.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "app: {error:#}");
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
    let environment = Environment::collect(cli.overrides.into_settings(), std::env::vars_os(), Path::new(".env"));
    let settings = Settings::load(&environment)?;
    logging::start(&settings.log);
    Ok(ExitCode::SUCCESS)
}

/// Whether whoever reads our output has read enough, like `head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
