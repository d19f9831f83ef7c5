use std::fmt::Write;
use std::time::UNIX_EPOCH;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::auth::Kind;
use crate::auth::issuer::{
    self, ED25519_PEM, P_256_PEM, RSA_N, RSA_PEM, RSA_PKCS1_PEM, SECRET, ZOE, rsa_jwk, signature, token, token_of,
};
use crate::auth::rights::Rights;
use crate::config::Secret;
use crate::names::RoomName;

const ALL: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// In 2001, and in 2100.
const PAST: u64 = 1_000_000_000;
const FUTURE: u64 = 4_102_444_800;

fn settings() -> JwtSettings {
    JwtSettings {
        secret: Some(Secret::new(SECRET.into())),
        key: Some([RSA_PEM, P_256_PEM, ED25519_PEM].concat().into_bytes()),
        jwks: None,
        audiences: Vec::new(),
        issuers: Vec::new(),
        leeway: Duration::from_secs(60),
    }
}

fn check(settings: &JwtSettings, token: &str) -> Result<Identity, String> {
    let checked = Jwt::new(settings).unwrap().check(token).now_or_never().expect("keys that are given need no waiting");
    checked.map_err(|refused| match refused {
        NotAdmitted::Unauthorized(words) => words,
        other => panic!("{other:?}"),
    })
}

fn admitted(claims: &str) -> Identity {
    check(&settings(), &token(Algorithm::HS256, claims)).unwrap_or_else(|words| panic!("{claims}: {words}"))
}

fn refused(claims: &str) -> String {
    check(&settings(), &token(Algorithm::HS256, claims)).expect_err(claims)
}

/// Zoe's claims, with others.
fn zoe_and(claims: &str) -> String {
    ZOE.replace('}', &format!(",{claims}}}"))
}

fn assert_forged(settings: &JwtSettings, what: &str, token: &str) {
    let words = check(settings, token).expect_err(what);
    assert!([NOT_ONE, BY_NOBODY].contains(&words.as_str()), "{what}: {words}");
}

#[test]
fn a_token_of_each_algorithm_lets_its_user_in() {
    for algorithm in ALL {
        let identity = check(&settings(), &token(algorithm, ZOE)).unwrap();
        assert_eq!((identity.user.id.as_str(), identity.user.name.as_str()), ("zoe", "zoe"), "{algorithm:?}");
        assert_eq!((identity.kind, identity.rights), (Kind::Known, Rights::all()));
        assert_eq!(identity.expires, Some(UNIX_EPOCH + Duration::from_secs(FUTURE + 60)));
    }
}

#[test]
fn a_token_is_worth_nothing_where_its_key_is_not_known() {
    let only = |pem: &str| JwtSettings { secret: None, key: Some(pem.into()), ..settings() };
    let secret = JwtSettings { key: None, ..settings() };
    for (settings, of) in [
        (only(RSA_PEM), Algorithm::RS256),
        (only(P_256_PEM), Algorithm::ES256),
        (only(ED25519_PEM), Algorithm::EdDSA),
        (secret, Algorithm::HS256),
    ] {
        for algorithm in ALL {
            assert_eq!(check(&settings, &token(algorithm, ZOE)).is_ok(), algorithm == of, "{of:?}: {algorithm:?}");
        }
    }
}

