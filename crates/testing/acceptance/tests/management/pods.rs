//! SIMULATED: a node that runs what the Deployments of an installation ask for, without a kubelet. The programs are real and
//! come from the images of bundles. Each has its image as its file system, and the account, Secrets, arguments and environment
//! of its pod, but no network of its own, since simulated clusters are on localhost. The operators are left to the test:
//! there are no images of debug programs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, Pod, PodTemplateSpec, Secret, Service, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::waiting::wait;
use serde_json::json;
use testenv::ManagementCluster;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};

/// How long a program may take until it is ready, and a Secret that it needs until it is there.
const READY: Duration = Duration::from_secs(120);
/// How long a program may take to end; the pods of Cluster API have 10 s.
const GRACE: Duration = Duration::from_secs(20);
/// Lifetime of an account's token, in seconds: longer than the test.
const TOKEN: i64 = 24 * 60 * 60;
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// The running node.
pub(crate) struct Node {
    task: JoinHandle<Result<()>>,
}

impl Node {
    /// Starts the node. `bundles` are folders with images.
    pub(crate) fn start(management: &ManagementCluster, bundles: Vec<PathBuf>) -> Result<Self> {
        // The addresses of Services are made this machine's own.
        ensure!(std::env::var_os("O2IMS_OWN_NAMESPACE").is_some(), "a network of its own is needed");
        let server = management.access().server().trim_start_matches("https://").to_owned();
        let kubelet = Kubelet {
            client: management.admin(),
            server: server
                .split_once(':')
                .map(|(address, port)| (address.to_owned(), port.to_owned()))
                .context(server)?,
            authority: management.access().ca_pem().to_owned(),
            folder: management.dir().join("node"),
            bundles,
            running: HashMap::new(),
            served: HashSet::new(),
            pods: 0,
        };
        Ok(Self { task: tokio::spawn(kubelet.run()) })
    }

    /// Ends the node and its programs.
    ///
    /// # Errors
    /// When it has ended before, because a pod could not be run.
    pub(crate) async fn stop(self) -> Result<()> {
        if self.task.is_finished() {
            return self.task.await?;
        }
        self.task.abort();
        Ok(())
    }
}

struct Kubelet {
    client: Client,
    /// Address and port of the API server.
    server: (String, String),
    /// Certificate of its authority, PEM.
    authority: String,
    folder: PathBuf,
    bundles: Vec<PathBuf>,
    /// What runs, by namespace and name of its Deployment.
    running: HashMap<(String, String), Running>,
    /// Addresses of Services that are served.
    served: HashSet<String>,
    /// How many pods there have been.
    pods: u32,
}

/// A pod, and the process of its only container.
struct Running {
    template: PodTemplateSpec,
    pod: String,
    launch: Launch,
    child: Child,
}

