//! Support bundles: what the unit on a host collects there for somebody who looks for the cause of a failure. Its owner orders one by an annotation of the
//! request. The unit sees to it that neither a job nor a bundle is begun while the other one is made, so nothing here waits for either.

use std::collections::BTreeMap;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::provisioning_request::HostFile;
use o2ims_types::{ProvisioningRequest, names};

use super::claim;
use super::observed::Observed;
use super::upgrade::job::command_for_unit;
use crate::provisioner::step::Step;
use crate::request::{ids_in, is_being_deleted};

/// The first version of the unit that makes support bundles.
const UNIT: u32 = 2;
/// Longest word: it is part of the name of a file.
const WORD_MAX: usize = 63;
/// Longest message that is taken from a host, and longest other text, in characters.
const MESSAGE_MAX: usize = 200;
const TEXT_MAX: usize = 100;

/// What a host has made, as an annotation of it says.
pub fn made(host: &ByoHost, annotation: &str) -> Option<HostFile> {
    let made: HostFile = serde_json::from_str(host.annotations().get(annotation)?).ok()?;
    let cut = |text: String, most| text.chars().filter(|letter| !letter.is_control()).take(most).collect::<String>();
    let plain = |text: String| cut(text, TEXT_MAX);
    let (name, state, path) = (plain(made.name), plain(made.state), made.path.map(plain));
    // There is room in a status for one or the other.
    let message = if path.is_none() { cut(made.message, MESSAGE_MAX) } else { String::new() };
    Some(HostFile { name, state, path, bytes: made.bytes, sha256: made.sha256.map(plain), message })
}

/// The words in the annotation, each with the host that it is for.
fn words(request: &ProvisioningRequest) -> impl Iterator<Item = (&str, Option<&str>)> {
    let all = ids_in(request, names::SUPPORT_BUNDLE_ANNOTATION).filter(|all| !all.is_empty());
    all.map(|all| all.split_once('/').map_or((all, None), |(word, host)| (word, Some(host))))
}

/// Whether it can be a part of the name of a file.
pub fn is_word(text: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    text.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && text.chars().all(is_plain)
        && text.len() <= WORD_MAX
}

/// That an annotation has no such word.
pub fn no_word(annotation: &str, word: &str) -> String {
    format!(
        "annotation {annotation} has {word:?}, which is no name for a file: use at most {WORD_MAX} letters, digits, \".\", \"_\" and \"-\", such as \
         2026-12-01"
    )
}

/// The word that is for a host.
fn word_for<'a>(request: &'a ProvisioningRequest, host: &str) -> Option<&'a str> {
    let is_meant = |(word, named): &(&str, Option<&str>)| is_word(word) && named.is_none_or(|named| named == host);
    words(request).find(is_meant).map(|(word, _)| word)
}

fn has_unit(host: &ByoHost) -> bool {
    let unit = host.annotations().get(names::HOST_UNIT_ANNOTATION).and_then(|unit| unit.parse::<u32>().ok());
    unit.is_some_and(|unit| unit >= UNIT)
}

/// What was carried out for this annotation of the request, as the Cluster has it: a host that is added or reset later does not carry it out again.
pub fn noted<'a>(observed: &'a Observed, annotation: &str) -> Option<&'a str> {
    observed.own_cluster()?.annotations().get(annotation).map(String::as_str)
}

/// Notes at the Cluster what was carried out for this annotation of the request.
pub fn note(observed: &Observed, annotation: &str, words: &str) -> Option<Step> {
    let cluster = observed.own_cluster()?;
    Some(Step::Annotate {
        kind: Kind::Cluster,
        name: cluster.name_any(),
        uid: cluster.uid().unwrap_or_default(),
        resource_version: None,
        annotations: BTreeMap::from([(annotation.to_owned(), Some(words.to_owned()))]),
    })
}

/// Whether each word in the annotation was given to every host that it is for.
fn is_noted(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let all = request.annotations().get(names::SUPPORT_BUNDLE_ANNOTATION);
    all.is_some_and(|all| noted(observed, names::SUPPORT_BUNDLE_ANNOTATION) == Some(all))
}

/// Whether a host has been given the word that is for it.
fn has_word(request: &ProvisioningRequest, host: &ByoHost) -> bool {
    let given = host.annotations().get(names::SUPPORT_BUNDLE_ANNOTATION).map(String::as_str);
    word_for(request, &host.name_any()).is_none_or(|word| given == Some(word))
}

/// The orders that hosts have not been given yet. When each has its own, that is noted.
pub fn orders(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    let Some(all) = request.annotations().get(names::SUPPORT_BUNDLE_ANNOTATION) else { return Vec::new() };
    if is_being_deleted(request) || is_noted(request, observed) {
        return Vec::new();
    }
    let order = |host: &ByoHost| {
        let word = word_for(request, &host.name_any())?;
        let annotations = BTreeMap::from([(names::SUPPORT_BUNDLE_ANNOTATION.to_owned(), Some(word.to_owned()))]);
        (has_unit(host) && !has_word(request, host))
            .then(|| Step::PatchHost(claim::patch(host, BTreeMap::new(), annotations)))
    };
    let orders: Vec<_> = observed.held().filter_map(|host| order(host)).collect();
    let is_given = mistake(request, observed).is_none() && observed.held().all(|host| has_word(request, host));
    if orders.is_empty() && is_given && words(request).next().is_some() {
        return note(observed, names::SUPPORT_BUNDLE_ANNOTATION, all).into_iter().collect();
    }
    orders
}

/// The support bundle of a host that the request holds: the one that is ordered, or else the last one.
pub fn of_host(request: &ProvisioningRequest, observed: &Observed, host: &ByoHost) -> Option<HostFile> {
    let made = made(host, names::SUPPORT_BUNDLE_STATUS_ANNOTATION);
    let is_over = is_noted(request, observed) && !has_word(request, host);
    let wanted = word_for(request, &host.name_any()).filter(|_| !is_over);
    if let Some(made) = made.filter(|made| wanted.is_none_or(|word| word == made.name)) {
        return Some(made);
    }
    let message = if has_unit(host) {
        "waits for the host, or for a job that it runs; if this does not change, systemctl status o2ims-host on the host says why".to_owned()
    } else {
        let command = command_for_unit(&[host.name_any()]);
        format!(
            "the unit o2ims-host does not report from the host, or is of an earlier release; to put it there: {command}"
        )
    };
    Some(HostFile { name: wanted?.to_owned(), state: "Waiting".to_owned(), message, ..HostFile::default() })
}

/// What is wrong in the annotation, as a sentence.
pub fn mistake(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    let annotation = names::SUPPORT_BUNDLE_ANNOTATION;
    let wrong = |(word, host): (&str, Option<&str>)| {
        if !is_word(word) {
            return Some(no_word(annotation, word));
        }
        let host = host.filter(|host| !observed.held().any(|held| held.name_any() == *host))?;
        Some(format!(
            "annotation {annotation} names host {host:?}, which this request does not hold; it takes names of ByoHosts, as in hostName"
        ))
    };
    words(request).find_map(wrong)
}
