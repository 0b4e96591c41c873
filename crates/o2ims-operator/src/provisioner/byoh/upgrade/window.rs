//! Maintenance windows: when an upgrade may begin on a host. Every window comes once a week or oftener, in UTC, so a week is the circle on which it is
//! calculated.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use o2ims_types::o2ims::v1alpha1::cluster_template::{Day, Window};

const DAY: i64 = 24 * 60 * 60;
const WEEK: i64 = 7 * DAY;
/// 1970-01-05, a Monday.
const MONDAY: i64 = 4 * DAY;
const DAYS: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];

/// The begin of the next window; `None` if nothing is waited for, since one is open or there are none.
pub fn next(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    let now = now.as_second();
    let all: Vec<_> = windows.iter().flat_map(begins).collect();
    let is_open = all.iter().any(|(begin, length)| (now - begin).rem_euclid(WEEK) < *length);
    let wait = all.iter().map(|(begin, _)| (begin - now).rem_euclid(WEEK)).min().filter(|_| !is_open)?;
    Timestamp::from_second(now + wait).ok()
}

/// When a window begins, as one of the times in seconds since 1970, and its length in seconds.
fn begins(window: &Window) -> impl Iterator<Item = (i64, i64)> {
    let length = Duration::from(window.duration).as_secs();
    let length = i64::try_from(length).unwrap_or(WEEK);
    let start = seconds(&window.start);
    let is_named = |day: &Day| window.days.is_empty() || window.days.contains(day);
    let days = (0..).zip(DAYS).filter(move |(_, day)| is_named(day)).map(|(number, _)| number);
    days.filter_map(move |number: i64| Some((MONDAY + number * DAY + start?, length)))
}

/// A time of day in seconds; the CRD lets no other text be one.
fn seconds(start: &str) -> Option<i64> {
    let (hour, minute) = start.split_once(':')?;
    Some(hour.parse::<i64>().ok()? * 60 * 60 + minute.parse::<i64>().ok()? * 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn windows(all: serde_json::Value) -> Vec<Window> {
        serde_json::from_value(all).unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// 2026-12-05 is a Saturday.
    #[test]
    fn an_upgrade_waits_for_the_next_window() {
        let nightly = windows(json!([{"start": "22:00", "duration": "4h"}]));
        let weekend = windows(json!([{"days": ["Sat"], "start": "22:30", "duration": "4h"}]));
        let both = windows(json!([
            {"days": ["Wed"], "start": "01:00", "duration": "30m"},
            {"days": ["Fri", "Sun"], "start": "00:00", "duration": "1h"},
        ]));
        for (windows, now, expected) in [
            (&nightly, "2026-12-05T21:59:59Z", Some("2026-12-05T22:00:00Z")),
            (&nightly, "2026-12-05T22:00:00Z", None),
            (&nightly, "2026-12-06T00:00:00Z", None),
            (&nightly, "2026-12-06T01:59:59.9Z", None),
            (&nightly, "2026-12-06T02:00:00Z", Some("2026-12-06T22:00:00Z")),
            (&nightly, "2028-02-29T03:00:00Z", Some("2028-02-29T22:00:00Z")),
            (&weekend, "2026-12-05T22:29:00Z", Some("2026-12-05T22:30:00Z")),
            (&weekend, "2026-12-06T02:29:59Z", None),
            (&weekend, "2026-12-06T02:30:00Z", Some("2026-12-12T22:30:00Z")),
            (&weekend, "2026-12-31T00:00:00Z", Some("2027-01-02T22:30:00Z")),
            (&both, "2026-12-05T12:00:00Z", Some("2026-12-06T00:00:00Z")),
            (&both, "2026-12-06T00:30:00Z", None),
            (&both, "2026-12-06T01:00:00Z", Some("2026-12-09T01:00:00Z")),
            (&both, "2026-12-09T01:30:00Z", Some("2026-12-11T00:00:00Z")),
        ] {
            assert_eq!(next(windows, at(now)), expected.map(at), "at {now} with {windows:?}");
        }
    }

    #[test]
    fn without_windows_and_with_one_of_a_whole_week_nothing_is_waited_for() {
        for all in [
            json!([]),
            json!([{"days": ["Mon"], "start": "12:00", "duration": "168h"}]),
            json!([{"start": "07:00", "duration": "24h"}]),
        ] {
            for hour in 0..200 {
                let now = Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap();
                assert_eq!(next(&windows(all.clone()), now), None, "{all} at {now}");
            }
        }
    }

    prop_compose! {
        fn a_window()(days in 0_u8..128, hour in 0..24, minute in 0..60, minutes in 1..10_080) -> Window {
            let days: Vec<_> = DAYS.into_iter().enumerate().filter(|(number, _)| days & (1 << number) != 0).map(|(_, day)| day).collect();
            serde_json::from_value(json!({"days": days, "start": format!("{hour:02}:{minute:02}"), "duration": format!("{minutes}m")})).unwrap()
        }
    }

    proptest! {
        /// The next window is open at its begin, the time of which does not depend on when it is asked for, and none is open before.
        #[test]
        fn the_next_window_is_the_first_one(all in prop::collection::vec(a_window(), 0..4), now in 0_i64..4_000_000_000, part in 0.0..1.0) {
            let time = |second: i64| Timestamp::from_second(second).unwrap();
            if let Some(begin) = next(&all, time(now)) {
                let wait = begin.as_second() - now;
                prop_assert!(wait > 0 && wait < WEEK);
                prop_assert_eq!(begin.as_second() % 60, 0);
                prop_assert_eq!(next(&all, begin), None);
                #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any moment before it")]
                let between = now + (wait as f64 * part) as i64;
                prop_assert_eq!(next(&all, time(between)), Some(begin));
            }
        }
    }
}