/// Everything a token's maker who has no key can choose: its header, and what it is signed with.
#[test]
fn who_has_no_key_cannot_forge_a_token() {
    let public = JwtSettings { secret: None, ..settings() };
    for none in ["none", "None", "NONE", "nOnE", "", " none", "HS256 ", "hs256", "HS512", "PS256", "RS384"] {
        let header = format!(r#"{{"alg":"{none}"}}"#);
        let full = token_of(Algorithm::HS256, &header, ZOE);
        let unsigned = &full[..=full.rfind('.').unwrap()];
        assert_forged(&settings(), none, &full);
        assert_forged(&settings(), none, unsigned);
        assert_forged(&settings(), none, &format!("{unsigned}AAAA"));
    }
    // The public key as a secret, in all its forms.
    let der = |pem: &str| {
        let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(lines).unwrap()
    };
    let modulus = URL_SAFE_NO_PAD.decode(RSA_N).unwrap();
    let with_break = format!("{RSA_PEM}\n");
    let jwk = rsa_jwk("a");
    for secret in [
        RSA_PEM.as_bytes(),
        with_break.as_bytes(),
        RSA_PKCS1_PEM.as_bytes(),
        &der(RSA_PEM),
        &der(RSA_PKCS1_PEM),
        &modulus,
        RSA_N.as_bytes(),
        jwk.as_bytes(),
        &[],
    ] {
        let message = header_and_claims(r#"{"alg":"HS256"}"#);
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        assert_forged(&public, "a public key as a secret", &format!("{message}.{signature}"));
    }
    // A header that brings the key, or says where it is.
    let oct = URL_SAFE_NO_PAD.encode(SECRET);
    let huge = "a".repeat(4000);
    for member in [
        format!(r#""jwk":{{"kty":"oct","k":"{oct}"}}"#),
        format!(r#""jwk":{}"#, rsa_jwk("a")),
        r#""jku":"http://127.0.0.1:1/keys""#.into(),
        r#""x5u":"http://127.0.0.1:1/keys""#.into(),
        r#""x5c":["MIIB"]"#.into(),
        r#""kid":"../../../../dev/null""#.into(),
        r#""kid":"' or 1=1 --""#.into(),
        format!(r#""kid":"{huge}""#),
    ] {
        let header = format!(r#"{{"alg":"HS256",{member}}}"#);
        assert_forged(&public, &member, &token_of(Algorithm::HS256, &header, ZOE));
        // By whom it should be, that is looked over.
        assert!(check(&settings(), &token_of(Algorithm::HS256, &header, ZOE)).is_ok(), "{member}");
    }
    // A key serves its own algorithm only.
    for (header, algorithm) in [("RS512", Algorithm::RS256), ("RS512", Algorithm::RS512), ("ES384", Algorithm::ES256)] {
        let header = format!(r#"{{"alg":"{header}"}}"#);
        assert_forged(&settings(), &header, &token_of(algorithm, &header, ZOE));
    }
    for one in ALL {
        for other in ALL.into_iter().filter(|other| *other != one) {
            let header = format!(r#"{{"alg":"{one:?}"}}"#);
            assert_forged(&settings(), &header, &token_of(other, &header, ZOE));
        }
    }
}

fn header_and_claims(header: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(ZOE))
}

#[test]
fn a_signature_is_whole_and_of_this_token() {
    // The order of P-256, and nothing.
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&order[2 * at..2 * at + 2], 16).unwrap()).collect();
    let (zero, mut one) = ([0; 32], [0; 32]);
    one[31] = 1;
    let message = header_and_claims(r#"{"alg":"ES256"}"#);
    for (r, s) in [(&zero[..], &zero[..]), (&zero, &one), (&one, &zero), (&one, &one), (&order, &order), (&order, &one)]
    {
        let degenerate = URL_SAFE_NO_PAD.encode([r, s].concat());
        assert_forged(&settings(), "degenerate", &format!("{message}.{degenerate}"));
    }
    // As DER, which JWS has not.
    assert_forged(&settings(), "DER", &format!("{message}.{}", URL_SAFE_NO_PAD.encode([0x30, 6, 2, 1, 1, 2, 1, 1])));
    for algorithm in ALL {
        let good = token(algorithm, ZOE);
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (header, payload) = message.split_once('.').unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let zeros = URL_SAFE_NO_PAD.encode(vec![0; bytes.len()]);
        let ones = URL_SAFE_NO_PAD.encode(vec![0xff; bytes.len()]);
        let shorter = URL_SAFE_NO_PAD.encode(&bytes[1..]);
        let longer = URL_SAFE_NO_PAD.encode([&bytes[..], &[0]].concat());
        let padded = URL_SAFE_NO_PAD.encode([&[0], &bytes[..]].concat());
        let other = issuer::signature(algorithm, &header_and_claims(r#"{"alg":"HS256","a":1}"#));
        for wrong in ["", "=", "AA", "!", &zeros, &ones, &shorter, &longer, &padded, &other, &signature[..9]] {
            assert_forged(&settings(), "another signature", &format!("{message}.{wrong}"));
        }
        for wrong in [
            format!("{good}="),
            format!("{good}."),
            format!(" {good}"),
            format!("{good}\n"),
            format!(".{good}"),
            format!("{header}..{signature}"),
            format!(".{payload}.{signature}"),
            format!("{header}.{payload}"),
            format!("{header}.{payload}..{signature}"),
            format!("{header}.{payload}.{payload}.{payload}.{signature}"),
            format!("{payload}.{header}.{signature}"),
            good.replace(payload, &URL_SAFE_NO_PAD.encode(ZOE.replace("zoe", "eve"))),
            good.replace(header, &URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm:?}"}}"#))),
            good.replace(payload, &payload.to_lowercase()),
        ] {
            assert_forged(&settings(), "another token", &wrong);
        }
        // 64 bytes are 86 characters, of which the last holds 4 bits that are none; 32 are 43 with 2.
        let last = signature.chars().last().unwrap();
        for bits in
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars().filter(|bits| *bits != last)
        {
            let changed = format!("{message}.{}{bits}", &signature[..signature.len() - 1]);
            assert_forged(&settings(), "trailing bits", &changed);
        }
    }
}

#[test]
fn a_header_is_read_as_the_rfc_has_it_or_refused() {
    for header in [
        "",
        "{}",
        "[]",
        r#"["HS256"]"#,
        r#""HS256""#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256""#,
        r#"{"alg":"HS256"} x"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"Alg":"HS256"}"#,
        "\u{feff}{\"alg\":\"HS256\"}",
    ] {
        assert_forged(&settings(), header, &token_of(Algorithm::HS256, header, ZOE));
    }
    for header in [r#"{"alg":"HS256"}"#, " {\"kid\":\"any\",\r\n\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"x\":{}}"] {
        assert!(check(&settings(), &token_of(Algorithm::HS256, header, ZOE)).is_ok(), "{header}");
    }
}

#[test]
fn what_is_too_long_is_no_token() {
    let fill = |bytes| zoe_and(&format!(r#""x":"{}""#, "a".repeat(bytes)));
    assert!(check(&settings(), &token(Algorithm::HS256, &fill(5_000))).is_ok());
    for bytes in [8_000, 1024 * 1024] {
        assert_eq!(check(&settings(), &token(Algorithm::HS256, &fill(bytes))), Err(NOT_ONE.into()));
    }
}

#[test]
fn a_payload_that_is_no_set_of_claims_is_refused() {
    for payload in [
        "",
        "null",
        "[]",
        r#""zoe""#,
        "{",
        r#"{"sub":"zoe","exp":4102444800} {}"#,
        r#"{"sub":"zoe","sub":"eve","exp":4102444800}"#,
        r#"{"sub":"zoe","exp":1,"exp":4102444800}"#,
        r#"{"sub":"zoe","exp":4102444800,"aud":"a","aud":"b"}"#,
        r#"["iss","aud",4102444800,0,"zoe","zoe",{},[],"member"]"#,
    ] {
        assert_eq!(refused(payload), NOT_ONE, "{payload}");
    }
    assert_eq!(refused("{}"), "the token never expires: it has no `exp`");
}

#[test]
fn a_token_is_valid_from_nbf_to_exp_and_for_the_leeway_around() {
    let now = UNIX_EPOCH + Duration::from_secs(PAST);
    let rules = Rules { audiences: Vec::new(), issuers: Vec::new(), leeway: Duration::from_secs(60) };
    let until = |exp: &str, nbf: &str| {
        let json = format!(r#"{{"sub":"zoe","exp":{exp},"nbf":{nbf}}}"#);
        let identity = Claims::parse(json.as_bytes()).unwrap().identity(&rules, now);
        identity.map(|identity| identity.expires.unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs_f64())
    };
    let expired = || Err("the token has expired".into());
    let not_yet = || Err("the token is not valid yet".into());
    assert_eq!(until("1000000100", "null"), Ok(1_000_000_160.0));
    assert_eq!(until("999999941", "null"), Ok(1_000_000_001.0));
    assert_eq!(until("999999940.5", "null"), Ok(1_000_000_000.5));
    assert_eq!(until("1e9", "1e9"), Ok(1_000_000_060.0));
    assert_eq!(until("999999940", "null"), expired());
    for past in ["0", "-1", "-1e300", "-0.0", "1"] {
        assert_eq!(until(past, "null"), expired(), "{past}");
    }
    for never in ["253402300799", "253402300800", "18446744073709551615", "18446744073709551616", "1e300"] {
        assert_eq!(until(never, "null"), Ok(253_402_300_799.0), "{never}");
    }
    for begun in ["1000000060", "1000000000", "0", "-1", "-1e300"] {
        assert_eq!(until("1e10", begun), Ok(10_000_000_060.0), "{begun}");
    }
    for later in ["1000000061", "1000000060.5", "1e300"] {
        assert_eq!(until("1e10", later), not_yet(), "{later}");
    }
    for wrong in ["\"1000000100\"", "[]", "true", "1e999"] {
        assert_eq!(until(wrong, "0"), Err("the token's `exp` must be a number of seconds".into()));
        assert_eq!(until("1e10", wrong), Err("the token's `nbf` must be a number of seconds".into()));
    }
}

#[test]
fn a_token_is_for_one_of_the_halls_audiences_or_for_nobody_in_particular() {
    let here = JwtSettings { audiences: vec!["hall".into(), "chat".into()], ..settings() };
    let aud = |aud: &str| token(Algorithm::HS256, &zoe_and(&format!(r#""aud":{aud}"#)));
    for good in [r#""hall""#, r#"["hall"]"#, r#"["shop","chat"]"#] {
        assert!(check(&here, &aud(good)).is_ok(), "{good}");
        assert_eq!(check(&settings(), &aud(good)), Err(FOR_OTHERS.into()), "{good}");
    }
    for others in [r#""shop""#, "[]", r#"["shop"]"#, r#""hal""#, r#""HALL""#, r#""""#] {
        assert_eq!(check(&here, &aud(others)), Err(FOR_OTHERS.into()), "{others}");
    }
    assert_eq!(check(&here, &token(Algorithm::HS256, ZOE)), Err(FOR_OTHERS.into()));
    for wrong in ["7", "{}", "[7]", r#"["hall",null]"#, r#"[["hall"]]"#, "true"] {
        for settings in [&here, &settings()] {
            let words = check(settings, &aud(wrong)).expect_err(wrong);
            assert_eq!(words, "the token's `aud` must be a text, or a list of texts", "{wrong}");
        }
    }
}

#[test]
fn a_token_is_from_one_of_the_issuers_where_they_are_named() {
    let ours = JwtSettings { issuers: vec!["https://a".into(), "https://b".into()], ..settings() };
    let iss = |iss: &str| token(Algorithm::HS256, &zoe_and(&format!(r#""iss":"{iss}""#)));
    for (issuer, is_ours) in [("https://a", true), ("https://b", true), ("https://a/", false), ("", false)] {
        assert!(check(&settings(), &iss(issuer)).is_ok());
        let checked = check(&ours, &iss(issuer)).map(|_| ());
        assert_eq!(checked, is_ours.then_some(()).ok_or("the token is from another issuer".into()), "{issuer}");
    }
    assert!(check(&ours, &token(Algorithm::HS256, ZOE)).is_err());
    assert_eq!(refused(&zoe_and(r#""iss":["https://a"]"#)), "the token's `iss` must be a text");
}

#[test]
fn a_token_says_who_comes_in_and_what_they_may_do() {
    let identity = admitted(&zoe_and(
        r#""name":" Zoë: the\n first ","info":{"avatar":"a.png"},"rooms":["lobby","team-*"],"role":"reader""#,
    ));
    assert_eq!(identity.user.name.as_str(), "Zoë the first");
    let user = serde_json::to_string(&identity.user).unwrap();
    assert_eq!(user, r#"{"id":"zoe","name":"Zoë the first","info":{"avatar":"a.png"}}"#);
    assert!(identity.rights.mute);
    for (room, may) in [("lobby", true), ("team-a", true), ("ops", false)] {
        assert_eq!(identity.rights.admit(&RoomName::parse(room).unwrap()), may, "{room}");
    }
    for role in [r#""member""#, r#""admin""#, r#""Reader""#, "null"] {
        assert!(!admitted(&zoe_and(&format!(r#""role":{role}"#))).rights.mute, "{role}");
    }
    assert!(!admitted(&zoe_and(r#""rooms":[]"#)).rights.admit(&RoomName::lobby()));
    for nameless in [r#""name":"""#, r#""name":":""#, r#""name":null"#] {
        assert_eq!(admitted(&zoe_and(nameless)).user.name.as_str(), "zoe", "{nameless}");
    }
}

#[test]
fn a_claim_of_a_wrong_shape_refuses_the_token_in_words() {
    let long = format!(r#""info":{{"x":"{}"}}"#, "a".repeat(1100));
    for (claims, words) in [
        (r#""name":7"#, "the token's `name` must be a text"),
        (r#""role":["reader"]"#, "the token's `role` must be a text"),
        (r#""rooms":"lobby""#, "the token's `rooms` must be a list of texts"),
        (r#""rooms":null"#, "the token's `rooms` must be a list of texts"),
        (r#""rooms":[7]"#, "the token's `rooms` must be a list of texts"),
        (r#""rooms":["The Lobby"]"#, "`rooms` are"),
        (r#""info":"x""#, "`info`"),
        (r#""info":[]"#, "`info`"),
        (&long, "`info`"),
    ] {
        assert!(refused(&zoe_and(claims)).contains(words), "{claims}: {}", refused(&zoe_and(claims)));
    }
    for (sub, words) in [
        ("null", "it has no `sub`"),
        ("7", "the token's `sub` must be a text"),
        (r#""""#, "cannot be anybody's id"),
        (r#""guest-0123456789abcdef01234567""#, "cannot be anybody's id"),
        (r#""a\nb""#, "cannot be anybody's id"),
        (r#"":::""#, "nobody can be called"),
    ] {
        let claims = ZOE.replace(r#""zoe""#, sub);
        assert!(refused(&claims).contains(words), "{sub}: {}", refused(&claims));
    }
}

#[test]
fn what_has_the_shape_of_a_signed_token_is_nobodys_ticket() {
    for algorithm in ALL {
        assert!(looks_like_one(&token(algorithm, ZOE)));
    }
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    assert!(looks_like_one(&format!("{none}.e30.")));
    let no_alg = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT"}"#);
    let list = URL_SAFE_NO_PAD.encode(r#"["HS256"]"#);
    for ticket in [
        String::new(),
        "..".into(),
        "a.b.c".into(),
        "5f0b6c6e8c2c4a53a3a50123456789ab".into(),
        format!("{none}.e30"),
        format!("{none}.e30.a.b"),
        format!("{none}.e+0.aa"),
        format!("{none}.e30.a="),
        format!("{no_alg}.e30.aa"),
        format!("{list}.e30.aa"),
    ] {
        assert!(!looks_like_one(&ticket), "{ticket}");
    }
}

#[test]
fn a_token_without_a_name_of_its_key_tries_a_bounded_number_of_keys() {
    let mut keys = vec![Key::all_in_pem(P_256_PEM.as_bytes()).unwrap().remove(0); MAX_TRIES];
    keys[..MAX_TRIES - 1].fill(Key::in_jwk(issuer::ANOTHER_P_256_JWK).unwrap());
    let good = token(Algorithm::ES256, ZOE);
    let good = Signed::parse(&good).unwrap();
    assert!(good.is_signed_by_one_of(&keys));
    keys.insert(0, keys[0].clone());
    assert!(!good.is_signed_by_one_of(&keys));
}

#[test]
fn words_for_clients_show_no_token() {
    for claims in [zoe_and(r#""aud":"their-secret""#), zoe_and(r#""iss":7"#), "{\"their-secret\":1}".into()] {
        assert!(!refused(&claims).contains("their-secret"));
    }
    let mut debug = String::new();
    write!(debug, "{:?}", settings()).unwrap();
    assert!(!debug.contains(SECRET), "{debug}");
}

/// Published keys, as a client sees them: the rest is told by the tests of `jwks`.
#[tokio::test]
async fn a_token_of_a_published_key_lets_in_and_without_keys_nobody_can_tell() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let soon = Duration::from_millis(1);
    let rhythm = Rhythm { gap: soon, first_backoff: soon, last_backoff: soon, ..Rhythm::default() };
    let jwt = Jwt::with_rhythm(&JwtSettings { jwks: Some(url), ..settings_without_keys() }, rhythm).unwrap();
    let of = |algorithm, kid: &str| token_of(algorithm, &format!(r#"{{"alg":"{algorithm:?}","kid":"{kid}"}}"#), ZOE);
    let by_a = of(Algorithm::RS256, "a");
    let unheard = async { drop(listener.accept().await.unwrap()) };
    let (checked, ()) = tokio::join!(jwt.check(&by_a), unheard);
    assert!(matches!(checked, Err(NotAdmitted::Unavailable(_))), "{checked:?}");

    let answering = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let keys = format!(r#"{{"keys":[{}]}}"#, rsa_jwk("a"));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", keys.len());
            tokio::io::AsyncWriteExt::write_all(&mut stream, format!("{head}{keys}").as_bytes()).await.unwrap();
            // Read until the other side is done, so that no reset swallows the answer.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    };
    let checks = async {
        while jwt.check(&by_a).await.is_err() {}
        assert!(jwt.check(&of(Algorithm::RS256, "a")).now_or_never().unwrap().is_ok());
        for forged in [format!("{}AAAA", &by_a[..by_a.len() - 4]), of(Algorithm::HS256, "a"), of(Algorithm::ES256, "a")]
        {
            let refused = jwt.check(&forged).now_or_never().expect("a key that is known needs no waiting");
            assert_eq!(refused, Err(NotAdmitted::unauthorized(BY_NOBODY)));
        }
        for unknown in [of(Algorithm::RS256, "b"), token(Algorithm::ES256, ZOE)] {
            assert_eq!(jwt.check(&unknown).await, Err(NotAdmitted::unauthorized(BY_NOBODY)));
        }
    };
    tokio::select! { () = answering => unreachable!(), () = checks => {} }
}

fn settings_without_keys() -> JwtSettings {
    JwtSettings { secret: None, key: None, ..settings() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_is_more_than_refused(token in "\\PC*") {
        prop_assert!(check(&settings(), &token).is_err());
        looks_like_one(&token);
    }

    /// Signed, so that what follows the signature is reached.
    #[test]
    fn no_header_and_payload_break_anything(
        header in prop::collection::vec(any::<u8>(), 0..80),
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "\\{\"sub\":\"[a-z:~]{0,4}\",\"exp\":-?[0-9]{1,30}(e[0-9]{1,3})?,\"(aud|nbf|rooms|info)\":[\\[\\]{}0-9\"a]{1,9}\\}"
                .prop_map(String::into_bytes),
        ],
    ) {
        let parts = |header: &[u8]| format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&payload));
        for message in [parts(&header), parts(br#"{"alg":"HS256"}"#)] {
            let token = format!("{message}.{}", signature(Algorithm::HS256, &message));
            let _ = check(&settings(), &token);
        }
    }
}
