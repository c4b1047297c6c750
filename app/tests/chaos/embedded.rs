//! A round on the embedded file: one service, its HTTP API, and `app ingest` beside it, all killed at any moment.

use crate::{
    arena::App,
    books::{Verdict, differences},
    plan::Plan,
    points::Points,
    round::{Report, Rules, SIGABRT, seed_of},
    tally::Tally,
    totals_table::totals,
};
use infrastructure::test_servers::free_port;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

const FILES: usize = 4;
const PUBLISHERS: usize = 2;
/// Messages of each publisher, and lines of each file.
const POSTED: usize = 50;
const LINES: usize = 400;
const LIMIT: Duration = Duration::from_mins(1);
const TICK: Duration = Duration::from_millis(5);
const CALL_LIMIT: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);
/// Prints hourly totals as the ledger of servers shows them, then what must be 0 and what must be the number of pulses.
const READER: &str = r#"
import csv, sqlite3, sys
books = sqlite3.connect(sys.argv[1])
ask = lambda query: books.execute(query).fetchall()
amount = lambda top, high, low: top * 10**36 + high * 10**18 + low
def decimal(nanos):
    text = f"{nanos // 10**9}.{nanos % 10**9:09}"
    return text.rstrip("0").rstrip(".")
out, flushed, hours = csv.writer(sys.stdout, lineterminator="\n"), 0, 0
for *key, hour, top, high, low, pulses in ask("select tenant, product_sku, use_unity, strftime('%Y-%m-%dT%H:00:00Z', hour * 3600, 'unixepoch'), nanos_top, nanos_high, nanos_low, pulse_count from hourly_usage"):
    hours += amount(top, high, low)
    out.writerow([*key, hour, decimal(amount(top, high, low)), pulses])
for top, high, low in ask("select nanos_top, nanos_high, nanos_low from flushes"):
    flushed += amount(top, high, low)
left = ask("select count(*) from counting_usage")[0][0] + ask("select count(*) from counting_generations")[0][0]
gaps = len(ask("select 1 from flushes group by accumulator, shard having count(*) <> max(generation)"))
waiting = ask("select count(*) from webhook_events where status <> 'done'")[0][0]
ids = ask("select count(*) from counting_identities")[0][0]
counted = ask("select sum(counted) from counting_shards")[0][0]
billed = ask("select sum(pulse_count) from flushes")[0][0]
print(flushed - hours, left, gaps, waiting, ids, counted, billed, file=sys.stderr)
"#;

/// What is the same for all processes of the round.
struct Site {
    folder: PathBuf,
    port: u16,
}

impl Site {
    fn start(&self, name: &str, arguments: &[&str], more: &[(&'static str, String)]) -> App {
        let mut settings = vec![
            ("HTTP_ADDR", format!("127.0.0.1:{}", self.port)),
            ("API_USERNAME", "chaos".to_owned()),
            ("API_PASSWORD", "chaos-chaos-chaos".to_owned()),
            ("FLUSH_SCHEDULE", "* * * * * *".to_owned()),
            ("PULSE_BATCH_SIZE", "20".to_owned()),
            // What a killed service held comes again within the round, however often that happens to it.
            ("INBOX_LEASE", "2s".to_owned()),
            ("INBOX_POLL_INTERVAL", "100ms".to_owned()),
            ("INBOX_ATTEMPTS_MAX", "1000".to_owned()),
            ("LOG_LEVEL", "info".to_owned()),
        ];
        settings.extend_from_slice(more);
        App::start(&self.folder, name, arguments, &settings)
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<String, String> {
        let log = self.folder.join(format!("{name}.log"));
        let _ = fs::remove_file(&log);
        self.start(name, arguments, &[]).finish(arguments)?;
        fs::read_to_string(&log).map_err(|error| error.to_string())
    }
}

/// A process that is started again whenever it ends, and for an ingestion until it succeeds.
struct Runner<'a> {
    site: &'a Site,
    name: String,
    arguments: Vec<String>,
    /// By which its crash points are drawn.
    number: u64,
    app: Option<App>,
    resume_at: Option<Instant>,
    kind: &'static str,
}

impl Runner<'_> {
    fn start(&mut self, points: &mut Points) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.app = Some(self.site.start(&self.name, &arguments, &points.arm_embedded(self.number)));
    }

