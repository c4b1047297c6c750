//! One round: publish, do harm, heal, drain, check.

use crate::{
    action::{Action, CRONS, Process, Server, WORKERS},
    archived,
    arena::{App, Arena, Ledger, Site},
    books::{self, Verdict},
    logs,
    place::Place,
    plan::{Message, Plan},
    points::Points,
    publisher,
    tally::Tally,
};
use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const TICK: Duration = Duration::from_millis(5);
/// How long the publishers may go on once all is well again.
const PUBLISH_LIMIT: Duration = Duration::from_mins(1);
const MESSAGES: usize = 500;
const PUBLISHERS: usize = 2;
/// How old a queue must be to survive a kill of its server: RabbitMQ 3.10 brings a quorum queue of which it had only just
/// answered that it is there back without a leader, and nobody can use it any more.
const QUEUES_SETTLED: Duration = Duration::from_secs(2);
/// How a process ends at a crash point.
pub(crate) const SIGABRT: i32 = 6;

/// What undoes an action that lasts.
#[derive(Clone, Copy)]
enum Undo {
    Resume(Process),
    ResumeRedis,
    CutSpoiled(Server),
    EmptyRedis,
    MakeRoom,
}

/// What is the same for all rounds of a run.
pub(crate) struct Rules {
    pub(crate) length: Duration,
    /// A rule of counting that is broken in the processes that are harmed.
    pub(crate) mutation: Option<&'static str>,
    /// Where deaths at crash points are written.
    pub(crate) crash_log: PathBuf,
    /// Whether the program has `app audit`.
    pub(crate) audit: bool,
}

/// What a round came to.
pub(crate) struct Report {
    /// Where was counted.
    pub(crate) place: &'static str,
    pub(crate) published: usize,
    pub(crate) sent_again: u32,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

impl Report {
    pub(crate) const HEADER: &'static str =
        "round  on       kills  others  published  counted  dead letters  copies  sent again  seconds  books";

    /// A line of the table, and what is broken below it.
    pub(crate) fn print(&self, number: u32, (kills, others): (u64, u64)) {
        let Self { place, published, sent_again, verdict, took } = self;
        let (different, all) = verdict.letters;
        println!(
            "{number:>5}  {place:<7}{kills:>7}{others:>8}{published:>11}{:>9}{different:>14}{:>8}{sent_again:>12}{:>9.1}  {}",
            verdict.counted,
            all - different,
            took.as_secs_f64(),
            if verdict.broken.is_empty() { "hold" } else { "BROKEN" }
        );
        for broken in &verdict.broken {
            println!("      {broken}");
        }
    }
}

struct Round<'a> {
    arena: &'a mut Arena,
    site: &'a Site,
    rules: &'a Rules,
    tally: &'a mut Tally,
    workers: Vec<App>,
    crons: Vec<App>,
    archive: Option<App>,
    points: Points,
    /// When the first message was confirmed.
    published: Arc<OnceLock<Instant>>,
    undo: Vec<(Instant, Undo)>,
    broken: Vec<String>,
}

/// Far from each other, so that the rounds of one seed are not those of the next.
pub(crate) fn seed_of((seed, round): (u64, u32)) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(round))
}

