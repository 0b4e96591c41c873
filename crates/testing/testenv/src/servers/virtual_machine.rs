//! A virtual machine: a kernel, memory, processors and a disk of its own, on the rack's LAN.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::kernel::Kernel;
use super::lan::{self, GATEWAY, PREFIX};
use super::layer_files::write;
use super::login::Login;
use super::rack_state::RackState;
use super::script::in_mount_namespace;
use super::support;
use crate::command::{is_installed, run};
use crate::process::Process;

/// The emulator.
const QEMU: &str = "qemu-system-x86_64";
const PROCESSORS: &str = "2";
const MEMORY: &str = "4G";
/// The size of the file system; what is not written takes no space.
const DISK: &str = "20G";
const MAKE_DISK: &str = concat!(include_str!("layer.sh"), include_str!("disk.sh"));
/// How long a machine may take until sshd answers: half a minute by software emulation on an idle machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(400);
/// How often a machine that starts again is asked.
const POLL: Duration = Duration::from_secs(1);
/// How long sshd may take to answer a connection.
const ANSWER: Duration = Duration::from_secs(5);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(30);

/// A virtual machine of a [`super::Rack`] with a freshly installed system: Debian with sshd and python3. Dropping this
/// switches it off.
pub struct VirtualMachine {
    /// Keeps the rack's folder.
    _rack: Arc<RackState>,
    name: String,
    number: u8,
    folder: PathBuf,
    kernel: Kernel,
    login: Login,
    /// `None` while the machine is off.
    power: Mutex<Option<Process>>,
}

impl VirtualMachine {
    /// A new machine, switched off.
    ///
    /// # Errors
    /// When its disk cannot be made.
    pub(crate) async fn new(rack: Arc<RackState>, name: &str, number: u8, kernel: Kernel) -> Result<Self> {
        let folder = rack.folder.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make virtual machine {name}"))?;
        let login = Login::get(&rack)?;
        write(&folder.join("upper"), "root/.ssh/authorized_keys", &login.public_key()?)?;
        let lower = format!("{}:{}", kernel.layer.display(), rack.layers.debian_lowerdir());
        let (address, gateway) = (format!("{}/{PREFIX}", lan::address(number)), GATEWAY.to_string());
        let mut disk = in_mount_namespace(MAKE_DISK, &folder, Path::new(&lower));
        disk.args([name, &address, &gateway, DISK]);
        run(&mut disk).await.with_context(|| format!("making the disk of {name}"))?;
        Ok(Self { _rack: rack, name: name.to_owned(), number, folder, kernel, login, power: Mutex::new(None) })
    }

    /// The host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address on the LAN.
    pub fn address(&self) -> Ipv4Addr {
        lan::address(self.number)
    }

    /// Switches the machine on, and waits until sshd answers.
    ///
    /// # Errors
    /// When the machine is on, or does not start; the error quotes its console.
    pub async fn power_on(&self) -> Result<()> {
        let mut power = self.power.lock().await;
        if power.is_some() {
            bail!("{} is on already", self.name);
        }
        let started = self.boot().await;
        if started.is_err() {
            lan::unplug(self.number).await;
        }
        *power = Some(started?);
        Ok(())
    }

    async fn boot(&self) -> Result<Process> {
        let card = lan::plug_tap(self.number).await?;
        // The processor of an emulation has what emulates fast.
        let (accelerator, processor) =
            if no_hardware().is_none() { ("kvm", "host") } else { ("tcg,thread=multi", "max") };
        let files = [&self.kernel.image, &self.kernel.initial_ram_disk].map(|path| path.display().to_string());
        let [image, initial_ram_disk] = &files;
        // A real disk, too, loses what the kernel has not written yet, and keeps what it has written.
        let disk = format!("file={},format=raw,if=virtio,cache=writeback", self.folder.join("disk").display());
        let lan = format!("tap,id=lan,ifname={card},script=no,downscript=no");
        let network_card = format!("virtio-net-pci,netdev=lan,mac={},romfile=", lan::hardware_address(self.number));
        let arguments = [
            ["-name", &self.name],
            ["-machine", "q35"],
            ["-accel", accelerator],
            ["-cpu", processor],
            ["-smp", PROCESSORS],
            ["-m", MEMORY],
            ["-display", "none"],
            ["-serial", "stdio"],
            ["-kernel", image],
            ["-initrd", initial_ram_disk],
            ["-append", "root=/dev/vda console=ttyS0"],
            ["-drive", &disk],
            ["-netdev", &lan],
            ["-device", &network_card],
            ["-device", "virtio-rng-pci"],
        ];
        let arguments: Vec<_> = ["-nodefaults"].into_iter().chain(arguments.concat()).map(ToOwned::to_owned).collect();
        let title = format!("virtual machine {}", self.name);
        let process = Process::start(&title, Path::new(QEMU), &arguments, &self.folder.join("console"))?;
        process.wait_ready(BOOT_TIMEOUT, || async { self.sshd_answers().await.is_ok() }).await?;
        Ok(process)
    }

