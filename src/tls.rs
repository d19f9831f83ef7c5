//! TLS to others: whom this machine trusts, and a connector to one host.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// The certificates that this machine trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
///
/// # Errors
/// In words for operators: there are none.
pub fn whom_this_machine_trusts() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let some = !roots.is_empty();
    some.then_some(roots).ok_or_else(|| {
        "TLS needs certificates that this machine trusts, and it has none; install ca-certificates".into()
    })
}

/// What speaks TLS to `host`, a name or an address; `None` where it is neither.
pub fn to(host: &str, roots: RootCertStore) -> Option<(TlsConnector, ServerName<'static>)> {
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Some((TlsConnector::from(Arc::new(config)), name))
}
