//! What signatures are checked with.
//!
//! A key has exactly one algorithm, which its own kind decides: a shared secret HS256, an RSA key RS256, a P-256 key ES256,
//! an Ed25519 key EdDSA. A token says which algorithm it is signed with, and so chooses among the keys that have it; how a
//! key is used is never the token's to say. No public key can become a secret, and no algorithm is none.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;

/// A smaller RSA key can be broken; a larger one costs whoever checks with it.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Public exponents that AWS-LC takes have 33 bits at most.
const MAX_EXPONENT_BYTES: usize = 5;

/// More are not read out of one file.
const MAX_PEM_KEYS: usize = 16;

#[derive(Clone)]
pub struct Key {
    /// What the issuer calls it.
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Key {
    /// For HS256.
    ///
    /// # Errors
    /// In words, where it is none.
    pub fn secret(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("--jwt-secret: it is empty; allowed is a secret of 32 bytes or more".into());
        }
        if text.contains("-----BEGIN ") {
            return Err(
                "--jwt-secret: that is a key for --jwt-key; allowed is what only the issuer and the hall know".into()
            );
        }
        Ok(Key { kid: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(text.as_bytes()) })
    }

    /// All public keys in a PEM file; several while the issuer changes from one to the next.
    ///
    /// # Errors
    /// In words, where one cannot be used, or there is none.
    pub fn all_in_pem(pem: &[u8]) -> Result<Vec<Self>, String> {
        let refused = |words: &str| format!("--jwt-key: {words}");
        let text = std::str::from_utf8(pem).map_err(|_| refused(NO_PEM))?;
        let mut keys = Vec::new();
        let mut rest = text;
        while let Some((_, after)) = rest.split_once("-----BEGIN ") {
            let (label, after) = after.split_once("-----").ok_or_else(|| refused(NO_PEM))?;
            let (body, after) = after.split_once("-----END ").ok_or_else(|| refused(NO_PEM))?;
            rest = after;
            // What openssl writes before a private key.
            if label != "EC PARAMETERS" {
                keys.push(Key::in_block(label, body).map_err(refused)?);
            }
        }
        match keys.len() {
            0 => Err(refused(NO_PEM)),
            1..=MAX_PEM_KEYS => Ok(keys),
            _ => Err(format!("--jwt-key: there are more than {MAX_PEM_KEYS} keys in it")),
        }
    }

