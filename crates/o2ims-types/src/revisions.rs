//! The revisions of a request, as its status names them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A spec that was recorded as a ControllerRevision in the namespace of the request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Name of the ControllerRevision.
    pub name: String,
    /// Its number (`revision`) when it was accepted last: it rises when a spec is applied again after another one.
    #[schemars(range(min = 1))]
    pub number: i64,
}

/// The revisions of a request that matter now.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Revisions {
    /// The last spec that was accepted: it has passed validation and is carried out. A spec that is refused has no revision.
    pub accepted: Revision,
    /// The last one with which the request was fulfilled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fulfilled: Option<Revision>,
}

impl Revisions {
    /// What a status says after the present spec was accepted; `before`: what it said before.
    #[must_use]
    pub fn after(before: Option<&Self>, accepted: Revision, is_fulfilled: bool) -> Self {
        let earlier = before.and_then(|before| before.fulfilled.clone());
        // A spec that is applied again is the same revision, with its present number.
        let is_same = earlier.as_ref().is_some_and(|earlier| earlier.name == accepted.name);
        let fulfilled = if is_fulfilled || is_same { Some(accepted.clone()) } else { earlier };
        Self { accepted, fulfilled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: i64) -> Revision {
        Revision { name: name.to_owned(), number }
    }

    #[test]
    fn the_last_good_one_stays_until_another_is_fulfilled() {
        let first = Revisions::after(None, revision("a", 1), false);
        assert_eq!(first, Revisions { accepted: revision("a", 1), fulfilled: None });
        let good = Revisions::after(Some(&first), revision("a", 1), true);
        assert_eq!(good.fulfilled, Some(revision("a", 1)));
        let edited = Revisions::after(Some(&good), revision("b", 2), false);
        assert_eq!(edited, Revisions { accepted: revision("b", 2), fulfilled: Some(revision("a", 1)) });
        let back = Revisions::after(Some(&edited), revision("a", 3), false);
        assert_eq!(back, Revisions { accepted: revision("a", 3), fulfilled: Some(revision("a", 3)) });
    }
}
