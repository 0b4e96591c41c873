//! Where a plan is carried out.

use kube::Client;
use o2ims_types::ProvisioningRequest;

/// Where a plan is carried out.
pub struct Target<'a> {
    /// To write with.
    pub client: &'a Client,
    /// The request.
    pub request: &'a ProvisioningRequest,
    /// The request's namespace.
    pub namespace: &'a str,
    /// The owner UID: the value of the request's mark.
    pub owner_uid: &'a str,
}
