//! An issuer of the tests: a key of each kind, made for them with openssl, and tokens signed with it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

pub const SECRET: &str = "a secret of the tests, long enough to be sound";

pub const RSA_PEM: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAreEb8F6QtMdoK/oDAeFX\n\
FVZWBAYQaY9w3+8TLE9PniGVN07/xpnLHuOJtwbr3JW6HwhQTchby/6vCMDYSMzd\n\
4pjh8/y1y1LtxsZ2zMO6UiFPgBi8Rf6W+37qCg80tywz89EL6tEcQ58NxjCOGhFS\n\
Ip0XN9wWt1w9vXWr1tkqzHV15Ui352LNE0zKdJAvhJHKin73zTGrlcC6LU07lBOK\n\
f95b1tW2Y+r5mj0eyls/ZpmSuEc46OTHv8t0p31JkVF8AAPGPSyj7FizDQvNEiVt\n\
46U/Goc77DGsGrmPaCaeo706SkJwLaMs1C/Gh9vj5t+kroJ2lhN+1SDS0bM4gky6\n\
OwIDAQAB\n\
-----END PUBLIC KEY-----";
pub const RSA_PKCS1_PEM: &str = "\
-----BEGIN RSA PUBLIC KEY-----\n\
MIIBCgKCAQEAreEb8F6QtMdoK/oDAeFXFVZWBAYQaY9w3+8TLE9PniGVN07/xpnL\n\
HuOJtwbr3JW6HwhQTchby/6vCMDYSMzd4pjh8/y1y1LtxsZ2zMO6UiFPgBi8Rf6W\n\
+37qCg80tywz89EL6tEcQ58NxjCOGhFSIp0XN9wWt1w9vXWr1tkqzHV15Ui352LN\n\
E0zKdJAvhJHKin73zTGrlcC6LU07lBOKf95b1tW2Y+r5mj0eyls/ZpmSuEc46OTH\n\
v8t0p31JkVF8AAPGPSyj7FizDQvNEiVt46U/Goc77DGsGrmPaCaeo706SkJwLaMs\n\
1C/Gh9vj5t+kroJ2lhN+1SDS0bM4gky6OwIDAQAB\n\
-----END RSA PUBLIC KEY-----";
pub const P_256_PEM: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEFJlrmIFMcyltCMLideP5YSP65u7\n\
CyrVRtrg1YHN+BdZB46HKG6wUXmW2dBa//XYO97m9L9uxilAWarMx8ATnQ==\n\
-----END PUBLIC KEY-----";
pub const ED25519_PEM: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEAxtnu0TkZBmx20W0Y5IflduOUjunrDyh74xdPDRQFMrU=\n\
-----END PUBLIC KEY-----";
pub const P_384_PEM: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE9fTjhGlBA3i5npLuyCpYKpFGXJXPIUj7\n\
Z2FEqUq1QTAlVXaCiMInyNXlRNgLhX6LBkjSEsM9B7FhwKmDfgpWk8+Yw98rYBdF\n\
Cs1HSbLHPKCDCPeMjJIsAfOeb2F9L/7B\n\
-----END PUBLIC KEY-----";
pub const SECP256K1_PEM: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE6plL2rwAyQlU9VQe2ltqVWSVucoYATh3\n\
PnNF8/Z/E90KN1hGoEphqr5YlsKrVubQW6g2mQ31kfQLXsSeRYi0Mg==\n\
-----END PUBLIC KEY-----";
pub const SMALL_RSA_PEM: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCkNQXQJXPw0nUPCXRzOedEAwt9\n\
0nGkTnT3a70EqmWEmW1+wJ64QOUAo9vIHZL1dkyYfVFEyVTrObRtsnT4mw8j9xSl\n\
J5LT2UTl20jR1OnqTIxwoAlotVrhmhc072yiMrvL6BIEM1suRyd9oyIxUUL+o+lN\n\
g8S08pXvWkQ0pdiHQQIDAQAB\n\
-----END PUBLIC KEY-----";
pub const RSA_N: &str = "reEb8F6QtMdoK_oDAeFXFVZWBAYQaY9w3-\
    8TLE9PniGVN07_xpnLHuOJtwbr3JW6HwhQTchby_6vCMDYSMzd4pjh8_y1y1LtxsZ2zMO6UiFPgBi8Rf6W-\
    37qCg80tywz89EL6tEcQ58NxjCOGhFSIp0XN9wWt1w9vXWr1tkqzHV15Ui352LNE0zKdJAvhJHKin73zTGrlcC6LU07lBOKf95b1\
    tW2Y-\
    r5mj0eyls_ZpmSuEc46OTHv8t0p31JkVF8AAPGPSyj7FizDQvNEiVt46U_Goc77DGsGrmPaCaeo706SkJwLaMs1C_Gh9vj5t-\
    kroJ2lhN-1SDS0bM4gky6Ow";
