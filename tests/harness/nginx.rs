//! nginx in front of nodes, with a directory of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Cut, get, wait_until};

/// How nginx passes requests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NginxKind {
    /// Every request to the next node, at `/`.
    RoundRobin,
    /// The same, with nginx's own `Host`; whom it passes on and which host they asked for is said as proxies say it.
    OwnHost,
    /// The tutorial's own `location /gin`, to the letter: one node, which it knows as `bloggin:9999`.
    TutorialGin,
    /// `examples/nginx/townhall.conf`, but for its addresses: two nodes, at `/`.
    Shipped,
}

/// A running nginx; gone when dropped.
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
    /// What listens at the address that the name `bloggin` means to this nginx.
    bloggin: Option<Cut>,
}

/// As the tutorial has it, and as it is shipped.
const LOCATION_GIN: &str = include_str!("../../examples/nginx/tutorial.conf");

/// Ours, as it is shipped: a whole `server`, with its upstream of two nodes and its logs.
const SHIPPED: &str = include_str!("../../examples/nginx/townhall.conf");

/// The tutorial's upgrade headers, and the `Host` that the page's origin is compared with.
const LOCATION_ROUND_ROBIN: &str = r#"location / {
        proxy_pass http://nodes;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
"#;

const LOCATION_OWN_HOST: &str = r#"location / {
        proxy_pass http://nodes;
        proxy_http_version 1.1;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
"#;

impl Nginx {
    /// nginx in front of the nodes at these ports of 127.0.0.1.
    pub async fn start(ports: &[u16], kind: NginxKind) -> Nginx {
        Nginx::start_with(ports, kind, "").await
    }

    /// The same with more directives around the location: `"proxy_read_timeout 2s;"`.
    pub async fn start_with(ports: &[u16], kind: NginxKind, directives: &str) -> Nginx {
        loop {
            if let Some(nginx) = Nginx::try_start(ports, kind, directives).await {
                return nginx;
            }
        }
    }

    /// `None` when somebody else took the port that was free a moment ago.
    async fn try_start(ports: &[u16], kind: NginxKind, directives: &str) -> Option<Nginx> {
        let address = free_address();
        let bloggin = match kind {
            NginxKind::RoundRobin | NginxKind::OwnHost | NginxKind::Shipped => None,
            NginxKind::TutorialGin => {
                let [node] = ports else {
                    panic!("the tutorial has one node, not {ports:?}");
                };
                let node = SocketAddr::from(([127, 0, 0, 1], *node));
                Some(Cut::at(&format!("{}:9999", bloggin_ip(address)), node).await)
            }
        };
        let directory = tempfile::tempdir().expect("no directory for nginx");
        let configuration = configuration(address, ports, kind, directives);
        std::fs::write(directory.path().join("nginx.conf"), configuration).expect("cannot write");
        let hosts = format!("127.0.0.1 localhost\n{} bloggin\n", bloggin_ip(address));
        std::fs::write(directory.path().join("hosts"), hosts).expect("cannot write");
        let mut nginx = Nginx {
            child: command(directory.path(), kind).spawn().expect("nginx cannot be started"),
            address,
            directory,
            bloggin,
        };
        nginx.wait_up().await.then_some(nginx)
    }

    /// Whether it came up; otherwise its port was taken.
    async fn wait_up(&mut self) -> bool {
        let here = self.address.port().to_string();
        let mut up = false;
        wait_until("nginx is up", async || {
            if self.child.try_wait().expect("cannot wait").is_some() {
                let log = self.log();
                assert!(log.contains("in use"), "nginx ended at its start: {log}");
                return true;
            }
            up = get(self.address, "/harness", "").await.is_ok_and(|answer| answer.header("X-Harness") == Some(&here));
            up
        })
        .await;
        up
    }

    /// Where browsers go.
    pub fn http(&self) -> SocketAddr {
        self.address
    }

    /// `ws://…/ws`.
    pub fn ws_url(&self) -> String {
        self.ws("/ws")
    }

