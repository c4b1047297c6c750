//! `--print-pulses`: what the lanes count, on standard output.

use anyhow::{Context, bail};
use application::ingest::AppliedPulse;
use serde::Serialize;
use std::time::Duration;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc::Receiver,
    time::timeout,
};

/// How long whoever reads may take for a batch, before counting goes before printing.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);

/// A line of the output. What a source does not have is `null`.
#[derive(Serialize)]
struct Line<'a> {
    lane: u16,
    tenant: &'a str,
    id: Option<&'a str>,
    partition: Option<u32>,
    offset: Option<u64>,
}

impl<'a> From<&'a AppliedPulse> for Line<'a> {
    fn from(pulse: &'a AppliedPulse) -> Self {
        Self {
            lane: pulse.lane.0,
            tenant: pulse.tenant.as_str(),
            id: pulse.id.as_deref(),
            partition: pulse.partition,
            offset: pulse.offset,
        }
    }
}

/// Prints until nothing more is counted.
///
/// # Errors
/// Where the output is closed, or takes nothing for the limit. The lanes then wait for it no longer: the program can finish
/// what is in hand, and ends with this error.
pub(crate) async fn print_pulses(
    mut batches: Receiver<Vec<AppliedPulse>>,
    mut out: impl AsyncWrite + Unpin,
    limit: Duration,
) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    while let Some(batch) = batches.recv().await {
        lines.clear();
        for pulse in &batch {
            serde_json::to_writer(&mut lines, &Line::from(pulse)).context("cannot write a pulse as JSON")?;
            lines.push(b'\n');
        }
        let write = async {
            out.write_all(&lines).await?;
            out.flush().await
        };
        match timeout(limit, write).await {
            Ok(Ok(())) => {}
            // The text and not the error itself: a closed output is no success here, pulses are still counted.
            Ok(Err(error)) => bail!("--print-pulses: standard output cannot be written to any more: {error}"),
            Err(_) => bail!("--print-pulses: nobody has read from standard output for {limit:?}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Shard, TenantId};
    use tokio::{
        io::{AsyncReadExt, duplex},
        sync::mpsc,
    };

    fn batch(ids: std::ops::Range<u64>) -> Vec<AppliedPulse> {
        let pulse = |offset| AppliedPulse {
            lane: Shard(3),
            tenant: TenantId::new("a \"b\"").unwrap(),
            id: (offset > 0).then(|| format!("task {offset}")),
            partition: (offset > 0).then_some(7),
            offset: (offset > 0).then_some(offset),
        };
        ids.map(pulse).collect()
    }

    #[tokio::test]
    async fn each_pulse_is_a_line_of_json_with_its_lane() {
        let (batches, taken) = mpsc::channel(2);
        for ids in [0..1, 1..3] {
            batches.send(batch(ids)).await.unwrap();
        }
        drop(batches);
        let mut out = Vec::new();
        print_pulses(taken, &mut out, STALL_LIMIT).await.unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        {"lane":3,"tenant":"a \"b\"","id":null,"partition":null,"offset":null}
        {"lane":3,"tenant":"a \"b\"","id":"task 1","partition":7,"offset":1}
        {"lane":3,"tenant":"a \"b\"","id":"task 2","partition":7,"offset":2}
        "#);
    }

    #[tokio::test]
    async fn an_output_that_nobody_reads_is_given_up_and_nobody_waits_for_it() {
        let (batches, taken) = mpsc::channel(1);
        let (out, mut reader) = duplex(100);
        let print = print_pulses(taken, out, Duration::from_millis(50));
        let send = async {
            for _ in 0..100 {
                if batches.send(batch(0..10)).await.is_err() {
                    return;
                }
            }
            panic!("the printer has ended");
        };
        let (result, ()) = tokio::join!(print, send);
        assert!(result.unwrap_err().to_string().contains("nobody has read"));
        let mut read = String::new();
        reader.read_to_string(&mut read).await.unwrap();
        assert_eq!(read.len(), 100, "what fitted was written");
    }

    #[tokio::test]
    async fn an_output_that_is_closed_is_an_error_that_says_so() {
        let (batches, taken) = mpsc::channel(1);
        let (out, reader) = duplex(100);
        drop(reader);
        batches.send(batch(0..1)).await.unwrap();
        let error = print_pulses(taken, out, STALL_LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("cannot be written"), "{error}");
        assert_eq!(error.chain().count(), 1, "an error of a broken pipe would pass for success");
    }
}
