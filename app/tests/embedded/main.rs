//! The built program on the embedded file: no server is needed.

mod folder;
mod ingesting;
mod standalone;
mod usage_and_settings;
