//! An in-memory API server of one kind, to test what the runtime does with its answers: list, watch, and reads and
//! writes of single objects with optimistic locking.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body as AnyBody;
use futures::{StreamExt, channel::mpsc, stream};
use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    client::{Limits, from_service},
    metrics::Metrics,
};

#[derive(Default)]
struct Content {
    missing: bool,
    /// The versions in which Leases are served while the kind is missing, as discovery tells them.
    versions: Vec<&'static str>,
    /// The next watch is told that its revision is too old.
    expired: bool,
    /// The server is without the feature `WatchList`.
    refuses_streaming_lists: bool,
    revision: u64,
    objects: Vec<Value>,
    watches: Vec<mpsc::UnboundedSender<String>>,
    /// Time of the newest create or update by a client.
    written: Option<Instant>,
}

/// See the [module](self).
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<Content>>);

/// The network between one client and the server.
#[derive(Clone, Default)]
pub(crate) struct Link {
    /// Requests do not arrive.
    pub(crate) cut: Arc<AtomicBool>,
    /// Updates are carried out, and their answers do not arrive.
    pub(crate) answers_lost: Arc<AtomicBool>,
    /// Time that a request needs to arrive.
    pub(crate) latency: Duration,
}

impl Server {
    pub(crate) fn with(names: &[&str]) -> Self {
        let server = Self::default();
        for name in names {
            server.set_data(name, &json!({}));
        }
        server
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("lock")
    }

    /// Installs the kind, or takes it away and ends the watches.
    pub(crate) fn install(&self, installed: bool) {
        let mut content = self.content();
        content.missing = !installed;
        content.watches.clear();
    }

    /// Takes the kind away, and serves Leases in other versions than v1.
    pub(crate) fn serve_leases_in(&self, versions: &[&'static str]) {
        self.install(false);
        self.content().versions = versions.to_vec();
    }

    /// Refuses streaming lists from now on, as an API server without the feature `WatchList` does.
    pub(crate) fn refuse_streaming_lists(&self) {
        self.content().refuses_streaming_lists = true;
    }

    pub(crate) fn modify(&self, name: &str) {
        self.set_data(name, &json!({ "changed": "yes" }));
    }

    pub(crate) fn set_data(&self, name: &str, data: &Value) {
        self.put(&json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": name, "managedFields": [{ "manager": "test" }]
            },
            "data": data,
        }));
    }

    /// Stores the object as it is, without a check of its resourceVersion.
    pub(crate) fn put(&self, object: &Value) {
        self.content().store(object.clone());
    }

    /// The object of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        self.content().find(name).cloned()
    }

    /// Time of the newest create or update by a client.
    pub(crate) fn written(&self) -> Option<Instant> {
        self.content().written
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut content = self.content();
        content.revision += 1;
        let revision = content.revision.to_string();
        let found = content.objects.iter().position(|object| object["metadata"]["name"] == name).expect("exists");
        let mut object = content.objects.remove(found);
        object["metadata"]["resourceVersion"] = json!(revision);
        content.send("DELETED", &object);
    }

    /// Ends the watches, makes changes that no watch reports, and refuses the next watch as too old.
    pub(crate) fn expire_watches(&self, unseen: impl FnOnce(&Self)) {
        {
            let mut content = self.content();
            content.watches.clear();
            content.expired = true;
        }
        unseen(self);
    }

    pub(crate) fn client(&self, metrics: &Metrics) -> Client {
        self.client_over(&Link::default(), Limits::default(), metrics)
    }

    pub(crate) fn client_over(&self, link: &Link, limits: Limits, metrics: &Metrics) -> Client {
        let (server, link) = (self.clone(), link.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, link) = (server.clone(), link.clone());
            async move {
                if link.cut.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                if !link.latency.is_zero() {
                    sleep(link.latency).await;
                }
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("body");
                let query = head.uri.query().unwrap_or_default();
                let response = server.content().answer(&head.method, head.uri.path(), query, &body);
                if link.answers_lost.load(Ordering::Relaxed) && head.method == Method::PUT {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(response)
            }
        });
        from_service(service, limits, metrics)
    }
}

impl Content {
    fn send(&mut self, type_: &str, object: &Value) {
        let line = format!("{}\n", json!({ "type": type_, "object": object }));
        self.watches.retain(|watch| watch.unbounded_send(line.clone()).is_ok());
    }

    fn find(&self, name: &str) -> Option<&Value> {
        self.objects.iter().find(|object| object["metadata"]["name"] == name)
    }

