//! What etcd says of itself, for people: who answers, which version, how full, what is wrong.
//!
//! Not here: what is made of it (`buildflow admin check`).

use crate::PROBE_KEY;
use crate::fault::{Fault, Kind};
use crate::keys::Keys;
use crate::members::Members;
use etcd_client::{AlarmAction, AlarmType, Client};
use futures::future::join_all;
use std::time::{Duration, Instant};
use store::Room;
use tokio::time::timeout;

/// How long one endpoint may take to answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// All that was found out.
#[derive(Debug, Clone)]
pub struct EtcdStatus {
    /// One for each configured endpoint, in the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
    /// The members of the cluster as it sees itself: one that is not configured is not spoken to.
    pub members: Vec<String>,
    /// What etcd itself raises the alarm about, e.g. `NOSPACE on member 8e9e05c52164694d`.
    pub alarms: Vec<String>,
}

/// One endpoint.
#[derive(Debug, Clone)]
pub struct EndpointStatus {
    /// Its address as configured.
    pub endpoint: String,
    /// What its member says, or why it does not, in one line.
    pub answer: Result<MemberStatus, String>,
}

/// What a member says of itself.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// etcd's version, e.g. `3.4.23`. Since 3.6 it is told to root only, as are the sizes: then this
    /// says so, and only whether a leader is seen is known.
    pub version: String,
    /// Its id, hexadecimal.
    pub member: String,
    /// True if it leads the cluster.
    pub leader: bool,
    /// False while it sees no leader: nothing can be written through it.
    pub sees_leader: bool,
    /// Size of its database file, bytes; etcd refuses writes at its quota (2 GiB by default).
    pub database_bytes: u64,
    /// How much of that is in use, bytes; the rest is free again after `etcdctl defrag`.
    pub used_bytes: u64,
    /// Its quota, bytes; `None` before etcd 3.6, which does not say it.
    pub quota_bytes: Option<u64>,
    /// What it reports as wrong.
    pub errors: Vec<String>,
    /// How long it took to answer.
    pub round_trip: Duration,
    /// Why another version would be better, if one would.
    pub advice: Option<&'static str>,
}

/// The alarm of a member whose quota is used up.
const NO_SPACE: &str = "NOSPACE";

/// What releases before 3.4.31 and 3.5.13 get wrong and matters here.
const UPGRADE: &str = "upgrade etcd to 3.4.31, 3.5.13 or newer: before, a member that led and was paused may end \
                       leases that were renewed meanwhile, and a watch that lags behind a compaction may miss changes";

impl EtcdStatus {
    /// True when some endpoint answers, one of them leads or sees a leader, and there is no alarm.
    #[must_use]
    pub fn healthy(&self) -> bool {
        let answers = self.endpoints.iter().filter_map(|e| e.answer.as_ref().ok());
        self.alarms.is_empty() && answers.filter(|m| m.sees_leader).count() > 0
    }

    /// The room of the member with the least of it; `quota_bytes` is taken where a member does not say
    /// its own.
    ///
    /// # Errors
    /// What the endpoints say, when none of them tells its sizes.
    pub fn room(&self, quota_bytes: u64) -> Result<Room, String> {
        let answers = self.endpoints.iter().filter_map(|e| e.answer.as_ref().ok());
        let fullest = answers.max_by_key(|m| m.database_bytes);
        let Some(fullest) = fullest else {
            let why = self.endpoints.iter().filter_map(|e| e.answer.as_ref().err());
            return Err(why.cloned().collect::<Vec<String>>().join("; "));
        };
        let no_space = self.alarms.iter().filter(|alarm| alarm.starts_with(NO_SPACE));
        Ok(Room {
            file_bytes: fullest.database_bytes,
            used_bytes: fullest.used_bytes,
            quota_bytes: Some(fullest.quota_bytes.unwrap_or(quota_bytes)),
            refuses: no_space.cloned().collect(),
        })
    }
}

