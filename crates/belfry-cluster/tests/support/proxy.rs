//! The way to the API server, which can be cut: what is on it then stays there, and comes through when it is mended.

use std::path::{Path, PathBuf};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// A way that passes bytes on while it is open.
pub struct Proxy {
    open: watch::Sender<bool>,
    address: String,
}

impl Proxy {
    /// A way to `url`, an `https://` address.
    pub async fn to(url: &str) -> Self {
        let server = url.strip_prefix("https://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let (open, opened) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&server).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, opened.clone()));
                tokio::spawn(pass(far_in, near_out, opened.clone()));
            }
        });
        Self { open, address }
    }

    /// Cuts it, without a word to either side.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Mends it.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }

    /// A copy of a kubeconfig that goes this way.
    pub fn kubeconfig(&self, of: &Path, url: &str) -> PathBuf {
        let text = std::fs::read_to_string(of).unwrap();
        assert!(text.contains(url), "{text}");
        let path = of.with_extension("proxied");
        std::fs::write(&path, text.replace(url, &self.address)).unwrap();
        path
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
