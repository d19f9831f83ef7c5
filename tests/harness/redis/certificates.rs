//! Certificates made for one test by `openssl`: an authority, and a server's that it vouches for.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::missing;

/// PEM files in a directory that goes with the value.
pub struct Certificates {
    /// Who vouches: what clients are given.
    pub authority: PathBuf,
    /// The server's.
    pub certificate: PathBuf,
    pub key: PathBuf,
    _directory: TempDir,
}

impl Certificates {
    /// For a server at 127.0.0.1 and localhost.
    pub fn new() -> Self {
        Self::naming("IP:127.0.0.1,DNS:localhost")
    }

    /// For a server with other names, such as `DNS:elsewhere.example`.
    pub fn naming(names: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory for certificates");
        let file = |name: &str| directory.path().join(name);
        let [authority, authority_key] = ["ca.pem", "ca.key"].map(file);
        let [certificate, key, request] = ["server.pem", "server.key", "server.csr"].map(file);
        let extensions = file("server.ext");
        std::fs::write(&extensions, format!("subjectAltName = {names}\n")).expect("a file for openssl");

        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let mut own = openssl("req", &["-x509", "-days", "2", "-subj", "/CN=The tests' authority"]);
        run(own.args(curve).arg("-keyout").arg(&authority_key).arg("-out").arg(&authority));
        let mut asked = openssl("req", &["-new", "-subj", "/CN=redis"]);
        run(asked.args(curve).arg("-keyout").arg(&key).arg("-out").arg(&request));
        let mut signed = openssl("x509", &["-req", "-days", "2", "-CAcreateserial"]);
        signed.arg("-in").arg(&request).arg("-CA").arg(&authority).arg("-CAkey").arg(&authority_key);
        run(signed.arg("-extfile").arg(&extensions).arg("-out").arg(&certificate));
        Certificates { authority, certificate, key, _directory: directory }
    }

    pub fn authority(&self) -> &str {
        self.authority.to_str().expect("a path in UTF-8")
    }

    pub fn directory(&self) -> &Path {
        self._directory.path()
    }
}

fn openssl(what: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.arg(what).args(arguments);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| missing("openssl", "openssl", &error));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
