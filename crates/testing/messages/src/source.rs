//! The texts of a source of which messages are made.

use std::fs;
use std::path::{Path, PathBuf};

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprCall, ExprMethodCall, ItemMod, LitStr, Macro, Token};

use crate::catalogue::{Group, VARIES, has};

/// Macros whose texts no user reads: logs, what is written into objects, what is waited for, and what only a mistake in the code makes visible.
const NO_MESSAGES: [&str; 10] =
    ["trace", "debug", "info", "warn", "error", "json", "debug_assert", "matches", "select", "unreachable"];
/// Methods whose arguments are no messages: texts that others write and that are looked for, the names of calls and objects that an error is
/// about, and of tasks, and what only a mistake in the code makes visible.
const NO_MESSAGE_ARGUMENTS: [&str; 7] =
    ["contains", "starts_with", "split_once", "strip_prefix", "context", "start", "expect"];

/// A folder of sources.
pub struct Source {
    /// The folder, or one file.
    pub path: PathBuf,
    /// Files and folders without messages to users, each with the reason.
    pub without: &'static [(&'static str, &'static str)],
}

/// Asserts that each text of which the sources make messages is in the list.
pub fn assert_complete(sources: &[Source], groups: &[Group]) {
    let mut missing = Vec::new();
    for Source { path, without } in sources {
        for (file, reason) in *without {
            assert!(path.join(file).exists(), "{file} is not there any more ({reason})");
        }
        let mut files = Vec::new();
        collect(path, &mut files);
        assert!(!files.is_empty(), "{} has no sources", path.display());
        for file in files {
            let name = file.strip_prefix(path).unwrap_or(&file).to_owned();
            if without.iter().any(|(left_out, _)| name.starts_with(left_out)) {
                continue;
            }
            for text in texts(&file) {
                let mut entries = groups.iter().flat_map(|group| group.entries);
                if !entries.any(|entry| has(&joined(entry.pattern), &joined(&text))) {
                    missing.push(format!("{}: {text}", file.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no entry of the list has these texts:\n{}", missing.join("\n"));
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for entry in &entries {
            collect(entry, files);
        }
    } else if is_of(path, "rs") || is_of(path, "sh") {
        files.push(path.to_owned());
    }
}

fn is_of(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The texts of which messages consist, as patterns.
fn texts(file: &Path) -> Vec<String> {
    let source = fs::read_to_string(file).unwrap();
    if is_of(file, "sh") {
        return script_texts(&source);
    }
    texts_of_rust(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn texts_of_rust(source: &str) -> syn::Result<Vec<String>> {
    let mut texts = Texts::default();
    texts.visit_file(&syn::parse_file(source)?);
    Ok(texts.0)
}

/// The texts with which a script of bash calls its function `fail`, as patterns.
pub fn script_texts(source: &str) -> Vec<String> {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with('#'));
    let calls = lines.flat_map(|line| line.split("fail ").skip(1));
    calls.filter_map(|call| Some(script_pattern(call.strip_prefix(['\'', '"'])?, call.chars().next()?))).collect()
}

/// The pattern of a text of bash up to its closing quote: `$name`, `${…}`, `$(…)` and the `@NAME@` of our templates vary.
fn script_pattern(text: &str, quote: char) -> String {
    let mut pattern = String::new();
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next().filter(|letter| *letter != quote) {
        let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
        match (letter, rest.peek()) {
            ('$', Some('(' | '{')) => {
                let mut depth = 0_usize;
                for letter in rest.by_ref() {
                    depth += usize::from("({".contains(letter));
                    depth -= usize::from(")}".contains(letter));
                    if depth == 0 {
                        break;
                    }
                }
                pattern.push('…');
            }
            ('$', _) => {
                while rest.next_if(is_name).is_some() {}
                pattern.push('…');
            }
            ('@', _) => {
                while rest.next_if(is_name).is_some() {}
                rest.next();
                pattern.push('…');
            }
            _ => pattern.push(letter),
        }
    }
    pattern
}

#[derive(Default)]
struct Texts(Vec<String>);

impl Texts {
    /// A text outside of macros: one with three words or more is a message, others are names.
    fn plain(&mut self, text: &str) {
        if words(text) >= 3 {
            self.0.push(text.to_owned());
        }
    }

    /// A text with placeholders.
    fn format(&mut self, text: &str) {
        let pattern = pattern(text);
        // What has fewer words puts names together, such as `Secret {namespace}/{name}`.
        if words(&pattern) >= 2 {
            self.0.push(pattern.trim().to_owned());
        }
    }

    fn in_macro(&mut self, arguments: Punctuated<Expr, Token![,]>) {
        for argument in arguments {
            match &argument {
                Expr::Lit(literal) if matches!(&literal.lit, syn::Lit::Str(_)) => {
                    if let syn::Lit::Str(text) = &literal.lit {
                        self.format(&text.value());
                    }
                }
                other => self.visit_expr(other),
            }
        }
    }
}

/// The pattern with one gap in place of several that only a separator divides: it may be one name, such as `namespace/name`.
fn joined(pattern: &str) -> String {
    let mut parts = pattern.split(VARIES);
    let mut joined = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if !joined.ends_with(VARIES) {
            joined.push(VARIES);
        }
        if !part.chars().all(|letter| " /-=:".contains(letter)) {
            joined.push_str(part);
        }
    }
    joined
}

fn words(text: &str) -> usize {
    let is_word = |word: &&str| word.chars().filter(|letter| letter.is_alphabetic()).count() >= 2;
    text.split_whitespace().filter(is_word).count()
}

/// The pattern of a format string.
fn pattern(format: &str) -> String {
    let mut pattern = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        pattern.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            pattern.push_str(brace);
            rest = after;
        } else {
            pattern.push('…');
            rest = rest.split_once('}').map_or("", |(_, after)| after);
        }
    }
    pattern + rest
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        // Of `thiserror`. All other attributes, documentation among them, have no messages.
        if attribute.path().is_ident("error")
            && let Ok(arguments) = attribute.parse_args_with(Punctuated::parse_terminated)
        {
            self.in_macro(arguments);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let is_test = |attribute: &Attribute| {
            attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|flag| flag == "test")
        };
        if !module.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_macro(&mut self, found: &'ast Macro) {
        let name = found.path.segments.last().unwrap().ident.to_string();
        if NO_MESSAGES.contains(&name.as_str()) {
            return;
        }
        match found.parse_body_with(Punctuated::parse_terminated) {
            Ok(arguments) => self.in_macro(arguments),
            Err(error) => panic!("the arguments of {name}! are not read: {error}"),
        }
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        // Its first argument is the name of a call to the API server.
        let is_named_call =
            matches!(&*call.func, Expr::Path(path) if path.path.segments.last().unwrap().ident == "with_timeout");
        self.visit_expr(&call.func);
        call.args.iter().skip(usize::from(is_named_call)).for_each(|argument| self.visit_expr(argument));
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if NO_MESSAGE_ARGUMENTS.contains(&call.method.to_string().as_str()) {
            self.visit_expr(&call.receiver);
        } else {
            visit::visit_expr_method_call(self, call);
        }
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.plain(&text.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_from_other_texts() {
        let source = r#"
            /// The doc of a function.
            fn f() {
                tracing::info!("a line of the log");
                let name = format!("{a}-{b}");
                let braces = format!("{{}} of {} is {:?}", 1, g("a text of words"));
                let json = json!({"a message": "of three words"});
                let short = "two words";
                apply::with_timeout("look at this thing", g("what is in it")).await.expect("it is always there");
            }
            #[derive(Error)]
            enum Failure {
                #[error("the Secret {0} is gone")]
                Gone(String),
            }
            #[cfg(test)]
            mod tests {
                const TEXT: &str = "a text of a test";
            }
        "#;
        let found = texts_of_rust(source).unwrap();
        assert_eq!(found, ["{} of … is …", "a text of words", "what is in it", "the Secret … is gone"]);
    }

    #[test]
    fn what_varies_in_a_script_is_left_out() {
        let source = r#"
            # fail 'not this one'
            [ -x '@FILES@/kubelet' ] || fail 'kubelet is not in @FILES@'
            [ "$free" -ge 1 ] || fail "only $((free / 1024)) MiB are free in $folder; more"
            fail "apt-get update: ${why:-$(echo "$output" | tail -n 2)}"
        "#;
        let expected = ["kubelet is not in …", "only … MiB are free in …; more", "apt-get update: …"];
        assert_eq!(script_texts(source), expected);
    }
}
