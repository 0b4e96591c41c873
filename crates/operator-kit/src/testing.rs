//! An in-memory server of ConfigMaps with list and watch, to test what the runtime does with their answers.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::body::Body as AnyBody;
use futures::{StreamExt, channel::mpsc, stream};
use http::{Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{
    client::{Limits, from_service},
    metrics::Metrics,
};

#[derive(Default)]
struct Content {
    missing: bool,
    /// The next watch is told that its revision is too old.
    expired: bool,
    revision: u64,
    objects: Vec<Value>,
    watches: Vec<mpsc::UnboundedSender<String>>,
}

/// See the [module](self).
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<Content>>);

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

    pub(crate) fn modify(&self, name: &str) {
        self.set_data(name, &json!({ "changed": "yes" }));
    }

    pub(crate) fn set_data(&self, name: &str, data: &Value) {
        let mut content = self.content();
        content.revision += 1;
        let object = json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": name, "resourceVersion": content.revision.to_string(),
                "managedFields": [{ "manager": "test" }]
            },
            "data": data,
        });
        content.objects.retain(|object| object["metadata"]["name"] != name);
        content.objects.push(object.clone());
        content.send("MODIFIED", &object);
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

    /// Ends the watches, makes changes that nobody sees, and refuses the next watch as too old.
    pub(crate) fn expire_watches(&self, unseen: impl FnOnce(&Self)) {
        {
            let mut content = self.content();
            content.watches.clear();
            content.expired = true;
        }
        unseen(self);
    }

    pub(crate) fn client(&self, metrics: &Metrics) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = server.content().answer(request.uri().query().unwrap_or_default());
            async move { Ok::<_, Infallible>(response) }
        });
        from_service(service, Limits::default(), metrics)
    }
}

impl Content {
    fn send(&mut self, type_: &str, object: &Value) {
        let line = format!("{}\n", json!({ "type": type_, "object": object }));
        self.watches.retain(|watch| watch.unbounded_send(line.clone()).is_ok());
    }

    fn answer(&mut self, query: &str) -> Response<AnyBody> {
        if self.missing {
            // What a real API server says about a group that it does not serve: no Status object.
            let mut response = Response::new(AnyBody::from("404 page not found\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        if !query.contains("watch=true") {
            let list = json!({
                "kind": "ConfigMapList", "apiVersion": "v1",
                "metadata": { "resourceVersion": self.revision.to_string() }, "items": self.objects,
            });
            return Response::new(AnyBody::from(list.to_string()));
        }
        let (sender, receiver) = mpsc::unbounded();
        if std::mem::take(&mut self.expired) {
            let line = json!({ "type": "ERROR", "object": status(410, "Expired") });
            return Response::new(lines(stream::iter([format!("{line}\n")])));
        }
        self.watches.push(sender);
        Response::new(lines(receiver))
    }
}

fn lines(lines: impl futures::Stream<Item = String> + Send + 'static) -> AnyBody {
    AnyBody::from_stream(lines.map(Ok::<_, Infallible>))
}

fn status(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason })
}
