//! The ValidatingAdmissionPolicies of requests and templates, as they are shipped in `deploy/`: which fields may not change, what may
//! not be deleted, when the finalizer `orphan` may be removed, how new objects may be named, and which values a new cluster may have.
//!
//! They refuse changes with 403: no tool deletes an object and creates it again after that. The rules on changes and values apply to
//! changes of the spec only: status, labels and finalizers, other than `orphan`, can always be written.

use serde_json::{Value, json};

use super::fields_in_cel::{
    FPR_NAME, FieldRule, NEW_CLUSTER, RESERVED_RANGES, TEMPLATE_OBJECT_NAME, UNREACHABLE_RANGES,
};
use super::immutable_fields::{
    Form, Frozen, MASTERS_ALONE, NEXT_VERSION, PARAMETERS, SMO_TRANSITIONS, TAKE_BACK, TRANSITIONS, Transition, WAY_OUT,
};
use crate::names::{self, focom};
use crate::o2ims::v1alpha1::provisioning_request::API_PORT;

/// A kind of requests, and what its policies need.
struct Requests {
    /// Prefix of the policies' names.
    prefix: &'static str,
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    short_name: &'static str,
    operator: &'static str,
    finalizer: &'static str,
    protection: &'static str,
    transitions: &'static [Transition],
}

const O_CLOUD: Requests = Requests {
    prefix: "o2ims",
    group: names::GROUP,
    plural: "provisioningrequests",
    kind: "ProvisioningRequest",
    short_name: "pr",
    operator: "O2IMS operator",
    finalizer: names::FINALIZER,
    protection: names::DELETION_PROTECTION_ANNOTATION,
    transitions: TRANSITIONS,
};

const SMO: Requests = Requests {
    prefix: "focom",
    group: focom::GROUP,
    plural: "focomprovisioningrequests",
    kind: "FocomProvisioningRequest",
    short_name: "fpr",
    operator: "FOCOM operator",
    finalizer: focom::FINALIZER,
    protection: focom::DELETION_PROTECTION_ANNOTATION,
    transitions: SMO_TRANSITIONS,
};

/// Policies of the O-Cloud's requests and templates, with their bindings.
pub fn o_cloud() -> Vec<Value> {
    let names = names_policy("o2ims-template-names", &O_CLOUD, "clustertemplates", &TEMPLATE_OBJECT_NAME);
    [changes(&O_CLOUD), deletion(&O_CLOUD), orphan(&O_CLOUD), names, values(&O_CLOUD)].concat()
}

/// Policies of the SMO's requests, with their bindings.
pub fn smo() -> Vec<Value> {
    let names = names_policy("focom-request-names", &SMO, SMO.plural, &FPR_NAME);
    [changes(&SMO), deletion(&SMO), orphan(&SMO), names].concat()
}

/// The policy on fields that may not change.
fn changes(requests: &Requests) -> Vec<Value> {
    let mut variables = vec![variable("held", "oldObject.?status.?provisionedResourceSet.hasValue()")];
    let mut validations = Vec::new();
    for transition in requests.transitions {
        let Comparison { mut needs, same, told } = comparison(transition);
        variables.append(&mut needs);
        let holds = match transition.frozen {
            Frozen::Always => same,
            Frozen::OnceHostsAreHeld => format!("!variables.held || ({same})"),
        };
        let way_out = match transition.form {
            Form::OtherParameters => TAKE_BACK,
            Form::Version => NEXT_VERSION,
            Form::Hosts => MASTERS_ALONE,
            _ => WAY_OUT,
        };
        let end = format!(": {}. {way_out}", transition.why);
        validations.push(json!({
            "expression": holds,
            "reason": "Forbidden",
            "message": format!("{} cannot change{end}", transition.path),
            "messageExpression": format!("{} + {told} + {}", quoted(transition.path), quoted(&end)),
        }));
    }
    policy(
        &format!("{}-request-changes", requests.prefix),
        &resources(requests.group, requests.plural, "UPDATE"),
        &[("the-spec-changes", "object.spec != oldObject.spec")],
        &variables,
        &validations,
    )
}

