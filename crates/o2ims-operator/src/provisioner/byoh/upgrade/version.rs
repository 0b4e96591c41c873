//! Versions of Kubernetes, and how they compare.

use semver::Version;

/// A version as Kubernetes writes it, such as `v1.33.1`.
pub fn parse(version: &str) -> Option<Version> {
    Version::parse(version.strip_prefix('v')?).ok()
}

/// Whether two versions are the same; what the builder of a distribution adds after `+` does not count.
pub fn is_same(one: &str, other: &str) -> bool {
    let plain = |version: &str| version.split('+').next().unwrap_or_default().to_owned();
    plain(one) == plain(other)
}

/// Whether one version comes before another one.
pub fn is_older(one: &str, other: &str) -> bool {
    parse(one).zip(parse(other)).is_some_and(|(one, other)| one.cmp_precedence(&other).is_lt())
}