impl Kubelet {
    async fn run(mut self) -> Result<()> {
        let deployments = watcher(Api::<Deployment>::all(self.client.clone()), watcher::Config::default());
        let mut deployments = pin!(deployments.default_backoff().applied_objects());
        let mut look = interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                // A watch recovers from its errors.
                deployment = deployments.next() => if let Some(Ok(deployment)) = deployment {
                    self.carry_out(&deployment).await.with_context(|| format!("Deployment {}", deployment.name_any()))?;
                },
                _ = look.tick() => for running in self.running.values_mut() {
                    if let Some(status) = running.child.try_wait()? {
                        eprintln!("{} has ended ({status}), and is started again", running.pod);
                        running.child = running.launch.start()?;
                    }
                },
            }
        }
    }

    /// Has one process for a Deployment with replicas, and none for one without. What has changed ends before it begins again.
    async fn carry_out(&mut self, deployment: &Deployment) -> Result<()> {
        let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
        let spec = deployment.spec.as_ref().context("no spec")?;
        let key = (namespace.clone(), name.clone());
        let replicas = spec.replicas.unwrap_or(1);
        if self.running.get(&key).is_some_and(|running| replicas == 0 || running.template != spec.template)
            && let Some(running) = self.running.remove(&key)
        {
            self.end(&namespace, running).await?;
        }
        if replicas > 0 && !self.running.contains_key(&key) && !name.ends_with("-operator") {
            let running = self.begin(&namespace, &name, &spec.template).await?;
            self.running.insert(key, running);
        }
        let generation = deployment.metadata.generation;
        let told = deployment.status.as_ref().is_some_and(|status| {
            status.observed_generation == generation && status.ready_replicas.unwrap_or(0) == replicas
        });
        if !told {
            let status = json!({
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
                "readyReplicas": replicas, "availableReplicas": replicas,
            });
            let api: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
        }
        Ok(())
    }

    /// Ends a process, and then deletes its pod.
    async fn end(&self, namespace: &str, mut running: Running) -> Result<()> {
        if let Some(id) = running.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            // An error means that it has ended already.
            let _ = kill_process(id, Signal::TERM);
        }
        timeout(GRACE, running.child.wait()).await.with_context(|| format!("{} does not end", running.pod))??;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.delete(&running.pod, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Makes a pod, starts its program, and waits until that is ready.
    async fn begin(&mut self, namespace: &str, name: &str, template: &PodTemplateSpec) -> Result<Running> {
        self.pods += 1;
        let metadata = ObjectMeta {
            name: Some(format!("{name}-{}", self.pods)),
            labels: template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()),
            ..ObjectMeta::default()
        };
        let pod = Pod { metadata, spec: template.spec.clone(), ..Pod::default() };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pods.create(&PostParams::default(), &pod).await?;

        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("no container")?;
        let image = container.image.as_deref().and_then(|image| image.rsplit('/').next()).context("no image")?;
        let program = image.split(':').next().unwrap_or(image);
        let placing = Placing::of(program);
        let root = self.folder.join(pod.name_any());
        self.unpack(&image.replace(':', "-"), &root).await?;
        self.write_account(namespace, &pod, &root).await?;
        self.write_secrets(namespace, &pod, container, &root).await?;
        let launch = Launch {
            environment: self.environment(namespace, &pod, container),
            ..placing.launch(program, container, root)
        };
        let mut child = launch.start()?;
        if let Some(port) = placing.webhook {
            let begun = Instant::now();
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if let Some(status) = child.try_wait()? {
                    bail!("{program} has ended with {status}: {}", fs::read_to_string(launch.log())?);
                }
                ensure!(begun.elapsed() < READY, "{program} is not ready after {} s", READY.as_secs());
                sleep(Duration::from_millis(50)).await;
            }
            self.serve(namespace, pod.labels(), port).await?;
        }
        Ok(Running { template: template.clone(), pod: pod.name_any(), launch, child })
    }

    /// Makes an image's only layer the file system of a pod.
    async fn unpack(&self, name: &str, root: &Path) -> Result<()> {
        let archives = self.bundles.iter().map(|bundle| bundle.join(format!("images/{name}.tar")));
        let archive = archives.into_iter().find(|path| path.is_file()).with_context(|| format!("no image {name}"))?;
        fs::create_dir_all(root.join("tmp"))?;
        let script = r#"set -o pipefail; tar -xOf "$0" layer.tar.gz | tar -xzf - -C "$1""#;
        let status = Command::new("bash").args(["-c", script]).arg(&archive).arg(root).status().await?;
        ensure!(status.success(), "{} cannot be unpacked", archive.display());
        Ok(())
    }

    /// Writes a token of the pod's account.
    async fn write_account(&self, namespace: &str, pod: &Pod, root: &Path) -> Result<()> {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).context("no account")?;
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN), ..TokenRequestSpec::default() };
        let token = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace)
            .create_token_request(account, &PostParams::default(), &TokenRequest { spec, ..TokenRequest::default() })
            .await?;
        let folder = root.join(ACCOUNT);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("token"), token.status.context("no token")?.token)?;
        fs::write(folder.join("namespace"), namespace)?;
        Ok(fs::write(folder.join("ca.crt"), &self.authority)?)
    }

    /// Writes the Secrets that a container mounts, as soon as they are there.
    async fn write_secrets(&self, namespace: &str, pod: &Pod, container: &Container, root: &Path) -> Result<()> {
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let Some(name) = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()) else { continue };
            let mut mounts = container.volume_mounts.iter().flatten();
            let Some(mount) = mounts.find(|mount| mount.name == volume.name) else { continue };
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let secret = wait(secrets, name, "the Secret of a pod", READY, |secret| secret.is_some()).await?;
            let folder = root.join(mount.mount_path.trim_start_matches('/'));
            fs::create_dir_all(&folder)?;
            for (key, value) in secret.and_then(|secret| secret.data).into_iter().flatten() {
                fs::write(folder.join(key), value.0)?;
            }
        }
        Ok(())
    }

    /// The environment of a container.
    fn environment(&self, namespace: &str, pod: &Pod, container: &Container) -> BTreeMap<String, String> {
        let fields = [("metadata.namespace", namespace.to_owned()), ("metadata.name", pod.name_any())];
        let mut environment = BTreeMap::from([
            ("KUBERNETES_SERVICE_HOST".to_owned(), self.server.0.clone()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), self.server.1.clone()),
        ]);
        for variable in container.env.iter().flatten() {
            let path = variable.value_from.as_ref().and_then(|from| Some(from.field_ref.as_ref()?.field_path.as_str()));
            let field = fields.iter().find(|(field, _)| Some(*field) == path).map(|(_, value)| value.clone());
            let value = variable.value.clone().or(field).or_else(|| pod.uid()).unwrap_or_default();
            environment.insert(variable.name.clone(), value);
        }
        environment
    }

    /// Has the Services of a pod answer for its webhooks: the API server calls the addresses of Services.
    async fn serve(&mut self, namespace: &str, labels: &BTreeMap<String, String>, to: u16) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        for service in services.list(&ListParams::default()).await?.items {
            let Some(spec) = service.spec else { continue };
            let selects = spec.selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
            let secure = spec.ports.iter().flatten().any(|port| port.port == 443);
            let Some(address) = spec.cluster_ip.filter(|_| selects && secure) else { continue };
            if !self.served.insert(address.clone()) {
                continue;
            }
            let status = Command::new("ip").args(["address", "add", &format!("{address}/32"), "dev", "lo"]).status();
            ensure!(status.await?.success(), "{address} cannot be made an address of lo");
            let listener = TcpListener::bind((address.as_str(), 443)).await?;
            tokio::spawn(async move {
                while let Ok((mut from, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        // As with a Service without a ready pod, the connection ends.
                        let Ok(mut to) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    });
                }
            });
        }
        Ok(())
    }
}

