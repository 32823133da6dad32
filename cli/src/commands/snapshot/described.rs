//! A snapshot, or what a stopped replica knows, as it is printed.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use trimtab_server::backup::directory::Directory;
use trimtab_server::backup::file::SnapshotFile;
use trimtab_server::backup::header::{Header, Source};
use trimtab_server::backup::survey::survey;

use crate::table::count;

/// What there is to say about a state.
#[derive(Debug, Serialize)]
pub(super) struct Described {
    /// The file or directory.
    path: String,
    source: &'static str,
    cluster_id: String,
    /// Whose state it is.
    replica: u64,
    index: u64,
    term: u64,
    unconfirmed_entries: u64,
    /// Of a data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_index: Option<u64>,
    /// Of a snapshot file.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    members: Vec<Member>,
    services: u64,
    groups: u64,
    instances: u64,
}

#[derive(Debug, Serialize)]
struct Member {
    id: u64,
    address: String,
}

impl Described {
    pub(super) fn file(path: String, snapshot: &SnapshotFile) -> Self {
        let header = &snapshot.header;
        let saved_at = UNIX_EPOCH.checked_add(Duration::from_millis(header.saved_at_ms));
        let counts = survey(&snapshot.registry);
        Self {
            saved_at: saved_at.map(|at| humantime::format_rfc3339_seconds(at).to_string()),
            version: Some(header.version.clone()),
            bytes: Some(snapshot.bytes),
            services: counts.services,
            groups: counts.groups,
            instances: counts.instances,
            ..Self::header(path, header)
        }
    }

    pub(super) fn directory(path: String, directory: &Directory) -> Self {
        let counts = survey(&directory.state.registry);
        Self {
            commit_index: Some(directory.commit),
            snapshot_index: Some(directory.snapshot.index),
            services: counts.services,
            groups: counts.groups,
            instances: counts.instances,
            ..Self::header(path, &directory.header(0))
        }
    }

    fn header(path: String, header: &Header) -> Self {
        let (source, unconfirmed_entries) = match header.source {
            Source::Quorum => ("quorum", 0),
            Source::Replica => ("replica", 0),
            Source::Directory {
                unconfirmed_entries,
            } => ("directory", unconfirmed_entries),
        };
        let members = header.members.iter().map(|(id, address)| Member {
            id: *id,
            address: address.clone(),
        });
        Self {
            path,
            source,
            cluster_id: format!("{:016x}", header.cluster_id),
            replica: header.saved_by,
            index: header.applied.index,
            term: header.applied.term,
            unconfirmed_entries,
            commit_index: None,
            snapshot_index: None,
            saved_at: None,
            version: None,
            bytes: None,
            members: members.collect(),
            services: 0,
            groups: 0,
            instances: 0,
        }
    }

    /// What may be missing, or be there without having been promised.
    pub(super) fn warnings(&self) -> Vec<String> {
        match (self.source, self.unconfirmed_entries) {
            ("replica", _) => vec![
                "no quorum confirmed this state: the latest changes, which other replicas may \
                 have, can be missing"
                    .to_owned(),
            ],
            (_, 0) => Vec::new(),
            (_, unconfirmed) => vec![format!(
                "{} at the end of the log {} not known to be committed when the replica stopped, \
                 and {} in the state: a change whose outcome was unknown may be made",
                entries(unconfirmed),
                if unconfirmed == 1 { "was" } else { "were" },
                if unconfirmed == 1 { "is" } else { "are" },
            )],
        }
    }

    /// How much there is: `2 services, 3 groups, 120 instances`.
    pub(super) fn contents(&self) -> String {
        contents(self.services, self.groups, self.instances)
    }

    /// One line for each thing to know.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<14}{value}");
        };
        let what = match self.source {
            "quorum" => "snapshot of a running registry, confirmed by a quorum",
            "replica" => "snapshot of a running replica without a quorum",
            _ if self.bytes.is_some() => "snapshot of a stopped replica's data directory",
            _ => "data directory of a stopped replica",
        };
        line("path", &self.path);
        line("what", what);
        line("cluster", &self.cluster_id);
        line("replica", &self.replica.to_string());
        let last = format!("index {}, term {}", self.index, self.term);
        line("last entry", &last);
        if let Some(commit) = self.commit_index {
            line("committed", &format!("up to index {commit}, as it knows"));
        }
        if self.source == "directory" {
            line("unconfirmed", &entries(self.unconfirmed_entries));
        }
        if let (Some(at), Some(version)) = (&self.saved_at, &self.version) {
            line("saved", &format!("{at} by trimtab {version}"));
        }
        if let Some(bytes) = self.bytes {
            line("size", &format!("{} bytes", count(bytes)));
        }
        let members = self.members.iter();
        let members: Vec<String> = members
            .map(|member| format!("{}={}", member.id, member.address))
            .collect();
        let members = members.join(", ");
        match self.snapshot_index {
            // Who they are is not followed through the log.
            Some(index) => line("members", &format!("{members} (as of index {index})")),
            None => line("members", &members),
        }
        line("contents", &self.contents());
        text
    }
}

/// `2 services, 3 groups, 120 instances`.
pub(super) fn contents(services: u64, groups: u64, instances: u64) -> String {
    let some = |number: u64, what: &str| {
        let plural = if number == 1 { "" } else { "s" };
        format!("{} {what}{plural}", count(number))
    };
    let parts = [
        some(services, "service"),
        some(groups, "group"),
        some(instances, "instance"),
    ];
    parts.join(", ")
}

fn entries(number: u64) -> String {
    match number {
        1 => "1 entry".to_owned(),
        number => format!("{} entries", count(number)),
    }
}
