//! What a program is built from.

/// A Go module of this repository (`modules/` of a crate). It pins programs of other projects, or has sources of its
/// own; what is built is exactly what it pins.
pub struct Module {
    /// Content of the module's `go.mod`.
    pub go_mod: &'static str,
    /// Content of the module's `go.sum`.
    pub go_sum: &'static str,
    /// The module's own source files: path in the module, and content.
    pub sources: &'static [(&'static str, &'static str)],
}

/// The [`Module`](crate::build::recipe::Module) in the folder `modules/NAME` of the calling crate, with these source files of
/// its own.
#[macro_export]
macro_rules! module {
    ($name:literal $(, $source:literal)*) => {
        $crate::build::recipe::Module {
            go_mod: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/modules/", $name, "/go.mod")),
            go_sum: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/modules/", $name, "/go.sum")),
            sources: &[
                $(($source, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/modules/", $name, "/", $source)))),*
            ],
        }
    };
}
pub(crate) use module;

/// How a program is built.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// File name of the program.
    pub name: &'static str,
    /// Version of the program; part of the name of its cache entry.
    pub version: &'static str,
    /// The module that pins the program.
    pub module: &'static Module,
    /// The Go package of the program's `main`.
    pub package: &'static str,
    /// `-X` flags for Go's linker. They set the version, because programs check each other's. `VERSION` stands for it, and
    /// `MINOR` for the number in its middle.
    pub stamps: &'static str,
    /// Where the CRDs and webhooks of the program are: a Go module, and a folder in it.
    pub manifests: Option<(&'static str, &'static str)>,
    /// Roughly how many seconds a first build takes on two cores.
    pub seconds: u32,
    /// Whether the program is taken from `KUBEBUILDER_ASSETS` if it is there.
    pub in_assets_folder: bool,
    /// Whether Kubernetes publishes the program, so that `O2IMS_DOWNLOAD` can ask for that.
    pub published: bool,
}

impl Recipe {
    /// A program without stamps and manifests.
    pub const fn new(
        name: &'static str,
        version: &'static str,
        module: &'static Module,
        package: &'static str,
        seconds: u32,
    ) -> Self {
        Self {
            name,
            version,
            module,
            package,
            stamps: "",
            manifests: None,
            seconds,
            in_assets_folder: false,
            published: false,
        }
    }

    /// The module's own source files that the program is built from: those in the folder of a package such as `./pause`.
    pub(super) fn sources(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        let package = self.package;
        self.module.sources.iter().filter(move |(path, _)| match package.strip_prefix('.') {
            Some(folder) => path.starts_with(folder.trim_start_matches('/')),
            None => false,
        })
    }

    /// The stamps with the version filled in.
    pub(crate) fn stamps(&self) -> String {
        let minor = self.version.split('.').nth(1).unwrap_or_default();
        self.stamps.replace("VERSION", self.version).replace("MINOR", minor)
    }
}
