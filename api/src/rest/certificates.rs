//! When the certificates of nodes end, as their members' records have it: also of nodes that are not
//! connected, which nobody else would miss.
//!
//! Not here: the certificates of servers and authorities (`system`, as metrics), renewing
//! (`crate::fleet::join`).

use crate::clock::now_ms;
use crate::dto::{NodeCertificate, NodeCertificates};
use crate::problem::Answer;
use crate::state::Shared;
use axum::Json;
use axum::extract::State;
use model::{Member, key};
use store::live::read_all;

/// Most certificates that are named: whoever has to look after more looks after these first.
const NEAREST_MAX: usize = 100;

/// When the certificates of nodes end, the nearest first.
#[utoipa::path(
    get, path = "/api/v1/node-certificates", operation_id = "list_node_certificates", tag = "nodes",
    responses((status = 200, body = NodeCertificates))
)]
pub(super) async fn list(State(server): State<Shared>) -> Answer<Json<NodeCertificates>> {
    let (entries, _) = read_all(server.store(), key::MEMBERS).await?;
    let members = entries.iter().filter_map(|entry| match entry.decode() {
        Ok(member) => Some(member),
        Err(error) => {
            tracing::warn!(key = entry.key, %error, "member does not decode");
            None
        }
    });
    Ok(Json(summary(members, now_ms())))
}

fn summary(members: impl Iterator<Item = Member>, now_ms: u64) -> NodeCertificates {
    let (mut count, mut known) = (0, Vec::new());
    for member in members {
        count += 1;
        known.extend(member.certificate_ends_ms.map(|ends_ms| NodeCertificate {
            node_id: member.node.to_string(),
            name: member.name,
            ends_ms,
        }));
    }
    known.sort_by(|a, b| (a.ends_ms, &a.node_id).cmp(&(b.ends_ms, &b.node_id)));
    NodeCertificates {
        members: count,
        ended: known.iter().take_while(|c| c.ends_ms <= now_ms).count(),
        unknown: count - known.len(),
        nearest: known.into_iter().take(NEAREST_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::NodeId;
    use model::record::Unknown;

    fn member(n: usize, certificate_ends_ms: Option<u64>) -> Member {
        Member {
            node: NodeId::new(format!("n{n:04}")).expect("legal"),
            name: format!("host-{n}"),
            token: "rack".to_owned(),
            joined_ms: 1,
            certificate_ends_ms,
            unknown: Unknown::new(),
        }
    }

    #[test]
    fn the_nearest_come_first_and_what_is_not_known_is_counted() {
        let ends = [Some(300), None, Some(100), Some(200), Some(100)];
        let members = ends.into_iter().enumerate().map(|(n, ends_ms)| member(n, ends_ms));
        let told = summary(members, 100);
        assert_eq!((told.members, told.ended, told.unknown), (5, 2, 1));
        let nearest: Vec<(&str, u64)> = told.nearest.iter().map(|c| (c.name.as_str(), c.ends_ms)).collect();
        assert_eq!(
            nearest,
            [("host-2", 100), ("host-4", 100), ("host-3", 200), ("host-0", 300)]
        );
        let many = (0..NEAREST_MAX + 50).map(|n| member(n, Some(1_000 - n as u64)));
        let told = summary(many, 0);
        assert_eq!(
            (told.members, told.ended, told.nearest.len()),
            (NEAREST_MAX + 50, 0, NEAREST_MAX)
        );
        assert_eq!(told.nearest[0].ends_ms, 1_000 - NEAREST_MAX as u64 - 49);
        let nobody = summary(std::iter::empty(), 0);
        assert_eq!((nobody.members, nobody.unknown, nobody.nearest.len()), (0, 0, 0));
    }
}