/// CEL: whether the masters of a cluster may be others, as far as the request shows it.
const MAY_CHANGE_MASTERS: &str = "variables.controlPlaneEndpointNow != 'none' && variables.k8sVersionWas == variables.k8sVersionNow && \
    !oldObject.?status.?conditions.orValue([]).exists(condition, condition.type == 'Upgraded' && condition.status == 'False')";

/// How the old and the new value of a field are compared.
struct Comparison {
    /// Variables of the policy.
    needs: Vec<Value>,
    /// CEL: whether they are the same.
    same: String,
    /// CEL: what follows the field's path in the message.
    told: String,
}

/// The comparison of a field.
fn comparison(transition: &Transition) -> Comparison {
    let name = transition.path.rsplit('.').next().unwrap_or(transition.path);
    let mut needs = vec![
        variable(&format!("{name}Was"), &value("oldObject", transition)),
        variable(&format!("{name}Now"), &value("object", transition)),
    ];
    let (was, now) = (format!("variables.{name}Was"), format!("variables.{name}Now"));
    let (same, told) = match transition.form {
        Form::Text | Form::Version | Form::Endpoint => {
            (format!("{was} == {now}"), format!("{} + {was} + ' to ' + {now}", quoted(" cannot change from ")))
        }
        Form::Hosts => (
            format!("{was}.all(host, host in {now}) && {now}.all(host, host in {was}) || {MAY_CHANGE_MASTERS}"),
            format!("{} + {was}.join(', ') + ' to ' + {now}.join(', ')", quoted(" cannot change from ")),
        ),
        Form::Labels => {
            let changed = format!("{name}Changed");
            needs.push(variable(
                &changed,
                &format!(
                    "{was}.filter(key, !(key in {now}) || {was}[key] != {now}[key]) + {now}.filter(key, !(key in {was}))"
                ),
            ));
            let changed = format!("variables.{changed}");
            (format!("size({changed}) == 0"), labels_told(&changed, &was, &now))
        }
        Form::OtherParameters => {
            let (known, changed) = (format!("{name}Known"), format!("{name}Changed"));
            let names: Vec<_> = PARAMETERS.iter().map(|name| quoted(name)).collect();
            needs.push(variable(&known, &format!("[{}]", names.join(", "))));
            let other = format!("!(key in variables.{known})");
            needs.push(variable(
                &changed,
                &format!(
                    "{was}.filter(key, {other} && (!(key in {now}) || {was}[key] != {now}[key])) + {now}.filter(key, {other} && !(key in {was}))"
                ),
            ));
            let changed = format!("variables.{changed}");
            (format!("size({changed}) == 0"), parameters_told(&changed, &was, &now))
        }
    };
    let Some(status) = transition.stands_in else { return Comparison { needs, same, told } };
    let has = format!("oldObject.?{}.orValue('')", status.replace('.', ".?"));
    if transition.form == Form::Version {
        return version_comparison(name, needs, &was, &now, &has, &told);
    }
    Comparison {
        needs,
        // Either way: the value that the cluster has may be written out, and left out again.
        same: format!("{same} || ('none' in [{was}, {now}] && '\"' + {has} + '\"' in [{was}, {now}])"),
        told: format!("{told} + ({was} == 'none' && {has} != '' ? ' (the cluster has ' + {has} + ')' : '')"),
    }
}

/// The comparison of a version with the one that the cluster has. Without a version the cluster keeps the one that it has.
fn version_comparison(name: &str, mut needs: Vec<Value>, was: &str, now: &str, has: &str, told: &str) -> Comparison {
    let (from, minor) = (format!("{name}Cluster"), |text: &str| format!("int({text}.split('.')[1])"));
    needs.push(variable(&from, &format!("({has} != '' ? '\"' + {has} + '\"' : {was})")));
    let from = format!("variables.{from}");
    Comparison {
        needs,
        same: format!(
            "{was} == {now} || {from} == 'none' || ({now} == 'none' ? {was} == {from} : {} >= {})",
            minor(now),
            minor(&from)
        ),
        told: format!("{told} + ({from} != {was} ? ' (the cluster has ' + {has} + ')' : '')"),
    }
}

