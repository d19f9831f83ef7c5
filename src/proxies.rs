//! Where somebody comes from, seen through proxies.
//!
//! A request says in its headers what anybody may write into them. They are looked at only when the socket's peer is one of
//! the proxies that `--trusted-proxy` names, and then no further than such proxies vouch for: `X-Forwarded-For` is read from
//! the right, where the nearest one wrote, so what a client made up stands to the left of what is believed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// More proxies than that are not looked through: what is read of a request's headers is bounded.
const HOPS: usize = 32;

/// The proxies that say truly whom they pass on.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    trusted: Arc<[IpNet]>,
}

/// The host that a trusted proxy was asked for; one of a request's extensions, so nobody else can say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedHost(pub String);

impl Proxies {
    pub fn new(trusted: &[IpNet]) -> Self {
        Proxies { trusted: trusted.into() }
    }

    pub fn trusts(&self, ip: IpAddr) -> bool {
        // A listener on [::] sees IPv4 peers as ::ffff:a.b.c.d.
        let ip = ip.to_canonical();
        self.trusted.iter().any(|network| network.contains(&ip))
    }

    /// Who sent a request that came from `peer`. Through a proxy it is the client's IP address with the port of the
    /// proxy's connection, since two clients of one address are still told apart by it.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.trusts(peer.ip()) {
            return peer;
        }
        let told = if headers.contains_key(FORWARDED_FOR) {
            Some(self.forwarded_for(peer.ip(), headers)).filter(|client| self.agrees(*client, headers))
        } else {
            real_ip(headers)
        };
        SocketAddr::new(told.unwrap_or(peer.ip()).to_canonical(), peer.port())
    }

    /// The host that the client asked `peer` for, when that is a proxy. Only the last value is the proxy's own.
    pub fn host(&self, peer: SocketAddr, headers: &HeaderMap) -> Option<ForwardedHost> {
        let last = headers.get_all(FORWARDED_HOST).iter().next_back().filter(|_| self.trusts(peer.ip()))?;
        let host = last.to_str().ok()?.rsplit(',').next()?.trim();
        (!host.is_empty()).then(|| ForwardedHost(host.into()))
    }

    /// The first hop from the right that is no proxy of ours, or the last one that can be believed.
    fn forwarded_for(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(address);
        let mut client = peer;
        for hop in hops.take(HOPS) {
            let Some(hop) = hop else { break };
            client = hop;
            if !self.trusts(hop) {
                break;
            }
        }
        client
    }

    /// A proxy that sets only one of the two headers passes the other one on as the client made it up, and nobody can tell
    /// which. So neither is believed unless they agree, or `X-Real-IP` names the proxy before this one.
    fn agrees(&self, client: IpAddr, headers: &HeaderMap) -> bool {
        let mut real_ips = headers.get_all(REAL_IP).iter().map(|value| address(value.as_bytes()));
        real_ips.all(|real_ip| real_ip.is_some_and(|ip| ip == client || self.trusts(ip)))
    }
}

/// Whether somebody says that the request is another one's.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_FOR)
}

/// What `X-Real-IP` says, if it says one thing.
fn real_ip(headers: &HeaderMap) -> Option<IpAddr> {
    let mut values = headers.get_all(REAL_IP).iter().map(|value| address(value.as_bytes()));
    let first = values.next()??;
    values.all(|other| other == Some(first)).then_some(first)
}

