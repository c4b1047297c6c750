//! What the values of a pulse cost: `cargo bench --package domain`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on panics")]

use divan::{Bencher, black_box};
use domain::{
    AccumulatorId, Amount, HourWindow, IdentityKey, ProductSku, Pulse, PulseIdentity, ShardCount, TenantId,
    UsageKey, UsageUnit,
};

fn main() {
    divan::main();
}

fn pulse() -> Pulse {
    Pulse {
        tenant: TenantId::new("tenant_000042").unwrap(),
        product_sku: ProductSku::new("SKU-0997").unwrap(),
        use_unity: UsageUnit::new("KB").unwrap(),
        amount: Amount::parse("307.5").unwrap(),
        identity: Some(PulseIdentity::Id("6f1c0c5e-27a1-4f0e-9d39-2b7a54f0a001".into())),
        occurred_at: None,
        hour: HourWindow::from_number(490_000),
    }
}

fn key() -> IdentityKey {
    AccumulatorId::from_bytes(*b"0123456789abcdef").identity_key()
}

#[divan::bench(args = ["307", "9007199254740993", "1234.567891234"])]
fn parse_an_amount(text: &str) -> Amount {
    Amount::parse(black_box(text)).unwrap()
}

#[divan::bench(args = ["tenant_000042", "a tenant with a name of more than 23 bytes"])]
fn check_and_keep_a_name(text: &str) -> TenantId {
    TenantId::new(black_box(text)).unwrap()
}

#[divan::bench]
fn digest_of_an_identity(bencher: Bencher<'_, '_>) {
    let (key, pulse) = (key(), pulse());
    bencher.bench_local(|| key.digest(&black_box(&pulse).tenant, pulse.identity.as_ref().unwrap()));
}

#[divan::bench]
fn fingerprint_of_a_pulse(bencher: Bencher<'_, '_>) {
    let (key, pulse) = (key(), pulse());
    bencher.bench_local(|| key.fingerprint(black_box(&pulse)));
}

#[divan::bench]
fn shard_of_a_tenant(bencher: Bencher<'_, '_>) {
    let (shards, pulse) = (ShardCount::new(8).unwrap(), pulse());
    bencher.bench_local(|| shards.shard_of(&black_box(&pulse).tenant));
}

#[divan::bench]
fn encode_a_usage_key(bencher: Bencher<'_, '_>) {
    let (pulse, mut out) = (pulse(), Vec::new());
    bencher.bench_local(|| {
        out.clear();
        UsageKey::encode_of(black_box(&pulse), &mut out);
        out.len()
    });
}

#[divan::bench]
fn decode_a_usage_key(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    UsageKey::encode_of(&pulse(), &mut bytes);
    bencher.bench_local(|| UsageKey::decode(black_box(&bytes)).unwrap());
}
