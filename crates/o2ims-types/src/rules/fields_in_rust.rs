//! The rules of [`super::fields_in_cel`] in Rust, for parameters after the template's defaults are filled in: the API server has not
//! validated those.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fields_in_cel::{self as rules, FieldRule};
use crate::o2ims::v1alpha1::provisioning_request::{HostRef, Hosts, TemplateParameters};

/// The message of every rule that does not hold, in the words of the CRD; empty if all hold.
pub fn violations(parameters: &TemplateParameters) -> Vec<String> {
    let mut found = Violations(Vec::new());
    found.unless(parameters.cluster_name.is_some() && parameters.hosts.is_some(), &rules::REQUIRED);
    if parameters.k8s_version.is_none() {
        found.0.push("k8sVersion is required: neither the request nor the template gives one".to_owned());
    }
    found.0.extend(value_violations(parameters));
    found.0
}

/// As [`violations`], of the values that are there: no field is missing. So the defaults of a template can be judged by themselves.
pub fn value_violations(parameters: &TemplateParameters) -> Vec<String> {
    let mut found = Violations(Vec::new());
    found.unless(parameters.cluster_name.as_deref().is_none_or(is_cluster_name), &rules::CLUSTER_NAME);
    found.unless(parameters.k8s_version.as_deref().is_none_or(is_k8s_version), &rules::K8S_VERSION);
    let pods = network(parameters.pod_cidr.as_deref());
    let services = network(parameters.service_cidr.as_deref());
    for (network, text, rule) in
        [(pods, &parameters.pod_cidr, &rules::POD_CIDR), (services, &parameters.service_cidr, &rules::SERVICE_CIDR)]
    {
        if network.is_err() {
            found.0.push(format!("{}: {}", rule.message, what_is_meant(text.as_deref().unwrap_or_default())));
        }
    }
    if let (Ok(Some(pods)), Ok(Some(services))) = (pods, services)
        && (pods.contains(&services) || services.contains(&pods))
    {
        found.0.push(with_networks(&rules::CIDR_OVERLAP, Some(pods), Some(services)));
    }
    if let Some(label) = parameters.labels.iter().flatten().find(|(key, value)| !is_label(key, value)) {
        found.0.push(format!("{}: {}={}", rules::LABELS, label.0, label.1));
    }
    if let Some(endpoint) = &parameters.control_plane_endpoint {
        found.unless(is_ip(&endpoint.host) || is_dns_name(&endpoint.host, 253), &rules::ENDPOINT_HOST);
        if !(1..=65535).contains(&endpoint.port) {
            found.0.push("controlPlaneEndpoint.port must be from 1 to 65535".to_owned());
        }
    }
    if let Some(hosts) = &parameters.hosts {
        host_violations(hosts, &mut found);
        if hosts.masters.len() > 1 && parameters.control_plane_endpoint.is_none() {
            found.0.push(format!(
                "controlPlaneEndpoint is required with {} masters: a virtual IP or a load balancer",
                hosts.masters.len()
            ));
        }
    }
    found.0
}

/// The message of every rule on a cluster that is not created yet ([`rules::NEW_CLUSTER`]) that does not hold. Values that
/// [`violations`] rejects are not judged here.
pub fn new_cluster_violations(parameters: &TemplateParameters) -> Vec<String> {
    let mut found = Violations(Vec::new());
    let version = parameters.k8s_version.as_deref().filter(|version| is_k8s_version(version));
    found.unless(version.is_none_or(is_release), &rules::K8S_RELEASE);
    let pods = network(parameters.pod_cidr.as_deref()).unwrap_or_default();
    let services = network(parameters.service_cidr.as_deref()).unwrap_or_default();
    let is_reserved =
        |net: IpNet| ranges(&rules::RESERVED_RANGES).any(|range| range.contains(&net) || net.contains(&range));
    found.unless(!pods.is_some_and(is_reserved), &rules::POD_CIDR_RANGE);
    found.unless(!services.is_some_and(is_reserved), &rules::SERVICE_CIDR_RANGE);
    found.unless(services.is_none_or(has_service_size), &rules::SERVICE_CIDR_SIZE);
    let is_ipv4 = |net: &IpNet| net.addr().is_ipv4();
    if pods.zip(services).is_some_and(|(pods, services)| is_ipv4(&pods) != is_ipv4(&services)) {
        found.0.push(with_networks(&rules::CIDR_FAMILY, pods, services));
    }
    let endpoint = parameters.control_plane_endpoint.as_ref().map(|endpoint| endpoint.host.as_str());
    match endpoint.map(|host| (host, host.parse::<IpAddr>())) {
        Some((host, Ok(address))) if is_ip(host) => {
            let is_unreachable = ranges(&rules::UNREACHABLE_RANGES).any(|range| range.contains(&address));
            found.unless(!is_unreachable, &rules::ENDPOINT_ADDRESS);
            let around = |net: Option<IpNet>| net.filter(|net| net.contains(&address));
            if around(pods).or(around(services)).is_some() {
                found.0.push(with_networks(&rules::ENDPOINT_OUTSIDE, around(pods), around(services)));
            }
        }
        Some((host, _)) if is_dns_name(host, 253) => found.unless(is_host_name(host), &rules::ENDPOINT_NAME),
        _ => {}
    }
    found.0
}

