//! The addresses that the service may connect to: a stored password is sent nowhere else, whatever a name resolves to or a
//! server announces.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use keysweep_engine::{
    Address, Target,
    link::{Endpoint, Guarded, MemoryShare},
};

use super::{InstanceError, Instances};
use crate::model::InvalidField;

/// Private and loopback ranges.
const DEFAULT: [&str; 6] = ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
/// Where clouds serve the credentials of their machines: link-local ranges, and the addresses of Amazon, Google and Oracle over IPv6
/// and of Alibaba. Never allowed, whatever is configured.
const NEVER: [&str; 6] =
    ["169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "fd20:ce::/32", "fd00:c1::/32", "100.100.100.200/32"];

/// The addresses that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedTargets(Vec<Range>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Range {
    /// IP addresses and ports.
    Net { net: IpNet, ports: std::ops::RangeInclusive<u16> },
    /// A unix socket, or all below a folder.
    Sockets(PathBuf),
}

/// An invalid range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid address range {0:?}: write 10.0.0.0/8, 10.0.0.0/8:6379, 10.0.0.0/8:6379-6399, [fd00::/8]:6379 or unix:/run/redis"
)]
pub struct RangeError(String);

impl Default for AllowedTargets {
    fn default() -> Self {
        Self(DEFAULT.iter().filter_map(|text| text.parse().ok()).collect())
    }
}

impl AllowedTargets {
    /// Allows exactly these ranges, each `CIDR`, `CIDR:PORTS` or `unix:` with the path of a socket or of a folder above it.
    pub fn new(ranges: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, RangeError> {
        Ok(Self(ranges.into_iter().map(|range| range.as_ref().parse()).collect::<Result<_, _>>()?))
    }

    /// Returns whether an end may be connected to.
    fn allow_end(&self, end: Endpoint<'_>) -> bool {
        match end {
            Endpoint::Ip(address) => self.allow(address),
            Endpoint::Socket(path) => self.allow_socket(path),
        }
    }

    /// Returns whether a unix socket may be connected to. Links are followed: one below an allowed folder allows no socket
    /// elsewhere.
    pub fn allow_socket(&self, path: &Path) -> bool {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.0.iter().any(|range| match range {
            Range::Sockets(allowed) => path.starts_with(allowed) && real(path).starts_with(real(allowed)),
            Range::Net { .. } => false,
        })
    }

    /// Returns whether an IP address and a port may be connected to.
    pub fn allow(&self, address: SocketAddr) -> bool {
        // An IPv4 address in IPv6 form is the same address.
        let ip = address.ip().to_canonical();
        let is_in = |net: &IpNet| net.contains(&ip);
        let forms = [vec![ip], embedded(ip)].concat();
        let nets = NEVER.iter().filter_map(|net| net.parse::<IpNet>().ok());
        let never = nets.into_iter().any(|net| forms.iter().any(|form| net.contains(form)));
        let allows = |range: &Range| match range {
            Range::Net { net, ports } => is_in(net) && ports.contains(&address.port()),
            Range::Sockets(_) => false,
        };
        !never && self.0.iter().any(allows)
    }
}

/// Returns the IPv4 addresses to which a gateway may pass on what is sent to an IPv6 address: of NAT64 (`64:ff9b::/96`), 6to4
/// (`2002::/16`), translated (`::ffff:0:a.b.c.d`) and IPv4-compatible addresses (`::a.b.c.d`), and of the prefixes of every length
/// that a network may choose for its own NAT64 (`64:ff9b:1::/48`).
fn embedded(ip: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(ip) = ip else { return Vec::new() };
    let bits = ip.to_bits();
    // Bits 64 to 71 are zero in each of these forms, and belong to no address (RFC 6052).
    let around_zeros = ((bits >> 64) << 56) | (bits & ((1 << 56) - 1));
    let bits: &[u128] = match ip.segments() {
        [0x2002, ..] => &[bits >> 80],
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => &[bits],
        [0x64, 0xff9b, 1, ..] => &[bits, around_zeros >> 24, around_zeros >> 32, around_zeros >> 40],
        _ => &[],
    };
    bits.iter().map(|bits| Ipv4Addr::from_bits(*bits as u32).into()).collect()
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError(text.to_owned());
        let text = text.trim();
        if text.starts_with("unix:") {
            return match text.parse() {
                Ok(Address::Unix(path)) => Ok(Self::Sockets(path.into())),
                _ => Err(bad()),
            };
        }
        let (net, ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (net, rest) = rest.split_once(']').ok_or_else(bad)?;
                (net, rest.strip_prefix(':'))
            }
            // The colon after the slash: those before it belong to an IPv6 address.
            None => match text.split_once('/').and_then(|(_, length)| length.split_once(':')) {
                Some((_, ports)) => (&text[..text.len() - ports.len() - 1], Some(ports)),
                None => (text, None),
            },
        };
        // A single address is a range of one.
        let net = net.parse::<IpNet>().or_else(|_| net.parse::<IpAddr>().map(IpNet::from)).map_err(|_| bad())?;
        let port = |text: &str| text.parse::<u16>().map_err(|_| bad());
        let ports = match ports.map(|ports| ports.split_once('-').unwrap_or((ports, ports))) {
            None => 1..=u16::MAX,
            Some((first, last)) => port(first)?..=port(last)?,
        };
        if ports.is_empty() { Err(bad()) } else { Ok(Self::Net { net, ports }) }
    }
}

