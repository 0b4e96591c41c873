//! The processes that the sandbox consists of: what happens when one of them ends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sandbox::{Operator, Stack, focom};
use testenv::{Bed, Part};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::apart::{Apart, WITH_HOSTS, WITHOUT_HOSTS};
use crate::{say, state_dir};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a new token may take before an operator is started again with its old one.
const TOKEN: Duration = Duration::from_secs(5);
/// The SMO's cluster, where it has one of its own.
const SMO: &str = "smo";

/// Everything that runs.
pub struct Parts {
    /// The management cluster, or the O-Cloud with hosts.
    pub stack: Stack,
    /// SMO and second O-Cloud, where they are apart.
    pub apart: Option<Apart>,
    /// The sandbox's state folder, if it has one.
    pub folder: Option<PathBuf>,
    /// Whether the end of a part is a failure of the whole.
    pub strict: bool,
}

impl Parts {
    /// `work`, unless the sandbox cannot go on before it is done.
    ///
    /// # Errors
    /// Those of `work`, and why the sandbox cannot go on.
    pub async fn during<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            result = work => result,
            failure = self.failure() => bail!(failure),
        }
    }

    /// Waits until the sandbox cannot go on, and says why. A part that ends is started again until then, unless that is
    /// the failure.
    pub async fn failure(&mut self) -> String {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let failure = if self.strict { self.ended() } else { self.keep().await.err() };
            if let Some(failure) = failure {
                return format!("{failure:#}");
            }
        }
    }

    /// What to say if a part has ended.
    fn ended(&mut self) -> Option<anyhow::Error> {
        if let Some(failure) = self.beds().find_map(|(_, bed)| bed.failed()) {
            return Some(anyhow::Error::msg(failure));
        }
        self.operators().find_map(|(_, operator)| {
            let name = operator.part().name;
            match operator.ended() {
                Ok(ended) => ended.map(|ended| anyhow::anyhow!("{name} ended by itself: {ended}")),
                Err(error) => Some(error.context(format!("{name} cannot be watched"))),
            }
        })
    }

    /// Starts what has ended again, and writes down how all parts are.
    async fn keep(&mut self) -> anyhow::Result<()> {
        for (place, bed) in self.beds() {
            // A process could be started again; what it had written could not.
            if !bed.dir().is_dir() {
                bail!("{} is gone, the folder with the data of a management cluster", bed.dir().display());
            }
            for news in bed.keep() {
                say(&format!("{place}{news}"));
            }
        }
        self.renew_tokens().await;
        for (place, operator) in self.operators() {
            if let Some(news) = operator.keep() {
                say(&format!("{place}{news}"));
            }
        }
        let all = self.all();
        if let Some(folder) = &self.folder {
            state_dir::write_parts(folder, &all).context("writing down how the parts are")?;
        }
        Ok(())
    }

    /// A token is good for a day. Where none is given the operator is started with the one that it had.
    async fn renew_tokens(&mut self) {
        if self.stack.operator.as_mut().is_some_and(Operator::is_down) {
            let _ = timeout(TOKEN, self.stack.operator_kubeconfig()).await;
        }
        if self.stack.focom.as_mut().is_some_and(Operator::is_down) {
            let smo = self.apart.as_ref().map_or(&self.stack.bed, |apart| &apart.smo);
            let _ = timeout(TOKEN, focom::operator_kubeconfig(smo)).await;
        }
        if let Some(apart) = &mut self.apart
            && apart.site_b.operator.as_mut().is_some_and(Operator::is_down)
        {
            let _ = timeout(TOKEN, apart.site_b.operator_kubeconfig()).await;
        }
    }

    /// How each part is, operators first.
    fn all(&mut self) -> Vec<Part> {
        let placed = |place: String, part: Part| Part { name: format!("{place}{}", part.name), ..part };
        let mut all: Vec<_> = self.operators().map(|(place, operator)| placed(place, operator.part())).collect();
        for (place, bed) in self.beds() {
            all.extend(bed.parts().into_iter().map(|part| placed(place.clone(), part)));
        }
        all
    }

    /// Keeps the logs of all parts if the run has failed or one of them has ended by itself.
    pub fn keep_logs(&mut self, failed: bool) {
        let Some(folder) = self.folder.clone() else { return };
        let failed_to = state_dir::failed(&folder);
        if !failed && !self.all().iter().any(|part| part.has_ended) {
            return;
        }
        for (place, bed) in self.beds() {
            if let Err(error) = bed.keep_logs(&failed_to.join(place.trim_end_matches('/'))) {
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
            format!("the last lines of the log of {place}{}:\n{}\n", operator.part().name, operator.log_tail(20))
        });
        tails.collect()
    }

    /// Stops everything.
    ///
    /// # Errors
    /// When a part does not stop as it should; the others are stopped all the same.
    pub async fn stop(self) -> anyhow::Result<()> {
        let stopped = Box::pin(self.stack.stop()).await;
        match self.apart {
            Some(apart) => stopped.and(Box::pin(apart.stop()).await),
            None => stopped,
        }
    }

    /// The management clusters, with what stands before the names of their parts.
    fn beds(&self) -> impl Iterator<Item = (String, &Bed)> {
        let apart = self.apart.as_ref();
        let others = apart.map(|apart| [(SMO, &apart.smo), (WITHOUT_HOSTS, &apart.site_b.bed)]);
        let own = if apart.is_some() { WITH_HOSTS } else { "" };
        let all = std::iter::once((own, &self.stack.bed)).chain(others.into_iter().flatten());
        all.map(|(place, bed)| (prefix(place), bed))
    }

    /// The operators, likewise.
    fn operators(&mut self) -> impl Iterator<Item = (String, &mut Operator)> {
        let apart = self.apart.is_some();
        let place = |name| prefix(if apart { name } else { "" });
        let Stack { operator, focom, .. } = &mut self.stack;
        let far = self.apart.as_mut().and_then(|apart| apart.site_b.operator.as_mut());
        [(place(WITH_HOSTS), operator.as_mut()), (place(SMO), focom.as_mut()), (place(WITHOUT_HOSTS), far)]
            .into_iter()
            .filter_map(|(place, operator)| Some((place, operator?)))
    }
}

fn prefix(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("{place}/") }
}
