//! A real RabbitMQ for tests.

use super::{ServerProcess, free_port, require, signal, wait_for_port};
use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const PACKAGE: &str = "rabbitmq-server";
const COOKIE: &str = "pulse-tests";
const FOLDER: &str = "pulse-rabbitmq-";
const START_LIMIT: Duration = Duration::from_secs(90);

/// Plugins and settings of a server beyond the default ones.
#[derive(Clone, Debug, Default)]
pub struct RabbitmqOptions {
    /// Names of plugins, `rabbitmq_management` for example. Each makes the start slower.
    pub plugins: Vec<&'static str>,
    /// Terms of the `rabbit` application's configuration, each as Erlang writes it: `{disk_free_limit, 1000}`.
    pub settings: Vec<String>,
    /// Terms of other applications' configuration: `{rabbitmq_management, [{tcp_config, [{port, 15672}]}]}`.
    pub applications: Vec<String>,
}

/// One node, with its own port mapper, ports and folders. Ready in 3 to 4 seconds, after a kill as well.
#[derive(Debug)]
pub struct RabbitmqServer {
    // In this order: the node ends before its port mapper and its folder go.
    node: Option<ServerProcess>,
    /// Of the first node of a cluster.
    _port_mapper: Option<ServerProcess>,
    folder: TempDir,
    port: u16,
    mapper_port: u16,
    distribution_port: u16,
}

