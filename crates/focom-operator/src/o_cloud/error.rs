//! Why an O-Cloud cannot be used: a reason and a message.
//!
//! Messages are fixed texts and never quote an error. Errors contain addresses and names of the kubeconfig, and a
//! reader of a request's status may not be allowed to read the Secret.

use std::error::Error;
use std::io;

use kube::runtime::watcher;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;
use operator_kit::client::TimedOut;

/// Why an O-Cloud cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl ConnectionError {
    /// An error with its reason and message.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// From a call to the O-Cloud that failed.
    pub fn from_kube(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(status.code),
            kube::Error::SerdeError(_) => {
                Self::new(reason::UNREACHABLE, "what answers at the O-Cloud's address is no Kubernetes API")
            }
            error => Self::from_transport(error),
        }
    }

    /// From a watch of its ProvisioningRequests that failed.
    pub fn from_watch(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::from_kube(error),
            watcher::Error::WatchError(status) => Self::from_status(status.code),
            watcher::Error::NoResourceVersion => Self::from_status(500),
        }
    }

    fn from_status(code: u16) -> Self {
        match code {
            401 => Self::new(
                reason::UNAUTHORIZED,
                "the O-Cloud does not accept the credentials (401): put valid ones into the Secret",
            ),
            403 => Self::new(
                reason::FORBIDDEN,
                "the O-Cloud does not let the account list and watch provisioningrequests (403): \
                 apply deploy/focom-operator/o-cloud-account.yaml there, or give it these rights",
            ),
            404 => Self::api_missing(),
            _ => Self::new(reason::UNREACHABLE, format!("the O-Cloud answers with an error ({code})")),
        }
    }

    /// No answer in time. One text for all calls, so that conditions do not change.
    pub fn timeout() -> Self {
        Self::new(reason::UNREACHABLE, "the O-Cloud does not answer in time")
    }

    /// The O-Cloud has sent more ProvisioningRequests than are kept of one O-Cloud: `bytes`, after so many objects.
    pub fn too_large(objects: usize, bytes: usize, smo: &str) -> Self {
        Self::new(
            reason::TOO_LARGE,
            format!(
                "the O-Cloud has sent more than {} MiB of ProvisioningRequests with the label {}={smo} (after {objects} of them), which is \
                 more than the operator keeps of one O-Cloud: see whether the address in the kubeconfig is the O-Cloud's, and delete \
                 those on the O-Cloud that this SMO has not sent",
                bytes / (1024 * 1024),
                focom::SMO_LABEL
            ),
        )
    }

    /// A defect of the operator.
    pub fn internal() -> Self {
        Self::new(reason::UNREACHABLE, "internal error while speaking to the O-Cloud, see the operator's log")
    }

    /// No client can be made from the kubeconfig. The errors that say why quote it, so they are not repeated.
    pub fn unusable() -> Self {
        Self::new(
            reason::KUBECONFIG_REFUSED,
            "the address, the certificates or the key in the kubeconfig cannot be used: put a valid kubeconfig into the Secret",
        )
    }

    /// The O-Cloud serves no ProvisioningRequests.
    pub fn api_missing() -> Self {
        Self::new(
            reason::API_MISSING,
            "the O-Cloud has no provisioningrequests of o2ims.provisioning.oran.org/v1alpha1: install the O2IMS operator there",
        )
    }

    fn from_transport(error: &(dyn Error + 'static)) -> Self {
        let causes: Vec<_> = std::iter::successors(Some(error), |error| (*error).source()).collect();
        if causes.iter().any(|cause| cause.is::<TimedOut>()) {
            return Self::timeout();
        }
        let text = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ").to_lowercase();
        if text.contains("certificate") || text.contains("fatal alert") {
            let text = text.replace(' ', "");
            let why = CERTIFICATE_ERRORS
                .iter()
                .find(|(sign, _)| text.contains(sign))
                .map_or("it is not valid", |(_, why)| why);
            return Self::new(reason::CERTIFICATE_INVALID, format!("the O-Cloud's certificate is not accepted: {why}"));
        }
        let mut kinds = causes.iter().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let why = match kinds.next_back() {
            Some(io::ErrorKind::ConnectionRefused) => "connection refused",
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe) => {
                "the connection was closed"
            }
            Some(io::ErrorKind::TimedOut) => return Self::timeout(),
            Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => "no route to its address",
            Some(io::ErrorKind::UnexpectedEof) => "what answers there does not speak TLS",
            _ if text.contains("dns") || text.contains("lookup") => "its host name is unknown",
            _ if ["deadline", "timed out", "elapsed"].iter().any(|sign| text.contains(sign)) => return Self::timeout(),
            _ => "the connection fails",
        };
        Self::new(reason::UNREACHABLE, format!("the O-Cloud cannot be reached: {why}"))
    }
}

/// Parts of rustls' messages (in lower case, without spaces), and the text that is shown instead.
const CERTIFICATE_ERRORS: [(&str, &str); 5] = [
    ("unknownissuer", "it is not signed by the authority in the kubeconfig"),
    ("notvalidforname", "it is for another host name or address than the kubeconfig's"),
    ("expired", "it has expired"),
    ("notvalidyet", "it is not valid yet"),
    ("fatalalert", "the O-Cloud ends the TLS handshake, probably because of the client certificate"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(kind: io::ErrorKind, text: &str) -> kube::Error {
        kube::Error::Service(Box::new(io::Error::new(kind, text)))
    }

    #[test]
    fn no_word_of_an_error_is_repeated() {
        let secret = "secret-host.example.org";
        for text in [
            "invalid peer certificate: UnknownIssuer",
            "dns error",
            "tcp connect error",
            "invalid peer certificate: certificate not valid for name",
        ] {
            for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::InvalidData, io::ErrorKind::Other] {
                let error = ConnectionError::from_kube(&io_error(kind, &format!("{text} \"{secret}\"")));
                assert!(!error.message.contains(secret), "{error:?}");
                assert_ne!(error.message, "");
            }
        }
    }

    #[test]
    fn certificates_and_connections_are_told_apart() {
        let of = |kind, text| ConnectionError::from_kube(&io_error(kind, text));
        let error = of(io::ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer");
        assert_eq!(error.reason, reason::CERTIFICATE_INVALID);
        assert!(error.message.contains("authority"), "{error:?}");
        let error = of(io::ErrorKind::ConnectionRefused, "connection refused");
        assert_eq!((error.reason, error.message.contains("refused")), (reason::UNREACHABLE, true));
    }
}