    fn in_block(label: &str, body: &str) -> Result<Self, &'static str> {
        const PRIVATE: &str = "that is a private key; give its public key (openssl pkey -in FILE -pubout)";
        const CERTIFICATE: &str =
            "that is a certificate; give the public key in it (openssl x509 -in FILE -pubkey -noout)";
        let body: String = body.split_ascii_whitespace().collect();
        let der = || STANDARD.decode(&body).map_err(|_| NO_PEM);
        match label {
            "PUBLIC KEY" => Key::in_subject_public_key_info(&der()?),
            "RSA PUBLIC KEY" => Key::in_rsa_public_key(&der()?),
            "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => Err(CERTIFICATE),
            _ if label.ends_with("PRIVATE KEY") => Err(PRIVATE),
            _ => Err(NO_PEM),
        }
    }

    /// RFC 5280 §4.1.2.7: an algorithm, and the key in its own form.
    fn in_subject_public_key_info(der: &[u8]) -> Result<Self, &'static str> {
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
        const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        const P_256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
        let (kind, parameters, key) = subject_public_key_info(der).ok_or(NO_PEM)?;
        let curve = || der_value(OBJECT_ID, parameters).map(|(curve, _)| curve);
        match kind {
            RSA => Key::in_rsa_public_key(key),
            EC if curve() == Some(P_256) => Key::p_256(key).ok_or("its point is not one of P-256, uncompressed"),
            ED25519 => Key::ed25519(key).ok_or("an Ed25519 key has 32 bytes"),
            _ => Err("its kind or curve is not known here; allowed are RSA, P-256 and Ed25519"),
        }
    }

    /// RFC 8017 §A.1.1.
    fn in_rsa_public_key(der: &[u8]) -> Result<Self, &'static str> {
        let numbers = || {
            let (numbers, _) = der_value(SEQUENCE, der)?;
            let (modulus, rest) = der_value(INTEGER, numbers)?;
            let (exponent, _) = der_value(INTEGER, rest)?;
            Some((modulus, exponent))
        };
        let (modulus, exponent) = numbers().ok_or(NO_PEM)?;
        Key::rsa(modulus, exponent).ok_or("that RSA key cannot be used; allowed are 2048 to 8192 bits")
    }

    /// One of an issuer's set (RFC 7517). `None` for what signs no tokens of ours: that is passed over.
    pub fn in_jwk(json: &str) -> Option<Self> {
        let jwk: Jwk = serde_json::from_str(json).ok().filter(|_| json.starts_with('{'))?;
        let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk.operations.as_ref().is_none_or(|operations| operations.iter().any(|one| one == "verify"));
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let key = match (jwk.kind.as_str(), jwk.curve.as_deref()) {
            ("RSA", _) => Key::rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?),
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
                // RFC 7518 §6.2.1.2: both in full length.
                Key::p_256(&[&[4], x.as_slice(), y.as_slice()].concat()).filter(|_| x.len() == 32)
            }
            ("OKP", Some("Ed25519")) => Key::ed25519(&bytes(&jwk.x)?),
            _ => None,
        };
        let agrees = |key: &Key| jwk.alg.as_deref().is_none_or(|alg| algorithm(alg) == Some(key.algorithm));
        key.filter(|key| signs && agrees(key)).map(|key| Key { kid: jwk.kid, ..key })
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        // With an exponent of 1 everybody can sign.
        let odd_and_above_one = exponent.last().is_some_and(|last| last % 2 == 1) && exponent != [1];
        let sound = RSA_BITS.contains(&bits) && odd_and_above_one && exponent.len() <= MAX_EXPONENT_BYTES;
        let key = || DecodingKey::from_rsa_raw_components(modulus, exponent);
        sound.then(|| Key { kid: None, algorithm: Algorithm::RS256, key: key() })
    }

    fn p_256(point: &[u8]) -> Option<Self> {
        let uncompressed = point.len() == 65 && point[0] == 4;
        // A point beside the curve would be a key that signs nothing, and be found out by nobody.
        let on_curve = || ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok();
        let key = || DecodingKey::from_ec_der(point);
        (uncompressed && on_curve()).then(|| Key { kid: None, algorithm: Algorithm::ES256, key: key() })
    }

    fn ed25519(key: &[u8]) -> Option<Self> {
        let key = (key.len() == 32).then(|| DecodingKey::from_ed_der(key))?;
        Some(Key { kid: None, algorithm: Algorithm::EdDSA, key })
    }

    pub fn is_called(&self, kid: &str) -> bool {
        self.kid.as_deref() == Some(kid)
    }

    /// Whether a token that names `algorithm`, and perhaps a key, can be one of this key's.
    pub fn serves(&self, algorithm: Algorithm, kid: Option<&str>) -> bool {
        let called = match (self.kid.as_deref(), kid) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        called && self.algorithm == algorithm
    }

    /// Whether this key has signed `message`. `signature` is base64url; what is none has signed nothing.
    pub fn has_signed(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }
}

const NO_PEM: &str = "no public key is in it; allowed is a PEM file (-----BEGIN PUBLIC KEY-----)";

/// The algorithms of tokens that are let in, as they are written there.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// Some issuers begin their numbers with a zero, as DER must.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|digit| **digit == 0).count();
    &number[zeros..]
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(rename = "kty")]
    kind: String,
    #[serde(rename = "crv")]
    curve: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    #[serde(rename = "key_ops")]
    operations: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The algorithm's id, its parameters, and the key.
fn subject_public_key_info(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (info, _) = der_value(SEQUENCE, der)?;
    let (algorithm, rest) = der_value(SEQUENCE, info)?;
    let (kind, parameters) = der_value(OBJECT_ID, algorithm)?;
    let (bits, _) = der_value(BIT_STRING, rest)?;
    // The first byte says how many bits at the end are none.
    Some((kind, parameters, bits.strip_prefix(&[0])?))
}

/// The value at the beginning of `der`, which must have `tag`, and what follows it.
fn der_value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = der else { return None };
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| *found == tag)
}

#[cfg(test)]
mod tests;
