//! The chain of public checkpoints, one after the other.

use crate::checkpoint::{Checkpoint, TenantHead};
use crate::keys::PublicKeys;
use crate::verify::files::Kept;
use crate::verify::{Finding, Wrong};
use crate::{AuditError, Hex};

/// Follows the chain from its first checkpoint.
pub(super) struct Chain<'a> {
    keys: &'a PublicKeys,
    kept: &'a [Kept],
    pub(super) count: u64,
    previous: Option<Hex>,
    sealed_at: String,
}

impl<'a> Chain<'a> {
    pub(super) fn new(keys: &'a PublicKeys, kept: &'a [Kept]) -> Self {
        Self { keys, kept, count: 0, previous: None, sealed_at: String::new() }
    }

    /// Checks the next checkpoint; `signed` was found beforehand, on all cores.
    pub(super) fn next(
        &mut self,
        checkpoint: &Checkpoint,
        signed: bool,
    ) -> Result<Option<Finding>, AuditError> {
        let number = checkpoint.number;
        if number != self.count + 1 {
            let detail = format!("checkpoint {} is missing", self.count + 1);
            return Ok(Some(about(Wrong::CheckpointMissing, self.count + 1, detail)));
        }
        self.count = number;
        let kept = self.kept.iter().find_map(|kept| kept.public(number));
        let wrong = if kept.is_some_and(|kept| kept != checkpoint) {
            Some("it is not the one that was kept".to_owned())
        } else if !signed {
            Some("its signature does not verify".to_owned())
        } else if checkpoint.previous != self.previous {
            Some(format!("it does not name checkpoint {} as it stands", number - 1))
        } else if checkpoint.sealed_at < self.sealed_at {
            Some("it is older than the one before".to_owned())
        } else {
            None
        };
        self.previous = Some(checkpoint.hash()?);
        self.sealed_at.clone_from(&checkpoint.sealed_at);
        Ok(wrong.map(|detail| about(Wrong::CheckpointChanged, number, detail)))
    }

    /// Checkpoints that were kept and come after the end of the chain; kept ones that nobody signed.
    pub(super) fn finish(&self) -> Result<Option<Finding>, AuditError> {
        for kept in self.kept {
            let checkpoint = kept.checkpoint();
            if !checkpoint.is_signed_by(self.keys)? {
                let detail = "the copy that was kept has no valid signature".to_owned();
                return Ok(Some(about(Wrong::CheckpointChanged, checkpoint.number, detail)));
            }
            if checkpoint.number > self.count {
                let detail = format!(
                    "the chain ends at {}, but a later checkpoint was kept: it was rewound",
                    self.count
                );
                return Ok(Some(about(Wrong::CheckpointMissing, checkpoint.number, detail)));
            }
        }
        Ok(None)
    }
}

pub(super) fn about(wrong: Wrong, number: u64, detail: String) -> Finding {
    Finding { tenant_id: None, wrong, event_id: None, index: None, checkpoint: Some(number), detail }
}

/// Signatures of many checkpoints, on all cores.
pub(super) fn signatures(checkpoints: &[Checkpoint], keys: &PublicKeys) -> Result<Vec<bool>, AuditError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = checkpoints.len().div_ceil(cores).max(16);
    std::thread::scope(|scope| {
        let shares: Vec<_> = checkpoints
            .chunks(share)
            .map(|share| {
                scope.spawn(move || {
                    share.iter().map(|one| one.is_signed_by(keys)).collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        let mut all = Vec::with_capacity(checkpoints.len());
        for share in shares {
            all.extend(share.join().map_err(|_| AuditError::unreadable("a signature check failed"))??);
        }
        Ok(all)
    })
}

/// The heads of one tenant, one after the other.
#[derive(Default)]
pub(super) struct Heads {
    previous: Option<Hex>,
    size: u64,
    number: u64,
}

impl Heads {
    pub(super) fn next(&mut self, head: &TenantHead) -> Result<Option<Finding>, AuditError> {
        let wrong = if head.previous != self.previous {
            Some("it does not name the head before as it stands: that one was changed or removed")
        } else if head.size <= self.size || head.number <= self.number {
            Some("it is not larger than the head before")
        } else {
            None
        };
        (self.size, self.number) = (head.size, head.number);
        self.previous = Some(head.hash()?);
        Ok(wrong.map(|detail| Finding {
            tenant_id: Some(head.tenant_id),
            ..about(Wrong::CheckpointChanged, head.number, detail.to_owned())
        }))
    }
}

/// A head that its tenant kept must be the one that stands.
pub(super) fn against_kept(kept: &[Kept], head: &TenantHead) -> Option<Finding> {
    let differs = kept.iter().any(|kept| match kept {
        Kept::Tenant(own) => {
            own.head.tenant_id == head.tenant_id && own.head.number == head.number && own.head != *head
        }
        Kept::Public(_) => false,
    });
    differs.then(|| Finding {
        tenant_id: Some(head.tenant_id),
        ..about(Wrong::CheckpointChanged, head.number, "the head is not the one that was kept".to_owned())
    })
}
