//! The list of the holes that are known and open, and its comparison with those that were found.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_saphyr::FlowSeq;

/// The list in the repository.
pub(super) const FILE: &str = "deploy/known-holes.yaml";
const HEADER: &str = "\
# Known holes of the Go programs that this repository builds, which are open, and why. `./mgmt.sh bundle --holes` compares them with those that
# it finds; with UPDATE_HOLES=1 it writes everything here but `why`. An id is one of the Go vulnerability database; `closed_by` is the version of
# the module in which the hole is closed.
";

/// The module that the database calls Go itself.
pub(super) const GO: &str = "stdlib";

/// A hole in a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hole {
    /// The Go module that has it.
    pub(super) module: String,
    /// Its id in the Go vulnerability database.
    pub(super) id: String,
    /// The program that has the module, and a function of it with the hole.
    pub(super) program: String,
}

/// The holes that were found, each with the version of its module that closes it.
pub(super) type Found = BTreeMap<Hole, String>;

/// What the list says of a hole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Remark {
    why: String,
    closed_by: String,
}

/// Holes of the same module in the same programs, of which the same is said.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    module: String,
    ids: FlowSeq<BTreeSet<String>>,
    programs: FlowSeq<BTreeSet<String>>,
    why: String,
    closed_by: String,
}

/// The list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct List(BTreeMap<Hole, Remark>);