    /// Starts it again after a death; what ended by itself and may not is a fault.
    fn watch(&mut self, points: &mut Points, tally: &mut Tally) -> Result<(), String> {
        if self.resume_at.is_some_and(|time| time < Instant::now()) {
            self.resume_at = None;
            self.app.iter_mut().for_each(App::resume);
        }
        let Some(status) = self.app.as_mut().and_then(App::ended) else { return Ok(()) };
        let words = self.app.take().map(|app| app.last_words()).unwrap_or_default();
        if status.signal() == Some(SIGABRT) {
            tally.done("crash point");
            self.start(points);
            return Ok(());
        }
        let may_end = self.kind == "SIGKILL app ingest";
        if may_end && status.success() {
            return Ok(());
        }
        self.start(points);
        Err(format!("{} ended by itself with {status}:\n{words}", self.name))
    }

    fn pause(&mut self, time: Duration, tally: &mut Tally) {
        if let Some(app) = &mut self.app {
            app.pause();
            self.resume_at = Some(Instant::now() + time);
            tally.done(if self.number == 0 { "SIGSTOP standalone" } else { "SIGSTOP app ingest" });
        }
    }

    fn kill(&mut self, points: &mut Points, tally: &mut Tally) {
        if let Some(mut app) = self.app.take() {
            if app.ended().is_none() {
                app.kill();
                tally.done(self.kind);
            }
            self.start(points);
        }
    }
}

/// Plays the round of a number on a new file.
pub(crate) fn play(folder: &Path, drawn_from: (u64, u32), rules: &Rules, tally: &mut Tally) -> Report {
    static PLAYED: AtomicU32 = AtomicU32::new(0);
    let start = Instant::now();
    let folder = folder.join(format!("embedded{}", PLAYED.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&folder).unwrap();
    let site = Site { folder, port: free_port() };
    let seed = seed_of(drawn_from);
    let plan = Plan::of_good_pulses(seed, "e", PUBLISHERS * POSTED + FILES * LINES);
    let key = site.run("key", &["keys", "create", "--name", "chaos", "--scope", "ingest"]).unwrap();
    let key = key.lines().find(|line| line.starts_with("pk_")).unwrap();
    let bodies: Vec<String> = plan.messages.iter().map(|message| message.body.clone()).collect();
    let (posted, lines) = bodies.split_at(PUBLISHERS * POSTED);
    let again = Arc::new(AtomicU32::new(0));
    let mut round = Round {
        runners: runners(&site, lines),
        points: Points::new(seed, &rules.crash_log),
        random: StdRng::seed_from_u64(seed),
        tally,
        broken: Vec::new(),
    };
    for runner in &mut round.runners {
        runner.start(&mut round.points);
    }
    let publishers: Vec<JoinHandle<()>> = posted
        .chunks(POSTED)
        .map(|bodies| publish(site.port, key.to_owned(), bodies.to_vec(), Arc::clone(&again)))
        .collect();
    round.harm(start + rules.length);
    round.wait_for(&publishers);
    let mut broken = round.end();
    for arguments in [&["--standalone", "--until-idle", "300ms"][..], &["flush"]] {
        broken.extend(site.run("end", arguments).err());
    }
    if rules.audit {
        broken.extend(site.start("audit", &["audit"], &[]).audited().err());
    }
    let verdict = check(&site, &plan, broken);
    if verdict.broken.is_empty() {
        let _ = fs::remove_dir_all(&site.folder);
    }
    let sent_again = again.load(Ordering::Relaxed);
    Report { place: "file", published: plan.messages.len(), sent_again, verdict, took: start.elapsed() }
}

/// The service first, then an ingestion for each file of lines.
fn runners<'a>(site: &'a Site, lines: &[String]) -> Vec<Runner<'a>> {
    let runner = |name: String, arguments: &[&str], number, kind| Runner {
        site,
        name,
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        number,
        app: None,
        resume_at: None,
        kind,
    };
    let mut runners = vec![runner("service".to_owned(), &["--standalone"], 0, "SIGKILL standalone")];
    for (number, lines) in (1..).zip(lines.chunks(LINES)) {
        let file = format!("{number}.ndjson");
        fs::write(site.folder.join(&file), lines.join("\n")).unwrap();
        runners.push(runner(format!("ingest{number}"), &["ingest", &file], number, "SIGKILL app ingest"));
    }
    runners
}