/// CEL: which labels differ. The order of the keys is not fixed, so of several labels none is named.
fn labels_told(changed: &str, was: &str, now: &str) -> String {
    let of = |map: &str| format!("({changed}[0] in {map} ? '\"' + {map}[{changed}[0]] + '\"' : 'none')");
    format!(
        "(size({changed}) == 1 ? '[' + {changed}[0] + '] cannot change from ' + {} + ' to ' + {} : ' cannot change (' + string(size({changed})) + ' of them differ)')",
        of(was),
        of(now)
    )
}

/// CEL: which parameters differ, without their values, which may be objects. As above, of several none is named.
fn parameters_told(changed: &str, was: &str, now: &str) -> String {
    format!(
        "(size({changed}) == 1 ? '.' + {changed}[0] + (!({changed}[0] in {was}) ? ' cannot be added' : ({changed}[0] in {now} ? ' cannot change' : ' cannot be removed')) : ' cannot change (' + string(size({changed})) + ' unknown parameters differ)')"
    )
}

/// The value of a field of `object` or `oldObject`, in a form that can be compared and printed.
fn value(object: &str, transition: &Transition) -> String {
    let field = format!("{object}.{}", transition.path.replace('.', ".?"));
    match transition.form {
        Form::Text | Form::Version => format!("{field}.optMap(text, '\"' + string(text) + '\"').orValue('none')"),
        Form::Endpoint => format!(
            "{field}.optMap(endpoint, '\"' + endpoint.host + ':' + string(endpoint.?port.orValue({API_PORT})) + '\"').orValue('none')"
        ),
        Form::Hosts => format!(
            "{field}.optMap(hosts, hosts.map(host, 'host ' + string(host.?hostId.orValue(host.?host_id.orValue(''))) + ' (' + host.?hostName.orValue(host.?host_name.orValue('')) + ')')).orValue([])"
        ),
        Form::Labels => format!("{field}.orValue({{}})"),
        // The schema does not know these fields, so the policy's types may not count.
        Form::OtherParameters => format!("dyn({object}).{}.orValue({{}})", transition.path.replace('.', ".?")),
    }
}

/// The policy on deletion.
fn deletion(requests: &Requests) -> Vec<Value> {
    let Requests { prefix, kind, short_name, protection, .. } = requests;
    let name = "oldObject.metadata.?namespace.orValue('') + '/' + oldObject.metadata.name";
    let command = format!(
        "'kubectl annotate {short_name} ' + oldObject.metadata.name + ' -n ' + oldObject.metadata.?namespace.orValue('') + ' {protection}=false --overwrite'"
    );
    // The FOCOM operator copies the annotation of its request to the ProvisioningRequest, so it must be changed at the SMO.
    let way_out = if *prefix == O_CLOUD.prefix {
        let smo = format!(
            "'at the SMO, kubectl annotate fpr ' + oldObject.metadata.labels['{}'] + ' -n ' + oldObject.metadata.?labels[?'{}'].orValue('') + ' {}=false --overwrite'",
            focom::SOURCE_LABEL,
            focom::SOURCE_NAMESPACE_LABEL,
            focom::DELETION_PROTECTION_ANNOTATION
        );
        format!("(oldObject.metadata.?labels[?'{}'].hasValue() ? {smo} : {command})", focom::SOURCE_LABEL)
    } else {
        command
    };
    let validation = json!({
        // Whoever writes `yes` wants protection.
        "expression": format!("oldObject.metadata.?annotations[?'{protection}'].orValue('false') == 'false'"),
        "reason": "Forbidden",
        "message": format!("this {kind} is protected from deletion by its annotation {protection}"),
        "messageExpression": format!(
            "'{kind} ' + {name} + ' is protected from deletion, which would delete its cluster too, by its annotation {protection}. To allow the deletion: ' + {way_out}"
        ),
    });
    policy(
        &format!("{prefix}-request-deletion"),
        &resources(requests.group, requests.plural, "DELETE"),
        &[("not-yet-deleted", "!has(oldObject.metadata.deletionTimestamp)")],
        &[],
        &[validation],
    )
}

