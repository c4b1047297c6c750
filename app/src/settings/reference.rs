//! The reference of the settings, as Markdown and as `.env.example`.

use super::table::GROUPS;
use std::fmt::Write;

const WIDTH: usize = 98;

/// The reference as Markdown: a heading for each group, a paragraph for each setting.
pub(crate) fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Environment variables, or lines of `.env` in the working directory; the environment wins, a flag wins over \
         both. An empty value counts as not set. Durations are a number with a unit: `5ms`, `30s`, `48h`, `35d`. \
         All settings are checked at the start, and all faults are listed at once. This page is made by `app \
         settings`.\n",
    );
    for (group, definitions) in GROUPS {
        let _ = write!(text, "\n## {group}\n");
        for definition in *definitions {
            let default = match definition.default {
                Some(default) => format!("default `{default}`"),
                None => "not set by default".to_owned(),
            };
            let secret = if definition.secret { "; never printed" } else { "" };
            let _ = write!(
                text,
                "\n### `{}`\n\n{}\n\nMust be {}; {default}{secret}.\n",
                definition.name,
                definition.doc,
                with_code(definition.allowed)
            );
        }
    }
    text.push_str("\nNext: [operations](operations.md).\n");
    text
}

/// Patterns of URLs as code, so that nothing takes them for links.
fn with_code(allowed: &str) -> String {
    let word = |word: &str| {
        let pattern = word.trim_end_matches(',');
        let rest = &word[pattern.len()..];
        if pattern.contains("://") { format!("`{pattern}`{rest}") } else { word.to_owned() }
    };
    allowed.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The file to copy to `.env`: every setting with its default, commented out.
pub(crate) fn env_example() -> String {
    let mut text = String::from(
        "# Copy this file to .env, remove the # in front of what you set, and leave the rest.\n\
         # The environment wins over this file. Values that hold a $ or a space stand in single quotes.\n\
         # Made by `app settings --env-example`.\n",
    );
    for (group, definitions) in GROUPS {
        let _ = write!(text, "\n# ---- {group} ----\n");
        for definition in *definitions {
            let paragraph = format!("{} Must be {}.", definition.doc, definition.allowed);
            let value = definition.default.unwrap_or(definition.example);
            let quote = if value.contains([' ', '#']) { "'" } else { "" };
            let note = if definition.default.is_some() { "" } else { "Not set by default, for example:" };
            text.push('\n');
            for line in
                wrapped(&paragraph).iter().map(String::as_str).chain((!note.is_empty()).then_some(note))
            {
                let _ = writeln!(text, "# {line}");
            }
            let _ = writeln!(text, "#{}={quote}{value}{quote}", definition.name);
        }
    }
    text
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
