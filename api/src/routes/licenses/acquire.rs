//! The life of an acquire at the edge: who asks, what it may have, sign beside the append, answer.

use std::pin::pin;

use actors::{AcquireSeat, Answer, Grant, Preview, Reason, Request};
use events::{HardwareId, IdempotencyKey, LicenseId, MachineName, Product, Standing, TenantId};
use futures_util::future::{Either, select};
use poem::http::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::{AcquireBody, Acquired, SeatCount, ended, request, seconds, tenant_of, within};
use crate::app::App;
use crate::auth::{Caller, Credentials, REMOVED, ensure_member};
use crate::body::Body;
use crate::problem::Problem;
use crate::signing::{LicenseClaims, SignedToken, SigningError};

/// The product of an acquire that names none.
const DEFAULT_PRODUCT: &str = "coditect";

/// Longest Idempotency-Key, in characters.
const MAX_KEY: usize = 128;

/// How often an acquire starts over: its user was just added or its key just taken.
const MAX_ROUNDS: u32 = 3;

/// What was signed beside the append, and for which session.
type Early = Option<(events::SessionId, Result<SignedToken, SigningError>)>;

/// Everything about an acquire that has been checked.
#[derive(Clone)]
struct Checked {
    tenant_id: TenantId,
    license_id: LicenseId,
    product: Product,
    caller: Caller,
    seat: AcquireSeat,
    request: Request,
}

pub(super) async fn acquire(
    app: &App,
    credentials: &Credentials,
    request_id: &str,
    keys: &[HeaderValue],
    body: &Body<AcquireBody>,
) -> Result<Acquired, Problem> {
    let caller = app.authenticator.verify(credentials.token(body.peek("jwt_token"))).await?;
    let request = request(request_id);
    let checked = within(&request, check(app, caller, request.clone(), keys, body)).await?;
    // In a task of its own: a client that hangs up must not leave a grant that nobody takes back.
    let app = app.clone();
    let span = tracing::Span::current();
    // Boxed, for tokio moves what it runs several times.
    let work = Box::pin(async move { decide(&app, checked).await });
    tokio::spawn(tracing::Instrument::instrument(work, span)).await.map_err(|_| Problem::Internal)?
}

/// In the contract's order: 404, then 403, then the body.
async fn check(
    app: &App,
    caller: Caller,
    request: Request,
    keys: &[HeaderValue],
    body: &Body<AcquireBody>,
) -> Result<Checked, Problem> {
    let tenant_id = tenant_of(app, &caller).await?;
    let product = Product::new(body.peek("product").unwrap_or(DEFAULT_PRODUCT)).ok();
    let license_id = match &product {
        Some(product) => Some(app.license_of(tenant_id, product).await?.ok_or(Problem::LicenseNotFound)?),
        None => None,
    };
    if body.peek("user_id").is_some_and(|user_id| user_id != caller.user_id.as_str()) {
        return Err(Problem::UserMismatch);
    }
    let seat = match parse(&caller, body, keys) {
        Ok(seat) => seat,
        Err(malformed) => {
            let refused = refused_anyway(app, tenant_id, license_id, &caller).await?;
            return Err(refused.unwrap_or(malformed));
        }
    };
    // A product that is no product was refused with the body.
    let (Some(license_id), Some(product)) = (license_id, product) else {
        return Err(Problem::LicenseNotFound);
    };
    tracing::Span::current().record("license_id", tracing::field::display(license_id));
    Ok(Checked { tenant_id, license_id, product, caller, seat, request })
}

/// Why an acquire would be refused whatever its body said. A well-formed one is judged by its pool instead.
async fn refused_anyway(
    app: &App,
    tenant_id: TenantId,
    license_id: Option<LicenseId>,
    caller: &Caller,
) -> Result<Option<Problem>, Problem> {
    if app.log().find_member(tenant_id, &caller.user_id).await?.is_some_and(|member| member.removed) {
        return Ok(Some(REMOVED));
    }
    let stream_id = license_id.map_or(tenant_id.0, |license_id| license_id.0);
    let standing = app.log().stream_head(stream_id).await?.map(|head| head.standing);
    Ok(standing.filter(|standing| *standing != Standing::Ok).map(Problem::NotAccepted))
}

