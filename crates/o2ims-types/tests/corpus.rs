//! The Rust half of the rules says of every value in the corpus what the corpus says.

#![allow(clippy::expect_used, reason = "a broken assumption may end a test")]

use o2ims_types::TemplateParameters;
use o2ims_types::rules::fields_in_rust::{new_cluster_violations, violations};
use serde_json::{Value, json};

#[path = "corpus/mod.rs"]
mod corpus;

/// Parameters that are right.
fn good() -> Value {
    json!({
        "clusterName": "core", "k8sVersion": "v1.33.1",
        "hosts": {"masters": [{"hostId": 1, "hostName": "target-1"}], "workers": [{"hostId": 2, "hostName": "target-2"}]},
    })
}

#[test]
fn validation_agrees_with_the_corpus() {
    let mut wrong = Vec::new();
    for case in corpus::cases() {
        let parameters: TemplateParameters = serde_json::from_value(case.applied_to(good())).expect("parameters");
        let expected: Vec<_> = case.message.iter().map(ToString::to_string).collect();
        let found = [violations(&parameters), new_cluster_violations(&parameters)].concat();
        // The value may follow.
        let agrees = |(found, expected): (&String, &String)| found.starts_with(expected.as_str());
        if found.len() != expected.len() || !found.iter().zip(&expected).all(agrees) {
            wrong.push(format!("{}: {}: expected {expected:?}, found {found:?}", case.rule, case.value));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules on the name of a new object: they are no rules on a parameter.
const OF_NAMES: [&str; 2] = ["FPR_NAME", "TEMPLATE_OBJECT_NAME"];

#[test]
fn every_rule_is_in_the_corpus() {
    let source = include_str!("../src/rules/fields_in_cel.rs");
    let name = |declaration: &str| {
        let is_name = |line: &&str| line.ends_with(',') && line.starts_with(|first: char| first.is_ascii_uppercase());
        declaration.lines().map(str::trim).find(is_name).map(|line| line.trim_end_matches(',').to_owned())
    };
    let mut declared: Vec<_> = source.split("\nrule!(").skip(1).filter_map(name).collect();
    declared.retain(|rule| !OF_NAMES.contains(&rule.as_str()));
    let mut known: Vec<_> = corpus::RULES.iter().map(|(rule, _)| (*rule).to_owned()).collect();
    declared.sort();
    known.sort();
    assert_eq!(declared, known);
}

#[test]
fn the_corpus_has_right_and_wrong_values_of_every_rule() {
    for (rule, _) in corpus::RULES {
        let of_rule: Vec<_> = corpus::cases().into_iter().filter(|case| case.rule == *rule).collect();
        assert!(of_rule.iter().any(|case| case.message.is_some()), "{rule} has no wrong value");
        assert!(of_rule.iter().any(|case| case.message.is_none()), "{rule} has no right value");
    }
}
