//! What CODITECT itself calls, found before the router: it is nearly all of the traffic.
//!
//! The operations are those of `licenses.rs`, which the document shows and the router leads to as well. Only the way is
//! shorter: each of the router's layers is a boxed future (docs/performance.md).

use poem::http::Method;
use poem::web::Data;
use poem::{Endpoint, IntoResponse, Request, Response, Result};
use poem_openapi::param::Header;
use poem_openapi::{ApiExtractor, ExtractParamOptions};

use super::licenses::Licenses;
use crate::auth::Credentials;
use crate::body::Body;
use crate::edge::RequestId;
use crate::problem::Problem;

/// The operations, before everything else.
pub struct Front<E> {
    /// Who does the work.
    pub licenses: Licenses,
    /// The router.
    pub rest: E,
}

#[derive(Clone, Copy)]
enum Operation {
    Acquire,
    Heartbeat,
    Release,
}

impl Operation {
    fn of(request: &Request) -> Option<Self> {
        if request.method() != Method::POST {
            return None;
        }
        match request.uri().path() {
            "/api/v1/licenses/acquire" => Some(Self::Acquire),
            "/api/v1/licenses/heartbeat" => Some(Self::Heartbeat),
            "/api/v1/licenses/release" => Some(Self::Release),
            _ => None,
        }
    }
}

impl<E: Endpoint> Endpoint for Front<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let Some(operation) = Operation::of(&request) else {
            return self.rest.call(request).await.map(IntoResponse::into_response);
        };
        let (request, mut body) = request.split();
        let request_id = Data(request.extensions().get::<RequestId>().ok_or(Problem::Internal)?);
        let none = ExtractParamOptions::default;
        let credentials = Credentials::from_request(&request, &mut body, none()).await?;
        let licenses = &self.licenses;
        Ok(match operation {
            Operation::Acquire => {
                let body = Body::from_request(&request, &mut body, none()).await?;
                licenses.acquire(credentials, request_id, &request, Header(None), body).await?.into_response()
            }
            Operation::Heartbeat => {
                let body = Body::from_request(&request, &mut body, none()).await?;
                licenses.heartbeat(credentials, request_id, body).await?.into_response()
            }
            Operation::Release => {
                let body = Body::from_request(&request, &mut body, none()).await?;
                licenses.release(credentials, request_id, body).await?.into_response()
            }
        })
    }
}
