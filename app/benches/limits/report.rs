//! One table of all figures, for people and for machines.

use crate::{
    measure::{Figure, median},
    plot,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One way to do the work of a section.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The case beside which it is set, and the least that its rate is to come to.
    pub(crate) beside: Option<(String, Option<f64>)>,
}

impl Case {
    /// What bounds others.
    pub(crate) fn limit(name: &str) -> Self {
        Self { name: name.to_owned(), beside: None }
    }

    /// One beside its limit, with the target for the ratio of the rates where there is one.
    pub(crate) fn beside(limit: &str, name: &str, target: Option<f64>) -> Self {
        Self { name: name.to_owned(), beside: Some((limit.to_owned(), target)) }
    }
}

/// A row of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) section: &'static str,
    pub(crate) name: String,
    /// What is done in a second, the median of the rounds.
    pub(crate) per_second: f64,
    /// Microseconds of CPU for each, by process.
    pub(crate) cpu_us: BTreeMap<&'static str, f64>,
    /// The row that bounds it.
    pub(crate) limit: Option<String>,
    /// Its rate as a part of that row's.
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Option<f64>,
}

/// A figure that is no rate.
#[derive(Debug, Serialize)]
struct Fact {
    section: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    /// What it is to stay at or below.
    target: Option<f64>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    machine: String,
    rows: Vec<Row>,
    facts: Vec<Fact>,
}

impl Report {
    /// Adds the medians of a section.
    pub(crate) fn add(&mut self, section: &'static str, cases: Vec<(Case, Vec<Figure>)>) {
        for (case, figures) in cases {
            let per_second = median(figures.iter().map(Figure::per_second));
            let mut cpu = BTreeMap::<_, Vec<f64>>::new();
            for figure in &figures {
                for (process, seconds) in &figure.cpu {
                    cpu.entry(*process).or_default().push(seconds / figure.work * 1e6);
                }
            }
            let (limit, target) = case.beside.unzip();
            let rate =
                |name: &String| self.rows.iter().find(|row| row.section == section && row.name == *name);
            self.rows.push(Row {
                section,
                name: case.name,
                per_second,
                cpu_us: cpu.into_iter().map(|(process, values)| (process, median(values))).collect(),
                ratio: limit.as_ref().and_then(rate).map(|limit| per_second / limit.per_second),
                limit,
                target: target.flatten(),
            });
        }
    }

    /// Adds a figure that is no rate.
    pub(crate) fn fact(
        &mut self,
        section: &'static str,
        name: &str,
        value: f64,
        unit: &'static str,
        target: Option<f64>,
    ) {
        eprintln!("{section}, {name}: {value:.1} {unit}");
        self.facts.push(Fact { section, name: name.to_owned(), value, unit, target });
    }

    /// The rate of a row; nothing where its section did not run.
    pub(crate) fn rate(&self, section: &str, name: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.section == section && row.name == name);
        row.map(|row| row.per_second)
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The tables, as they stand in the documentation.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| section | case | a second | CPU, microseconds each | ratio | target |\n|---|---|---:|---|---:|---:|\n",
        );
        for row in &self.rows {
            let cpu: Vec<String> =
                row.cpu_us.iter().map(|(process, each)| format!("{process} {each:.2}")).collect();
            let number = |value: Option<f64>| value.map(|value| format!("{value:.2}")).unwrap_or_default();
            let (ratio, target) = (number(row.ratio), number(row.target));
            let rate = thousands(row.per_second);
            let _ = writeln!(
                text,
                "| {} | {} | {rate} | {} | {ratio} | {target} |",
                row.section,
                row.name,
                cpu.join(", ")
            );
        }
        text.push_str("\n| section | figure | value | target |\n|---|---|---:|---:|\n");
        for fact in &self.facts {
            let target = fact.target.map(|target| format!("<= {target} {}", fact.unit)).unwrap_or_default();
            let Fact { section, name, value, unit, .. } = fact;
            let _ = writeln!(text, "| {section} | {name} | {value:.1} {unit} | {target} |");
        }
        text
    }

    /// Writes JSON, Markdown and a plot into `bench/` of the target folder; returns that folder.
    pub(crate) fn write(&mut self) -> PathBuf {
        self.machine = machine();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench");
        fs::create_dir_all(&folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        fs::write(folder.join("bench.json"), serde_json::to_vec_pretty(self).unwrap()).unwrap();
        fs::write(folder.join("bench.md"), self.markdown()).unwrap();
        plot::write(&folder.join("bench.svg"), self);
        folder
    }
}

/// The processor and the number of cores that a process may use.
fn machine() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = Command::new("uname").arg("-r").output().map(|output| output.stdout).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores, Linux {}", model.unwrap_or("?"), String::from_utf8_lossy(&kernel).trim())
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