struct Round<'a> {
    runners: Vec<Runner<'a>>,
    points: Points,
    random: StdRng,
    tally: &'a mut Tally,
    broken: Vec<String>,
}

impl Round<'_> {
    fn watch(&mut self) {
        for runner in &mut self.runners {
            self.broken.extend(runner.watch(&mut self.points, self.tally).err());
        }
        sleep(TICK);
    }

    fn harm(&mut self, end: Instant) {
        let mut next = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end {
            self.watch();
            if Instant::now() < next {
                continue;
            }
            next += Duration::from_millis(self.random.random_range(40..260));
            let is_service = self.random.random_ratio(1, 2);
            let choice = if is_service { 0 } else { self.random.random_range(1..self.runners.len()) };
            let runner = &mut self.runners[choice];
            if self.random.random_ratio(1, 8) {
                let time = Duration::from_millis(self.random.random_range(200..1_500));
                runner.pause(time, self.tally);
            } else {
                runner.kill(&mut self.points, self.tally);
            }
        }
    }

    /// Until everything is accepted and ingested.
    fn wait_for(&mut self, publishers: &[JoinHandle<()>]) {
        let limit = Instant::now() + LIMIT;
        loop {
            let ingested = self.runners[1..].iter().all(|runner| runner.app.is_none());
            if ingested && publishers.iter().all(JoinHandle::is_finished) {
                return;
            }
            if Instant::now() > limit {
                self.broken.push(format!("not all is accepted and ingested after {LIMIT:?}"));
                return;
            }
            self.watch();
        }
    }

    /// Kills what is left; what was broken so far.
    fn end(self) -> Vec<String> {
        self.tally.done("SIGKILL standalone");
        drop(self.runners);
        self.broken
    }
}

fn check(site: &Site, plan: &Plan, mut broken: Vec<String>) -> Verdict {
    let file = site.folder.join("pulse.db");
    let output = Command::new("python3").args(["-c", READER]).arg(&file).output().unwrap();
    let figures = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        broken.push(format!("the file cannot be read: {figures}"));
        return Verdict { counted: 0, letters: (0, 0), broken };
    }
    let found = totals(&output.stdout);
    differences(&found, &plan.expected.totals(), &mut broken);
    let pulses = plan.expected.pulses();
    let expected = format!("0 0 0 0 {pulses} {pulses} {pulses}");
    if figures != expected {
        broken.push(format!(
            "the file: {figures}, not {expected} (flushed and not in the hours, rows left, gaps, events waiting, \
             identities, counted, flushed)"
        ));
    }
    Verdict { counted: found.values().map(|(_, pulses)| pulses).sum(), letters: (0, 0), broken }
}

/// Posts every body until it is accepted, and now and then once more.
fn publish(port: u16, key: String, bodies: Vec<String>, again: Arc<AtomicU32>) -> JoinHandle<()> {
    thread::spawn(move || {
        for (number, body) in bodies.iter().enumerate() {
            while !matches!(post(port, &key, body), Ok(202)) {
                again.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE);
            }
            if number % 9 == 4 {
                let _ = post(port, &key, body);
            }
            sleep(PAUSE / 2);
        }
    })
}

fn post(port: u16, key: &str, body: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(CALL_LIMIT))?;
    let (media, length) =
        (if body.contains('\n') { "application/x-ndjson" } else { "application/json" }, body.len());
    write!(
        stream,
        "POST /api/v1/pulses HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
         content-type: {media}\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0))
}
