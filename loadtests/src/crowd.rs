//! The callers: users spread over tenants, each with its token, minted before anything is measured.

use anyhow::Result;
use hyper::header::HeaderValue;

use crate::token::Issuing;

/// Who calls.
#[derive(Clone, Debug)]
pub struct User {
    /// `sub` of the token.
    pub id: String,
    /// The token itself.
    pub token: String,
    /// The token as a header.
    pub authorization: HeaderValue,
}

impl User {
    /// A user with a token made elsewhere.
    pub fn new(id: String, token: String) -> Result<Self> {
        let authorization = HeaderValue::from_str(&format!("Bearer {token}"))?;
        Ok(Self { id, token, authorization })
    }
}

/// Users of one or more tenants. Neighbours in the list belong to different tenants, so that walking
/// through it spreads the load evenly.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    /// All users.
    pub users: Vec<User>,
    /// Over how many tenants they are spread.
    pub tenants: usize,
}

impl Crowd {
    /// `users` users, dealt out over these tenants in turn; every tenant gets at least one.
    pub fn mint(issuing: &Issuing, tenants: &[String], users: usize) -> Result<Self> {
        let users = (0..users.max(tenants.len()))
            .zip(tenants.iter().cycle())
            .map(|(n, tenant)| {
                let id = format!("load-user-{n:05}");
                let token = issuing.user(&id, tenant)?;
                User::new(id, token)
            })
            .collect::<Result<_>>()?;
        Ok(Self { users, tenants: tenants.len() })
    }

    /// The n-th user, round and round.
    pub fn user(&self, n: usize) -> &User {
        &self.users[n % self.users.len()]
    }
}
