//! The HTTP API: its credentials, its ports, and the tasks that it needs.

use crate::{
    backends::{Backends, Books},
    clock,
    dead_letters::places,
    settings::Settings,
};
use anyhow::{Context, bail};
use application::{
    accept_pulses::{GroupWriter, GroupedIntake, InboxIntake},
    decode::Decoder,
    overview::GatherOverview,
    ports::PulseIntake,
};
use infrastructure::{
    http::{Credentials, Dashboard, HttpPorts, HttpSettings, HttpState, bind, hash_password, serve},
    inbox::StoredInbox,
    metrics::Metrics,
    rabbitmq::{RabbitmqIntake, RabbitmqSettings},
    sqlite::EmbeddedStore,
};
use secrecy::SecretString;
use std::{
    io::{self, Write},
    sync::Arc,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Where the embedded file keeps what a standalone service made for itself.
const PASSWORD: &str = "api_password_hash";
const JWT_SECRET: &str = "jwt_secret";

/// What the API is made of, beside the settings and the stores.
pub(crate) struct Api<'a> {
    /// What to make of messages.
    pub(crate) decoder: Decoder,
    /// Who may log in.
    pub(crate) credentials: Credentials,
    /// Where pulses go, where RabbitMQ is a source.
    pub(crate) broker: Option<&'a RabbitmqSettings>,
    /// What the dashboard looks at.
    pub(crate) overview: GatherOverview,
    /// What Prometheus is told.
    pub(crate) metrics: Arc<Metrics>,
}

/// Starts to serve: all tasks that it needs, each of which ends after `stop`.
///
/// # Errors
/// Where the address is taken or the credentials cannot be used.
pub(crate) async fn start(
    Api { decoder, credentials, broker, overview, metrics }: Api<'_>,
    settings: &Settings,
    backends: &Backends,
    stop: CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let Books { queries, keys, inbox, file, .. } = &backends.books;
    let (Some(inbox), Some(keys)) = (inbox, keys) else {
        bail!("this ledger has no inbox: set LEDGER_URL to PostgreSQL or an embedded file");
    };
    let dashboard = Dashboard::new(overview, Some(settings.counting.flush_schedule.clone()));
    let (intake, writer) = intake(broker, inbox, settings.intake.items_max);
    let state = HttpState::new(
        HttpSettings {
            addr: settings.http.addr,
            credentials,
            webhook_secret: settings.http.webhook_secret.clone(),
            limits: settings.http.limits,
        },
        HttpPorts {
            decoder,
            intake,
            queries: Arc::clone(queries),
            pending: Arc::new(backends.pending()),
            inbox: Arc::clone(inbox) as _,
            letters: places(settings, file.as_ref()),
            keys: Arc::clone(keys),
            metrics,
            dashboard,
            now: clock::now,
        },
    )?;
    let listener = bind(settings.http.addr).await.context("HTTP_ADDR")?;
    tasks.spawn(async move {
        serve(listener, state, stop).await;
        Ok(())
    });
    tasks.spawn(async move {
        writer.run().await;
        Ok(())
    });
    Ok(())
}

/// RabbitMQ, where that is a source, else the inbox.
fn intake(
    broker: Option<&RabbitmqSettings>,
    inbox: &Arc<StoredInbox>,
    pulses_max: usize,
) -> (Arc<dyn PulseIntake>, GroupWriter) {
    let intake: Arc<dyn PulseIntake> = match broker {
        Some(broker) => Arc::new(RabbitmqIntake::new(broker.clone())),
        None => Arc::new(InboxIntake { inbox: Arc::clone(inbox) as _ }),
    };
    let (grouped, writer) = GroupedIntake::before(intake, pulses_max);
    (Arc::new(grouped), writer)
}

/// The credentials of the settings; what is lacking there is made once and kept in the embedded file.
///
/// A password that was made is printed when it is made, and never again: only its hash is kept.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) async fn own_credentials(
    settings: &Settings,
    store: &EmbeddedStore,
) -> anyhow::Result<Credentials> {
    let username = settings.http.username.clone();
    let jwt_secret = match &settings.http.jwt_secret {
        Some(secret) => secret.clone(),
        None => SecretString::from(store.keep_setting(JWT_SECRET, &random_text()).await?),
    };
    if let Some(password) = settings.http.password.clone() {
        return Ok(Credentials { username, password, jwt_secret });
    }
    let made = Uuid::new_v4().simple().to_string();
    let hash = hash_password(&made)?;
    let kept = store.keep_setting(PASSWORD, &hash).await?;
    if kept == hash {
        let mut out = io::stdout();
        writeln!(out, "log in as {username} with the password {made} (made now, shown only once)")?;
        out.flush()?;
    }
    Ok(Credentials { username, password: SecretString::from(kept), jwt_secret })
}

/// 244 random bits.
fn random_text() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
