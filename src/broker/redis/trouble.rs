//! What can be wrong with Redis: in words that say what to do, and as a label of `townhall_broker_trouble`.

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

/// The kinds of trouble, as a metric counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nobody is there, or the connection ended.
    Unreachable,
    /// It is there and does not answer in time, or its subscription is not heard.
    Silent,
    /// TLS does not come about.
    Tls,
    /// The user or the password is wrong.
    Login,
    /// This user may not do what is needed.
    Permission,
    /// It is too old.
    Version,
    /// It is no Redis, or another kind of Redis than the URL says.
    WrongServer,
    /// It is a replica, which takes no messages.
    ReadOnly,
    /// Its memory is full.
    Memory,
    /// It cannot write to its disk.
    Disk,
    /// Too few replicas have what was stored.
    Replicas,
    /// It reads its data set from disk.
    Loading,
    /// The cluster or the Sentinels have nobody for us.
    Topology,
    Other,
}

impl Reason {
    pub const ALL: [Reason; 14] = [
        Reason::Unreachable,
        Reason::Silent,
        Reason::Tls,
        Reason::Login,
        Reason::Permission,
        Reason::Version,
        Reason::WrongServer,
        Reason::ReadOnly,
        Reason::Memory,
        Reason::Disk,
        Reason::Replicas,
        Reason::Loading,
        Reason::Topology,
        Reason::Other,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Reason::Unreachable => "unreachable",
            Reason::Silent => "silent",
            Reason::Tls => "tls",
            Reason::Login => "login",
            Reason::Permission => "permission",
            Reason::Version => "version",
            Reason::WrongServer => "wrong_server",
            Reason::ReadOnly => "read_only",
            Reason::Memory => "memory",
            Reason::Disk => "disk",
            Reason::Replicas => "replicas",
            Reason::Loading => "loading",
            Reason::Topology => "topology",
            Reason::Other => "other",
        }
    }

    /// Whether waiting does not help: a start is refused.
    pub fn is_final(self) -> bool {
        matches!(self, Reason::Tls | Reason::Login | Reason::Permission | Reason::Version | Reason::WrongServer)
    }

    /// Whether only messages are not taken: everything else works.
    pub fn refuses_messages_only(self) -> bool {
        matches!(self, Reason::Memory | Reason::Disk | Reason::Replicas)
    }

    /// Whether the connections are good all the same.
    pub fn keeps_link(self) -> bool {
        self.refuses_messages_only() || self == Reason::Topology
    }
}

/// Why there is no link, or why messages are not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub reason: Reason,
    /// One line for people; holds no secret.
    pub words: String,
}

impl Trouble {
    pub fn new(reason: Reason, words: impl Into<String>) -> Self {
        // What servers say may have lines; a log has one for each thing.
        Trouble { reason, words: words.into().replace(['\n', '\r'], " ") }
    }

    pub fn silent() -> Self {
        Trouble::new(Reason::Silent, "no answer in time")
    }

    pub fn too_old(version: &str) -> Self {
        Trouble::new(Reason::Version, format!("Redis {version} is too old; townhall needs 7.0 or newer (or Valkey)"))
    }

    /// What an error means.
    pub fn of(error: &RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        if let Some((reason, words)) = by_code(code) {
            return Trouble::new(reason, with_detail(words, error));
        }
        match error.kind() {
            ErrorKind::RESP3NotSupported => Trouble::too_old("6 or older"),
            ErrorKind::Parse => Trouble::new(
                Reason::WrongServer,
                with_detail("what answers there does not speak Redis' protocol; check host and port", error),
            ),
            ErrorKind::AuthenticationFailed => by_login(error),
            ErrorKind::Server(ServerErrorKind::ResponseError) => by_words(error),
            ErrorKind::InvalidClientConfig => Trouble::new(Reason::Tls, error.to_string()),
            _ if error.is_timeout() => Trouble::silent(),
            _ if is_about_tls(&error.to_string()) => by_tls(&error.to_string()),
            ErrorKind::Io => Trouble::new(Reason::Unreachable, error.to_string()),
            _ => Trouble::new(Reason::Other, with_detail("Redis refuses", error)),
        }
    }
}

