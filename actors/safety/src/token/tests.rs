use ed25519_dalek::Signer as _;
use jsonwebtoken::DecodingKey;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_795_348_800;

struct Rig {
    ours: KeyFile,
    session: KeyFile,
    tokens: Tokens,
}

fn rig() -> Rig {
    let (ours, session) = (KeyFile::random(KeyPurpose::Approval), KeyFile::random(KeyPurpose::Session));
    let tokens = Tokens::new(&ours, std::slice::from_ref(&session), "instance").unwrap();
    Rig { ours, session, tokens }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(second * 1000)
}

fn grant() -> Grant {
    Grant {
        approval: ApprovalId::given("apr_1"),
        last: "bob".to_owned(),
        approvers: vec!["bob".to_owned()],
        requester: "user:ada".to_owned(),
        digest: PlanDigest::of(b"plan"),
        tier: "disruptive".to_owned(),
        policy: "sha256:0".to_owned(),
        epoch: "0123456789abcdef".to_owned(),
        issued_at: at(NOW),
        expires_at: at(NOW + 900),
    }
}

impl Rig {
    fn good(&self) -> String {
        self.tokens.mint(&grant()).unwrap().token
    }

    fn claims(&self) -> Value {
        let part = self.good().split('.').nth(1).unwrap().to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    fn header(&self) -> Value {
        json!({ "alg": "EdDSA", "typ": TYPE, "kid": self.tokens.kid() })
    }

    /// A token with this header and these claims, signed with our key, as text so that anything can stand there.
    fn forged(&self, header: &str, claims: &str) -> String {
        signed(&self.ours, header, claims)
    }

    fn with(&self, change: impl FnOnce(&mut Value)) -> Result<(), Bad> {
        let mut claims = self.claims();
        change(&mut claims);
        self.check(&self.forged(&self.header().to_string(), &claims.to_string()))
    }

    fn check(&self, token: &str) -> Result<(), Bad> {
        self.tokens.check(token, at(NOW)).map(|_| ())
    }
}

fn signed(key: &KeyFile, header: &str, claims: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let seal = key.signing().sign(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(seal.to_bytes()))
}

#[test]
fn a_token_says_what_was_granted_and_nothing_more() {
    let rig = rig();
    let minted = rig.tokens.mint(&grant()).unwrap();
    let checked = rig.tokens.check(&minted.token, at(NOW)).unwrap();
    assert_eq!((checked.approval(), checked.digest, checked.hash), (ApprovalId::given("apr_1"), PlanDigest::of(b"plan"), minted.hash));
    assert_eq!((checked.claims.jti.as_str(), checked.claims.jti.len()), (minted.jti.as_str(), 32));
    assert_eq!(rig.with(|_| {}), Ok(()));
    // a library that knows nothing of ours takes it as well
    let mut rules = jsonwebtoken::Validation::new(Algorithm::EdDSA);
    rules.set_audience(&["opspilot-exec/instance"]);
    rules.validate_exp = false;
    let decoded = jsonwebtoken::decode::<Claims>(&minted.token, &DecodingKey::from_ed_der(&rig.ours.public()), &rules).unwrap();
    assert_eq!(decoded.claims, checked.claims);
}

#[test]
fn t1_no_algorithm_but_the_keys_own_is_taken() {
    let rig = rig();
    let claims = rig.claims().to_string();
    let kid = rig.tokens.kid();
    for alg in ["none", "None", "nOnE", "", "HS256", "ES256", "RS256", "PS256", "eddsa", "EdDSA ", "Ed25519", "HS512"] {
        let header = json!({ "alg": alg, "typ": TYPE, "kid": kid }).to_string();
        assert_eq!(rig.check(&rig.forged(&header, &claims)), Err(Bad::Algorithm), "{alg}");
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(&claims));
        assert_eq!(rig.check(&unsigned), Err(Bad::Algorithm), "{alg} without a signature");
    }
    // HS256 with the public key as the secret
    let mut header = Header::new(Algorithm::HS256);
    (header.typ, header.kid) = (Some(TYPE.to_owned()), Some(kid.to_owned()));
    for secret in [rig.ours.public().to_vec(), hex::encode(rig.ours.public()).into_bytes()] {
        let token = jsonwebtoken::encode(&header, &rig.claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(rig.check(&token), Err(Bad::Algorithm));
    }
    // an empty, a short, a long signature; parts too few and too many (JWE has five)
    let good = rig.good();
    let (body, seal) = good.rsplit_once('.').unwrap();
    for (token, bad) in [
        (format!("{body}."), Bad::Signature),
        (format!("{body}.{}", &seal[..40]), Bad::Signature),
        (format!("{body}.{seal}AAAA"), Bad::Signature),
        (body.to_owned(), Bad::Form),
        (format!("{good}.x.y"), Bad::Form),
        (format!("{good}."), Bad::Form),
        (String::new(), Bad::Form),
        ("..".to_owned(), Bad::Header),
    ] {
        assert_eq!(rig.check(&token), Err(bad), "{token}");
    }
    for extra in ["crit", "b64", "zip", "cty", "x"] {
        let mut header = rig.header();
        header[extra] = if extra == "b64" { json!(false) } else { json!(["x"]) };
        assert_eq!(rig.check(&rig.forged(&header.to_string(), &claims)), Err(Bad::Header), "{extra}");
    }
}

#[test]
fn t2_the_name_of_a_key_is_looked_up_and_never_followed() {
    let rig = rig();
    let claims = rig.claims().to_string();
    let long = "a".repeat(10 << 10);
    for kid in ["../../dev/null", "' OR 1=1 --", "https://evil.example/key", long.as_str(), "", "0123456789ABCDEF", "0123456789abcde"] {
        let header = json!({ "alg": "EdDSA", "typ": TYPE, "kid": kid }).to_string();
        let outcome = rig.check(&rig.forged(&header, &claims));
        assert!(matches!(outcome, Err(Bad::Kid | Bad::Length)), "{outcome:?}");
    }
    let unknown = json!({ "alg": "EdDSA", "typ": TYPE, "kid": "0123456789abcdef" }).to_string();
    assert_eq!(rig.check(&rig.forged(&unknown, &claims)), Err(Bad::UnknownKey));
    for extra in ["jku", "x5u", "jwk", "x5c"] {
        let mut header = rig.header();
        header[extra] = json!("https://evil.example/");
        assert_eq!(rig.check(&rig.forged(&header.to_string(), &claims)), Err(Bad::Header), "{extra}");
    }
    // another purpose's key, rightly named; another key under our name
    let header = json!({ "alg": "EdDSA", "typ": TYPE, "kid": rig.session.kid() }).to_string();
    assert_eq!(rig.check(&signed(&rig.session, &header, &claims)), Err(Bad::KeyPurpose));
    assert_eq!(rig.check(&signed(&rig.session, &rig.header().to_string(), &claims)), Err(Bad::Signature));
}

#[test]
fn t3_every_claim_is_there_once_of_its_type_and_in_range() {
    let rig = rig();
    for name in rig.claims().as_object().unwrap().keys() {
        assert_eq!(rig.with(|claims| drop(claims.as_object_mut().unwrap().remove(name))), Err(Bad::Claims), "{name} is missing");
        assert_eq!(rig.with(|claims| claims[name] = Value::Null), Err(Bad::Claims), "{name} is null");
        assert_eq!(rig.with(|claims| claims[name] = json!({})), Err(Bad::Claims), "{name} is an object");
        // twice: whoever reads the first and whoever reads the last would not agree
        let text = rig.claims().to_string().replacen('{', &format!("{{\"{name}\":{},", rig.claims()[name]), 1);
        assert_eq!(rig.check(&rig.forged(&rig.header().to_string(), &text)), Err(Bad::Claims), "{name} stands there twice");
    }
    for name in ["exp", "iat", "nbf"] {
        for value in [json!(NOW.to_string()), json!(1_795_348_800.5), json!([NOW]), json!(true)] {
            assert_eq!(rig.with(|claims| claims[name] = value.clone()), Err(Bad::Claims), "{name} = {value}");
        }
        let text = rig.claims().to_string().replacen(&format!("\"{name}\":{}", rig.claims()[name]), &format!("\"{name}\":1e400"), 1);
        assert_eq!(rig.check(&rig.forged(&rig.header().to_string(), &text)), Err(Bad::Claims), "{name} = 1e400");
    }
    assert_eq!(rig.with(|claims| claims["more"] = json!(1)), Err(Bad::Claims));
    assert_eq!(rig.with(|claims| claims["iss"] = json!("urn:opspilot:other")), Err(Bad::Issuer));
    assert_eq!(rig.with(|claims| claims["aud"] = json!("opspilot-session")), Err(Bad::Audience));
    assert_eq!(rig.with(|claims| claims["aud"] = json!(["opspilot-exec/instance"])), Err(Bad::Claims));
    assert_eq!(rig.with(|claims| claims["rev"] = json!(2)), Err(Bad::Revision));
    assert_eq!(rig.with(|claims| claims["exe"] = json!("bob")), Err(Bad::Executor));
    assert_eq!(rig.with(|claims| claims["dig"] = json!("AAAA")), Err(Bad::Claims));
    assert_eq!(rig.with(|claims| claims["exp"] = json!(NOW + 901)), Err(Bad::Lifetime));
    assert_eq!(rig.with(|claims| claims["exp"] = json!(i64::MAX)), Err(Bad::Lifetime));
    assert_eq!(rig.with(|claims| claims["iat"] = json!(i64::MIN)), Err(Bad::Lifetime));
    let times = |iat: i64, nbf: i64, exp: i64| {
        rig.with(|claims| (claims["iat"], claims["nbf"], claims["exp"]) = (json!(iat), json!(nbf), json!(exp)))
    };
    assert_eq!(times(NOW + 2, NOW + 2, NOW + 900), Ok(()), "two seconds ahead are nothing");
    assert_eq!(times(NOW + 3, NOW + 3, NOW + 900), Err(Bad::IssuedAhead));
    assert_eq!(times(NOW, NOW + 60, NOW + 900), Err(Bad::NotYet));
    assert_eq!(times(NOW - 900, NOW - 900, NOW), Err(Bad::Expired), "to the second");
    assert_eq!(times(NOW - 899, NOW - 899, NOW + 1), Ok(()));
    let header = json!({ "alg": "EdDSA", "typ": "opspilot-session+jwt", "kid": rig.tokens.kid() }).to_string();
    assert_eq!(rig.check(&rig.forged(&header, &rig.claims().to_string())), Err(Bad::Type));
}

#[test]
fn t3_each_reason_has_a_code_of_its_own() {
    use Bad::*;
    let all = [
        Length,
        Form,
        Header,
        Algorithm,
        Kid,
        UnknownKey,
        KeyPurpose,
        Signature,
        Claims,
        Type,
        Issuer,
        Audience,
        Lifetime,
        IssuedAhead,
        NotYet,
        Expired,
        Revision,
        Executor,
    ];
    let codes: std::collections::BTreeSet<&str> = all.iter().map(|bad| bad.code()).collect();
    assert_eq!(codes.len(), all.len());
    assert_eq!(all.iter().filter(|bad| bad.refusal() == Refusal::TokenExpired).count(), 1, "a caller is told no more than needed");
}

#[test]
fn t4_every_flipped_bit_is_noticed() {
    let rig = rig();
    let good = rig.good();
    let (mut tried, mut taken) = (0, 0);
    for index in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone().into_bytes();
            bytes[index] ^= 1 << bit;
            let Ok(token) = String::from_utf8(bytes) else { continue };
            tried += 1;
            taken += usize::from(rig.check(&token).is_ok());
        }
        let mut shorter = good.clone();
        shorter.remove(index);
        tried += 1;
        taken += usize::from(rig.check(&shorter).is_ok());
    }
    println!("T4: {tried} changes, {taken} taken");
    assert_eq!(taken, 0);
    // the last letter has bits to spare: only one spelling is taken
    let mut spellings = 0;
    for last in (b'0'..=b'z').filter(|byte| byte.is_ascii_alphanumeric()).map(char::from).chain(['-', '_']) {
        spellings += usize::from(rig.check(&format!("{}{last}", &good[..good.len() - 1])).is_ok());
    }
    assert_eq!(spellings, 1);
    for odd in [format!("{good}="), format!("{good}\n"), format!(" {good}"), good.replace('.', "..")] {
        assert!(rig.check(&odd).is_err(), "{odd:?}");
    }
    assert_eq!(rig.check(&"a".repeat(MAX_TOKEN + 1)), Err(Bad::Length));
}

