//! Support bundles: what the unit on a host collects there for somebody who looks for the cause of a failure. Its owner orders one by an annotation of the
//! request. The unit sees to it that neither a job nor a bundle is begun while the other one is made, so nothing here waits for either.

use std::collections::BTreeMap;

use cluster_api::byoh::ByoHost;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::provisioning_request::SupportBundle;
use o2ims_types::{ProvisioningRequest, names};
use serde::Deserialize;

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

/// What a host reports of its support bundle.
#[derive(Deserialize)]
struct Reported {
    name: String,
    state: String,
    path: Option<String>,
    bytes: Option<i64>,
    sha256: Option<String>,
    #[serde(default)]
    message: String,
}

/// The words in the annotation, each with the host that it is for.
fn words(request: &ProvisioningRequest) -> impl Iterator<Item = (&str, Option<&str>)> {
    let all = ids_in(request, names::SUPPORT_BUNDLE_ANNOTATION).filter(|all| !all.is_empty());
    all.map(|all| all.split_once('/').map_or((all, None), |(word, host)| (word, Some(host))))
}

fn is_word(text: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    text.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && text.chars().all(is_plain) && text.len() <= WORD_MAX
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

/// The orders that hosts have not been given yet.
pub fn orders(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    if is_being_deleted(request) {
        return Vec::new();
    }
    let order = |host: &ByoHost| {
        let word = word_for(request, &host.name_any())?;
        let has_it = host.annotations().get(names::SUPPORT_BUNDLE_ANNOTATION).is_some_and(|given| given == word);
        let annotations = BTreeMap::from([(names::SUPPORT_BUNDLE_ANNOTATION.to_owned(), Some(word.to_owned()))]);
        (has_unit(host) && !has_it).then(|| Step::PatchHost(claim::patch(host, BTreeMap::new(), annotations)))
    };
    observed.held().filter_map(|host| order(host)).collect()
}

/// The support bundle of a host that the request holds: the one that is ordered, or else the last one.
pub fn of_host(request: &ProvisioningRequest, host: &ByoHost) -> Option<SupportBundle> {
    let reported = host.annotations().get(names::SUPPORT_BUNDLE_STATUS_ANNOTATION);
    let reported: Option<Reported> = reported.and_then(|text| serde_json::from_str(text).ok());
    let wanted = word_for(request, &host.name_any());
    if let Some(reported) = reported.filter(|reported| wanted.is_none_or(|word| word == reported.name)) {
        let cut = |text: String, most| text.chars().filter(|letter| !letter.is_control()).take(most).collect::<String>();
        let plain = |text: String| cut(text, TEXT_MAX);
        return Some(SupportBundle {
            name: plain(reported.name),
            state: plain(reported.state),
            path: reported.path.map(plain),
            bytes: reported.bytes,
            sha256: reported.sha256.map(plain),
            message: cut(reported.message, MESSAGE_MAX),
        });
    }
    let message = if has_unit(host) {
        "waits for the host, or for a job that it runs; if this does not change, systemctl status o2ims-host on the host says why".to_owned()
    } else {
        let command = command_for_unit(&[host.name_any()]);
        format!("the unit o2ims-host does not report from the host, or is of an earlier release; to put it there: {command}")
    };
    Some(SupportBundle { name: wanted?.to_owned(), state: "Waiting".to_owned(), message, ..SupportBundle::default() })
}

/// What is wrong in the annotation, as a sentence.
pub fn mistake(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    let annotation = names::SUPPORT_BUNDLE_ANNOTATION;
    let wrong = |(word, host): (&str, Option<&str>)| {
        if !is_word(word) {
            return Some(format!(
                "annotation {annotation} has {word:?}, which is no name for a file: use at most {WORD_MAX} letters, digits, \".\", \"_\" and \"-\", such \
                 as 2026-12-01"
            ));
        }
        let host = host.filter(|host| !observed.held().any(|held| held.name_any() == *host))?;
        Some(format!("annotation {annotation} names host {host:?}, which this request does not hold; it takes names of ByoHosts, as in hostName"))
    };
    words(request).find_map(wrong)
}
