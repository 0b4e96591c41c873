//! A template's settings for kubeadm, in the form of Cluster API's `v1beta2`. Templates may have them in the form of `v1beta1` too, in which
//! arguments are an object, and times are texts. Pure.

use serde_json::{Value, json};

/// Arguments of programs: an object in `v1beta1`, a list in `v1beta2`.
const ARGUMENTS: [&str; 6] = [
    "/clusterConfiguration/apiServer/extraArgs",
    "/clusterConfiguration/controllerManager/extraArgs",
    "/clusterConfiguration/scheduler/extraArgs",
    "/clusterConfiguration/etcd/local/extraArgs",
    "/initConfiguration/nodeRegistration/kubeletExtraArgs",
    "/joinConfiguration/nodeRegistration/kubeletExtraArgs",
];

/// Times of `v1beta1`, and the numbers of seconds that they are in `v1beta2`: configuration and field below its `timeouts`.
const TIMES: [(&str, &[(&str, &str)]); 2] = [
    (
        "/clusterConfiguration/apiServer/timeoutForControlPlane",
        &[
            ("initConfiguration", "controlPlaneComponentHealthCheckSeconds"),
            ("joinConfiguration", "controlPlaneComponentHealthCheckSeconds"),
        ],
    ),
    ("/joinConfiguration/discovery/timeout", &[("joinConfiguration", "tlsBootstrapSeconds")]),
];

/// Fields of `v1beta1` that are gone because the Cluster has their values: [`super::template::wrong_settings`] refuses other values.
const OF_THE_CLUSTER: [&str; 3] = ["networking", "kubernetesVersion", "clusterName"];

/// The settings in the form of `v1beta2`. What has no such form is left out.
pub fn in_current_form(settings: &Value) -> Value {
    let mut settings = settings.clone();
    for pointer in ARGUMENTS {
        if let Some(arguments) = settings.pointer_mut(pointer)
            && let Some(by_name) = arguments.as_object()
        {
            // serde_json keeps them sorted by name.
            *arguments = by_name.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        }
    }
    for (pointer, targets) in TIMES {
        let Some(seconds) = take(&mut settings, pointer).as_ref().and_then(seconds) else { continue };
        for (configuration, field) in targets {
            let time = &mut settings[*configuration]["timeouts"][*field];
            if time.is_null() {
                *time = json!(seconds);
            }
        }
    }
    for token in
        settings.pointer_mut("/initConfiguration/bootstrapTokens").and_then(Value::as_array_mut).into_iter().flatten()
    {
        if let Some(seconds) = take(token, "/ttl").as_ref().and_then(seconds) {
            token["ttlSeconds"] = json!(seconds);
        }
    }
    for configuration in ["clusterConfiguration", "initConfiguration", "joinConfiguration"] {
        for field in ["apiVersion", "kind"] {
            take(&mut settings, &format!("/{configuration}/{field}"));
        }
    }
    for field in OF_THE_CLUSTER {
        take(&mut settings, &format!("/clusterConfiguration/{field}"));
    }
    take(&mut settings, "/useExperimentalRetryJoin");
    settings
}

/// Settings that have no form in `v1beta2`: their path, and what to do.
pub fn without_current_form(settings: &Value) -> Vec<(String, &'static str)> {
    const NO_TIME: &str = "set it to a time such as 4m0s";
    let mut found = Vec::new();
    let mut check_time = |path: String, time: Option<&Value>| {
        if time.is_some_and(|time| !is_empty(time) && seconds(time).is_none()) {
            found.push((path, NO_TIME));
        }
    };
    for (pointer, _) in TIMES {
        check_time(pointer.trim_start_matches('/').replace('/', "."), settings.pointer(pointer));
    }
    let tokens = settings.pointer("/initConfiguration/bootstrapTokens").and_then(Value::as_array);
    for (index, token) in tokens.into_iter().flatten().enumerate() {
        check_time(format!("initConfiguration.bootstrapTokens[{index}].ttl"), token.get("ttl"));
    }
    if settings["useExperimentalRetryJoin"] == true {
        found.push(("useExperimentalRetryJoin".to_owned(), "remove it: kubeadm itself tries again to join"));
    }
    found
}

/// The last of the arguments of this name, of settings in either form.
pub fn argument(settings: &Value, component: &str, name: &str) -> Option<String> {
    let settings = in_current_form(settings);
    let arguments = settings["clusterConfiguration"][component]["extraArgs"].as_array()?;
    let found = arguments.iter().rev().find(|argument| argument["name"] == name)?;
    found["value"].as_str().map(ToOwned::to_owned)
}

