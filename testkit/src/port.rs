//! Free ports that stay free.

use std::{
    collections::HashSet,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};

/// Below the range from which systems take the local port of outgoing connections: a server that is down must find
/// its port again, so no client's connection may have been given it meanwhile.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port of 127.0.0.1 on which nothing listens, given out once per process.
///
/// # Errors
/// When no port is left.
pub fn free() -> Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let width = RANGE.end - RANGE.start;
    let start = scatter() % width;
    let port = (0..width)
        .map(|step| RANGE.start + (start + step) % width)
        .find(|port| !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("no free port on 127.0.0.1")?;
    taken.insert(port);
    Ok(port)
}

/// Listens on a port that [`free`] gave.
///
/// # Errors
/// When something else listens there, and still does after a second.
pub fn bind(port: u16) -> Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            // A process that another thread is just starting holds, until it executes, whatever was open here when it
            // was forked: the socket with which the port was found free, too.
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries < 100 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.with_context(|| format!("can't listen on port {port}")),
        }
    }
}

/// A number that differs between processes, so that test binaries that run side by side stay apart.
fn scatter() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id()) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_out_once_and_can_be_bound() {
        let ports: HashSet<u16> = (0..50).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            assert!(RANGE.contains(&port));
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
