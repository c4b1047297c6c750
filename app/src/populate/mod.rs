pub(crate) mod generator;
