//! Builds several programs, and says how much is left.

use std::time::Instant;

use anyhow::Result;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::cache::{Cache, REPORT_INTERVAL, about};
use super::recipe::Recipe;

/// How many programs are built at once. Go compiles on all cores, but links on little more than one.
const AT_ONCE: usize = 2;

impl Cache {
    /// Builds the programs that are not there yet, in this order, and reports how much is left.
    ///
    /// # Errors
    /// When one of them cannot be built.
    pub(crate) async fn programs(&self, recipes: &[Recipe]) -> Result<()> {
        let mut left: Vec<_> = recipes.iter().filter(|recipe| self.existing(recipe).is_none()).collect();
        let (silent, started, all) = (self.silent(), Instant::now(), seconds(&left));
        let mut waiting = left.clone().into_iter();
        let mut running = FuturesUnordered::new();
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        loop {
            for recipe in waiting.by_ref().take(AT_ONCE - running.len()) {
                let build = silent.program(recipe);
                running.push(async move { (recipe.name, build.await) });
            }
            tokio::select! {
                // So that what is done is not reported as running.
                biased;
                done = running.next() => {
                    let Some((name, result)) = done else { return Ok(()) };
                    result?;
                    left.retain(|recipe| recipe.name != name);
                }
                _ = report.tick() => {
                    let first: Vec<_> = left.iter().take(running.len()).map(|recipe| recipe.name).collect();
                    let (number, rest) = (left.len(), about(remaining(all, seconds(&left), started)));
                    self.line(format!("building {}; to be built: {number}, in about {rest}", first.join(" and ")));
                }
            }
        }
    }
}

fn seconds(recipes: &[&Recipe]) -> u32 {
    recipes.iter().map(|recipe| recipe.seconds).sum()
}

/// Roughly how many seconds the rest takes, judged by the time that what is done has taken.
fn remaining(all: u32, rest: u32, started: Instant) -> u32 {
    let done = all - rest;
    let elapsed = u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX);
    // Of little one cannot judge.
    if done < all / 10 { rest.max(all.saturating_sub(elapsed)) } else { rest.saturating_mul(elapsed) / done }
}