    fn store(&mut self, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.retain(|stored| stored["metadata"]["name"] != object["metadata"]["name"]);
        self.objects.push(object.clone());
        self.send("MODIFIED", &object);
        object
    }

    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &[u8]) -> Response<AnyBody> {
        if let Some(discovered) = self.discover(path) {
            return discovered;
        }
        if self.missing {
            // What a real API server says about a group that it does not serve: no Status object.
            let mut response = Response::new(AnyBody::from("404 page not found\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        let name = path.rsplit('/').next().filter(|last| !matches!(*last, "configmaps" | "leases"));
        match (method, name) {
            (&Method::GET, None) if query.contains("watch=true") => self.watch(query),
            (&Method::GET, None) => self.list(query),
            (&Method::GET, Some(name)) => self.find(name).map_or_else(|| failure(404, "NotFound"), found),
            _ => self.write(serde_json::from_slice(body).expect("json"), name),
        }
    }

    /// The API groups, or the resources of a version of the group that has Leases; `None` for another path.
    fn discover(&self, path: &str) -> Option<Response<AnyBody>> {
        const GROUP: &str = "coordination.k8s.io";
        let api_version = |version: &str| format!("{GROUP}/{version}");
        if path == "/apis" {
            let version = |version: &&str| json!({ "groupVersion": api_version(version), "version": version });
            let versions: Vec<_> = self.versions.iter().map(version).collect();
            return Some(found(&json!({ "groups": [{ "name": GROUP, "versions": versions }] })));
        }
        let version = self.versions.iter().find(|version| path == format!("/apis/{}", api_version(version)))?;
        let leases = json!({ "name": "leases", "singularName": "lease", "namespaced": true, "kind": "Lease", "verbs": ["list"] });
        Some(found(&json!({ "groupVersion": api_version(version), "resources": [leases] })))
    }

    /// A page of the objects; the token of a page is the number of objects before it.
    fn list(&self, query: &str) -> Response<AnyBody> {
        let (limit, from) = (number_of(query, "limit"), number_of(query, "continue").unwrap_or_default());
        let to = limit.map_or(self.objects.len(), |limit| self.objects.len().min(from + limit));
        let mut meta = json!({ "resourceVersion": self.revision.to_string() });
        if to < self.objects.len() {
            meta["continue"] = json!(to.to_string());
        }
        found(&json!({
            "kind": "ConfigMapList", "apiVersion": "v1", "metadata": meta, "items": self.objects[from..to],
        }))
    }

    fn watch(&mut self, query: &str) -> Response<AnyBody> {
        let streams_list = query.contains("sendInitialEvents=true");
        if streams_list && self.refuses_streaming_lists {
            return failure(422, "Invalid");
        }
        if std::mem::take(&mut self.expired) {
            let line = json!({ "type": "ERROR", "object": status(410, "Expired") });
            return Response::new(lines(stream::iter([format!("{line}\n")])));
        }
        let mut initial: Vec<Value> = Vec::new();
        if streams_list {
            initial.extend(self.objects.iter().map(|object| json!({ "type": "ADDED", "object": object })));
            initial.push(json!({ "type": "BOOKMARK", "object": {
                "kind": "ConfigMap", "apiVersion": "v1",
                "metadata": {
                    "resourceVersion": self.revision.to_string(),
                    "annotations": { "k8s.io/initial-events-end": "true" },
                },
            }}));
        }
        let (sender, receiver) = mpsc::unbounded();
        self.watches.push(sender);
        Response::new(lines(stream::iter(initial.into_iter().map(|event| format!("{event}\n"))).chain(receiver)))
    }

    /// An update of the object of this name, or a create without one.
    fn write(&mut self, object: Value, name: Option<&str>) -> Response<AnyBody> {
        let stored = self.find(object["metadata"]["name"].as_str().expect("name"));
        match (name, stored) {
            (None, Some(_)) => failure(409, "AlreadyExists"),
            (Some(_), None) => failure(404, "NotFound"),
            (Some(_), Some(stored))
                if stored["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] =>
            {
                failure(409, "Conflict")
            }
            _ => {
                self.written = Some(Instant::now());
                found(&self.store(object))
            }
        }
    }
}

/// The number that is the value of a parameter of the query.
fn number_of(query: &str, parameter: &str) -> Option<usize> {
    let mut values = query.split('&').filter_map(|pair| pair.split_once('='));
    values.find(|(name, _)| *name == parameter)?.1.parse().ok()
}

fn found(object: &Value) -> Response<AnyBody> {
    Response::new(AnyBody::from(object.to_string()))
}

fn failure(code: u16, reason: &str) -> Response<AnyBody> {
    let mut response = found(&status(code, reason));
    *response.status_mut() = StatusCode::from_u16(code).expect("status");
    response
}

fn lines(lines: impl futures::Stream<Item = String> + Send + 'static) -> AnyBody {
    AnyBody::from_stream(lines.map(Ok::<_, Infallible>))
}

fn status(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason })
}