/// Plays the round of a number; everything in it that is drawn is drawn from the seed and the number.
pub(crate) fn play(arena: &mut Arena, drawn_from: (u64, u32), rules: &Rules, tally: &mut Tally) -> Report {
    static PLAYED: AtomicU32 = AtomicU32::new(0);
    let start = Instant::now();
    let name = &format!("r{}", PLAYED.fetch_add(1, Ordering::Relaxed));
    let seed = seed_of(drawn_from);
    let place = Place::of(drawn_from);
    let site = Site::prepare(arena, name, place, seed);
    let plan = Plan::new(seed, "x", MESSAGES);
    let actions = Action::draw(seed, rules.length);
    let mut round = Round {
        arena,
        site: &site,
        rules,
        tally,
        workers: Vec::new(),
        crons: Vec::new(),
        archive: None,
        points: Points::new(seed, &rules.crash_log),
        published: Arc::default(),
        undo: Vec::new(),
        broken: Vec::new(),
    };
    if place == Place::Archive {
        // What is published before both queues are bound is not in both.
        round.drain();
    }
    let archives = usize::from(place == Place::Archive);
    round.workers = (0..WORKERS).map(|number| round.started(Process::Worker(number))).collect();
    round.crons = (0..CRONS - archives).map(|number| round.started(Process::Cron(number))).collect();
    round.archive = (archives > 0).then(|| round.started(Process::Archive));
    let share = plan.messages.len().div_ceil(PUBLISHERS);
    let publishers: Vec<_> =
        plan.messages.chunks(share).map(|messages| round.publisher(messages.to_vec())).collect();
    round.harm(&actions);
    round.heal();
    let limit = Instant::now() + PUBLISH_LIMIT;
    while !publishers.iter().all(thread::JoinHandle::is_finished) && Instant::now() < limit {
        round.watch();
        thread::sleep(TICK);
    }
    if publishers.iter().all(thread::JoinHandle::is_finished) {
        round.end();
    } else {
        round.broken.push(format!("the publishers are not done after {PUBLISH_LIMIT:?}"));
    }
    let broken = round.broken;
    let sent_again = publishers.into_iter().filter(thread::JoinHandle::is_finished);
    let sent_again = sent_again.map(|publisher| publisher.join().unwrap()).sum();
    let mut verdict = match place {
        Place::Stream | Place::Kafka => logs::check(arena, &site, &plan),
        _ => books::check(arena, &site, &plan.expected),
    };
    if place == Place::Archive {
        archived::check(arena, &site, &plan.expected, &mut verdict.broken);
    }
    verdict.broken.splice(0..0, broken);
    audit(&site, rules, &mut verdict);
    if verdict.broken.is_empty() {
        drop_database(arena, name);
    }
    Report { place: place.name(), published: plan.messages.len(), sent_again, verdict, took: start.elapsed() }
}

/// The program's own opinion, where it has one.
fn audit(site: &Site, rules: &Rules, verdict: &mut Verdict) {
    if rules.audit
        && let Err(fault) = site.audit()
    {
        verdict.broken.push(fault);
    }
}

fn drop_database(arena: &Arena, name: &str) {
    let drop = format!("drop database if exists {name} with (force)");
    let _ = Command::new("psql").args(["--no-psqlrc", "--command", &drop, &arena.postgres.url()]).output();
}

