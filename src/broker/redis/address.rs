//! What `--redis` may say, and how it is shown: never with its password.

use std::time::Duration;

use ::redis::io::tcp::TcpSettings;
use ::redis::io::tcp::socket2::TcpKeepalive;
use ::redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

const FORM: &str = "redis://[user:password@]host[:port][/db]";

/// Says what is wrong with the URL given as `--redis`, before anything is opened.
pub fn check_url(url: &str) -> Result<(), String> {
    connection_info(url).map(|_| ())
}

/// The URL without its password. What cannot be told apart is hidden, too: `redis://secret@host` may well be one.
pub fn display_url(url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(end) => url.split_at(end + 3),
        None => ("", url),
    };
    let Some((who, place)) = rest.rsplit_once('@') else {
        return format!("{scheme}{}", without_query(rest));
    };
    let place = without_query(place);
    match who.split_once(':') {
        Some((user, _)) => format!("{scheme}{user}:***@{place}"),
        None => format!("{scheme}***@{place}"),
    }
}

fn without_query(place: &str) -> &str {
    place.split(['?', '#']).next().unwrap_or(place)
}

/// Everything that a connection needs to know.
pub(super) fn connection_info(url: &str) -> Result<ConnectionInfo, String> {
    let wrong = |why: &str| {
        let shown = display_url(url);
        Err(format!("--redis {shown}: {why}; it takes {FORM}"))
    };
    let Some((scheme, _)) = url.split_once("://") else {
        return wrong("not a URL");
    };
    if scheme != "redis" {
        return wrong(&format!("{scheme}:// is not supported"));
    }
    let Some(parsed) = ::redis::parse_redis_url(url) else {
        return wrong("not a valid URL");
    };
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return wrong("nothing may follow the database number");
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return wrong("the host is missing");
    }
    let path = parsed.path();
    let database = path.strip_prefix('/').unwrap_or(path);
    if !database.is_empty() && database.parse::<u16>().is_err() {
        return wrong("the database is not a number");
    }
    let info = match parsed.into_connection_info() {
        Ok(info) => info,
        // The library's words, which name no password.
        Err(error) => return wrong(error.category()),
    };
    let redis = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("townhall", env!("CARGO_PKG_VERSION"));
    // Without NODELAY, Nagle's algorithm costs about half of the throughput. The rest notices a peer that is gone without a
    // word; the probe is quicker, but both must end.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(15));
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    Ok(info.set_redis_settings(redis).set_tcp_settings(tcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_takes() {
        for good in [
            "redis://localhost",
            "redis://localhost/",
            "redis://127.0.0.1:6380/3",
            "redis://[::1]:6379",
            "redis://:secret@redis.example",
            "redis://me:s%40cret@redis.example:1/0",
        ] {
            assert_eq!(check_url(good), Ok(()));
        }
    }

    #[test]
    fn what_it_refuses_and_why() {
        for (bad, why) in [
            ("localhost:6379", "not a URL"),
            ("rediss://localhost", "rediss:// is not supported"),
            ("unix:///run/redis.sock", "unix:// is not supported"),
            ("redis://", "the host is missing"),
            ("redis:///1", "the host is missing"),
            ("redis://localhost:port", "not a valid URL"),
            ("redis://localhost/one", "the database is not a number"),
            ("redis://localhost/-1", "the database is not a number"),
            ("redis://localhost/1?protocol=resp2", "nothing may follow"),
        ] {
            let said = check_url(bad).expect_err(bad);
            assert!(said.contains(why) && said.contains(FORM), "{bad}: {said}");
            assert!(said.starts_with("--redis "), "{said}");
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        for (url, shown) in [
            ("redis://host:1/2", "redis://host:1/2"),
            ("redis://me:secret@host/2", "redis://me:***@host/2"),
            ("redis://:secret@host", "redis://:***@host"),
            ("redis://secret@host", "redis://***@host"),
            ("redis://me:sec@ret/@host", "redis://me:***@host"),
            ("redis://host?password=secret", "redis://host"),
            ("me:secret@host", "me:***@host"),
        ] {
            assert_eq!(display_url(url), shown);
        }
    }
}
