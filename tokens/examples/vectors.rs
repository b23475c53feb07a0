//! Makes `docs/token-format-vectors.json` anew, with a key that nobody keeps:
//! `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 | cargo run -p tokens --example vectors`.

#![expect(clippy::unwrap_used, reason = "it is run by hand, and stops where something is wrong")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use merkle::{Digest, Tree, leaf_hash};
use rsa::pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, PrivateKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokens::{Batch, Token};

const ISSUER: &str = "https://auth.coditect.ai";
const KID: &str = "vectors";
const SIGNED_AT: u64 = 1_790_000_000;

fn payload(batch: usize, index: usize) -> Vec<u8> {
    let claims = json!({
        "iss": ISSUER, "aud": "coditect", "sub": format!("user-{index}"), "jti": format!("{batch}-{index}"),
        "user_id": format!("user-{index}"), "tenant_id": "01999999-0000-7000-8000-000000000001",
        "license_id": "01999999-0000-7000-8000-000000000002", "session_id": format!("session-{index}"),
        "hardware_id": "machine-0001", "plan": "team", "product": "coditect", "features": ["agents", "ü"],
        "iat": SIGNED_AT - 1, "nbf": SIGNED_AT - 1, "exp": SIGNED_AT + 86_400,
    });
    serde_json::to_vec(&claims).unwrap()
}

fn sign(key: &PrivateKey, message: &[u8]) -> Vec<u8> {
    key.sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn batch(key: &PrivateKey, number: usize, size: usize) -> (Vec<String>, Value) {
    let payloads: Vec<_> = (0..size).map(|index| payload(number, index)).collect();
    let root = Tree::new(payloads.iter().map(|one| leaf_hash(one)).collect()).root();
    let batch = Batch::new(ISSUER, KID, SIGNED_AT, payloads.clone()).unwrap();
    let statement = batch.statement().to_vec();
    let tokens = batch.tokens(&sign(key, &statement)).unwrap();
    let payloads: Vec<_> = payloads.into_iter().map(|one| String::from_utf8(one).unwrap()).collect();
    let vector = json!({
        "size": size, "signed_at": SIGNED_AT, "root": root.to_string(), "statement": hex(&statement),
        "payloads": payloads, "tokens": tokens,
    });
    (tokens, vector)
}

/// A token of a batch with something changed.
fn changed(text: &str, change: impl FnOnce(&mut Token)) -> String {
    let mut token: Token = text.parse().unwrap();
    change(&mut token);
    token.to_string()
}

fn bad(key: &PrivateKey, seven: &[String], four: &[String]) -> Vec<Value> {
    let (first, other): (Token, Token) = (seven[0].parse().unwrap(), four[0].parse().unwrap());
    let parts: Vec<&str> = seven[0].split('.').collect();
    let jwt_input = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#), parts[1]);
    let bare_root = sign(key, &first.path[0].0);
    let mut foreign = seven[1].parse::<Token>().unwrap();
    foreign.path.clone_from(&first.path);
    let cases = [
        ("the payload of its neighbour", changed(&seven[0], |it| it.payload = payload(7, 1))),
        ("another claim", changed(&seven[0], |it| it.payload.push(b' '))),
        ("the place of its neighbour", changed(&seven[0], |it| it.index = 1)),
        ("the path of its neighbour", foreign.to_string()),
        ("a path with two hashes swapped", changed(&seven[0], |it| it.path.swap(0, 1))),
        ("a hash too few", changed(&seven[0], |it| it.path.truncate(2))),
        ("a hash too many", changed(&seven[0], |it| it.path.push(Digest([0; 32])))),
        ("the path of another tree", changed(&seven[0], |it| it.path[..2].copy_from_slice(&other.path))),
        ("the signature of another tree", changed(&seven[0], |it| it.signature = other.signature)),
        ("another size", changed(&seven[0], |it| it.size = 8)),
        ("a size of nothing", changed(&seven[0], |it| it.size = 0)),
        ("another time", changed(&seven[0], |it| it.signed_at += 1)),
        ("another key's name", changed(&seven[0], |it| it.kid = "vector5".to_owned())),
        ("a bit of the signature", changed(&seven[0], |it| it.signature[511] ^= 1)),
        (
            "a node as a leaf",
            changed(&seven[0], |it| {
                let mut node = vec![1];
                node.extend_from_slice(&leaf_hash(&it.payload).0);
                node.extend_from_slice(&it.path[0].0);
                (it.payload, it.size, it.index) = (node, 4, 0);
                it.path.remove(0);
            }),
        ),
        (
            "a JWT's signature",
            changed(&four[0], |it| it.signature = sign(key, jwt_input.as_bytes()).try_into().unwrap()),
        ),
        ("a bare hash's signature", changed(&four[0], |it| it.signature = bare_root.try_into().unwrap())),
        ("cut", seven[0][..seven[0].len() - 4].to_owned()),
        ("no signature", format!("{}.{}.{}.", parts[0], parts[1], parts[2])),
        ("padding", format!("{}==", seven[0])),
        ("one part more", format!("{}.AA", seven[0])),
        ("another version", seven[0].replacen("clb1", "clb2", 1)),
        ("no version", seven[0].replacen("clb1", "clb", 1)),
        ("white space", format!("{} ", seven[0])),
        ("nothing", String::new()),
    ];
    cases.into_iter().map(|(why, token)| json!({ "why": why, "token": token })).collect()
}

fn main() {
    let key = PrivateKey::from_pkcs8_pem(&std::io::read_to_string(std::io::stdin()).unwrap()).unwrap();
    let public = key.to_public_key();
    let number = |bytes: Box<[u8]>| {
        URL_SAFE_NO_PAD.encode(bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>())
    };
    let (mut batches, mut tokens) = (Vec::new(), Vec::new());
    for size in [1, 2, 3, 4, 7] {
        let (made, vector) = batch(&key, size, size);
        batches.push(vector);
        tokens.push(made);
    }
    let vectors = json!({
        "issuer": ISSUER, "kid": KID,
        "public_key": public.to_public_key_pem(LineEnding::LF).unwrap(),
        "jwk": { "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KID,
                 "n": number(public.n_bytes()), "e": number(public.e_bytes()) },
        "good": batches, "bad": bad(&key, &tokens[4], &tokens[3]),
    });
    println!("{}", serde_json::to_string_pretty(&vectors).unwrap());
}