pub const P_256_X: &str = "EFJlrmIFMcyltCMLideP5YSP65u7CyrVRtrg1YHN-Bc";
pub const P_256_Y: &str = "WQeOhyhusFF5ltnQWv_12Dve5vS_bsYpQFmqzMfAE50";
pub const ED25519_X: &str = "xtnu0TkZBmx20W0Y5IflduOUjunrDyh74xdPDRQFMrU";
const RSA_PRIVATE: &str = "MIIEowIBAAKCAQEAreEb8F6QtMdoK/oDAeFXFVZWBAYQaY9w3+8TLE9PniGVN07/xpnLHuOJtwbr3JW6HwhQTchby/6vCMDYSMzd\
    4pjh8/y1y1LtxsZ2zMO6UiFPgBi8Rf6W+37qCg80tywz89EL6tEcQ58NxjCOGhFSIp0XN9wWt1w9vXWr1tkqzHV15Ui352LNE0zK\
    dJAvhJHKin73zTGrlcC6LU07lBOKf95b1tW2Y+r5mj0eyls/ZpmSuEc46OTHv8t0p31JkVF8AAPGPSyj7FizDQvNEiVt46U/Goc7\
    7DGsGrmPaCaeo706SkJwLaMs1C/Gh9vj5t+kroJ2lhN+1SDS0bM4gky6OwIDAQABAoIBABy6jaoHMy6DUegOMf1XX32JhcMQGMRw\
    LEH7l3Xh5sblnT4FrJys4BLK8n/jQgjF/k9Ontdd1s5GLA0CBoTvaxZw6chXxSutGIHtXEc/FuOnWEzTCWx2gONYbU/bLPu6GcgG\
    OUtYtdb1tR9n+gU+6Qy0sCziYtMfMkjsORz8RaYr2Q4kr2oufDAOnCe2L6Drv2d+l+C2FpF/xMJ5adA0dMZv+J4okUeY1WzbYK12\
    P/Hd65fhTTSy3dcARm1peOm2NMWwUYtohzOsdSqREMzOe8O7VGCj7htvy4A6djtS22RJgGTlyU2zCivzGgl4CchIoaxDBs7IvSYw\
    yk7D+xJCiOkCgYEA1tDhsQSUF4B86OnorwEccgGXkUsktxJ1iKC30L7Zv3liy44w4N7gQWcKdQQvK652ZRAWwt0Wg+cbjr+K4ftQ\
    JeMzBwCPYyUMjV07eFBBErwbjOKcBlyXeDzZu8lzP9KGJ6xRDW9rqpEjBQpaMPbvi0ucoB0veBAvS5xSGhaPfRMCgYEAzzcRXM3n\
    Ai05F0rF9/NZ6dM/EnQOKYIloc3AuAN1k45D0n6DCAXpd2qRe5PQ+4TWXcTyye+bX+aeD9SuVd+rx7cO01TCSygSiAl/k7MQ0TO0\
    E21m0dqQ0ncBNcxwI547y/4gVYUDwWj6HkqfjIr3/ByzKdGgSCAe1ZCXaKSvuzkCgYBCZeQs1A52STfSwmIynbROJOHVfhWGJMWB\
    irPmaOdjQMDhzDyddSZ58MCRtM5jwRRFXri6WJ4Z/ThOYjQqb4SxgU2Hb4viiFQd6eB06tGCWfRmErFJYhtLhfuDCNx/sLHY13Fi\
    JrtvyFa7uxxvoBQgySlLcFn40X/c7h+OgsStUwKBgQCj6TqJv7JJbX5op1Q8E7p/FQQiU71UJkggWsJkjQ/3naSWoE6EDTElrh3Q\
    tBeureBoIj+vbyLn1GQZv7H76cdXXr2Se8yJaPRnuaO6MP5PjeeXKoYX4B2I7mv9o27dLfC9J5NqMqLK3oBjb8IPiWoqeoVawiBY\
    jVf2tb6fHw6HOQKBgGHxWJ1Eb50osvW1AH8zTTAhRJiqMGYSPkur8N7EhBRacNzadYTmQNkA31g8KUEwC2B4CSymkF5ipUHG6zJL\
    o2BdF6UgQY1Fo54MmwxYyEcHaNGtxaE96OtSS6WWnzoiCvMqpqn+1o8vl+ZjsuEUwAI1g1wYEuLVtXxQTHgIs2Si";
