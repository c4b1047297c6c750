//! The places of dead letters that the settings name.

use crate::{
    backends::{embedded, patiently},
    settings::Settings,
};
use application::{dead_letters::NamedPlace, decode::Format, ports::LetterPlace};
use infrastructure::{
    rabbitmq::RabbitmqLetters,
    sqlite::{EmbeddedLetters, EmbeddedStore},
};
use std::sync::Arc;

const LINES: &str =
    "was a line of a file, in the format that PULSE_FORMAT names: mend the file and `app ingest` it again";
const NO_INBOX: &str = "the books are JSON files, which have no inbox to send it back to: mend the file and `app ingest` it again";

/// All of them; the file is that of the books.
pub(crate) fn places(settings: &Settings, file: Option<&Arc<EmbeddedStore>>) -> Vec<NamedPlace> {
    let mut places = Vec::new();
    if let Some(file) = file {
        let letters = EmbeddedLetters::new(Arc::clone(file));
        let native = settings.intake.format == Format::Pulse;
        let letters = if native { letters } else { letters.lines_stay(LINES) };
        places.push(of("file", "embedded file".to_owned(), Arc::new(letters)));
    }
    if let Some(broker) = settings.rabbitmq() {
        let title = format!("rabbitmq {}", broker.dead_letter_queue);
        places.push(of("rabbitmq", title, Arc::new(RabbitmqLetters::new(broker.clone()))));
    }
    #[cfg(feature = "kafka")]
    places.extend(settings.kafka_where_configured().map(kafka));
    places
}

fn of(name: &'static str, title: String, place: Arc<dyn LetterPlace>) -> NamedPlace {
    NamedPlace { name, title, place }
}

/// All of them, for a command; a look makes no file.
pub(crate) async fn opened(settings: &Settings) -> anyhow::Result<Vec<NamedPlace>> {
    let books = settings.ledger().file().map(ToOwned::to_owned);
    let counts = settings.only_embedded().and_then(|stores| stores.accumulator.file().map(ToOwned::to_owned));
    let Some(path) = books.clone().or(counts).filter(|path| path.exists()) else {
        return Ok(places(settings, None));
    };
    let file = patiently(embedded(&path, &settings.counting)).await?;
    if books.is_some() {
        return Ok(places(settings, Some(&file)));
    }
    let letters = EmbeddedLetters::new(file).all_stay(NO_INBOX);
    let mut all = places(settings, None);
    all.insert(0, of("file", "embedded file".to_owned(), Arc::new(letters)));
    Ok(all)
}

#[cfg(feature = "kafka")]
fn kafka(kafka: &crate::settings::Kafka) -> NamedPlace {
    use crate::settings::Kafka;
    use infrastructure::kafka::{KafkaLetters, KafkaSettings};
    let Kafka { brokers, topic, group, dead_letter_topic } = kafka.clone();
    let title = format!("kafka {dead_letter_topic}");
    let settings = KafkaSettings { brokers, topic, group, dead_letter_topic };
    of("kafka", title, Arc::new(KafkaLetters::new(settings)))
}
