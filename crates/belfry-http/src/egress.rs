//! Which addresses no request ever goes to. Link-local addresses are where clouds keep the credentials of the machine;
//! nothing that can be notified lives there. Checked for addresses in URLs and, again, for what names resolve to; what a
//! proxy resolves is the proxy's business.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use thiserror::Error;

/// The metadata service of Amazon's cloud over IPv6, which is a private address rather than a link-local one.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether an address is one that is always refused: link-local, in any of its spellings, or a cloud's metadata service.
pub fn refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6 == METADATA_V6 || embedded(v6).is_some_and(|v4| v4.is_link_local())
        }
    }
}

/// The IPv4 address inside an IPv6 one: mapped (`::ffff:0:0/96`), compatible (`::/96`), or by NAT64 (`64:ff9b::/96`).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let (prefix, v4) = octets.split_last_chunk::<4>()?;
    let known =
        [Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), Ipv6Addr::UNSPECIFIED, Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)];
    known.iter().any(|net| net.octets()[..12] == *prefix).then(|| Ipv4Addr::from(*v4))
}

/// Whether a URL names a refused address itself. Other spellings of IPv4 (`0xa9fe.1`, `2852039166`) are already
/// normalised by the parser.
pub(crate) fn refused_literal(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').parse().is_ok_and(refused)
}

/// A name that resolves to nothing but refused addresses.
#[derive(Debug, Error)]
#[error("link-local addresses are refused")]
pub(crate) struct Refused;

/// A name that doesn't resolve.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Unresolved(io::Error);

/// Resolves as the system does and leaves out what is refused; the connection is made to exactly what passed.
pub(crate) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await.map_err(Unresolved)?.collect();
            Ok(permitted(found)?)
        })
    }
}

fn permitted(found: Vec<SocketAddr>) -> Result<Addrs, Refused> {
    let any = !found.is_empty();
    let permitted: Vec<_> = found.into_iter().filter(|address| !refused(address.ip())).collect();
    if any && permitted.is_empty() { Err(Refused) } else { Ok(Box::new(permitted.into_iter())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_refused_in_every_spelling() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "febf::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
        ] {
            assert!(refused(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "169.253.1.1", "::1", "fd00:ec2::253", "fec0::1", "::ffff:10.0.0.1"] {
            assert!(!refused(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn urls_are_read_as_the_client_reads_them() {
        for url in [
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://0xa9.0xfe.0xa9fe/",
            "http://0251.0376.0251.0376",
            "http://[fe80::1]:80/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://user:pw@169.254.1.1:8080/x",
        ] {
            assert!(refused_literal(&url.parse().unwrap()), "{url}");
        }
        for url in ["http://example.com/169.254.169.254", "http://127.0.0.1/", "http://fe80.example/"] {
            assert!(!refused_literal(&url.parse().unwrap()), "{url}");
        }
    }

    #[test]
    fn names_lose_their_refused_addresses() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let kept: Vec<_> = permitted(vec![at("169.254.169.254:0"), at("10.0.0.1:0")]).unwrap().collect();
        assert_eq!(kept, [at("10.0.0.1:0")]);
        assert!(permitted(vec![at("[fe80::1]:0")]).is_err());
        assert_eq!(permitted(vec![]).unwrap().count(), 0);
    }
}
