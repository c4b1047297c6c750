//! A real RabbitMQ for tests.