fn parse(caller: &Caller, body: &Body<AcquireBody>, keys: &[HeaderValue]) -> Result<AcquireSeat, Problem> {
    let fields = body.parse()?;
    if let Some(product) = &fields.product {
        Product::new(product).map_err(Problem::value("product"))?;
    }
    let hardware_id = HardwareId::new(&fields.hardware_id).map_err(Problem::value("hardware_id"))?;
    let machine_name =
        fields.machine_name.map(MachineName::new).transpose().map_err(Problem::value("machine_name"))?;
    let key = match keys {
        [] => None,
        [key] => Some(idempotency_key(key, body)?),
        _ => return Err(Problem::field("Idempotency-Key", "must be sent once")),
    };
    Ok(AcquireSeat { user_id: caller.user_id.clone(), hardware_id, machine_name, key, renews: None })
}

fn idempotency_key(key: &HeaderValue, body: &Body<AcquireBody>) -> Result<IdempotencyKey, Problem> {
    let key = key.as_bytes();
    if !(1..=MAX_KEY).contains(&key.len()) || !key.iter().all(|b| (0x20..0x7f).contains(b)) {
        return Err(Problem::field("Idempotency-Key", "must be 1 to 128 printable ASCII characters"));
    }
    let key = String::from_utf8_lossy(key).into_owned();
    let fields = serde_json::to_vec(&body.fields_without("jwt_token")).map_err(|_| Problem::Internal)?;
    Ok(IdempotencyKey { key, request_hash: Sha256::digest(fields).to_vec() })
}

/// A known key leads to its session; otherwise the pool decides.
async fn decide(app: &App, mut asked: Checked) -> Result<Acquired, Problem> {
    let request_id = asked.request.request_id.clone().unwrap_or_default();
    for _ in 0..MAX_ROUNDS {
        within(&asked.request, ensure_member(&app.members, asked.tenant_id, &asked.caller, &request_id))
            .await?;
        if let Some(known) = by_key(app, &asked).await? {
            return known;
        }
        let (answer, signed) = ask_pool(app, &asked).await?;
        match answer {
            Answer::Granted(grant) => return answer_grant(app, &asked, grant, signed, "granted").await,
            Answer::Renewed(grant) => {
                if let Some(conflict) = key_of_another(app, &asked, &grant).await? {
                    return Err(conflict);
                }
                return answer_grant(app, &asked, grant, signed, "renewed").await;
            }
            Answer::Denied { reason: Reason::NoSeatsAvailable, used, total } => {
                return Err(Problem::NoSeatsAvailable { used, total });
            }
            // Another replica may have seen the product move to another license. The refusal stays in the log.
            Answer::Denied { reason: Reason::Standing(standing), .. } => {
                app.forget_license(asked.tenant_id, &asked.product).await;
                let look = async { Ok(app.license_of(asked.tenant_id, &asked.product).await?) };
                match within(&asked.request, look).await? {
                    Some(license_id) if license_id != asked.license_id => asked.license_id = license_id,
                    _ => return Err(Problem::NotAccepted(standing)),
                }
            }
            // Removed or unknown: the next round adds it, or says why not.
            Answer::UserRemoved | Answer::UserUnknown => {
                app.members.forget(asked.tenant_id, &asked.caller.user_id).await
            }
            // Somebody else stored the key a moment ago: the next round finds its session.
            Answer::KeyTaken => {}
            _ => return Err(Problem::Internal),
        }
    }
    Err(Problem::Unavailable { why: "Too much happens at the same time. Try again." })
}

/// What an Idempotency-Key that is known already leads to.
async fn by_key(app: &App, asked: &Checked) -> Result<Option<Result<Acquired, Problem>>, Problem> {
    let Some(key) = &asked.seat.key else { return Ok(None) };
    let look = async {
        let known = app.log().find_key(asked.tenant_id, &asked.caller.user_id, &key.key).await?;
        let end = match &known {
            Some(known) => app.log().session_end(known.session_id).await?,
            None => None,
        };
        Ok(known.map(|known| (known, end)))
    };
    let Some((known, end)) = within(&asked.request, look).await? else { return Ok(None) };
    if known.request_hash != key.request_hash {
        let why = "The Idempotency-Key was used with another body.".to_owned();
        return Ok(Some(Err(Problem::Conflict { why })));
    }
    if let Some(end) = end {
        return Ok(Some(Err(Problem::SessionEnded(end))));
    }
    let mut keyless = Checked { license_id: known.license_id, ..asked.clone() };
    keyless.seat.key = None;
    keyless.seat.renews = Some(known.session_id);
    renew_known(app, &keyless, known.session_id).await.map(Some)
}

/// A renewal stores its key, unless another session got it at the same instant: then the two requests differ.
async fn key_of_another(app: &App, asked: &Checked, grant: &Grant) -> Result<Option<Problem>, Problem> {
    let Some(key) = &asked.seat.key else { return Ok(None) };
    let find = async { Ok(app.log().find_key(asked.tenant_id, &asked.caller.user_id, &key.key).await?) };
    let known = within(&asked.request, find).await?;
    let why = "The Idempotency-Key was used with another body.".to_owned();
    Ok(known.filter(|known| known.session_id != grant.session_id).map(|_| Problem::Conflict { why }))
}

