//! Supervises the processes of the sandbox.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use sandbox::{Operator, Stack, focom};
use testenv::{ManagementCluster, ProcessStatus};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::output::say;
use crate::remote_smo::{RemoteSmo, WITH_HOSTS, WITHOUT_HOSTS};
use crate::state_dir;

/// How often the processes are checked.
const POLL: Duration = Duration::from_secs(1);
/// How long the API server may take to issue a token. After that an operator is restarted with its old one.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Name of the SMO's cluster, if it has one of its own.
const SMO: &str = "smo";

/// All processes of the sandbox.
pub struct Supervisor {
    /// The management cluster, or the O-Cloud with hosts.
    pub stack: Stack,
    /// The SMO's cluster and the second O-Cloud, if the SMO has a cluster of its own.
    pub remote_smo: Option<RemoteSmo>,
    /// The sandbox's state folder, if it has one.
    pub folder: Option<PathBuf>,
    /// Whether the end of a process is a failure. If not, the process is started again.
    pub strict: bool,
}

impl Supervisor {
    /// Supervises the processes while `work` is done, and returns its result.
    ///
    /// # Errors
    /// Those of `work`, and a failure of the sandbox.
    pub async fn during<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            result = work => result,
            failure = self.failure() => bail!(failure),
        }
    }

    /// Supervises the processes until the sandbox cannot go on. Returns the reason.
    pub async fn failure(&mut self) -> String {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            poll.tick().await;
            let failure = if self.strict { self.ended() } else { self.restart_ended().await.err() };
            if let Some(failure) = failure {
                return format!("{failure:#}");
            }
        }
    }

    /// An error if a process has ended.
    fn ended(&mut self) -> Option<anyhow::Error> {
        if let Some(failure) = self.management_clusters().find_map(|(_, management)| management.failed()) {
            return Some(anyhow::Error::msg(failure));
        }
        self.operators().find_map(|(_, operator)| {
            let name = operator.status().name;
            match operator.ended() {
                Ok(ended) => ended.map(|ended| anyhow::anyhow!("{name} ended by itself: {ended}")),
                Err(error) => Some(error.context(format!("{name} cannot be watched"))),
            }
        })
    }

    /// Starts processes again that have ended, and writes the states of all processes and servers to the state folder.
    async fn restart_ended(&mut self) -> anyhow::Result<()> {
        for (place, management) in self.management_clusters() {
            // The data would be lost, even if the processes were started again.
            if !management.dir().is_dir() {
                bail!("{} is gone, the folder with the data of a management cluster", management.dir().display());
            }
            for news in management.restart_ended() {
                say(&format!("{place}{news}"));
            }
        }
        self.renew_tokens().await;
        for (place, operator) in self.operators() {
            if let Some(news) = operator.restart_if_ended() {
                say(&format!("{place}{news}"));
            }
        }
        let mut parts = self.process_statuses();
        parts.extend(self.server_statuses());
        if let Some(folder) = &self.folder {
            state_dir::write_parts(folder, &parts).context("writing the states of the parts")?;
        }
        Ok(())
    }

    /// Whether each server is on.
    fn server_statuses(&self) -> impl Iterator<Item = ProcessStatus> {
        self.stack.servers.iter().map(|server| {
            let state = match server.is_on().now_or_never() {
                Some(true) => "on".to_owned(),
                Some(false) => format!("off; ./mgmt.sh host {} on switches it on", server.name()),
                None => "being switched on or off".to_owned(),
            };
            ProcessStatus { name: server.name().to_owned(), state, has_ended: false, log: PathBuf::new() }
        })
    }

    /// Writes new tokens for operators that are down, because a token is valid for a day.
    async fn renew_tokens(&mut self) {
        if self.stack.operator.as_mut().is_some_and(Operator::is_down) {
            let _ = timeout(TOKEN_TIMEOUT, self.stack.operator_kubeconfig()).await;
        }
        if self.stack.focom.as_mut().is_some_and(Operator::is_down) {
            let smo = self.remote_smo.as_ref().map_or(&self.stack.management, |remote| &remote.smo);
            let _ = timeout(TOKEN_TIMEOUT, focom::operator_kubeconfig(smo)).await;
        }
        if let Some(remote) = &mut self.remote_smo
            && remote.site_b.operator.as_mut().is_some_and(Operator::is_down)
        {
            let _ = timeout(TOKEN_TIMEOUT, remote.site_b.operator_kubeconfig()).await;
        }
    }

    /// The state of each process, operators first.
    fn process_statuses(&mut self) -> Vec<ProcessStatus> {
        let placed = |place: &str, status: ProcessStatus| {
            let name = format!("{place}{}", status.name);
            ProcessStatus { name, ..status }
        };
        let mut all: Vec<_> = self.operators().map(|(place, operator)| placed(&place, operator.status())).collect();
        for (place, management) in self.management_clusters() {
            all.extend(management.process_statuses().into_iter().map(|status| placed(&place, status)));
        }
        all
    }

    /// Copies all logs to the state folder if the run has failed, or if a process has ended by itself.
    pub fn keep_logs(&mut self, failed: bool) {
        let Some(folder) = self.folder.clone() else { return };
        let failed_to = state_dir::failed(&folder);
        if !failed && !self.process_statuses().iter().any(|process| process.has_ended) {
            return;
        }
        for (place, management) in self.management_clusters() {
            if let Err(error) = management.keep_logs(&failed_to.join(place.trim_end_matches('/'))) {
                say(&format!("{error:#}"));
            }
        }
        if let Err(error) = fs::copy(folder.join("log"), failed_to.join("log")) {
            say(&format!("the sandbox's own log cannot be kept: {error}"));
        }
    }

    /// The last lines of the operators' logs.
    pub fn log_tails(&mut self) -> String {
        let tails = self.operators().map(|(place, operator)| {
            format!("the last lines of the log of {place}{}:\n{}\n", operator.status().name, operator.log_tail(20))
        });
        tails.collect()
    }

    /// Stops everything.
    ///
    /// # Errors
    /// When something does not stop in order; everything else is stopped nevertheless.
    pub async fn stop(self) -> anyhow::Result<()> {
        let stopped = Box::pin(self.stack.stop()).await;
        match self.remote_smo {
            Some(remote) => stopped.and(Box::pin(remote.stop()).await),
            None => stopped,
        }
    }

    /// The management clusters, each with the prefix of its processes' names.
    fn management_clusters(&self) -> impl Iterator<Item = (String, &ManagementCluster)> {
        let remote = self.remote_smo.as_ref();
        let others = remote.map(|remote| [(SMO, &remote.smo), (WITHOUT_HOSTS, &remote.site_b.management)]);
        let own = if remote.is_some() { WITH_HOSTS } else { "" };
        let all = std::iter::once((own, &self.stack.management)).chain(others.into_iter().flatten());
        all.map(|(place, management)| (prefix(place), management))
    }

    /// The operators, likewise.
    fn operators(&mut self) -> impl Iterator<Item = (String, &mut Operator)> {
        let has_prefix = self.remote_smo.is_some();
        let place = |name| prefix(if has_prefix { name } else { "" });
        let Stack { operator, focom, .. } = &mut self.stack;
        let second = self.remote_smo.as_mut().and_then(|remote| remote.site_b.operator.as_mut());
        [(place(WITH_HOSTS), operator.as_mut()), (place(SMO), focom.as_mut()), (place(WITHOUT_HOSTS), second)]
            .into_iter()
            .filter_map(|(place, operator)| Some((place, operator?)))
    }
}

fn prefix(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("{place}/") }
}