/// What Redis' own error codes mean.
fn by_code(code: &str) -> Option<(Reason, &'static str)> {
    Some(match code {
        "WRONGPASS" => (Reason::Login, "wrong user or password; check redis://user:password@…"),
        "NOAUTH" => {
            (Reason::Login, "Redis wants a password; give it as redis://:password@… or redis://user:password@…")
        }
        "DENIED" => (Reason::Login, "Redis lets nobody in from other machines without a password (protected mode)"),
        "NOPERM" => (Reason::Permission, "this Redis user may not do what townhall needs"),
        "READONLY" | "MASTERDOWN" => (Reason::ReadOnly, "it is a replica, which takes no messages"),
        "OOM" => (Reason::Memory, "its memory is full (maxmemory), so it takes no messages"),
        "MISCONF" => (Reason::Disk, "it cannot write to its disk, so it takes no messages"),
        "NOREPLICAS" => (Reason::Replicas, "it has too few replicas (min-replicas-to-write), so it takes no messages"),
        "LOADING" => (Reason::Loading, "it is reading its data from disk and takes messages when it is done"),
        "BUSY" => (Reason::Silent, "it is busy with a script that does not end"),
        "CLUSTERDOWN" => (Reason::Topology, "the cluster is down: some slots have no server"),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            (Reason::WrongServer, "it is part of a cluster; give it as redis-cluster://HOST:PORT,…")
        }
        _ => return None,
    })
}

fn by_login(error: &RedisError) -> Trouble {
    let said = error.detail().unwrap_or_default();
    let words = if said.contains("without any password configured") {
        "Redis has no password, and the URL gives one; leave it out or set it there (requirepass)"
    } else {
        "Redis refuses user and password"
    };
    Trouble::new(Reason::Login, with_detail(words, error))
}

fn by_words(error: &RedisError) -> Trouble {
    let said = error.detail().unwrap_or_default();
    let (reason, words) = if said.contains("DB index") {
        (Reason::WrongServer, "there is no such database")
    } else if said.contains("no permissions to run") || said.contains("no permissions to access") {
        (Reason::Permission, "this Redis user may not do what townhall needs")
    } else if said.contains("can't run this command") {
        // Within a function; Redis names the function and not the command. The next connection asks which it is.
        (Reason::Permission, "this Redis user may not do what townhall needs")
    } else if said.contains("unknown command") {
        (Reason::WrongServer, "Redis lacks a command that townhall needs")
    } else if said.contains("cluster support disabled") {
        (Reason::WrongServer, "it is no cluster; give it as redis://HOST:PORT")
    } else {
        (Reason::Other, "Redis refuses")
    };
    Trouble::new(reason, with_detail(words, error))
}

fn is_about_tls(said: &str) -> bool {
    ["certificate", "InvalidContentType", "corrupt message", "fatal alert", "HandshakeFailure"]
        .iter()
        .any(|sign| said.contains(sign))
}

fn by_tls(said: &str) -> Trouble {
    // The signature is bad where another authority has the same name: one that was made anew.
    let words = if said.contains("UnknownIssuer") || said.contains("BadSignature") {
        "its certificate is vouched for by nobody whom this machine trusts; give who does with --redis-ca"
    } else if said.contains("CaUsedAsEndEntity") {
        "its certificate is an authority's own, which must not be a server's; make the server one that the authority signs"
    } else if said.contains("CertificateRequired") {
        "it wants a certificate of its clients, and townhall has none; set tls-auth-clients no there"
    } else if said.contains("expired") {
        "its certificate has expired"
    } else if said.contains("not valid for name") {
        "its certificate is for another name; use the name in it as the URL's host"
    } else if said.contains("InvalidContentType") || said.contains("corrupt message") {
        "what answers there does not speak TLS; is it redis:// without the second s?"
    } else {
        "the TLS handshake fails"
    };
    Trouble::new(Reason::Tls, format!("{words} ({})", said.trim()))
}

fn with_detail(words: &str, error: &RedisError) -> String {
    match error.detail() {
        Some(detail) => format!("{words} (Redis says: {})", detail.trim()),
        None => words.to_owned(),
    }
}
