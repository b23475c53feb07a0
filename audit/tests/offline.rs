//! Export and checkpoints in files: verified without the server, and every change of a line is named.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod sealed;
#[path = "../../events/tests/support/mod.rs"]
mod support;

use std::path::PathBuf;

use audit::{
    Finding, Kept, Ndjson, OfflineOptions, Report, Salts, StoredEvent, Wrong, event_proof, leaf_of,
    verify_export,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sealed::{Sealed, TestSigner, named};
use serde_json::Value;
use support::{Pool, holder};
use uuid::Uuid;

struct Files {
    folder: tempfile::TempDir,
    sealed: Sealed,
    pool: Pool,
    ids: Vec<Uuid>,
}

impl Files {
    async fn new() -> Self {
        let sealed = Sealed::new().await;
        let (pool, other) = (sealed.world.pool().await, sealed.world.pool().await);
        sealed.live(pool, 4).await;
        sealed.write(pool, named(&holder("ada"), "Ada's \"laptop\"")).await;
        sealed.live(other, 2).await;
        sealed.live(pool, 2).await;
        let folder = tempfile::tempdir().unwrap();
        let mut events = Ndjson(Vec::new());
        audit::export_events(&sealed.world.log, pool.tenant_id, &mut events).await.unwrap();
        let mut checkpoints = Vec::new();
        audit::export_checkpoints(&sealed.world.log, pool.tenant_id, &mut checkpoints).await.unwrap();
        std::fs::write(folder.path().join("events"), events.0).unwrap();
        std::fs::write(folder.path().join("checkpoints"), checkpoints).unwrap();
        let ids = sealed.ids(pool.tenant_id).await;
        Self { folder, sealed, pool, ids }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        std::fs::read_to_string(self.path(name)).unwrap().lines().map(str::to_owned).collect()
    }

    fn verify(&self, events: &[String], checkpoints: &[String]) -> Report {
        std::fs::write(self.path("tampered events"), events.join("\n")).unwrap();
        std::fs::write(self.path("tampered checkpoints"), checkpoints.join("\n")).unwrap();
        verify_export(&OfflineOptions {
            export: self.path("tampered events"),
            checkpoints: self.path("tampered checkpoints"),
            keys: self.sealed.signer.keys(),
            kept: Vec::new(),
            archives: None,
        })
        .unwrap()
    }

    /// What is found after a change of the lines of events.
    fn tampered(&self, change: impl FnOnce(&mut Vec<String>)) -> Finding {
        let mut lines = self.lines("events");
        change(&mut lines);
        self.verify(&lines, &self.lines("checkpoints")).findings[0].clone()
    }
}

fn edit(line: &mut String, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(line).unwrap();
    change(&mut value);
    *line = value.to_string();
}

#[tokio::test]
async fn an_export_verifies_without_the_server_and_no_line_can_be_changed() {
    let files = Files::new().await;
    let report = files.verify(&files.lines("events"), &files.lines("checkpoints"));
    assert_eq!(report.findings, []);
    assert_eq!(report.events as usize, files.ids.len());
    assert_eq!(report.unsealed, 0);
    let seal = files.sealed.world.log.cursors().await.unwrap();
    let cursor = |line: &String| serde_json::from_str::<StoredEvent>(line).unwrap().cursor;
    let places: Vec<_> = files.lines("events").iter().map(|line| seal.open(&cursor(line)).unwrap()).collect();
    assert!(places.is_sorted_by(|one, next| one < next), "each is told with its place");
    let proof =
        event_proof(&files.sealed.world.log, files.pool.tenant_id, files.ids[3]).await.unwrap().unwrap();
    assert_eq!(seal.open(&proof.event.cursor), Ok(places[3]));
    let id = |n: usize| Some(files.ids[n]);
    let is = |finding: Finding, wrong: Wrong, event: Option<Uuid>| {
        assert_eq!((finding.wrong, finding.event_id), (wrong, event), "{finding}");
    };

    let forge = |value: &mut Value| value["request_id"] = "forged".into();
    is(files.tampered(|lines| edit(&mut lines[5], forge)), Wrong::Changed, id(5));
    let rename = |value: &mut Value| value["user_id"] = "ada".into();
    is(files.tampered(|lines| edit(&mut lines[2], rename)), Wrong::SaltMissing, id(2));
    is(files.tampered(|lines| drop(lines.remove(7))), Wrong::Removed, id(7));
    is(files.tampered(|lines| lines.swap(3, 9)), Wrong::Reordered, id(3));
    is(files.tampered(|lines| lines.truncate(10)), Wrong::Cut, id(10));
    let new = Uuid::from_u128(7);
    let twin = |lines: &mut Vec<String>, at: usize| {
        let mut line = lines[4].clone();
        edit(&mut line, |value| value["event_id"] = new.to_string().into());
        lines.insert(at, line);
    };
    is(files.tampered(|lines| twin(lines, 6)), Wrong::Inserted, Some(new));
    is(files.tampered(|lines| twin(lines, lines.len())), Wrong::Inserted, Some(new));
}

/// A decision that no page of the log shows is in no export either: the versions say so.
#[tokio::test]
async fn a_version_that_is_missing_is_found() {
    let files = Files::new().await;
    let (log, license) = (&files.sealed.world.log, files.pool.license_id);
    files
        .sealed
        .tamper(&format!("update streams set version = version + 1 where stream_id = '{license}'"))
        .await;
    files.sealed.live(files.pool, 1).await;
    let (mut events, mut checkpoints) = (Ndjson(Vec::new()), Vec::new());
    audit::export_events(log, files.pool.tenant_id, &mut events).await.unwrap();
    audit::export_checkpoints(log, files.pool.tenant_id, &mut checkpoints).await.unwrap();
    let lines =
        |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let report = files.verify(&lines(events.0), &lines(checkpoints));
    assert_eq!(report.findings.iter().map(|finding| finding.wrong).collect::<Vec<_>>(), [Wrong::Reordered]);
}

/// Events, leaves and heads were all cut: nothing in the files says so but the chain that goes on.
#[tokio::test]
async fn a_tenant_whose_heads_end_early_is_noted() {
    let files = Files::new().await;
    files.sealed.live(files.sealed.world.pool().await, 1).await;
    let mut checkpoints = Vec::new();
    audit::export_checkpoints(&files.sealed.world.log, files.pool.tenant_id, &mut checkpoints).await.unwrap();
    let checkpoints: Vec<_> = String::from_utf8(checkpoints).unwrap().lines().map(str::to_owned).collect();
    let report = files.verify(&files.lines("events"), &checkpoints);
    assert_eq!(report.findings, []);
    assert!(report.notes.iter().any(|note| note.contains("goes on to")), "{:?}", report.notes);
}

#[tokio::test]
async fn the_file_of_checkpoints_cannot_be_changed_either() {
    let files = Files::new().await;
    let (events, checkpoints) = (files.lines("events"), files.lines("checkpoints"));
    let own = |line: &String| line.contains("\"blinding\"");
    let first_own = checkpoints.iter().position(own).unwrap();
    let first_leaves = checkpoints.iter().position(|line| line.contains("\"hashes\"")).unwrap();
    assert!(first_own < first_leaves);
    type Change = (usize, fn(&mut Value));
    let changes: [Change; 4] = [
        (1, |value| value["root"] = "0".repeat(64).into()),
        (1, |value| value["number"] = 9.into()),
        (first_own, |value| value["size"] = 1.into()),
        (first_own, |value| value["path"]["index"] = 0.into()),
    ];
    for (line, change) in changes {
        let mut lines = checkpoints.clone();
        edit(&mut lines[line], change);
        let report = files.verify(&events, &lines);
        assert!(
            matches!(report.findings[0].wrong, Wrong::CheckpointChanged | Wrong::CheckpointMissing),
            "{line}"
        );
    }
    // Another order of the leaf index is another tree.
    let mut lines = checkpoints.clone();
    edit(&mut lines[first_leaves], |value| {
        let hashes = value["hashes"].as_str().unwrap().to_owned();
        value["hashes"] = (hashes[4..8].to_owned() + &hashes[..4] + &hashes[8..]).into();
    });
    assert!(!files.verify(&events, &lines).findings.is_empty());
    // What another key signed, and what is less than what was kept.
    let strange = OfflineOptions {
        export: files.path("events"),
        checkpoints: files.path("checkpoints"),
        keys: TestSigner::new().keys(),
        kept: Vec::new(),
        archives: None,
    };
    assert_eq!(verify_export(&strange).unwrap().findings[0].wrong, Wrong::CheckpointChanged);
    let later = files.sealed.live(files.pool, 1).await;
    assert_eq!(later.len(), 1);
    let all = audit::list_checkpoints(&files.sealed.world.log, 0, 1_000).await.unwrap();
    let kept = vec![Kept::Public(all.last().unwrap().clone())];
    let options = OfflineOptions { keys: files.sealed.signer.keys(), kept, ..strange };
    assert_eq!(verify_export(&options).unwrap().findings[0].wrong, Wrong::CheckpointMissing);
}

#[tokio::test]
async fn an_event_that_was_rewritten_with_its_leaf_is_narrowed_down_to_its_checkpoint() {
    let files = Files::new().await;
    let (mut events, mut checkpoints) = (files.lines("events"), files.lines("checkpoints"));
    let mut event: StoredEvent = serde_json::from_str(&events[5]).unwrap();
    event.request_id = Some("forged".to_owned());
    let leaf = leaf_of(&event, &Salts::of(&event).unwrap()).unwrap();
    events[5] = serde_json::to_string(&event).unwrap();
    for line in checkpoints.iter_mut().filter(|line| line.contains("\"hashes\"")) {
        edit(line, |value| {
            let first = usize::try_from(value["first"].as_u64().unwrap()).unwrap();
            let mut hashes = STANDARD.decode(value["hashes"].as_str().unwrap()).unwrap();
            if let Some(place) =
                (5_usize.checked_sub(first)).and_then(|n| hashes.get_mut(n * 32..n * 32 + 32))
            {
                place.copy_from_slice(&leaf.0);
            }
            value["hashes"] = STANDARD.encode(hashes).into();
        });
    }
    // The heads say which checkpoint first covered leaf 5, and where it began.
    let sizes: Vec<(u64, u64)> = checkpoints
        .iter()
        .filter(|line| line.contains("\"blinding\""))
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|own| (own["number"].as_u64().unwrap(), own["size"].as_u64().unwrap()))
        .collect();
    let covering = sizes.iter().position(|(_, size)| *size > 5).unwrap();
    let begins = covering.checked_sub(1).map_or(0, |before| sizes[before].1);
    let finding = files.verify(&events, &checkpoints).findings[0].clone();
    assert_eq!((finding.wrong, finding.checkpoint), (Wrong::Rewritten, Some(sizes[covering].0)), "{finding}");
    assert_eq!(finding.event_id, Some(files.ids[usize::try_from(begins).unwrap()]), "{finding}");
    assert!(finding.detail.contains(&format!("leaves {begins}..{} ", sizes[covering].1)), "{finding}");
}