const P_256_PRIVATE: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgV/OcBYqg43a7S9KuQVl6i9ToxaRC94kbJZmQbpiiTxOhRANCAAQQ\
    UmWuYgUxzKW0IwuJ14/lhI/rm7sLKtVG2uDVgc34F1kHjocobrBReZbZ0Fr/9dg73ub0v27GKUBZqszHwBOd";
const ED25519_PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEIIREHzuwKbuf8+7AwY9n+BX/jULBbcOrfl4fW2M91opI";

/// A certificate of 127.0.0.1 that nobody vouches for, valid until 2126, and its key.
pub const CERTIFICATE: &str = "MIIBojCCAUegAwIBAgIUIZmgEdyFrTTHNedzHOr1IjLdlIcwCgYIKoZIzj0EAwIwHjEcMBoGA1UEAwwTaXNzdWVyIG9mIHRoZSB0\
    ZXN0czAgFw0yNjExMjQxMDQxMjhaGA8yMTI2MTAzMTEwNDEyOFowHjEcMBoGA1UEAwwTaXNzdWVyIG9mIHRoZSB0ZXN0czBZMBMG\
    ByqGSM49AgEGCCqGSM49AwEHA0IABLxOtH4dgm9KauwrP8mKyKofiF4EPBWDY7VLA37uAZy2cMj2tEuNSVRPJ+UGyZRLqiJZ1KrT\
    KBkSoGN9hpekp7CjYTBfMB0GA1UdDgQWBBQ13kqH9VldlYofNZSs/7qeH33zvDAfBgNVHSMEGDAWgBQ13kqH9VldlYofNZSs/7qe\
    H33zvDAPBgNVHREECDAGhwR/AAABMAwGA1UdEwEB/wQCMAAwCgYIKoZIzj0EAwIDSQAwRgIhAIOIYkQfCXlXkP2HAummr+7vNYQE\
    RfJ9eWIkar7HW/qtAiEAsJ/cVsoFFxzdb+Dqfz3CJIMq6B83f8sf0D4N+uFuZtY=";
pub const CERTIFICATE_KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGd+XJcJLkTrahn8pDvEsu3YJC4qvN5ymLsCpBpcaV9yhRANCAAS8\
    TrR+HYJvSmrsKz/JisiqH4heBDwVg2O1SwN+7gGctnDI9rRLjUlUTyflBsmUS6oiWdSq0ygZEqBjfYaXpKew";

/// Signs as the key of `algorithm` does.
pub fn signature(algorithm: Algorithm, message: &str) -> String {
    let der = |text: &str| STANDARD.decode(text).unwrap();
    let key = match algorithm {
        Algorithm::RS256 | Algorithm::RS512 => EncodingKey::from_rsa_der(&der(RSA_PRIVATE)),
        Algorithm::ES256 => EncodingKey::from_ec_der(&der(P_256_PRIVATE)),
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der(ED25519_PRIVATE)),
        _ => EncodingKey::from_secret(SECRET.as_bytes()),
    };
    crypto::sign(message.as_bytes(), &key, algorithm).unwrap()
}

/// A token with that header and payload, whatever they are.
pub fn token_of(algorithm: Algorithm, header: &str, payload: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    format!("{message}.{}", signature(algorithm, &message))
}

/// A token with those claims, as an issuer makes it.
pub fn token(algorithm: Algorithm, claims: &str) -> String {
    token_of(algorithm, &format!(r#"{{"alg":"{algorithm:?}","typ":"JWT"}}"#), claims)
}

/// Some years from now.
pub const ZOE: &str = r#"{"sub":"zoe","exp":4102444800}"#;

/// Published keys, each called as is said.
pub fn rsa_jwk(kid: &str) -> String {
    format!(r#"{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{kid}","n":"{RSA_N}","e":"AQAB"}}"#)
}

pub fn p_256_jwk(kid: &str) -> String {
    format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{P_256_X}","y":"{P_256_Y}"}}"#)
}

/// One of RFC 7515 A.3.
pub const ANOTHER_P_256_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

pub fn ed25519_jwk(kid: &str) -> String {
    format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{ED25519_X}"}}"#)
}
