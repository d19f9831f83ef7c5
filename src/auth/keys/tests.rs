use super::*;
use crate::auth::issuer::{
    self, ED25519_PEM, P_256_PEM, P_384_PEM, RSA_PEM, RSA_PKCS1_PEM, SECP256K1_PEM, SMALL_RSA_PEM, ed25519_jwk,
    p_256_jwk, rsa_jwk,
};

/// The payload of RFC 7515's examples.
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn refused(pem: &str) -> String {
    Key::all_in_pem(pem.as_bytes()).err().unwrap_or_else(|| panic!("{pem} was taken"))
}

fn assert_signed(key: &Key, message: &str, signature: &str) {
    assert!(key.has_signed(message, signature));
    assert!(!key.has_signed(&message.replacen('.', "_.", 1), signature));
    assert!(!key.has_signed(message, &signature.replacen(&signature[9..10], "_", 1)));
}

#[test]
fn the_rfcs_examples_of_each_algorithm_are_signed_by_their_keys() {
    // RFC 7515 A.1
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let secret = DecodingKey::from_secret(&URL_SAFE_NO_PAD.decode(secret).unwrap());
    let key = Key { kid: None, algorithm: Algorithm::HS256, key: secret };
    let message = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}");
    assert_signed(&key, &message, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");

    // RFC 7515 A.2
    let key = Key::in_jwk(
        r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
    );
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    assert_signed(&key.unwrap(), &format!("eyJhbGciOiJSUzI1NiJ9.{JOE}"), signature);

    // RFC 7515 A.3
    let key = Key::in_jwk(
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
    );
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    assert_signed(&key.unwrap(), &format!("eyJhbGciOiJFUzI1NiJ9.{JOE}"), signature);

    // RFC 8037 A.4
    let key = Key::in_jwk(r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#);
    let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_signed(&key.unwrap(), message, signature);
}

#[test]
fn a_keys_kind_decides_its_algorithm() {
    for (pem, algorithm) in [
        (RSA_PEM, Algorithm::RS256),
        (RSA_PKCS1_PEM, Algorithm::RS256),
        (P_256_PEM, Algorithm::ES256),
        (ED25519_PEM, Algorithm::EdDSA),
    ] {
        let [key] = &Key::all_in_pem(pem.as_bytes()).unwrap()[..] else { panic!("{pem}") };
        assert_eq!(key.algorithm, algorithm);
        assert!(key.has_signed("a.b", &issuer::signature(algorithm, "a.b")), "{algorithm:?}");
    }
    for (jwk, algorithm) in
        [(rsa_jwk("a"), Algorithm::RS256), (p_256_jwk("a"), Algorithm::ES256), (ed25519_jwk("a"), Algorithm::EdDSA)]
    {
        let key = Key::in_jwk(&jwk).unwrap();
        assert_eq!(key.algorithm, algorithm);
        assert!(key.has_signed("a.b", &issuer::signature(algorithm, "a.b")), "{algorithm:?}");
    }
}

#[test]
fn a_file_may_hold_several_keys_and_words_between_them() {
    let file = format!("the old one:\r\n{}\nand the new one\n{ED25519_PEM}\n", RSA_PEM.replace('\n', "\r\n"));
    let algorithms: Vec<_> = Key::all_in_pem(file.as_bytes()).unwrap().iter().map(|key| key.algorithm).collect();
    assert_eq!(algorithms, [Algorithm::RS256, Algorithm::EdDSA]);
    assert!(refused(&ED25519_PEM.to_string().repeat(MAX_PEM_KEYS + 1)).contains("more than 16"));
}

#[test]
fn a_file_without_a_usable_key_is_refused_in_words_that_help() {
    let labelled = |label: &str| ED25519_PEM.replace("PUBLIC KEY", label);
    for (pem, words) in [
        (String::new(), "no public key"),
        ("ssh-ed25519 AAAA zoe".into(), "no public key"),
        ("-----BEGIN PUBLIC KEY".into(), "no public key"),
        ("-----BEGIN PUBLIC KEY-----\nMCow".into(), "no public key"),
        ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----".into(), "no public key"),
        ("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----".into(), "no public key"),
        (labelled("SOMETHING"), "no public key"),
        (labelled("PRIVATE KEY"), "private key; give its public key"),
        (labelled("RSA PRIVATE KEY"), "private key"),
        (labelled("EC PRIVATE KEY"), "private key"),
        (labelled("ENCRYPTED PRIVATE KEY"), "private key"),
        (labelled("CERTIFICATE"), "openssl x509"),
        (P_384_PEM.into(), "curve"),
        (SECP256K1_PEM.into(), "curve"),
        (SMALL_RSA_PEM.into(), "2048"),
        // Beside the curve: one digit of its y is another.
        (P_256_PEM.replace("ATnQ==", "ATnA=="), "not one of P-256"),
        // One that cannot be used beside one that can: whoever put it there expects it to be used.
        (format!("{RSA_PEM}\n{P_384_PEM}"), "curve"),
    ] {
        let refused = refused(&pem);
        assert!(refused.starts_with("--jwt-key: ") && refused.contains(words), "{pem}: {refused}");
    }
}

#[test]
fn a_secret_is_no_public_key_and_not_empty() {
    for (secret, words) in [("", "empty"), (RSA_PEM, "--jwt-key"), (RSA_PKCS1_PEM, "--jwt-key")] {
        let refused = Key::secret(secret).err().unwrap();
        assert!(refused.starts_with("--jwt-secret: ") && refused.contains(words), "{refused}");
    }
}

#[test]
fn a_published_key_that_signs_no_tokens_of_ours_is_passed_over() {
    let (rsa, ec, ed) = (rsa_jwk("a"), p_256_jwk("a"), ed25519_jwk("a"));
    let modulus = |bytes: usize| {
        let modulus = URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        format!(r#"{{"kty":"RSA","n":"{modulus}","e":"AQAB"}}"#)
    };
    assert!(Key::in_jwk(&modulus(256)).is_some() && Key::in_jwk(&modulus(1024)).is_some());
    assert!(Key::in_jwk(&rsa.replace(r#""use""#, r#""key_ops":["verify"],"use""#)).is_some());
    for jwk in [
        "7".into(),
        "{}".into(),
        r#"["RSA"]"#.into(),
        r#"{"kty":"oct","k":"YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCBsb25nIGVub3VnaA"}"#.into(),
        r#"{"kty":"oct","alg":"HS256","k":"YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCBsb25nIGVub3VnaA"}"#.into(),
        modulus(255),
        modulus(1025),
        modulus(100_000),
        rsa.replace("AQAB", "AQ"),
        rsa.replace("AQAB", "AAAB"),
        rsa.replace("AQAB", ""),
        rsa.replace("AQAB", "Ag"),
        rsa.replace("AQAB", "AQAAAAAB"),
        rsa.replace("AQAB", "A=="),
        rsa.replace(r#""n":"#, r#""m":"#),
        rsa.replace("sig", "enc"),
        rsa.replace(r#""use":"sig""#, r#""key_ops":["sign"]"#),
        rsa.replace(r#""use":"sig""#, r#""key_ops":[]"#),
        rsa.replace("RS256", "RS512"),
        rsa.replace("RS256", "HS256"),
        rsa.replace("RS256", "none"),
        rsa.replace("RS256", "ES256"),
        rsa.replace(r#""kid":"a""#, r#""kid":7"#),
        rsa.replace(r#""kid":"a""#, r#""kid":"a","kid":"b""#),
        ec.replace("P-256", "P-384"),
        ec.replace("P-256", "secp256k1"),
        ec.replace(issuer::P_256_X, &issuer::P_256_X[..40]),
        ec.replace(r#""y""#, r#""z""#),
        // Beside the curve.
        ec.replace(&issuer::P_256_X[..4], "AAAA"),
        ed.replace("Ed25519", "X25519"),
        ed.replace("Ed25519", "Ed448"),
        ed.replace(issuer::ED25519_X, &issuer::ED25519_X[..40]),
    ] {
        assert!(Key::in_jwk(&jwk).is_none(), "{jwk}");
    }
}

#[test]
fn a_published_key_serves_tokens_that_name_it_or_none() {
    let key = Key::in_jwk(&rsa_jwk("a")).unwrap();
    assert!(key.serves(Algorithm::RS256, Some("a")) && key.serves(Algorithm::RS256, None));
    assert!(!key.serves(Algorithm::RS256, Some("b")) && !key.serves(Algorithm::ES256, Some("a")));
    let [given] = &Key::all_in_pem(RSA_PEM.as_bytes()).unwrap()[..] else { panic!() };
    assert!(given.serves(Algorithm::RS256, Some("a")) && given.serves(Algorithm::RS256, Some("b")));
}