    async fn sshd_answers(&self) -> Result<()> {
        let mut connection = TcpStream::connect((self.address(), 22)).await?;
        let mut begin = [0; 4];
        connection.read_exact(&mut begin).await?;
        if begin != *b"SSH-" {
            bail!("another server than sshd listens on {}", self.name);
        }
        Ok(())
    }

    /// Cuts the power: the emulator is killed, and with it the machine's memory is gone. Does nothing if the machine is
    /// off.
    ///
    /// # Errors
    /// When the emulator does not end.
    pub async fn power_off(&self) -> Result<()> {
        let Some(process) = self.power.lock().await.take() else { return Ok(()) };
        process.kill().await?;
        lan::unplug(self.number).await;
        Ok(())
    }

    /// Cuts the power and switches it on again.
    ///
    /// # Errors
    /// As [`VirtualMachine::power_off`] and [`VirtualMachine::power_on`].
    pub async fn power_cycle(&self) -> Result<()> {
        self.power_off().await?;
        self.power_on().await
    }

    /// Has the machine's own systemd stop everything and start the machine again, and waits until sshd answers.
    ///
    /// # Errors
    /// When the machine is off, or does not come back.
    pub async fn reboot(&self) -> Result<()> {
        let before = self.boot_id().await?;
        // The connection may end before the answer.
        let _ = timeout(QUESTION, self.run(&["systemctl", "reboot"])).await;
        let asked = Instant::now();
        while asked.elapsed() < BOOT_TIMEOUT {
            if let Some(failure) = self.power.lock().await.as_ref().and_then(Process::failed) {
                bail!(failure);
            }
            let answers = timeout(ANSWER, self.sshd_answers()).await.is_ok_and(|answered| answered.is_ok());
            if answers && matches!(timeout(QUESTION, self.boot_id()).await, Ok(Ok(now)) if now != before) {
                return Ok(());
            }
            sleep(POLL).await;
        }
        bail!("{} did not come back within {} s", self.name, BOOT_TIMEOUT.as_secs())
    }

    /// A value that is another one after each start.
    async fn boot_id(&self) -> Result<String> {
        self.run(&["cat", "/proc/sys/kernel/random/boot_id"]).await
    }

    /// Runs a program on the machine by ssh, as root, and returns its standard output.
    ///
    /// # Errors
    /// When the machine is off, or the program fails; the error has its last lines.
    pub async fn run(&self, command: &[&str]) -> Result<String> {
        if self.power.lock().await.is_none() {
            bail!("{} is off", self.name);
        }
        let quoted: Vec<_> = command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let mut ssh = Command::new("ssh");
        // A machine that hangs after the connection ends it too.
        ssh.args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8"]);
        ssh.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o"])
            .arg(format!("UserKnownHostsFile={}", self.login.known_hosts.display()))
            .arg("-i")
            .arg(&self.login.key)
            .arg(format!("root@{}", self.address()))
            .arg(quoted.join(" "));
        run(&mut ssh).await.with_context(|| format!("{}: {}", self.name, command.join(" ")))
    }

    /// Removes the machine and its disk.
    ///
    /// # Errors
    /// As [`VirtualMachine::power_off`], and when its folder cannot be removed.
    pub async fn remove(&self) -> Result<()> {
        self.power_off().await?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove virtual machine {}", self.name))
    }
}

/// Why virtual machines run by software emulation, which takes ten times as long or more; `None` if the processor runs
/// them.
pub fn no_hardware() -> Option<String> {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut flags = about.lines().filter(|line| line.starts_with("flags")).flat_map(str::split_whitespace);
    if !flags.any(|flag| flag == "vmx" || flag == "svm") {
        return Some("the processor has neither vmx nor svm".to_owned());
    }
    let open = File::options().read(true).write(true).open("/dev/kvm");
    open.err().map(|error| format!("/dev/kvm cannot be opened: {error}"))
}

/// Why tests that need virtual machines are skipped; `None` if they are not.
///
/// # Errors
/// As [`support::left_out`].
pub fn virtual_machines_left_out() -> Result<Option<String>> {
    Ok(support::left_out()?.or_else(no_virtual_machines))
}

/// Why a machine that can have servers cannot have virtual machines; `None` if it can.
pub fn no_virtual_machines() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("virtual machines are made on x86-64 only".to_owned());
    }
    for (program, package) in [(QEMU, "qemu-system-x86"), ("mkfs.ext4", "e2fsprogs"), ("ssh", "openssh-client")] {
        if !is_installed(program) {
            return Some(format!("{program} is not installed (package {package})"));
        }
    }
    let network_cards = File::options().read(true).write(true).open("/dev/net/tun");
    network_cards.err().map(|error| format!("/dev/net/tun cannot be opened: {error}"))
}
