//! Manifests as text: YAML documents that are changed only where necessary. A document that is not changed stays as its
//! project writes it, including order and comments.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};
use testenv::build::Cache;
use testenv::command::run;
use testenv::recipes;
use tokio::process::Command;

/// One YAML document.
pub(crate) struct Document {
    text: String,
    /// The object; `None` for a CustomResourceDefinition, because these are long and are not changed.
    object: Option<Value>,
}

impl Document {
    /// A document for this object.
    pub(crate) fn new(object: Value) -> Result<Self> {
        Ok(Self { text: serde_saphyr::to_string(&object)?, object: Some(object) })
    }

    /// A field of the object; null for a CustomResourceDefinition.
    pub(crate) fn field(&self, pointer: &str) -> &Value {
        self.object.as_ref().and_then(|object| object.pointer(pointer)).unwrap_or(&Value::Null)
    }

    /// Whether the object is of this kind; false for a CustomResourceDefinition.
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.field("/kind") == kind
    }

    /// Name of the object.
    pub(crate) fn name(&self) -> &str {
        self.field("/metadata/name").as_str().unwrap_or_default()
    }

    /// Adds labels to the object, except those whose key it has already.
    pub(crate) fn label(&mut self, labels: &[(&str, String)]) -> Result<()> {
        match &mut self.object {
            None => self.text = labelled(&self.text, labels)?,
            Some(object) => {
                let metadata = object["metadata"].as_object_mut().context("an object has no metadata")?;
                let own = metadata.entry("labels").or_insert_with(|| Value::Object(Map::new()));
                for (key, value) in labels {
                    if own[*key].is_null() {
                        own[*key] = value.clone().into();
                    }
                }
                self.text = serde_saphyr::to_string(object)?;
            }
        }
        Ok(())
    }

    /// Changes the object.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value) -> Result<()>) -> Result<()> {
        if let Some(object) = &mut self.object {
            change(object)?;
            self.text = serde_saphyr::to_string(object)?;
        }
        Ok(())
    }
}

/// The text of an object, with labels added as by [`Document::label`].
fn labelled(text: &str, labels: &[(&str, String)]) -> Result<String> {
    let metadata = text.lines().skip_while(|line| *line != "metadata:").skip(1);
    let metadata: Vec<_> = metadata.take_while(|line| line.starts_with(' ')).collect();
    let mut lines = Vec::new();
    for (key, value) in labels {
        let start = format!("    {key}: ");
        if !metadata.iter().any(|line| line.starts_with(&start)) {
            lines.push(format!("{start}\"{value}\""));
        }
    }
    if lines.is_empty() {
        return Ok(text.to_owned());
    }
    let mut place = "metadata:\n";
    if metadata.contains(&"  labels:") {
        place = "\n  labels:\n";
    } else {
        lines.insert(0, "  labels:".to_owned());
    }
    let (before, after) = text.split_once(place).context("an object has no metadata")?;
    Ok(format!("{before}{place}{}\n{after}", lines.join("\n")))
}

/// The documents of a YAML text, without empty ones.
pub(crate) fn read(text: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut rest = String::new();
    for line in text.lines().chain(["---"]) {
        if line.trim_end() != "---" {
            rest.push_str(line);
            rest.push('\n');
            continue;
        }
        let text = std::mem::take(&mut rest);
        if text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            continue;
        }
        let long = text.lines().any(|line| line == "kind: CustomResourceDefinition");
        let object = if long { None } else { Some(serde_saphyr::from_str(&text).context("not valid YAML")?) };
        documents.push(Document { text, object });
    }
    Ok(documents)
}

/// Writes documents to a file.
pub(crate) fn write(path: &Path, documents: &[Document]) -> Result<()> {
    let texts: Vec<_> = documents.iter().map(|document| document.text.as_str()).collect();
    fs::write(path, texts.join("---\n")).with_context(|| format!("cannot write {}", path.display()))
}

/// Renders a folder with `kubectl kustomize`.
pub(crate) async fn kustomize(cache: &Cache, folder: &Path) -> Result<String> {
    let mut kubectl = Command::new(recipes::kubectl(cache).await?.program);
    kubectl.arg("kustomize").arg(folder);
    run(&mut kubectl).await.with_context(|| format!("rendering {}", folder.display()))
}

/// Replaces `${VARIABLE:=default}` by the default, as `clusterctl` does for variables that are not set.
///
/// # Errors
/// When a variable has no default.
pub(crate) fn defaults(text: &str) -> Result<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (variable, after) = after.split_once('}').context("${ without }")?;
        let Some((_, default)) = variable.split_once(":=").or_else(|| variable.split_once(":-")) else {
            bail!("${{{variable}}} has no default")
        };
        result.push_str(before);
        result.push_str(default);
        rest = after;
    }
    Ok(result + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in() {
        let text = "a: ${A:=1}\nb: \"${B:=:8443}\"\nc: ${C:=}\n";
        assert_eq!(defaults(text).unwrap(), "a: 1\nb: \":8443\"\nc: \n");
        assert_eq!(defaults("a: ${A}").unwrap_err().to_string(), "${A} has no default");
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was() {
        let text = "# why\nkind: Service\nmetadata: {name: a}\n---\n\n---\nkind: Service\nmetadata: {name: b}\n";
        let mut documents = read(text).unwrap();
        assert_eq!(documents.len(), 2);
        let rename = |object: &mut Value| {
            object["metadata"]["name"] = "c".into();
            Ok(())
        };
        documents[1].edit(rename).unwrap();
        assert_eq!(documents[0].text, "# why\nkind: Service\nmetadata: {name: a}\n");
        assert_eq!(documents[1].name(), "c");
    }

    #[test]
    fn labels_are_added_to_a_definition_and_the_rest_stays() {
        let labels = [("a.example.org", String::new()), ("b.example.org/c", "d".to_owned())];
        let text = |labels: &str| {
            format!(
                "kind: CustomResourceDefinition\nmetadata:\n{labels}  name: x\nspec:\n  labels:\n    b.example.org/c: z\n"
            )
        };
        let read = |labels: &str| read(&text(labels)).unwrap().remove(0);

        let mut without = read("");
        without.label(&labels).unwrap();
        assert_eq!(without.text, text("  labels:\n    a.example.org: \"\"\n    b.example.org/c: \"d\"\n"));

        let mut with = read("  labels:\n    b.example.org/c: d\n");
        with.label(&labels).unwrap();
        let wanted = text("  labels:\n    a.example.org: \"\"\n    b.example.org/c: d\n");
        assert_eq!(with.text, wanted);
        with.label(&labels).unwrap();
        assert_eq!(with.text, wanted);
    }
}