/// Renews the session of a known key. Should it end meanwhile, the answer is that it has, never a new grant.
async fn renew_known(
    app: &App,
    keyless: &Checked,
    session_id: events::SessionId,
) -> Result<Result<Acquired, Problem>, Problem> {
    let (answer, signed) = ask_pool(app, keyless).await?;
    Ok(match answer {
        Answer::Renewed(grant) if grant.session_id == session_id => {
            answer_grant(app, keyless, grant, signed, "renewed").await
        }
        Answer::NotHeld { end: Some(end) } => Err(Problem::SessionEnded(end)),
        Answer::Denied { reason: Reason::Standing(standing), .. } => Err(Problem::NotAccepted(standing)),
        Answer::UserRemoved => Err(REMOVED),
        _ => Err(ended(app.log().session_end(session_id).await?)),
    })
}

/// Asks the pool, and signs what it is about to answer while the append is under way.
async fn ask_pool(app: &App, asked: &Checked) -> Result<(Answer, Early), Problem> {
    let (preview, previewed) = oneshot::channel::<Preview>();
    let sign_early = async {
        let preview = previewed.await.ok()?;
        let grant = Grant {
            session_id: preview.session_id,
            user_id: asked.seat.user_id.clone(),
            hardware_id: asked.seat.hardware_id.clone(),
            license: preview.license,
            deadline: app.now(),
            used: 0,
            total: events::Seats::default(),
        };
        Some((grant.session_id, sign(app, asked, &grant).await))
    };
    let acquire = app.pools.acquire(asked.license_id, asked.seat.clone(), preview, &asked.request);
    // A refusal is not held up by a preview that never came.
    match select(pin!(acquire), pin!(sign_early)).await {
        Either::Left((Ok(answer @ (Answer::Granted(_) | Answer::Renewed(_))), signing)) => {
            Ok((answer, signing.await))
        }
        Either::Left((answer, _)) => Ok((answer?, None)),
        Either::Right((signed, acquire)) => Ok((acquire.await?, signed)),
    }
}

async fn sign(app: &App, asked: &Checked, grant: &Grant) -> Result<SignedToken, SigningError> {
    let claims = LicenseClaims::of(
        grant,
        asked.tenant_id,
        asked.license_id,
        &app.terms.license_issuer,
        app.now(),
        app.terms.default_grace,
    );
    // One signature for all who ask meanwhile is no reason for them to wait.
    let _waits = (!app.ring.shares_signatures()).then(|| app.pools.writer().signing());
    app.ring.sign(claims).await
}

/// Answers a committed grant with its token. A grant of this request that cannot be answered is given back.
async fn answer_grant(
    app: &App,
    asked: &Checked,
    grant: Grant,
    signed: Early,
    status: &str,
) -> Result<Acquired, Problem> {
    let signed = match signed {
        Some((session_id, signed)) if session_id == grant.session_id => signed,
        _ => sign(app, asked, &grant).await,
    };
    let signed = match signed {
        Ok(signed) => signed,
        Err(error) => {
            tracing::error!(%error, license_id = %asked.license_id, "a license token was not signed");
            if status == "granted" {
                give_back(app, asked, &grant).await;
            }
            return Err(Problem::Unavailable { why: "The license token cannot be signed. Try again." });
        }
    };
    app.remember_session(&grant, asked.tenant_id, asked.license_id).await;
    Ok(Acquired {
        session_id: grant.session_id.to_string(),
        license_token: signed.token,
        expires_at: seconds(signed.expires_at),
        public_key: signed.public_key,
        status: status.to_owned(),
        next_heartbeat_at: app.next_heartbeat().to_string(),
        heartbeat_interval_seconds: app.terms.session.told_interval_seconds(),
        session_ttl_seconds: app.terms.session.session_ttl_seconds,
        seats: SeatCount { used: grant.used, total: grant.total.get() },
    })
}

/// Releases a seat that was granted for nothing, and forgets its key.
async fn give_back(app: &App, asked: &Checked, grant: &Grant) {
    let request = request(asked.request.request_id.as_deref().unwrap_or_default());
    let key = asked.seat.key.clone();
    if let Err(error) = app.pools.give_back(asked.license_id, grant, key, &request).await {
        tracing::warn!(%error, session_id = %grant.session_id, "a seat was not given back: it lapses");
    }
}
