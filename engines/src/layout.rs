//! Where a server lives: its directory, claimed by a lock, and a short directory for its socket.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::user::User;

/// A socket's path, with the zero that ends it, has room for 108 bytes.
const SOCKET_PATH_LIMIT_BYTES: usize = 107;
/// The longest name of a socket in its directory.
const SOCKET_NAME_ROOM_BYTES: usize = "/.s.PGSQL.65535.lock".len();
/// Names the place of the data when the server's user could not reach the directory asked for.
const MOVED: &str = "moved-to";
/// A child that another thread has just forked holds our open files for an instant.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);

/// The directory of one server, claimed by this process for as long as the value lives.
pub(crate) struct Layout {
    /// Holds data, socket and log.
    pub(crate) root: PathBuf,
    pub(crate) socket_dir: PathBuf,
    // Held, never read: the claim, and the socket's directory if it is elsewhere.
    _claim: File,
    _short: Option<TempDir>,
}

impl Layout {
    /// Makes and claims `dir` for a server that runs as `user`.
    pub(crate) fn claim(dir: &Path, user: Option<&User>) -> Result<Self> {
        let asked = made(dir, user)?;
        let claim = lock(&asked)?;
        let root = match user {
            Some(user) if !user.reaches(&asked)? => moved(&asked, user)?,
            _ => asked,
        };
        let (socket_dir, short) = socket_dir(&root, user)?;
        Ok(Self { root, socket_dir, _claim: claim, _short: short })
    }
}

/// Makes a directory that only its owner may enter.
pub(crate) fn private(dir: &Path, user: Option<&User>) -> Result<()> {
    if !dir.exists() {
        DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", dir.display()))?;
    user.map_or(Ok(()), |user| user.own(dir))
}

fn made(dir: &Path, user: Option<&User>) -> Result<PathBuf> {
    if !dir.exists() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        if let Some(user) = user {
            user.own(dir)?;
        }
    }
    fs::canonicalize(dir).with_context(|| format!("cannot resolve {}", dir.display()))
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < CLAIM_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Err(TryLockError::WouldBlock) => bail!("{} is in use by another process", dir.display()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// A directory that `user` reaches, remembered in `asked` so that the next start finds the same data.
fn moved(asked: &Path, user: &User) -> Result<PathBuf> {
    let pointer = asked.join(MOVED);
    if let Ok(known) = fs::read_to_string(&pointer) {
        let known = PathBuf::from(known.trim_end());
        // Anybody may write below /var/tmp: what we left there must still be ours.
        if fs::symlink_metadata(&known).is_ok_and(|it| it.is_dir() && it.uid() == user.uid) {
            return Ok(known);
        }
    }
    let place = tempfile::Builder::new()
        .prefix("engines-data-")
        .tempdir_in("/var/tmp")
        .context("cannot make a directory in /var/tmp")?
        .keep();
    user.own(&place)?;
    fs::write(&pointer, format!("{}\n", place.display()))
        .with_context(|| format!("cannot write {}", pointer.display()))?;
    eprintln!(
        "Postgres runs as another user, who cannot enter {}; its data are in {}",
        asked.display(),
        place.display()
    );
    Ok(place)
}

fn socket_dir(root: &Path, user: Option<&User>) -> Result<(PathBuf, Option<TempDir>)> {
    let own = root.join("socket");
    if is_plain(&own) {
        private(&own, user)?;
        return Ok((own, None));
    }
    let short = tempfile::Builder::new()
        .prefix("engines-")
        .tempdir_in("/tmp")
        .context("cannot make a directory in /tmp")?;
    private(short.path(), user)?;
    Ok((short.path().to_owned(), Some(short)))
}

/// Short enough for a socket, and without a character that a URL or a list of directories would have to quote.
fn is_plain(dir: &Path) -> bool {
    let bytes = dir.as_os_str().as_encoded_bytes();
    let simple = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(byte));
    simple && bytes.len() + SOCKET_NAME_ROOM_BYTES <= SOCKET_PATH_LIMIT_BYTES
}
