//! Programs as their projects publish them, instead of compiled ones. A program is compared with the sum that its publisher has beside
//! it, so what it is worth is what the connection is worth.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::recipe::Recipe;
use crate::command::run;
use crate::image::architecture;

/// The variable that asks for them, if it is `1`.
const VARIABLE: &str = "O2IMS_DOWNLOAD";
/// The variable that names a mirror of the place where Kubernetes publishes its programs.
const MIRROR: &str = "O2IMS_DOWNLOAD_URL";

/// Where Kubernetes' programs are published.
#[derive(Clone)]
pub(super) struct Publisher {
    /// Below it is `VERSION/bin/linux/PROCESSOR/NAME`, and its sum in a file with `.sha256` behind the name.
    url: String,
}

impl Publisher {
    /// The publisher if the environment asks for published programs.
    pub(super) fn from_environment() -> Option<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let url = variable(MIRROR).unwrap_or_else(|| "https://dl.k8s.io/release".to_owned());
        variable(VARIABLE).filter(|value| value == "1").map(|_| Self { url })
    }

    /// Downloads a program into a folder, and compares it with the sum that the publisher has beside it.
    ///
    /// # Errors
    /// When the program cannot be downloaded, or is another one.
    pub(super) async fn fetch(&self, recipe: &Recipe, folder: &Path) -> Result<()> {
        let url = format!("{}/{}/bin/linux/{}/{}", self.url, recipe.version, architecture(), recipe.name);
        let program = folder.join(recipe.name);
        let mut download = curl();
        download.arg("--output").arg(&program).arg(&url);
        run(&mut download).await.with_context(|| format!("cannot download {url}"))?;
        let sum = format!("{url}.sha256");
        let wanted = run(curl().arg(&sum)).await.with_context(|| format!("cannot download {sum}"))?;
        let wanted = wanted.trim();
        let found = format!("{:x}", Sha256::digest(fs::read(&program)?));
        if found != wanted {
            bail!(
                "{url} has the SHA-256 {found} and not {wanted}: try again, or compile the program (without {VARIABLE})"
            );
        }
        executable(&program)
    }
}

/// Retries what can be mended by that, and fails where the answer is an error or a minute passes with next to nothing.
fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--retry", "3", "--connect-timeout", "30"]);
    curl.args(["--speed-limit", "1000", "--speed-time", "60"]);
    curl
}

fn executable(program: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(program, fs::Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::recipe::Module;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    static MODULE: Module = Module { go_mod: "", go_sum: "", sources: &[] };
    const PROGRAM: &str = "the program";
    const SUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    /// Serves a program and its sum until the test ends.
    async fn serve(sum: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let length = stream.read(&mut head).await.unwrap();
                let asked = String::from_utf8_lossy(&head[..length]).into_owned();
                let path = asked.split_whitespace().nth(1).unwrap_or_default();
                let program = format!("/v1.2.3/bin/linux/{}/tool", architecture());
                let (status, body) = match path.strip_prefix(&program) {
                    Some("") => ("200 OK", PROGRAM),
                    Some(".sha256") => ("200 OK", sum.as_str()),
                    _ => ("404 Not Found", ""),
                };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    async fn fetched(url: String, name: &'static str) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe::new(name, "v1.2.3", &MODULE, "./tool", 1);
        Publisher { url }.fetch(&recipe, folder.path()).await?;
        Ok(fs::read_to_string(folder.path().join(name))?)
    }

    #[tokio::test]
    async fn a_program_is_taken_if_it_has_the_publishers_sum() {
        let sum = format!("{:x}", Sha256::digest(PROGRAM));
        assert_eq!(fetched(serve(sum).await, "tool").await.unwrap(), PROGRAM);
        let refused = fetched(serve(SUM.to_owned()).await, "tool").await.unwrap_err().to_string();
        assert!(refused.contains(&format!("and not {SUM}")), "{refused}");
    }

    #[tokio::test]
    async fn what_is_not_published_is_an_error_that_names_its_url() {
        let url = serve(SUM.to_owned()).await;
        let refused = format!("{:#}", fetched(url.clone(), "other").await.unwrap_err());
        assert!(
            refused.contains(&format!("cannot download {url}/v1.2.3/bin/linux/{}/other", architecture())),
            "{refused}"
        );
    }
}