/// Printed, not asserted: how long it takes to refuse a token whose digest differs early or late.
#[test]
fn t17_a_wrong_digest_takes_as_long_wherever_it_differs() {
    use subtle::ConstantTimeEq as _;
    let clock = opspilot_kernel::clock::SystemClock::shared();
    let stored = hash_of("the right one");
    let mut wrong = [stored, stored];
    wrong[0][0] ^= 1;
    wrong[1][31] ^= 1;
    const SAMPLES: u32 = 100_000;
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..SAMPLES / 100 {
        for (kind, hash) in wrong.iter().enumerate() {
            let began = clock.elapsed();
            for _ in 0..100 {
                std::hint::black_box(bool::from(std::hint::black_box(&stored[..]).ct_eq(std::hint::black_box(&hash[..]))));
            }
            taken[kind].push((clock.elapsed() - began).as_secs_f64() * 1e9 / 100.0);
        }
    }
    let stats = |all: &[f64]| {
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        (mean, all.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (all.len() - 1) as f64)
    };
    let ((early, of_early), (late, of_late)) = (stats(&taken[0]), stats(&taken[1]));
    let t = (early - late) / ((of_early + of_late) / taken[0].len() as f64).sqrt();
    println!("T17: {SAMPLES} comparisons each; differs in the first byte {early:.1} ns, in the last {late:.1} ns, t = {t:.2}");
}
