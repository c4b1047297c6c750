//! The metrics of one answer, in the words of the format.

use application::histogram::HistogramSnapshot;
use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

/// A value of a metric with at most one label.
pub(super) type Sample = (Option<(&'static str, String)>, u64);

/// Metrics on their way out.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    /// What only grows while the program runs.
    pub(super) fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
        let metric = |value| {
            let (mut metric, mut counter) = (Metric::default(), Counter::default());
            counter.set_value(float(value));
            metric.set_counter(counter);
            metric
        };
        self.add(name, help, MetricType::COUNTER, samples, metric);
    }

    /// What goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
        let metric = |value| {
            let mut gauge = Gauge::default();
            gauge.set_value(float(value));
            Metric::from_gauge(gauge)
        };
        self.add(name, help, MetricType::GAUGE, samples, metric);
    }

    /// How often measurements were how large; `per_unit` of them make one unit of the metric.
    pub(super) fn histogram(&mut self, name: &str, help: &str, measured: &HistogramSnapshot, per_unit: u64) {
        let mut count = 0;
        let buckets = measured.bounds.iter().zip(&measured.buckets).map(|(bound, within)| {
            count += within;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(float(*bound) / float(per_unit));
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(measured.buckets.iter().sum());
        histogram.set_sample_sum(float(measured.sum) / float(per_unit));
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.push(name, help, MetricType::HISTOGRAM, vec![metric]);
    }

    fn add(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = Sample>,
        metric: impl Fn(u64) -> Metric,
    ) {
        let labelled = |(label, value): Sample| {
            let mut metric = metric(value);
            metric.set_label(label.into_iter().map(pair).collect());
            metric
        };
        self.push(name, help, kind, samples.into_iter().map(labelled).collect());
    }

    /// Those without a value are left out, as the format wants it.
    fn push(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    /// The text that is answered.
    pub(super) fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0)
    }
}

fn pair((name, value): (&'static str, String)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers, and no amount is among these"
)]
fn float(value: u64) -> f64 {
    value as f64
}