/// The message of a rule on both networks with the values, which may be the template's defaults.
fn with_networks(rule: &FieldRule, pods: Option<IpNet>, services: Option<IpNet>) -> String {
    let given = [("podCidr", pods), ("serviceCidr", services)].into_iter();
    let given: Vec<_> = given.filter_map(|(field, net)| Some(format!("{field} is {}", net?))).collect();
    format!("{}; {}", rule.message, given.join(", "))
}

/// What a text that is no network may mean: the network of an address with host bits.
fn what_is_meant(text: &str) -> String {
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() != net => format!("{text} is an address in {}", net.trunc()),
        _ => format!("{text:?} is none"),
    }
}

fn ranges(texts: &[&str]) -> impl Iterator<Item = IpNet> {
    texts.iter().filter_map(|range| range.parse().ok())
}

fn has_service_size(net: IpNet) -> bool {
    let host_bits = net.max_prefix_len() - net.prefix_len();
    (4..=20).contains(&host_bits)
}

fn is_release(version: &str) -> bool {
    let number = |part: &str| part.len() <= 3 && part.chars().all(|c| c.is_ascii_digit());
    version
        .strip_prefix("v1.")
        .and_then(|rest| rest.split_once('.'))
        .is_some_and(|(minor, patch)| number(minor) && number(patch))
}

/// Whether a DNS name can be one of a server: `10.0.0.300` is a DNS name too.
fn is_host_name(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    name != "localhost" && last.chars().any(|c| c.is_ascii_lowercase())
}

fn host_violations(hosts: &Hosts, found: &mut Violations) {
    found.unless(hosts.masters.len() % 2 == 1 && hosts.masters.len() <= rules::MAX_MASTERS, &rules::MASTERS_ODD);
    if hosts.workers.len() > rules::MAX_WORKERS {
        found.0.push(format!("hosts.workers must have at most {} hosts", rules::MAX_WORKERS));
    }
    let names = |list: &[HostRef]| list.iter().map(|host| host.name().to_owned()).collect::<Vec<_>>();
    let (masters, workers) = (names(&hosts.masters), names(&hosts.workers));
    found.unless(first_twice(&masters).is_none(), &rules::MASTERS_UNIQUE);
    found.unless(first_twice(&workers).is_none(), &rules::WORKERS_UNIQUE);
    found.unless(!workers.iter().any(|name| masters.contains(name)), &rules::ROLES_DISJOINT);
    let all = || hosts.all();
    let ids: Vec<_> = all().map(HostRef::id).collect();
    if let Some(id) = first_twice(&ids) {
        found.0.push(format!("hosts must have different ids: hostId {id} is given twice"));
    }
    found.unless(all().all(|host| host.host_id.is_some() != host.host_id_snake.is_some()), &rules::HOST_ID_PRESENT);
    if !ids.iter().all(|id| id.is_empty() || is_label_value(id)) {
        found.0.push(rules::HOST_ID.to_owned());
    }
    found.unless(
        all().all(|host| host.host_name.is_some() != host.host_name_snake.is_some()),
        &rules::HOST_NAME_PRESENT,
    );
    found.unless(all().all(|host| host.name().is_empty() || is_dns_name(host.name(), 63)), &rules::HOST_NAME);
    found.unless(all().all(|host| host.host_ip.as_deref().is_none_or(is_ip)), &rules::HOST_IP);
}

struct Violations(Vec<String>);

impl Violations {
    fn unless(&mut self, holds: bool, rule: &FieldRule) {
        if !holds {
            self.0.push(rule.message.to_owned());
        }
    }
}

fn first_twice(items: &[String]) -> Option<&String> {
    let mut sorted: Vec<_> = items.iter().collect();
    sorted.sort();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// `None`: there is no network; an error: it is malformed, or has host bits set.
fn network(text: Option<&str>) -> Result<Option<IpNet>, ()> {
    let Some(text) = text else { return Ok(None) };
    let (address, length) = text.split_once('/').ok_or(())?;
    // IpNet accepts leading zeros, which CEL does not.
    if !is_ip(address) || length.len() > 1 && length.starts_with('0') {
        return Err(());
    }
    let net: IpNet = text.parse().map_err(|_| ())?;
    if net.trunc() == net { Ok(Some(net)) } else { Err(()) }
}

/// CEL does not accept an IPv4 address that is written as an IPv6 one.
fn is_ip(text: &str) -> bool {
    match text.parse() {
        Ok(IpAddr::V4(_)) => true,
        Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().is_none(),
        Err(_) => false,
    }
}

fn is_cluster_name(text: &str) -> bool {
    text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_lowercase()) && is_dns_label(text)
}