/// In what the list differs from what was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Found, and not in the list.
    pub(super) new: Vec<Hole>,
    /// In the list, and not found.
    pub(super) gone: Vec<Hole>,
    /// In the list without a reason.
    pub(super) unexplained: Vec<Hole>,
    /// In the list, and closed by another version than the list says, such as the first one that closes it.
    pub(super) closed_otherwise: Vec<Hole>,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl List {
    /// Reads the list.
    ///
    /// # Errors
    /// When the text is no list, or has a hole of a program twice: one of the reasons would be lost.
    pub(super) fn read(text: &str) -> Result<Self> {
        let entries: Vec<Entry> = serde_saphyr::from_str(text).context("it is no list of holes")?;
        let mut list = BTreeMap::new();
        for Entry { module, ids, programs, why, closed_by } in entries {
            for (id, program) in ids.0.iter().flat_map(|id| programs.0.iter().map(move |program| (id, program))) {
                let hole = Hole { module: module.clone(), id: id.clone(), program: program.clone() };
                if list.insert(hole, Remark { why: why.clone(), closed_by: closed_by.clone() }).is_some() {
                    bail!("it has {id} of {module} in {program} twice");
                }
            }
        }
        Ok(Self(list))
    }

    /// The list as text.
    ///
    /// # Errors
    /// When it cannot be written as YAML.
    pub(super) fn write(&self) -> Result<String> {
        let mut programs = BTreeMap::<_, BTreeSet<String>>::new();
        for (hole, remark) in &self.0 {
            programs.entry((&hole.module, &hole.id, remark)).or_default().insert(hole.program.clone());
        }
        let mut ids = BTreeMap::<_, BTreeSet<String>>::new();
        for ((module, id, remark), programs) in programs {
            ids.entry((module, programs, remark)).or_default().insert(id.clone());
        }
        let entry = |((module, programs, remark), ids): ((&String, BTreeSet<String>, &Remark), _)| Entry {
            module: module.clone(),
            ids: FlowSeq(ids),
            programs: FlowSeq(programs),
            why: remark.why.clone(),
            closed_by: remark.closed_by.clone(),
        };
        let entries: Vec<_> = ids.into_iter().map(entry).collect();
        Ok(format!("{HEADER}{}", serde_saphyr::to_string(&entries)?))
    }

    /// Compares the list with what was found in those programs that `checked` is true for. Nothing is known of the others, so none of
    /// their holes is gone. Nor is one of Go itself: on a machine with a newer Go the programs do not have it.
    pub(super) fn compare(&self, found: &Found, checked: impl Fn(&str) -> bool) -> Difference {
        let new = found.keys().filter(|hole| !self.0.contains_key(hole)).cloned().collect();
        let is_gone = |hole: &Hole| checked(&hole.program) && hole.module != GO && !found.contains_key(hole);
        let (gone, open): (Vec<_>, Vec<_>) = self.0.iter().partition(|(hole, _)| is_gone(hole));
        let closed_otherwise =
            open.iter().filter(|(hole, remark)| found.get(hole).is_some_and(|version| *version != remark.closed_by));
        let closed_otherwise = closed_otherwise.map(|(hole, _)| (*hole).clone()).collect();
        let unexplained = open.into_iter().filter(|(_, remark)| remark.why.trim().is_empty());
        Difference {
            closed_otherwise,
            new,
            gone: gone.into_iter().map(|(hole, _)| hole.clone()).collect(),
            unexplained: unexplained.map(|(hole, _)| hole.clone()).collect(),
        }
    }

    /// The list with what was found, and the reasons that it has. What it says of programs that were not checked stays.
    pub(super) fn updated(&self, found: &Found, checked: impl Fn(&str) -> bool) -> Self {
        let mut list: BTreeMap<_, _> =
            self.0.iter().filter(|(hole, _)| !checked(&hole.program)).map(|(h, r)| (h.clone(), r.clone())).collect();
        list.extend(found.iter().map(|(hole, closed_by)| {
            let why = self.0.get(hole).map(|remark| remark.why.clone()).unwrap_or_default();
            (hole.clone(), Remark { why, closed_by: closed_by.clone() })
        }));
        Self(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "
- {module: net, ids: [GO-1, GO-2], programs: [etcd, kubelet], why: etcd has it so, closed_by: v2}
- {module: text, ids: [GO-3], programs: [etcd], why: ' ', closed_by: v3}
";

    fn hole(module: &str, id: &str, program: &str) -> Hole {
        Hole { module: module.to_owned(), id: id.to_owned(), program: program.to_owned() }
    }

    /// The holes, each closed by the version that [`LIST`] says of its module.
    fn found(holes: &[Hole]) -> Found {
        let closed_by = |hole: &Hole| if hole.module == "net" { "v2" } else { "v3" };
        holes.iter().map(|hole| (hole.clone(), closed_by(hole).to_owned())).collect()
    }

    /// What [`LIST`] says.
    fn listed() -> Vec<Hole> {
        let net =
            ["GO-1", "GO-2"].into_iter().flat_map(|id| ["etcd", "kubelet"].map(|program| hole("net", id, program)));
        net.chain([hole("text", "GO-3", "etcd")]).collect()
    }

    #[test]
    fn a_hole_that_is_not_listed_is_new() {
        let list = List::read(LIST).unwrap();
        // The same hole in another program, and another hole in the same one.
        let new = [hole("net", "GO-1", "coredns"), hole("net", "GO-4", "etcd")];
        let difference = list.compare(&found(&[listed(), new.to_vec()].concat()), |_| true);
        assert_eq!(difference.new, new);
        assert_eq!(difference.gone, []);
        assert!(!difference.is_empty());
    }

    #[test]
    fn a_listed_hole_that_is_not_found_is_gone_if_its_program_was_checked() {
        let list = List::read(LIST).unwrap();
        let still = found(&listed()[..1]);
        assert_eq!(still.keys().collect::<Vec<_>>(), [&hole("net", "GO-1", "etcd")]);
        assert_eq!(list.compare(&still, |_| true).gone, listed()[1..]);
        let of_etcd = [hole("net", "GO-2", "etcd"), hole("text", "GO-3", "etcd")];
        assert_eq!(list.compare(&still, |program| program == "etcd").gone, of_etcd);
    }

    #[test]
    fn a_hole_of_go_is_new_but_not_gone() {
        let list =
            List::read("[{module: stdlib, ids: [GO-6], programs: [etcd], why: the Go here is older, closed_by: v1.2}]")
                .unwrap();
        assert!(list.compare(&found(&[]), |_| true).is_empty());
        let new = hole("stdlib", "GO-7", "etcd");
        assert_eq!(list.compare(&found(std::slice::from_ref(&new)), |_| true).new, [new]);
    }

    #[test]
    fn a_hole_without_a_reason_is_unexplained_and_one_that_is_gone_needs_none() {
        let list = List::read(LIST).unwrap();
        let unexplained = [hole("text", "GO-3", "etcd")];
        assert_eq!(
            list.compare(&found(&listed()), |_| true),
            Difference { unexplained: unexplained.to_vec(), ..Difference::default() }
        );
        assert_eq!(list.compare(&found(&[]), |_| false).unexplained, unexplained);
        assert_eq!(list.compare(&found(&[]), |_| true).unexplained, []);
    }

    #[test]
    fn nothing_differs_when_all_is_listed_and_explained() {
        let list = List::read(&LIST.replace("' '", "as etcd")).unwrap();
        assert!(list.compare(&found(&listed()), |_| true).is_empty());
    }

    #[test]
    fn another_version_that_closes_a_hole_is_told() {
        let list = List::read(&LIST.replace("' '", "as etcd").replace("v3", "no version yet")).unwrap();
        let closable = hole("text", "GO-3", "etcd");
        let difference = list.compare(&found(&listed()), |_| true);
        assert_eq!(difference, Difference { closed_otherwise: vec![closable], ..Difference::default() });
    }

    #[test]
    fn an_update_keeps_reasons_and_what_was_not_checked() {
        let list = List::read(LIST).unwrap();
        let mut now = found(&[hole("net", "GO-1", "etcd"), hole("net", "GO-5", "etcd")]);
        now.insert(hole("net", "GO-1", "etcd"), "v4".to_owned());
        let updated = list.updated(&now, |program| program == "etcd");
        let text = updated.write().unwrap();
        let expected = "\
- module: net
  ids: [GO-5]
  programs: [etcd]
  why: \"\"
  closed_by: v2
- module: net
  ids: [GO-1]
  programs: [etcd]
  why: etcd has it so
  closed_by: v4
- module: net
  ids: [GO-1, GO-2]
  programs: [kubelet]
  why: etcd has it so
  closed_by: v2
";
        assert_eq!(text.strip_prefix(HEADER), Some(expected));
        assert_eq!(List::read(&text).unwrap(), updated);
        assert_eq!(updated.compare(&now, |program| program == "etcd").unexplained, [hole("net", "GO-5", "etcd")]);
    }

    #[test]
    fn a_hole_is_listed_once() {
        let twice = format!("{LIST}\n- {{module: net, ids: [GO-2], programs: [etcd], why: another, closed_by: v2}}");
        assert_eq!(List::read(&twice).unwrap_err().to_string(), "it has GO-2 of net in etcd twice");
    }

    #[test]
    fn the_shipped_list_explains_every_hole() {
        let path = crate::repository::repository().join(FILE);
        let text = std::fs::read_to_string(path).unwrap();
        let list = List::read(&text).unwrap();
        assert_eq!(list.compare(&Found::new(), |_| false), Difference::default());
        assert!(text == list.write().unwrap(), "not as it is written: UPDATE_HOLES=1 ./mgmt.sh bundle --holes");
    }
}