/// Removes what is empty: in `v1beta1` it is the same as what is not set, and `v1beta2` refuses it. No taints are another thing than the
/// default ones, and an argument may be empty.
pub fn without_empty_fields(mut settings: Value) -> Value {
    remove_empty_fields(&mut settings);
    settings
}

fn remove_empty_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(remove_empty_fields);
            fields.retain(|name, value| match name.as_str() {
                "taints" | "value" => !value.is_null(),
                _ => !is_empty(value),
            });
        }
        Value::Array(items) => items.iter_mut().for_each(remove_empty_fields),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Removes the field at `pointer`, and returns its value.
fn take(settings: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, field) = pointer.rsplit_once('/')?;
    settings.pointer_mut(parent)?.as_object_mut()?.remove(field)
}

/// Seconds of a time as Go writes it, such as `4m0s`.
fn seconds(time: &Value) -> Option<u64> {
    let mut rest = time.as_str().filter(|text| !text.is_empty())?;
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|character: char| !character.is_ascii_digit())?);
        let unit = after.chars().next()?;
        let factor = match unit {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after.get(1..)?;
    }
    Some(seconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_is_translated() {
        let older = json!({
            "clusterConfiguration": {
                "apiVersion": "kubeadm.k8s.io/v1beta3",
                "kind": "ClusterConfiguration",
                "clusterName": "",
                "apiServer": {"extraArgs": {"v": "2", "a": ""}, "timeoutForControlPlane": "4m0s"},
                "etcd": {"local": {"extraArgs": {"quota-backend-bytes": "1"}}},
                "networking": {"podSubnet": "10.0.0.0/16"},
            },
            "initConfiguration": {"bootstrapTokens": [{"token": "a.b", "ttl": "1h"}]},
            "joinConfiguration": {
                "discovery": {"timeout": "1m30s"},
                "nodeRegistration": {"kubeletExtraArgs": {"b": "2", "a": "1"}, "taints": []},
            },
            "useExperimentalRetryJoin": false,
        });
        let newer = json!({
            "clusterConfiguration": {
                "apiServer": {"extraArgs": [{"name": "a", "value": ""}, {"name": "v", "value": "2"}]},
                "etcd": {"local": {"extraArgs": [{"name": "quota-backend-bytes", "value": "1"}]}},
            },
            "initConfiguration": {
                "bootstrapTokens": [{"token": "a.b", "ttlSeconds": 3600}],
                "timeouts": {"controlPlaneComponentHealthCheckSeconds": 240},
            },
            "joinConfiguration": {
                "nodeRegistration": {
                    "kubeletExtraArgs": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}],
                    "taints": [],
                },
                "timeouts": {"controlPlaneComponentHealthCheckSeconds": 240, "tlsBootstrapSeconds": 90},
            },
        });
        assert_eq!(without_empty_fields(in_current_form(&older)), newer);
        assert_eq!(without_empty_fields(in_current_form(&newer)), newer);
        assert_eq!(without_current_form(&older), []);
        assert_eq!(without_current_form(&newer), []);
    }

    #[test]
    fn what_cannot_be_translated_is_named() {
        let settings = json!({
            "clusterConfiguration": {"apiServer": {"timeoutForControlPlane": "soon"}},
            "initConfiguration": {"bootstrapTokens": [{"ttl": "1h"}, {"ttl": 5}]},
            "useExperimentalRetryJoin": true,
        });
        let paths: Vec<_> = without_current_form(&settings).into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            paths,
            [
                "clusterConfiguration.apiServer.timeoutForControlPlane",
                "initConfiguration.bootstrapTokens[1].ttl",
                "useExperimentalRetryJoin",
            ]
        );
    }

    #[test]
    fn arguments_are_found_in_either_form() {
        let of = |arguments: Value| json!({"clusterConfiguration": {"controllerManager": {"extraArgs": arguments}}});
        let found = |arguments: Value| argument(&of(arguments), "controllerManager", "a");
        assert_eq!(found(json!({"a": "1"})).as_deref(), Some("1"));
        assert_eq!(found(json!([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}])).as_deref(), Some("2"));
        assert_eq!(found(json!([{"name": "b", "value": "1"}])), None);
    }

    #[test]
    fn times_are_read() {
        let read = |text: &str| seconds(&json!(text));
        assert_eq!([read("4m0s"), read("1h1m1s"), read("20s")], [Some(240), Some(3661), Some(20)]);
        assert_eq!([read(""), read("5"), read("1d"), read("m"), read("1.5m")], [None; 5]);
    }
}