/// The policy on the removal of the finalizer `orphan`. The garbage collector removes it at once, before the operator has seen that the
/// cluster must stay. It tries again when it is refused.
fn orphan(requests: &Requests) -> Vec<Value> {
    let Requests { prefix, operator, finalizer, .. } = requests;
    let orphan = names::ORPHAN_FINALIZER;
    let has = |object: &str, finalizer: &str| format!("'{finalizer}' in {object}.metadata.?finalizers.orValue([])");
    let validation = json!({
        "expression": format!("!({})", has("object", finalizer)),
        "reason": "Forbidden",
        "message": format!(
            "finalizer {orphan} tells the {operator} to leave the cluster as it is, and cannot be removed before the finalizer {finalizer}"
        ),
    });
    policy(
        &format!("{prefix}-request-orphan"),
        &resources(requests.group, requests.plural, "UPDATE"),
        &[("orphan-is-taken-off", &format!("{} && !({})", has("oldObject", orphan), has("object", orphan)))],
        &[],
        &[validation],
    )
}

/// The policy on the names of new objects. It does not apply to existing ones, so that they can be changed and deleted.
fn names_policy(name: &str, requests: &Requests, plural: &str, rule: &FieldRule) -> Vec<Value> {
    let validation = json!({"expression": rule.cel, "reason": "Invalid", "message": rule.message});
    policy(name, &resources(requests.group, plural, "CREATE"), &[], &[], &[validation])
}

/// The policy on the values of a cluster that is not created yet: of a new request, and of one that is changed before it holds hosts.
fn values(requests: &Requests) -> Vec<Value> {
    let parameter = |name: &str| format!("object.spec.?templateParameters.?{name}.orValue('')");
    let network = |name: &str| format!("isCIDR({0}) ? {0} : ''", parameter(name));
    let list = |ranges: &[&str]| {
        let quoted: Vec<_> = ranges.iter().map(|range| quoted(range)).collect();
        format!("[{}]", quoted.join(", "))
    };
    let variables = [
        variable("reserved", &list(&RESERVED_RANGES)),
        variable("unreachable", &list(&UNREACHABLE_RANGES)),
        variable("k8sVersion", &parameter("k8sVersion")),
        variable("podCidr", &network("podCidr")),
        variable("serviceCidr", &network("serviceCidr")),
        variable("endpoint", &parameter("controlPlaneEndpoint.?host")),
    ];
    let validations =
        NEW_CLUSTER.map(|rule| json!({"expression": rule.cel, "reason": "Forbidden", "message": rule.message}));
    policy(
        &format!("{}-request-values", requests.prefix),
        &json!([{
            "apiGroups": [requests.group], "apiVersions": ["*"], "resources": [requests.plural],
            "operations": ["CREATE", "UPDATE"],
        }]),
        &[(
            // A copy that is restored from a backup has the finalizer: its cluster may run.
            "new-or-changed-without-hosts",
            &format!(
                "oldObject == null ? !('{}' in object.metadata.?finalizers.orValue([])) : (object.spec != oldObject.spec && !oldObject.?status.?provisionedResourceSet.hasValue())",
                requests.finalizer
            ),
        )],
        &variables,
        &validations,
    )
}

fn resources(group: &str, plural: &str, operation: &str) -> Value {
    json!([{"apiGroups": [group], "apiVersions": ["*"], "resources": [plural], "operations": [operation]}])
}

fn variable(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

/// A policy and its binding.
fn policy(
    name: &str,
    resources: &Value,
    conditions: &[(&str, &str)],
    variables: &[Value],
    validations: &[Value],
) -> Vec<Value> {
    let conditions: Vec<_> = conditions.iter().map(|(name, expression)| variable(name, expression)).collect();
    let mut spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": resources},
        "validations": validations,
    });
    if !conditions.is_empty() {
        spec["matchConditions"] = json!(conditions);
    }
    if !variables.is_empty() {
        spec["variables"] = json!(variables);
    }
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        })
    };
    vec![
        object("ValidatingAdmissionPolicy", spec),
        object("ValidatingAdmissionPolicyBinding", json!({"policyName": name, "validationActions": ["Deny"]})),
    ]
}

/// A text as a CEL literal.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The transitions of a kind, in the order in which they are checked.
pub fn transitions(kind: &str) -> &'static [Transition] {
    [O_CLOUD, SMO].into_iter().find(|requests| requests.kind == kind).map_or(&[], |requests| requests.transitions)
}
