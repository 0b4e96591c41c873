//! The locks on cluster names and endpoints.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use o2ims_types::ProvisioningRequest;
use tokio::time::Instant;

use super::arbiter::Arbiter;
use super::demand::Demand;
use super::lock_table::{Lock, Table};
use crate::caches::Caches;
use crate::provisioner::byoh::observed::Observed;
use crate::request::{has_finalizer, key};

/// The locks on cluster names and endpoints of which no Cluster shows yet. They are only in memory: one process works at a time, and when it
/// starts, its caches are complete and no write is pending.
pub struct Locks {
    table: Mutex<Table>,
    wake: Box<dyn Fn(ObjectRef<ProvisioningRequest>) + Send + Sync>,
}

/// What [`Locks::acquire`] decided. As long as it lives, the request is being reconciled.
pub struct Standing {
    /// Who has what the request needs, or comes first, and until when; a message.
    pub contention: Option<String>,
    /// Requeue the request after this time; `None`: it waits for a trigger.
    pub recheck: Option<Duration>,
    locks: Arc<Locks>,
    uid: String,
}

/// How long the caches may lag behind the last write for a request that is gone.
const LINGER: Duration = Duration::from_secs(5);

impl Locks {
    /// No locks. `wake` is called for requests that waited for another one and may continue now.
    pub fn new(wake: impl Fn(ObjectRef<ProvisioningRequest>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), wake: Box::new(wake) })
    }

    /// Decides whether the request gets or keeps the lock on what it needs. `can_be_carried_out`: see
    /// [`can_be_carried_out`](super::can_be_carried_out). A request has a lock from the moment at which it continues until its Cluster shows, or
    /// until it cannot continue. `None`: the request is gone.
    pub fn acquire(
        self: &Arc<Self>,
        request: &ProvisioningRequest,
        observed: &Observed,
        can_be_carried_out: bool,
        caches: &Caches,
        now: Instant,
    ) -> Option<Standing> {
        let uid = &observed.uid;
        let mut table = self.lock();
        // For a request that the cache does not have any more, its lock would never be removed.
        let known = caches.requests.get(&request.namespace().unwrap_or_default(), &request.name_any());
        known.filter(|known| known.uid() == request.uid())?;
        let mut woken = table.expire(now);
        table.stop_waiting(uid);
        let is_not_being_deleted = request.metadata.deletion_timestamp.is_none();
        let mut arbiter = Arbiter::new(caches, &table, now);
        let blocker = if is_not_being_deleted { arbiter.blocker(request, observed, can_be_carried_out) } else { None };
        let demand = Demand::of(request, observed.template.as_deref(), &caches.hosts);
        if is_not_being_deleted && can_be_carried_out && blocker.is_none() && !demand.is_shown(observed) {
            table.insert(
                uid,
                Lock {
                    demand,
                    namespace: request.namespace().unwrap_or_default(),
                    request: key(request),
                    begun: has_finalizer(request),
                    running: true,
                    until: None,
                },
            );
        } else {
            table.remove(uid);
            woken.extend(table.wake(uid));
        }
        let mut recheck = None;
        let mut contention = None;
        if let Some(blocker) = blocker {
            if let Some(other) = blocker.uid {
                table.wait(uid, ObjectRef::from_obj(request), other);
            }
            (contention, recheck) = (Some(blocker.message), blocker.recheck);
        }
        drop(table);
        woken.into_iter().for_each(&self.wake);
        Some(Standing { contention, recheck, locks: Arc::clone(self), uid: uid.clone() })
    }

    /// The request is gone. If it had begun, its Cluster may show late, and its lock ends later.
    pub fn forget(&self, uid: &str, now: Instant) {
        let mut table = self.lock();
        table.stop_waiting(uid);
        let Table { locks, gone, .. } = &mut *table;
        match locks.get_mut(uid).filter(|lock| lock.begun) {
            Some(lock) if gone.insert(uid.to_owned()) => lock.until = (!lock.running).then(|| now + LINGER),
            Some(_) => {}
            None => table.remove(uid),
        }
        let woken = table.wake(uid);
        drop(table);
        woken.into_iter().for_each(&self.wake);
    }

    /// How many requests have a lock or wait for one.
    pub fn len(&self) -> usize {
        let table = self.lock();
        table.locks.len() + table.waits_for.len()
    }

    /// Whether no request has a lock or waits for one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut table = self.locks.lock();
        let gone = table.gone.contains(&self.uid);
        if let Some(lock) = table.locks.get_mut(&self.uid) {
            lock.running = false;
            lock.until = gone.then(|| Instant::now() + LINGER);
        }
        let woken = if gone { table.wake(&self.uid) } else { Vec::new() };
        drop(table);
        woken.into_iter().for_each(&self.locks.wake);
    }
}
