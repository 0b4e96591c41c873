//! Tables of times.

use std::fmt::Write as _;
use std::time::Duration;

/// The times of several ways to the same result, in the order in which they were first measured.
#[derive(Default)]
pub struct Table(Vec<(&'static str, Vec<Duration>)>);

impl Table {
    /// Adds a time of a way.
    pub fn add(&mut self, way: &'static str, time: Duration) {
        match self.0.iter_mut().find(|(name, _)| *name == way) {
            Some((_, times)) => times.push(time),
            None => self.0.push((way, vec![time])),
        }
    }

    /// A Markdown table. Ratios are those of the medians to the median of `first`.
    pub fn print(&self, title: &str, first: &str) -> String {
        let one = self.0.iter().find(|(way, _)| *way == first).map(|(_, times)| median(times));
        let mut text =
            format!("\n{title}\n\n| way | median | least | most | runs | ratio |\n|---|---|---|---|---|---|\n");
        for (way, times) in &self.0 {
            let middle = median(times);
            let ratio = one.map_or_else(|| "-".to_owned(), |one| format!("{:.2}", middle / one));
            let seconds = || times.iter().map(Duration::as_secs_f64);
            let (least, most) = (seconds().fold(f64::MAX, f64::min), seconds().fold(0.0, f64::max));
            let _ = writeln!(text, "| {way} | {middle:.2} | {least:.2} | {most:.2} | {} | {ratio} |", times.len());
        }
        text
    }
}

/// The quantile of sorted times; `part` is from 0 to 1.
fn quantile(sorted: &[Duration], part: f64) -> Duration {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "few and positive"
    )]
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.max(1) - 1).copied().unwrap_or_default()
}

/// Quantiles of times, for people.
pub fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let milliseconds = |part| quantile(&times, part).as_secs_f64() * 1000.0;
    format!(
        "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        milliseconds(0.5),
        milliseconds(0.9),
        milliseconds(0.99),
        milliseconds(1.0)
    )
}

/// The median, in seconds.
fn median(times: &[Duration]) -> f64 {
    let mut sorted: Vec<_> = times.iter().map(Duration::as_secs_f64).collect();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_time_that_was_measured() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let of = |part| quantile(&times, part).as_millis();
        assert_eq!((of(0.5), of(0.99), of(1.0)), (100, 198, 200));
        assert_eq!(quantile(&[Duration::from_secs(1)], 0.5), Duration::from_secs(1));
    }

    #[test]
    fn times_need_not_be_sorted() {
        let times = (1..=10).rev().map(Duration::from_millis).collect();
        assert_eq!(quantiles(times), "p50 5.0 ms, p90 9.0 ms, p99 10.0 ms, most 10.0 ms");
    }

    #[test]
    fn ratios_are_those_of_medians() {
        let mut table = Table::default();
        for seconds in [9, 1, 2] {
            table.add("one", Duration::from_secs(seconds));
        }
        for seconds in [3, 4] {
            table.add("other", Duration::from_secs(seconds));
        }
        let text = table.print("title", "one");
        assert!(text.contains("| one | 2.00 | 1.00 | 9.00 | 3 | 1.00 |"), "{text}");
        assert!(text.contains("| other | 3.50 | 3.00 | 4.00 | 2 | 1.75 |"), "{text}");
    }
}