/// What makes a program run beside others. The ports of Cluster API's managers would meet, as would two for metrics. Leaders are
/// not elected, as there is one of each, and a busy machine would end it.
#[derive(Default)]
struct Placing {
    webhook: Option<u16>,
    arguments: Vec<String>,
}

impl Placing {
    fn of(program: &str) -> Self {
        let moved = |first: u16| Self {
            webhook: Some(first),
            arguments: vec![
                format!("--webhook-port={first}"),
                format!("--health-addr=127.0.0.1:{}", first + 1),
                format!("--diagnostics-address=127.0.0.1:{}", first + 2),
                "--leader-elect=false".to_owned(),
            ],
        };
        match program {
            "capi-core" => moved(9450),
            "capi-kubeadm-bootstrap" => moved(9460),
            "capi-kubeadm-control-plane" => moved(9470),
            "byoh-manager" => {
                Self { webhook: Some(9443), arguments: vec!["--enable-leader-election=false".to_owned()] }
            }
            "cert-manager-webhook" => {
                Self { webhook: Some(10250), arguments: vec!["--metrics-listen-address=0".to_owned()] }
            }
            "cert-manager-cainjector" => {
                Self { webhook: None, arguments: vec!["--metrics-listen-address=0".to_owned()] }
            }
            _ => Self::default(),
        }
    }

    fn launch(&self, program: &str, container: &Container, root: PathBuf) -> Launch {
        // Without a command it is the image's, which is named as the image.
        let command = container.command.clone().unwrap_or_else(|| vec![format!("/{program}")]);
        let arguments = command.iter().chain(container.args.iter().flatten()).chain(&self.arguments).cloned().collect();
        Launch { root, arguments, environment: BTreeMap::new() }
    }
}

/// How a pod's program is started.
struct Launch {
    root: PathBuf,
    /// The program, and its arguments with `$(VARIABLE)`.
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Launch {
    fn start(&self) -> Result<Child> {
        let filled_in = |argument: &String| {
            let variables = self.environment.iter();
            variables.fold(argument.clone(), |text, (name, value)| text.replace(&format!("$({name})"), value))
        };
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new("chroot");
        command
            .arg(&self.root)
            .args(self.arguments.iter().map(filled_in))
            .env_clear()
            .envs(&self.environment)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command.spawn()?)
    }

    fn log(&self) -> PathBuf {
        self.root.with_extension("log")
    }
}