impl Round<'_> {
    fn started(&mut self, process: Process) -> App {
        let mut settings = self.points.arm(process, self.site.place.is_log());
        settings.extend(self.rules.mutation.map(|name| ("PULSE_MUTATION", name.to_owned())));
        self.site.start(process, &settings)
    }

    fn app(&mut self, process: Process) -> &mut App {
        match process {
            Process::Worker(number) => &mut self.workers[number],
            Process::Cron(number) => &mut self.crons[number],
            Process::Archive => self.archive.as_mut().unwrap(),
        }
    }

    fn publisher(&mut self, messages: Vec<Message>) -> thread::JoinHandle<u32> {
        if self.site.place == Place::Kafka {
            return publisher::start_kafka(Arc::clone(self.arena.kafka()), self.site.queue.clone(), messages);
        }
        let port = self.arena.proxy(Server::Rabbitmq).port();
        let exchange = if self.archive.is_some() { self.site.name.clone() } else { String::new() };
        let (url, to) =
            (format!("amqp://guest:guest@127.0.0.1:{port}/%2f"), (exchange, self.site.queue.clone()));
        publisher::start(url, to, messages, Arc::clone(&self.published))
    }

    fn harm(&mut self, actions: &[(Duration, Action)]) {
        let start = Instant::now();
        let mut actions = actions.iter().peekable();
        while start.elapsed() < self.rules.length {
            self.watch();
            self.undo(Instant::now());
            while let Some((_, action)) = actions.next_if(|(at, _)| *at <= start.elapsed()) {
                self.act(*action);
            }
            thread::sleep(TICK);
        }
    }

    fn act(&mut self, action: Action) {
        let action = if self.archive.is_some() { action.with_archive() } else { action };
        if action.is_of_postgres() && matches!(self.site.ledger, Ledger::Json(_)) {
            return;
        }
        let is_settled = self.published.get().is_some_and(|first| first.elapsed() > QUEUES_SETTLED);
        if action == Action::KillServer(Server::Rabbitmq) && !is_settled {
            return;
        }
        match action {
            Action::Kill(process) => {
                self.app(process).kill();
                *self.app(process) = self.started(process);
            }
            Action::Pause(process, time) => {
                self.app(process).pause();
                self.later(time, Undo::Resume(process));
            }
            Action::KillServer(server) => {
                // A PostgreSQL that finds no room does not start.
                self.undo_all(|undo| matches!(undo, Undo::MakeRoom));
                self.arena.kill(server);
            }
            Action::PauseRedis(time) => {
                self.arena.redis.pause();
                self.later(time, Undo::ResumeRedis);
            }
            Action::CutAll(server) => self.arena.proxy(server).cut_all(),
            Action::LoseRequests(server, choice, time) => {
                self.arena.proxy(server).lose_requests(choice);
                self.later(time, Undo::CutSpoiled(server));
            }
            Action::LoseAnswers(server, choice, time) => {
                self.arena.proxy(server).lose_answers(choice);
                self.later(time, Undo::CutSpoiled(server));
            }
            Action::FillRedis(time) => {
                self.undo_all(|undo| matches!(undo, Undo::ResumeRedis));
                self.arena.redis.config_set("maxmemory", "1");
                self.later(time, Undo::EmptyRedis);
            }
            Action::FillDisk(time) => {
                let Some(disk) = &self.arena.disk else { return };
                disk.fill();
                self.later(time, Undo::MakeRoom);
            }
        }
        self.tally.done(action.kind());
    }

    fn later(&mut self, time: Duration, undo: Undo) {
        self.undo.push((Instant::now() + time, undo));
    }

    /// Undoes what is due by then.
    fn undo(&mut self, now: Instant) {
        for (_, undo) in self.undo.extract_if(.., |(due, _)| *due <= now).collect::<Vec<_>>() {
            self.undo_one(undo);
        }
    }

    fn undo_all(&mut self, which: impl Fn(&Undo) -> bool) {
        for (_, undo) in self.undo.extract_if(.., |(_, undo)| which(undo)).collect::<Vec<_>>() {
            self.undo_one(undo);
        }
    }

    fn undo_one(&mut self, undo: Undo) {
        match undo {
            Undo::Resume(process) => self.app(process).resume(),
            Undo::ResumeRedis => self.arena.redis.resume(),
            Undo::CutSpoiled(server) => self.arena.proxy(server).cut_spoiled(),
            Undo::EmptyRedis => {
                // A paused one would not answer, and who resumes it may have its turn after this.
                self.arena.redis.resume();
                self.arena.redis.config_set("maxmemory", "0");
            }
            Undo::MakeRoom => {
                if let Some(disk) = &self.arena.disk {
                    disk.make_room();
                }
                // It gives up where it cannot write what it needs for its own repair.
                if !self.arena.postgres.is_running() {
                    self.arena.postgres.restart();
                }
            }
        }
    }

    fn heal(&mut self) {
        self.undo_all(|_| true);
        for server in [Server::Redis, Server::Postgres, Server::Rabbitmq] {
            self.arena.proxy(server).cut_spoiled();
        }
    }

    /// Starts those again that died at a crash point; one that gave up by itself is a fault of the program.
    fn watch(&mut self) {
        let workers = (0..WORKERS).map(Process::Worker);
        let others =
            (0..self.crons.len()).map(Process::Cron).chain(self.archive.iter().map(|_| Process::Archive));
        for process in workers.chain(others).collect::<Vec<_>>() {
            let Some(status) = self.app(process).ended() else { continue };
            if status.signal() == Some(SIGABRT) {
                self.tally.done("crash point");
            } else {
                let words = self.app(process).last_words();
                self.broken.push(format!("{process:?} ended by itself with {status}:\n{words}"));
            }
            *self.app(process) = self.started(process);
        }
    }

    /// Kills all processes, counts what is left, and flushes.
    fn end(&mut self) {
        for app in self.workers.drain(..) {
            drop(app);
            self.tally.done("SIGKILL worker");
        }
        for app in self.crons.drain(..) {
            drop(app);
            self.tally.done("SIGKILL cron");
        }
        if self.archive.take().is_some() {
            self.tally.done("SIGKILL archive");
        }
        self.drain();
    }

    /// Takes everything that waits, without proxies, and flushes it.
    ///
    /// A message of which three workers died while it was alone in hand looks guilty, and kills at crash points hit the
    /// first suspect again and again. So the harness does what an operator does: it sends such a message back.
    fn drain(&mut self) {
        let idle = self.site.place.idle();
        let worker = vec!["--worker", "--until-idle", idle];
        let mut ends = vec![worker.clone()];
        if self.site.place.suspects() {
            ends.extend([vec!["dead-letters", "replay", "--reason", "poison"], worker]);
        }
        ends.push(vec!["flush"]);
        if self.site.place == Place::Archive {
            ends.push(vec!["--archive", "--until-idle", idle]);
        }
        for arguments in ends {
            if let Err(fault) = self.site.run(&arguments) {
                self.broken.push(fault);
            }
        }
    }
}