/// `1.2.3.4`, `1.2.3.4:567`, `::1`, `[::1]` or `[::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    ip.ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies() -> Proxies {
        Proxies::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    /// The client of a request with these headers that came from a proxy.
    fn client(lines: &[(&'static str, &str)]) -> String {
        let client = proxies().client("10.0.0.1:5000".parse().unwrap(), &headers(lines));
        assert_eq!(client.port(), 5000);
        client.ip().to_string()
    }

    fn forwarded_for(value: &str) -> String {
        client(&[("x-forwarded-for", value)])
    }

    #[test]
    fn nobody_but_a_proxy_is_believed() {
        let made_up = headers(&[("x-forwarded-for", "1.1.1.1"), ("x-real-ip", "1.1.1.1"), ("x-forwarded-host", "a")]);
        for peer in ["9.9.9.9:1", "[2001:db8::1]:1", "[::ffff:9.9.9.9]:1"] {
            let peer = peer.parse().unwrap();
            assert_eq!(proxies().client(peer, &made_up), peer);
            assert_eq!(proxies().host(peer, &made_up), None);
        }
        let peer = "10.0.0.1:1".parse().unwrap();
        assert_eq!(Proxies::default().client(peer, &made_up), peer);
    }

    #[test]
    fn a_proxy_may_come_as_a_mapped_address() {
        let peer = "[::ffff:10.0.0.1]:7".parse().unwrap();
        let client = proxies().client(peer, &headers(&[("x-forwarded-for", "1.1.1.1")]));
        assert_eq!(client, "1.1.1.1:7".parse().unwrap());
        assert_eq!(forwarded_for("1.1.1.1, ::ffff:10.0.0.2"), "1.1.1.1");
        assert_eq!(forwarded_for("::ffff:1.1.1.1"), "1.1.1.1");
    }

    #[test]
    fn what_a_client_made_up_stands_to_the_left_of_what_is_believed() {
        assert_eq!(forwarded_for("1.1.1.1"), "1.1.1.1");
        assert_eq!(forwarded_for("6.6.6.6, 1.1.1.1"), "1.1.1.1");
        assert_eq!(forwarded_for("10.6.6.6, 1.1.1.1, 10.0.0.3,fd00::4"), "1.1.1.1");
        assert_eq!(forwarded_for("\u{ff}, 1.1.1.1"), "1.1.1.1");
        assert_eq!(forwarded_for(", 1.1.1.1"), "1.1.1.1");
    }

    #[test]
    fn all_lines_are_one_list() {
        assert_eq!(client(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1, 10.0.0.2")]), "1.1.1.1");
        assert_eq!(client(&[("x-forwarded-for", "6.6.6.6, 1.1.1.1"), ("x-forwarded-for", "10.0.0.2")]), "1.1.1.1");
    }

    #[test]
    fn where_all_are_proxies_the_leftmost_is_the_client() {
        assert_eq!(forwarded_for("10.0.0.9, 10.0.0.2"), "10.0.0.9");
        assert_eq!(forwarded_for("fd00::9"), "fd00::9");
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_that_was_believed() {
        assert_eq!(forwarded_for("1.1.1.1, unknown, 10.0.0.2"), "10.0.0.2");
        for nothing in ["unknown", "", ",", "1.1.1", "1.1.1.1:port", "[1.1.1.1", "1.1.1.1:99999", "\u{ff}"] {
            assert_eq!(forwarded_for(nothing), "10.0.0.1", "{nothing:?}");
        }
    }

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        assert_eq!(forwarded_for("1.2.3.4:567"), "1.2.3.4");
        assert_eq!(forwarded_for("[2001:db8::1]:80"), "2001:db8::1");
        assert_eq!(forwarded_for("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(forwarded_for(" \t2001:db8::1 "), "2001:db8::1");
    }

    #[test]
    fn no_more_proxies_are_looked_through_than_anybody_has() {
        let through = |hops: usize| forwarded_for(&format!("1.1.1.1{}", ", 10.0.0.2".repeat(hops)));
        assert_eq!(through(HOPS - 1), "1.1.1.1");
        assert_eq!(through(HOPS), "10.0.0.2");
    }

    #[test]
    fn the_real_ip_counts_where_nothing_else_is_said() {
        assert_eq!(client(&[("x-real-ip", "1.1.1.1")]), "1.1.1.1");
        assert_eq!(client(&[("x-real-ip", "nobody")]), "10.0.0.1");
        assert_eq!(client(&[("x-real-ip", "1.1.1.1"), ("x-real-ip", "6.6.6.6")]), "10.0.0.1");
        assert_eq!(client(&[]), "10.0.0.1");
    }

    #[test]
    fn headers_that_disagree_are_not_believed() {
        let both = |list, real| client(&[("x-forwarded-for", list), ("x-real-ip", real)]);
        assert_eq!(both("1.1.1.1", "1.1.1.1"), "1.1.1.1");
        assert_eq!(both("1.1.1.1, 10.0.0.2", "10.0.0.2"), "1.1.1.1", "the proxy before this one");
        for (list, real) in [("6.6.6.6", "1.1.1.1"), ("1.1.1.1", "nobody"), ("10.0.0.9", "1.1.1.1"), ("", "1.1.1.1")] {
            assert_eq!(both(list, real), "10.0.0.1", "{list:?} and {real:?}");
        }
    }

    #[test]
    fn only_the_last_forwarded_host_is_the_proxys_own() {
        let host = |lines: &[(&'static str, &str)]| {
            proxies().host("10.0.0.1:1".parse().unwrap(), &headers(lines)).map(|host| host.0)
        };
        assert_eq!(host(&[("x-forwarded-host", "hall.example:8443")]).as_deref(), Some("hall.example:8443"));
        assert_eq!(host(&[("x-forwarded-host", "evil.example, hall.example")]).as_deref(), Some("hall.example"));
        let lines = [("x-forwarded-host", "evil.example"), ("x-forwarded-host", "hall.example")];
        assert_eq!(host(&lines).as_deref(), Some("hall.example"));
        assert_eq!(host(&[("x-forwarded-host", "evil.example,")]), None);
        assert_eq!(host(&[]), None);
    }
}
