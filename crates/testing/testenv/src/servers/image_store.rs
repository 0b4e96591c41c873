//! containerd's data with the images of a node.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::layer_files::link_or_copy;
use super::rack_state::RackState;
use super::server::{Server, System, containerd_data};

/// Imports all images into the data folder of a containerd, and moves that into `folder`. This is done on a server that
/// is removed afterwards.
///
/// # Errors
/// When the server does not start, or an image cannot be imported.
pub(crate) async fn import(rack: Arc<RackState>, folder: PathBuf) -> Result<()> {
    let server = Server::new(rack.clone(), "import", 250, System::Node)?;
    let images = server.folder().join("upper/images");
    fs::create_dir_all(&images)?;
    let mut names = Vec::new();
    for (number, folder) in rack.layers.image_folders().enumerate() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "tar") {
                let name = format!("{number}-{}", entry.file_name().to_string_lossy());
                link_or_copy(&entry.path(), &images.join(&name))?;
                names.push(name);
            }
        }
    }
    server.power_on().await?;
    for name in names {
        server.run(&["ctr", "--namespace", "k8s.io", "images", "import", &format!("/images/{name}")]).await?;
    }
    server.run(&["systemctl", "stop", "containerd"]).await?;
    server.power_off().await?;
    fs::rename(containerd_data(server.folder()), folder.join("containerd"))?;
    server.remove().await
}