#[tokio::test]
async fn every_event_is_proved_by_itself() {
    let files = Files::new().await;
    let (log, keys) = (&files.sealed.world.log, files.sealed.signer.keys());
    for id in &files.ids {
        let proof = event_proof(log, files.pool.tenant_id, *id).await.unwrap().unwrap();
        // What travels is JSON.
        let proof: audit::EventProof = serde_json::from_str(&serde_json::to_string(&proof).unwrap()).unwrap();
        assert_eq!(proof.check(&keys).unwrap(), Ok(()));
        let mut forged = proof.clone();
        forged.event.occurred_at = "2020-01-01T00:00:00.000Z".to_owned();
        assert!(forged.check(&keys).unwrap().is_err());
        let mut moved = proof.clone();
        moved.event.index = moved.event.index.map(|index| index ^ 1);
        assert!(moved.check(&keys).unwrap().is_err());
        let mut larger = proof;
        larger.checkpoint.head.size += 1;
        assert!(larger.check(&keys).unwrap().is_err());
    }
    assert_eq!(event_proof(log, files.pool.tenant_id, Uuid::from_u128(7)).await.unwrap(), None);
    let other = files.sealed.world.pool().await;
    assert_eq!(event_proof(log, other.tenant_id, files.ids[0]).await.unwrap(), None);
}