impl RabbitmqServer {
    /// Starts a node without plugins and waits until it takes connections.
    ///
    /// # Panics
    /// Where RabbitMQ is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&RabbitmqOptions::default())
    }

    /// Starts a node and waits until it takes connections.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(options: &RabbitmqOptions) -> Self {
        Self::start_node(options, None)
    }

    /// Starts another node, in one cluster with this one, which must live longer.
    ///
    /// # Panics
    /// As [`Self::start`], and where the cluster does not take it.
    #[must_use]
    pub fn start_beside(&self) -> Self {
        let node = Self::start_node(&RabbitmqOptions::default(), Some(self.mapper_port));
        let cluster = self.node_name();
        node.evaluate(&format!(
            "rabbit:stop(), ok = rabbit_mnesia:join_cluster('{cluster}', disc), rabbit:start()."
        ));
        node.wait_until_ready();
        node
    }

    fn start_node(options: &RabbitmqOptions, mapper_port: Option<u16>) -> Self {
        require(SERVER, PACKAGE);
        remove_leftovers();
        let prefix = format!("{FOLDER}{}-", std::process::id());
        let folder = TempDir::with_prefix(prefix).expect("a temporary folder");
        let (port, distribution_port) = (free_port(), free_port());
        let home = folder.path().join("home");
        fs::create_dir(&home).expect("a folder");
        let cookie = home.join(".erlang.cookie");
        fs::write(&cookie, COOKIE).expect("a file");
        fs::set_permissions(cookie, fs::Permissions::from_mode(0o400)).expect("our own file");
        // In Erlang's terms and not in the other format: reading that takes half of the whole start.
        let mut settings = format!(r#"{{tcp_listeners, [{{"127.0.0.1", {port}}}]}}"#);
        for setting in &options.settings {
            let _ = write!(settings, ", {setting}");
        }
        let mut config = format!("[{{rabbit, [{settings}]}}");
        for application in &options.applications {
            let _ = write!(config, ", {application}");
        }
        fs::write(folder.path().join("rabbitmq.config"), config + "].\n").expect("a file");
        fs::write(folder.path().join("plugins"), format!("[{}].\n", options.plugins.join(",")))
            .expect("a file");
        // Started here and not by the node, which would leave it behind.
        let (port_mapper, mapper_port) = if let Some(port) = mapper_port {
            (None, port)
        } else {
            let port = free_port();
            let mapper = ServerProcess::start(None, "/usr/bin/epmd", |command| {
                command
                    .args(["-port", &port.to_string(), "-address", "127.0.0.1"])
                    .stdin(Stdio::null())
                    .stderr(Stdio::null());
            });
            wait_for_port(port, START_LIMIT);
            (Some(mapper), port)
        };
        let mut server =
            Self { node: None, _port_mapper: port_mapper, folder, port, mapper_port, distribution_port };
        server.restart();
        server
    }

    /// Where clients connect, with the default user and virtual host.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("guest", "guest", "/")
    }

    /// Where clients connect as this user, to this virtual host.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str, vhost: &str) -> String {
        let vhost = vhost.replace('/', "%2f");
        format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", self.port)
    }

    /// The port that takes AMQP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a virtual host for one test alone, and returns its URL.
    ///
    /// # Panics
    /// Where the node does not answer.
    #[must_use]
    pub fn vhost(&self, name: &str) -> String {
        self.evaluate(&format!(r#"rabbit_vhost:add(<<"{name}">>, <<"test">>)."#));
        self.permit("guest", name, ".*");
        self.url_of("guest", "guest", name)
    }

    /// Makes a user who may configure what matches the expression, and write and read everything, in a virtual host.
    ///
    /// # Panics
    /// As [`Self::vhost`].
    pub fn user(&self, name: &str, password: &str, vhost: &str, configure: &str) {
        self.evaluate(&format!(
            r#"rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{password}">>, <<"test">>)."#
        ));
        self.permit(name, vhost, configure);
    }

    fn permit(&self, user: &str, vhost: &str, configure: &str) {
        self.evaluate(&format!(
            r#"rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{vhost}">>, <<"{configure}">>, <<".*">>, <<".*">>, <<"test">>)."#
        ));
    }

    /// Closes the connections to a virtual host in the manner of `rabbitmqctl close_all_connections`: with a word to the
    /// client.
    ///
    /// # Panics
    /// As [`Self::vhost`].
    pub fn close_connections(&self, vhost: &str) {
        self.for_connections(vhost, r#"rabbit_networking:close_connection(Pid, "test")"#);
    }

    /// Cuts the connections to a virtual host without a word, as a failing network does.
    ///
    /// # Panics
    /// As [`Self::vhost`].
    pub fn cut_connections(&self, vhost: &str) {
        self.for_connections(vhost, "exit(Pid, kill)");
    }

    fn for_connections(&self, vhost: &str, call: &str) {
        self.evaluate(&format!(
            "[{call} || [{{pid, Pid}}, {{vhost, Host}}] <- rabbit_networking:connection_info_all([pid, vhost]), \
             Host =:= <<\"{vhost}\">>]."
        ));
    }

    /// Evaluates Erlang expressions, each with a full stop, on the node and returns its answer: `{ok, …}`. It takes some
    /// ten milliseconds, where `rabbitmqctl` takes two seconds.
    ///
    /// # Panics
    /// Where the node does not answer, or the expressions fail.
    #[expect(clippy::must_use_candidate, reason = "most expressions are evaluated for their effect")]
    pub fn evaluate(&self, expressions: &str) -> String {
        self.try_evaluate(expressions).unwrap_or_else(|error| panic!("{expressions} answered {error}"))
    }

    fn try_evaluate(&self, expressions: &str) -> Result<String, String> {
        static TURN: Mutex<u32> = Mutex::new(0);
        // One at a time and under a new name: the node refuses a second connection from the same one.
        let mut turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        *turn += 1;
        let own_name = format!("test{}x{}", std::process::id(), *turn);
        let mut command = Command::new("/usr/bin/erl_call");
        command.args(["-sname", &self.node_name(), "-c", COOKIE, "-h", &own_name, "-e"]);
        self.configure(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("erl_call comes with RabbitMQ");
        let input = format!("{expressions}\n");
        // It reads nothing where it cannot connect, and says so.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("our own child");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        if answer.starts_with("{ok,") {
            Ok(answer)
        } else {
            Err(answer + &String::from_utf8_lossy(&output.stderr))
        }
    }

    /// `kill -9` of the node.
    pub fn kill(&mut self) {
        self.node = None;
    }

    /// Starts the node again with what it had stored; kills it first where it runs.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn restart(&mut self) {
        self.kill();
        let log = fs::File::create(self.folder.path().join("output")).expect("a file");
        let node = ServerProcess::start(None, SERVER, |command| {
            self.configure(command);
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("our own file")).stderr(log);
        });
        self.node = Some(node);
        self.wait_until_ready();
    }

    /// The port is open a little before the node takes logins on it.
    fn wait_until_ready(&self) {
        let start = Instant::now();
        wait_for_port(self.port, START_LIMIT);
        while !self.try_evaluate("rabbit:is_running().").is_ok_and(|answer| answer.contains("true")) {
            assert!(start.elapsed() < START_LIMIT, "RabbitMQ does not start: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the node's process in its tracks, sockets left open.
    ///
    /// # Panics
    /// Where the node does not run.
    pub fn pause(&self) {
        signal(self.pid(), "STOP");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// Where the node does not run.
    pub fn resume(&self) {
        signal(self.pid(), "CONT");
    }

    /// The process id of the Erlang machine itself.
    ///
    /// # Panics
    /// Where the node does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.node.as_ref().expect("the node runs").pid()
    }

    /// What the node wrote to its output and its log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = self.folder.path().join("log").join(format!("{}.log", self.node_name()));
        [self.folder.path().join("output"), log]
            .iter()
            .map(|path| {
                fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
            })
            .collect()
    }

    fn node_name(&self) -> String {
        format!("pulse{}@localhost", self.port)
    }

    fn configure(&self, command: &mut Command) {
        let path = |name: &str| self.folder.path().join(name);
        command
            .env("HOME", path("home"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", self.node_name())
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", path("config"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            // Two nodes that spin while they wait are no help on a machine with two cores.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none")
            // Under systemd the script becomes the node instead of waiting for it: the process we hold is the node.
            .env("NOTIFY_SOCKET", "/dev/null")
            .env("ERL_EPMD_PORT", self.mapper_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
    }
}

/// Removes the folders of test processes that are gone: a server that lives as long as its process is never dropped.
fn remove_leftovers() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