/// Asks every endpoint.
pub(crate) async fn status(members: &Members, keys: &Keys) -> EtcdStatus {
    let asked = (0..members.count()).map(|member| async move {
        let answer = match timeout(STATUS_TIMEOUT, member_status(members, keys, member)).await {
            Ok(answer) => answer.map_err(|fault| fault.text),
            Err(_) => Err(Fault::silence(false).text),
        };
        EndpointStatus {
            endpoint: members.url(member).to_owned(),
            answer,
        }
    });
    let endpoints = join_all(asked).await;
    let standing = endpoints.iter().position(|e| e.answer.is_ok());
    let (mut names, mut alarms) = (Vec::new(), Vec::new());
    if let Some(standing) = standing
        && let Ok(client) = members.client(standing).await
    {
        // Both are extras: a user without the right to ask is told nothing.
        names = timeout(STATUS_TIMEOUT, member_names(client.clone()))
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        alarms = timeout(STATUS_TIMEOUT, raised(client))
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
    }
    EtcdStatus {
        endpoints,
        members: names,
        alarms,
    }
}

async fn member_status(members: &Members, keys: &Keys, member: usize) -> Result<MemberStatus, Fault> {
    let mut client = members.lone_client(member).await?;
    let asked = Instant::now();
    let said = match client.status().await.map_err(Fault::from) {
        Err(fault) if fault.kind == Kind::Denied => return withheld(client, keys).await,
        said => said?,
    };
    let round_trip = asked.elapsed();
    members.check_cluster(said.header())?;
    let id = said.header().map_or(0, etcd_client::ResponseHeader::member_id);
    Ok(MemberStatus {
        version: said.version().to_owned(),
        member: format!("{id:x}"),
        leader: said.leader() == id,
        sees_leader: said.leader() != 0,
        database_bytes: u64::try_from(said.db_size()).unwrap_or_default(),
        used_bytes: u64::try_from(said.raft_used_db_size()).unwrap_or_default(),
        quota_bytes: u64::try_from(said.db_size_quota()).ok().filter(|quota| *quota > 0),
        errors: said.errors().to_vec(),
        round_trip,
        advice: advice(said.version()),
    })
}

/// What can be said of a member that tells nothing of itself: it reads through a quorum.
async fn withheld(mut client: Client, keys: &Keys) -> Result<MemberStatus, Fault> {
    let asked = Instant::now();
    let read = client.get(keys.full(PROBE_KEY), None).await?;
    let id = read.header().map_or(0, etcd_client::ResponseHeader::member_id);
    Ok(MemberStatus {
        version: "told to root only".to_owned(),
        member: format!("{id:x}"),
        leader: false,
        sees_leader: true,
        database_bytes: 0,
        used_bytes: 0,
        quota_bytes: None,
        errors: Vec::new(),
        round_trip: asked.elapsed(),
        advice: None,
    })
}

/// What is known against a version.
fn advice(version: &str) -> Option<&'static str> {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u64>().ok());
    let mut next = || parts.next().flatten();
    let fixed_in = match (next()?, next()?) {
        (3, 4) => 31,
        (3, 5) => 13,
        _ => return None,
    };
    (next()? < fixed_in).then_some(UPGRADE)
}

async fn member_names(mut client: Client) -> Option<Vec<String>> {
    let list = client.member_list().await.ok()?;
    let named = list.members().iter().map(|m| format!("{} ({:x})", m.name(), m.id()));
    Some(named.collect())
}

async fn raised(mut client: Client) -> Option<Vec<String>> {
    let answer = client.alarm(AlarmAction::Get, AlarmType::None, None).await.ok()?;
    // By the numbers of etcd's protocol: the client's accessor does not survive one that it does not know.
    let named = answer.0.alarms.iter().map(|a| {
        let name = match a.alarm {
            1 => NO_SPACE.to_owned(),
            2 => "CORRUPT".to_owned(),
            other => format!("alarm {other}"),
        };
        format!("{name} on member {:x}", a.member_id)
    });
    Some(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_known_faults_are_told() {
        for (version, faulty) in [
            ("3.4.23", true),
            ("3.4.30-rc.1", true),
            ("3.4.31", false),
            ("3.5.0", true),
            ("3.5.13", false),
            ("3.6.0", false),
            ("4.0.0", false),
            ("nonsense", false),
        ] {
            assert_eq!(advice(version).is_some(), faulty, "{version}");
        }
    }
}