impl Instances {
    /// Returns a dialer that connects to allowed addresses only, and whose replies draw on this memory.
    pub(super) fn guarded(&self, memory: MemoryShare) -> Guarded {
        let allowed = Arc::clone(&self.allowed);
        Guarded { allows: Arc::new(move |end: Endpoint<'_>| allowed.allow_end(end)), memory }
    }

    /// Refuses a target with an address that is not allowed. A name is resolved, and its addresses are checked, whenever it is
    /// dialled.
    pub(super) fn check_target(&self, target: &Target) -> Result<(), InstanceError> {
        for node in &target.seeds {
            let allowed = match node {
                Address::Tcp { host, port } => {
                    let Ok(ip) = host.parse() else { continue };
                    self.allowed.allow(SocketAddr::new(ip, *port))
                }
                Address::Unix(path) => self.allowed.allow_socket(Path::new(path)),
            };
            if !allowed {
                return Err(InstanceError::Invalid(InvalidField {
                    field: "address",
                    value: node.to_string(),
                    remedy: "it is not among the allowed targets, which the service's operator sets by allowed_targets",
                }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn allows(ranges: &[&str], address: &str) -> bool {
        AllowedTargets::new(ranges).expect("ranges").allow(address.parse().expect("an address"))
    }

    #[rstest]
    #[case("127.0.0.1:6379", true)]
    #[case("10.1.2.3:1", true)]
    #[case("172.31.0.1:65535", true)]
    #[case("192.168.0.1:6379", true)]
    #[case("[::1]:6379", true)]
    #[case("[fd12::1]:6379", true)]
    #[case("[::ffff:10.0.0.1]:6379", true)]
    #[case("172.32.0.1:6379", false)]
    #[case("8.8.8.8:6379", false)]
    #[case("0.0.0.0:6379", false)]
    #[case("169.254.169.254:80", false)]
    #[case("[::ffff:169.254.169.254]:80", false)]
    #[case("[fe80::1]:6379", false)]
    #[case("[2001:db8::1]:6379", false)]
    fn private_and_loopback_addresses_are_allowed_by_default(#[case] address: &str, #[case] allowed: bool) {
        assert_eq!(AllowedTargets::default().allow(address.parse().expect("an address")), allowed, "{address}");
    }

    #[rstest]
    #[case::link_local("169.254.169.254")]
    #[case::mapped("::ffff:169.254.169.254")]
    #[case::nat64("64:ff9b::169.254.169.254")]
    #[case::six_to_four("2002:a9fe:a9fe::1")]
    #[case::compatible("::169.254.169.254")]
    #[case::amazon("fd00:ec2::254")]
    #[case::google("fd20:ce::254")]
    #[case::oracle("fd00:c1::a9fe:a9fe")]
    #[case::alibaba("100.100.100.200")]
    #[case::alibaba_by_nat64("64:ff9b::6464:64c8")]
    #[case::translated("::ffff:0:169.254.169.254")]
    #[case::nat64_of_a_network("64:ff9b:1::169.254.169.254")]
    #[case::nat64_of_64_bits("64:ff9b:1:7:a9:fea9:fe00:0")]
    #[case::nat64_of_56_bits("64:ff9b:1:7a9:fe:a9fe::")]
    #[case::nat64_of_48_bits("64:ff9b:1:a9fe:a9:fe00::")]
    fn addresses_where_clouds_serve_credentials_are_never_allowed(#[case] ip: IpAddr) {
        let everything = AllowedTargets::new(["0.0.0.0/0", "::/0"]).expect("ranges");
        assert!(!everything.allow(SocketAddr::new(ip, 80)), "{ip}");
        assert!(!AllowedTargets::default().allow(SocketAddr::new(ip, 80)), "{ip}");
    }

    #[rstest]
    #[case("100.100.100.201")]
    #[case("fd00:ec3::254")]
    #[case("64:ff9b::8.8.8.8")]
    #[case("64:ff9b:1::8.8.8.8")]
    #[case("::ffff:0:8.8.8.8")]
    #[case("2002:808:808::1")]
    #[case("::1")]
    fn their_neighbours_are_allowed_where_a_range_says_so(#[case] ip: IpAddr) {
        let everything = AllowedTargets::new(["0.0.0.0/0", "::/0"]).expect("ranges");
        assert!(everything.allow(SocketAddr::new(ip, 80)), "{ip}");
    }

    #[test]
    fn ranges_and_ports_are_what_is_configured() {
        assert!(allows(&["0.0.0.0/0"], "8.8.8.8:1") && !allows(&["0.0.0.0/0"], "169.254.1.1:6379"), "never link-local");
        assert!(!allows(&["10.0.0.0/8"], "127.0.0.1:6379"), "the defaults are replaced");
        let ports = ["10.0.0.0/8:6379-6381", "[fd00::/8]:7000", "192.0.2.7", "2001:db8::/32"];
        for (address, allowed) in [
            ("10.0.0.1:6378", false),
            ("10.0.0.1:6379", true),
            ("10.0.0.1:6381", true),
            ("10.0.0.1:6382", false),
            ("[fd00::1]:7000", true),
            ("[fd00::1]:7001", false),
            ("192.0.2.7:1", true),
            ("192.0.2.8:1", false),
            ("[2001:db8::1]:1", true),
        ] {
            assert_eq!(allows(&ports, address), allowed, "{address}");
        }
        assert!(!allows(&[], "127.0.0.1:6379"));
    }

    #[test]
    fn unix_sockets_are_allowed_below_a_configured_folder_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let [inside, outside] = ["run", "etc"].map(|name| folder.path().join(name));
        for made in [&inside, &outside] {
            fs::create_dir(made).expect("a folder");
            fs::write(made.join("redis.sock"), "").expect("a file");
        }
        std::os::unix::fs::symlink(outside.join("redis.sock"), inside.join("link.sock")).expect("a link");
        let allowed = AllowedTargets::new([format!("unix:{}", inside.display())]).expect("a range");
        assert!(allowed.allow_socket(&inside.join("redis.sock")));
        assert!(!allowed.allow_socket(&outside.join("redis.sock")) && !allowed.allow_socket(Path::new("/run2/x")));
        assert!(!allowed.allow_socket(&inside.join("link.sock")), "a link leads elsewhere");
        assert!(!AllowedTargets::default().allow_socket(&inside.join("redis.sock")), "none by default");
    }

    #[rstest]
    #[case("")]
    #[case("cache.example")]
    #[case("10.0.0.0/33")]
    #[case("10.0.0.0/8:x")]
    #[case("10.0.0.0/8:9-8")]
    #[case("[fd00::/8")]
    #[case("unix:run/redis")]
    #[case("unix:/run/../redis")]
    fn an_invalid_range_is_refused_with_an_example(#[case] text: &str) {
        let error = AllowedTargets::new([text]).expect_err(text).to_string();
        assert!(error.contains(&format!("{text:?}")) && error.contains("10.0.0.0/8:6379"), "{error}");
    }
}
