//! Who runs Postgres: it refuses root, so root lends it another user.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A user of this machine.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user that Postgres runs as; `None` means whoever we are, since that is not root.
pub(crate) fn for_postgres() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    match ["postgres", "nobody"].iter().find_map(|name| named(&passwd, name)) {
        Some(user) => Ok(Some(user)),
        None => bail!("Postgres refuses to run as root, and neither of the users postgres and nobody exists"),
    }
}

fn named(passwd: &str, name: &str) -> Option<User> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2);
    let uid = ids.next()?.parse().ok()?;
    let gid = ids.next()?.parse().ok()?;
    Some(User { uid, gid })
}

impl User {
    /// Gives `path` to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to uid {}", path.display(), self.uid))
    }

    /// Whether this user gets into `dir`, which must be absolute. Our own directories below the system's temporary one are made passable
    /// (not readable) for it: a temporary directory is closed to everybody else when it is new.
    pub(crate) fn reaches(&self, dir: &Path) -> Result<bool> {
        let temporary = fs::canonicalize(std::env::temp_dir()).ok();
        let mut way: Vec<&Path> = dir.ancestors().collect();
        way.reverse();
        for step in way {
            let known = fs::metadata(step).with_context(|| format!("cannot look at {}", step.display()))?;
            if self.passes(&known) {
                continue;
            }
            let below_temporary =
                temporary.as_deref().is_some_and(|top| step != top && step.starts_with(top));
            if !below_temporary || known.uid() != rustix::process::geteuid().as_raw() {
                return Ok(false);
            }
            let passable = fs::Permissions::from_mode((known.mode() & 0o7777) | 0o001);
            fs::set_permissions(step, passable)
                .with_context(|| format!("cannot open {} to uid {}", step.display(), self.uid))?;
        }
        Ok(true)
    }

    fn passes(&self, dir: &Metadata) -> bool {
        let bit = if dir.uid() == self.uid {
            0o100
        } else if dir.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        dir.mode() & bit != 0
    }
}