fn is_dns_label(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-')
}

fn is_dns_name(text: &str, max: usize) -> bool {
    text.len() <= max && text.split('.').all(is_dns_label)
}

fn is_label_value(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.'))
}

fn is_label(key: &str, value: &str) -> bool {
    const RESERVED: [&str; 4] = ["x-k8s.io", "oran.org", "kubernetes.io", "k8s.io"];
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| {
        is_dns_name(prefix, 253)
            && !RESERVED.iter().any(|group| prefix == *group || prefix.ends_with(&format!(".{group}")))
    });
    prefix_ok && is_label_value(name) && (value.is_empty() || is_label_value(value))
}

fn is_k8s_version(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let number = |part: &str| part == "0" || (digits(part) && !part.starts_with('0'));
    let suffix =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    let Some(rest) = text.strip_prefix("v1.") else { return false };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (numbers, pre) = rest.split_once('-').map_or((rest, None), |(numbers, pre)| (numbers, Some(pre)));
    let Some((minor, patch)) = numbers.split_once('.') else { return false };
    number(minor) && number(patch) && build.is_none_or(suffix) && pre.is_none_or(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({
            "clusterName": "core", "clusterProvisioner": "byoh", "k8sVersion": "v1.33.1",
            "podCidr": "192.168.0.0/16", "serviceCidr": "10.128.0.0/12",
            "hosts": {"masters": [{"hostId": 1, "hostName": "target-1"}], "workers": [{"host_id": "2", "host_name": "target-2"}]}
        })
    }

    fn check(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut value = good();
        change(&mut value);
        violations(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_good_request_has_no_violation() {
        assert_eq!(check(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn only_a_request_lacks_what_is_missing() {
        let nothing = TemplateParameters::default();
        assert_eq!((violations(&nothing).len(), value_violations(&nothing)), (2, Vec::new()));
    }

    #[test]
    fn each_rule_speaks_in_its_own_words() {
        type Case = (fn(&mut Value), &'static str);
        type WithValue = (fn(&mut Value), &'static str, &'static str);
        let cases: [Case; 9] = [
            (|v| v["clusterName"] = json!("Core"), rules::CLUSTER_NAME.message),
            (|v| v["clusterName"] = json!("core-"), rules::CLUSTER_NAME.message),
            (|v| v["k8sVersion"] = json!("1.33.1"), rules::K8S_VERSION.message),
            (|v| v["k8sVersion"] = json!("v1.033.1"), rules::K8S_VERSION.message),
            (|v| v["hosts"]["workers"][0]["host_name"] = json!("target-1"), rules::ROLES_DISJOINT.message),
            (|v| v["hosts"]["masters"][0]["hostId"] = json!(-1), rules::HOST_ID),
            (|v| v["hosts"]["masters"][0]["hostName"] = json!("Target_1"), rules::HOST_NAME.message),
            (|v| v["hosts"]["masters"][0]["hostIp"] = json!("10.0.0"), rules::HOST_IP.message),
            (|v| v["controlPlaneEndpoint"] = json!({"host": "a b"}), rules::ENDPOINT_HOST.message),
        ];
        for (change, message) in cases {
            assert_eq!(check(change), [message]);
        }
        let with_values: [WithValue; 5] = [
            (
                |v| v["podCidr"] = json!("192.168.0.1/16"),
                rules::POD_CIDR.message,
                ": 192.168.0.1/16 is an address in 192.168.0.0/16",
            ),
            (|v| v["podCidr"] = json!("10/8"), rules::POD_CIDR.message, ": \"10/8\" is none"),
            (
                |v| v["serviceCidr"] = json!("10.97.0.0/12"),
                rules::SERVICE_CIDR.message,
                ": 10.97.0.0/12 is an address in 10.96.0.0/12",
            ),
            (
                |v| v["serviceCidr"] = json!("192.168.128.0/20"),
                rules::CIDR_OVERLAP.message,
                "; podCidr is 192.168.0.0/16, serviceCidr is 192.168.128.0/20",
            ),
            (
                |v| v["labels"] = json!({"cluster.x-k8s.io/cluster-name": "x"}),
                rules::LABELS,
                ": cluster.x-k8s.io/cluster-name=x",
            ),
        ];
        for (change, message, value) in with_values {
            assert_eq!(check(change), [format!("{message}{value}")]);
        }
        assert_eq!(check(|v| v["hosts"]["workers"][0]["host_id"] = json!("1")).len(), 1, "same id twice");
    }

    proptest! {
        #[test]
        fn no_input_panics(name in ".{0,80}", version in ".{0,40}", cidr in ".{0,30}", host in ".{0,70}") {
            let _ = check(|v| {
                v["clusterName"] = json!(name);
                v["k8sVersion"] = json!(version);
                v["podCidr"] = json!(cidr);
                v["hosts"]["masters"][0]["hostName"] = json!(host);
            });
        }
    }
}
