//! RabbitMQ as a source, as the place of its dead letters, and as a target of made-up load.