    /// A WebSocket address behind this nginx.
    pub fn ws(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// Its error log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }

    /// The access log of the shipped configuration so far.
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("townhall.log")).unwrap_or_default()
    }
}

impl Nginx {
    /// The access log of the server beside the shipped one.
    pub fn elsewhere_log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("elsewhere.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of nginx at {}\n{}", self.address, self.log());
        }
    }
}

/// One process in the foreground. For the tutorial's location, whose `bloggin` has to be a host's name (nginx allows no
/// `upstream` where `proxy_pass` has a port), it gets a view of the files in which `/etc/hosts` is its own.
fn command(directory: &Path, kind: NginxKind) -> Command {
    let mut command = match kind {
        NginxKind::RoundRobin | NginxKind::OwnHost | NginxKind::Shipped => Command::new("nginx"),
        NginxKind::TutorialGin => {
            let mut unshare = Command::new("unshare");
            unshare
                .args(["--map-root-user", "--mount", "sh", "-c"])
                .arg("mount --bind \"$0\" /etc/hosts && exec nginx \"$@\"")
                .arg(directory.join("hosts"));
            unshare
        }
    };
    command
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(directory.join("nginx.conf"))
        .arg("-e")
        .arg(directory.join("error.log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// `user root`: nginx must not hand its directories to `nobody`, whom a mapped user namespace does not know.
fn configuration(address: SocketAddr, ports: &[u16], kind: NginxKind, directives: &str) -> String {
    let server = match kind {
        NginxKind::RoundRobin => round_robin(address, ports, LOCATION_ROUND_ROBIN),
        NginxKind::OwnHost => round_robin(address, ports, LOCATION_OWN_HOST),
        NginxKind::TutorialGin => server(address, LOCATION_GIN),
        NginxKind::Shipped => shipped(address, ports),
    };
    format!(
        r#"user root;
daemon off;
master_process off;
pid nginx.pid;
error_log error.log info;
worker_rlimit_nofile 8192;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {directives}
    {server}
}}
"#
    )
}

fn round_robin(address: SocketAddr, ports: &[u16], location: &str) -> String {
    let servers: String = ports.iter().map(|port| format!("        server 127.0.0.1:{port};\n")).collect();
    format!("upstream nodes {{\n{servers}    }}\n    {}", server(address, location))
}

fn server(address: SocketAddr, location: &str) -> String {
    let here = address.port();
    format!(
        r#"server {{
    listen {address};
    location = /harness {{
        add_header X-Harness {here};
        return 204;
    }}
    {location}    }}"#
    )
}

/// The shipped file with other addresses and places, beside a server of somebody else who logs what comes, at the same port;
/// whatever it answers says that it is this nginx.
fn shipped(address: SocketAddr, ports: &[u16]) -> String {
    let [east, west] = ports else { panic!("the shipped configuration has two nodes, not {ports:?}") };
    let places = [
        ("listen 80 default_server;", format!("listen {address} default_server;")),
        ("server 127.0.0.1:8083 ", format!("server 127.0.0.1:{east} ")),
        ("server 127.0.0.1:8084 ", format!("server 127.0.0.1:{west} ")),
        ("/var/log/nginx/", String::new()),
    ];
    let here = address.port();
    let elsewhere =
        format!("server {{ listen {address}; server_name elsewhere.example; access_log elsewhere.log; return 204; }}");
    let whole = format!("add_header X-Harness {here} always;\n{elsewhere}\n{SHIPPED}");
    places.iter().fold(whole, |text, (place, ours)| {
        assert_eq!(text.matches(place).count(), 1, "{place:?} once in the shipped configuration");
        text.replace(place, ours)
    })
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("no free port")
}

/// A loopback address that belongs to whoever has this port: every tutorial's nginx has a `bloggin` of its own.
fn bloggin_ip(address: SocketAddr) -> std::net::Ipv4Addr {
    let [high, low] = address.port().to_be_bytes();
    std::net::Ipv4Addr::new(127, 99, high, low)
}
