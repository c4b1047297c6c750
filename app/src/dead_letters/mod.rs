//! `app dead-letters`: what was refused, in the hands of operators.

mod places;
mod render;

pub(crate) use places::{opened, places};

use crate::{
    cli::{
        Cli, DeadLetters, LetterChoice, LetterPlaceName, LetterShow, LettersChosen, LettersDiscard,
        LettersList, LettersReplay,
    },
    settings::Settings,
};
use anyhow::Context;
use application::dead_letters::{Bound, Handled, LetterFilter, NamedPlace, Wish, find, handle, survey};
use clap::{CommandFactory, ValueEnum, error::ErrorKind};
use std::io::{self, IsTerminal, Write};

/// Everything that is there.
const ALL: Bound = Bound { letters: None, time: None };
const REPEAT: &str = "some letters may be done and none is lost: repeat the command";

/// Runs one of the commands.
///
/// # Errors
/// Why a place could not be gone through, or that there is no such letter.
pub(crate) async fn run(command: DeadLetters, settings: &Settings) -> anyhow::Result<()> {
    match command {
        DeadLetters::List(arguments) => list(arguments, settings).await,
        DeadLetters::Show(arguments) => show(arguments, settings).await,
        DeadLetters::Replay(LettersReplay { letters, force }) => {
            let (place, filter) = chosen(letters.clone());
            let places = wanted(place, settings).await?;
            deal(&places, &filter, Wish::Replay { force }, letters.dry_run, &[]).await.map(|_| ())
        }
        DeadLetters::Discard(LettersDiscard { letters, yes }) => {
            let (place, filter) = chosen(letters.clone());
            let places = wanted(place, settings).await?;
            let mut shown = Vec::new();
            if !yes && !letters.dry_run {
                shown = deal(&places, &filter, Wish::Discard, true, &[]).await?;
                if shown.iter().all(|handled| handled.done == 0) || !confirmed("discard them?")? {
                    return Ok(());
                }
            }
            // What came while somebody thought about it was not shown: it is behind those that were looked at.
            let bounds: Vec<Bound> =
                shown.iter().map(|handled| Bound { letters: Some(handled.looked_at), ..ALL }).collect();
            deal(&places, &filter, Wish::Discard, letters.dry_run, &bounds).await.map(|_| ())
        }
    }
}

/// Which letters of which place; nobody means all by saying nothing.
fn chosen(letters: LettersChosen) -> (Option<LetterPlaceName>, LetterFilter) {
    let LettersChosen { ids, which, all, .. } = letters;
    let (place, filter) = filter(ids, which);
    if filter.is_all() != all {
        let text =
            "say which letters: by ID, --reason, --tenant, --source or --since; or --all, and none of these";
        Cli::command().error(ErrorKind::MissingRequiredArgument, text).exit();
    }
    (place, filter)
}

fn filter(ids: Vec<String>, which: LetterChoice) -> (Option<LetterPlaceName>, LetterFilter) {
    let LetterChoice { place, reason, tenant, source, since } = which;
    (place, LetterFilter { ids, reason, tenant, source, since })
}

/// The places of the settings, or the one that is asked for.
async fn wanted(place: Option<LetterPlaceName>, settings: &Settings) -> anyhow::Result<Vec<NamedPlace>> {
    let mut places = opened(settings).await?;
    if let Some(wanted) = place.and_then(|place| place.to_possible_value()) {
        places.retain(|place| place.name == wanted.get_name());
        anyhow::ensure!(
            !places.is_empty(),
            "the settings name no place of dead letters of the kind {}",
            wanted.get_name()
        );
    }
    Ok(places)
}

async fn list(arguments: LettersList, settings: &Settings) -> anyhow::Result<()> {
    let LettersList { which, limit, json } = arguments;
    let (place, filter) = filter(Vec::new(), which);
    let mut surveys = Vec::new();
    for NamedPlace { name, title, place } in wanted(place, settings).await? {
        let found = survey(place.as_ref(), &filter, limit as usize, ALL).await;
        surveys.push((name, found.with_context(|| format!("cannot read the dead letters of {title}"))?));
    }
    let mut out = io::stdout();
    if json { render::json(&surveys, &mut out) } else { render::table(&surveys, &mut out) }
}

async fn show(arguments: LetterShow, settings: &Settings) -> anyhow::Result<()> {
    let LetterShow { id, json, raw } = arguments;
    for NamedPlace { name, title, place } in wanted(None, settings).await? {
        let found = find(place.as_ref(), &id, ALL).await;
        let (letter, _) = found.with_context(|| format!("cannot read the dead letters of {title}"))?;
        if let Some(letter) = letter {
            let mut out = io::stdout();
            return match (raw, json) {
                (true, _) => Ok(out.write_all(&letter.body)?),
                (_, true) => render::whole_json(name, &letter, &mut out),
                _ => render::whole(name, &letter, &mut out),
            };
        }
    }
    anyhow::bail!("there is no letter {id}")
}

/// Does it in each place, up to its bound where there is one, and says how many.
async fn deal(
    places: &[NamedPlace],
    filter: &LetterFilter,
    wish: Wish,
    dry_run: bool,
    bounds: &[Bound],
) -> anyhow::Result<Vec<Handled>> {
    let (mut out, mut all) = (io::stdout(), Vec::new());
    for (number, NamedPlace { title, place, .. }) in places.iter().enumerate() {
        let (mut handled, bound) = (Handled::default(), bounds.get(number).copied().unwrap_or(ALL));
        let dealt = handle(place.as_ref(), filter, wish, dry_run, bound, &mut handled).await;
        render::handled(title, &handled, wish, dry_run, &mut out)?;
        dealt.with_context(|| format!("could not go through the dead letters of {title}; {REPEAT}"))?;
        all.push(handled);
    }
    Ok(all)
}

/// Asks a person at a terminal; anything but yes is no.
///
/// # Errors
/// Where there is no terminal to ask at, which is told as wrong usage.
pub(crate) fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        let text = format!("{question} there is no terminal to ask at: add --yes");
        Cli::command().error(ErrorKind::MissingRequiredArgument, text).exit();
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
