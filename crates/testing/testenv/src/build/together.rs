//! Builds several programs, and says how much is left.

use std::time::{Duration, Instant};

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
        let (cache, begun, all) = (self.without_reports(), Instant::now(), seconds(&left));
        let mut waiting = left.clone().into_iter();
        let mut running = FuturesUnordered::new();
        let mut started = Vec::new();
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        loop {
            for recipe in waiting.by_ref().take(AT_ONCE - running.len()) {
                let build = cache.program(recipe);
                started.push((recipe, Instant::now()));
                running.push(async move { (recipe.name, build.await) });
            }
            tokio::select! {
                // So that what is done is not reported as running.
                biased;
                done = running.next() => {
                    let Some((name, result)) = done else { return Ok(()) };
                    result?;
                    left.retain(|recipe| recipe.name != name);
                    started.retain(|(recipe, _)| recipe.name != name);
                }
                _ = report.tick() => {
                    let under_way: Vec<_> = started.iter().map(|(recipe, _)| recipe.name).collect();
                    let part: u32 = started.iter().map(|(recipe, since)| part_done(recipe.seconds, since.elapsed())).sum();
                    let rest = seconds(&left) - part;
                    let (number, rest) = (left.len(), about(remaining(all, rest, begun.elapsed())));
                    self.line(format!("building {}; to be built: {number}, in about {rest}", under_way.join(" and ")));
                }
            }
        }
    }
}

fn seconds(recipes: &[&Recipe]) -> u32 {
    recipes.iter().map(|recipe| recipe.seconds).sum()
}

/// Roughly how many of a program's seconds are done, of one that is being built beside another.
fn part_done(seconds: u32, elapsed: Duration) -> u32 {
    let part = elapsed / u32::try_from(AT_ONCE).unwrap_or(1);
    u32::try_from(part.as_secs()).unwrap_or(u32::MAX).min(seconds)
}

/// Roughly how many seconds the rest takes, judged by the time that what is done has taken.
fn remaining(all: u32, rest: u32, elapsed: Duration) -> u32 {
    let done = all - rest;
    let elapsed = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX);
    // Of little one cannot judge.
    if done == 0 || done < all / 10 {
        all.saturating_sub(elapsed).max(rest / 2)
    } else {
        rest.saturating_mul(elapsed) / done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_under_way_counts_in_part() {
        assert_eq!(part_done(200, Duration::from_secs(100)), 50);
        assert_eq!(part_done(20, Duration::from_secs(100)), 20);
    }

    #[test]
    fn what_is_left_is_judged_by_what_is_done() {
        assert_eq!(remaining(5, 5, Duration::from_secs(0)), 5);
        assert_eq!(remaining(400, 400, Duration::from_secs(100)), 300);
        assert_eq!(remaining(400, 200, Duration::from_secs(400)), 400);
        assert_eq!(remaining(400, 100, Duration::from_secs(150)), 50);
    }
}
