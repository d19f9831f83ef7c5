//! Guests: any name, and an id that is the same after a reconnect and cannot be anybody else's.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::names::{DisplayName, UserId};
use crate::protocol::User;

/// Bytes of the hash that go into a guest's id: enough that nobody finds another key for it.
const ID_BYTES: usize = 12;

/// Why somebody cannot be a guest, in words for them.
pub type Refused = String;

/// Admits a guest; `marked`: there are others than guests, so their names say that they are. `key` is a secret UUID that the client keeps; without one the id is a random one. Without a name they
/// are called by their address.
///
/// # Errors
/// When the name or the key is not one.
pub fn admit(name: Option<&str>, key: Option<&str>, peer: SocketAddr, marked: bool) -> Result<User, Refused> {
    let name = match name.filter(|name| !name.is_empty()) {
        Some(name) => DisplayName::parse(name).ok_or_else(|| DisplayName::RULE.to_string())?,
        None => DisplayName::of_address(peer),
    };
    let key = match key.filter(|key| !key.is_empty()) {
        Some(key) => {
            Uuid::parse_str(key).map_err(|_| "a key is a UUID that the client keeps for itself".to_string())?
        }
        None => Uuid::new_v4(),
    };
    Ok(user_of(if marked { name.marked() } else { name }, key))
}

/// The guest who has `key`.
pub fn user_of(name: DisplayName, key: Uuid) -> User {
    User { id: id_of(key), name, info: None }
}

fn id_of(key: Uuid) -> UserId {
    let mut hash = Sha256::new();
    hash.update(b"townhall guest ");
    hash.update(key.as_bytes());
    let digest = hash.finalize();
    let hex: String = digest[..ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    UserId::new(format!("{}{hex}", UserId::GUEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "5f0b6c6e-8c2c-4a53-a3a5-0123456789ab";

    fn admit_from(name: Option<&str>, key: Option<&str>) -> Result<User, Refused> {
        admit(name, key, "192.0.2.1:60894".parse().unwrap(), false)
    }

    #[test]
    fn a_key_makes_the_same_person_and_does_not_show() {
        let first = admit_from(Some("zoe"), Some(KEY)).unwrap();
        let again = admit_from(Some("zoe2"), Some(&KEY.to_uppercase())).unwrap();
        assert_eq!(first.id, again.id);
        assert!(first.id.as_str().starts_with("guest-"));
        assert!(!first.id.as_str().contains("5f0b6c6e"));
    }

    #[test]
    fn without_a_key_everybody_is_new_and_without_a_name_an_address() {
        let (one, other) = (admit_from(None, None).unwrap(), admit_from(Some(""), Some("")).unwrap());
        assert_ne!(one.id, other.id);
        assert_eq!(one.name.as_str(), "192.0.2.1:60894");
    }

    #[test]
    fn beside_others_a_guests_name_says_that_it_is_one() {
        let peer = "192.0.2.1:60894".parse().unwrap();
        let guest = |name| admit(name, None, peer, true).unwrap().name;
        assert_eq!(guest(Some("zoe")).as_str(), "~zoe");
        assert_eq!(guest(None).as_str(), "~192.0.2.1:60894");
        assert!(admit(Some("~zoe"), None, peer, true).is_err());
    }

    #[test]
    fn what_is_no_name_and_no_key_is_refused_in_words() {
        assert!(admit_from(Some("a:b"), None).unwrap_err().contains("name"));
        assert!(admit_from(None, Some("secret")).unwrap_err().contains("UUID"));
    }
}
