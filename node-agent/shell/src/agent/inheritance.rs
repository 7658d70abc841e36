//! What an earlier agent left on the node, found before anything else is done and taken up again.
//!
//! Not here: the journal's files, and what follows from an entry (`node_agent::Life`).

use super::{Agent, Room};
use crate::blocking::now_ms;
use crate::config::AgentError;
use crate::data_folder::DataFolder;
use crate::follow;
use crate::journal::{Journal, Read};
use crate::material::{Keep, Material};
use crate::prepare::layers_of;
use crate::sandboxes::Sandboxes;
use crate::trash::Trash;
use model::AllocId;
use node_agent::Found;
use std::collections::{BTreeSet, HashMap};

/// What an earlier agent left, found before anything else is done.
pub(super) struct Inheritance {
    entries: Vec<(Read, Found)>,
    keeps: HashMap<AllocId, Keep>,
}

impl Agent {
    pub(super) fn take_over(&mut self, mut inheritance: Inheritance) {
        for (read, found) in inheritance.entries {
            let entry = match read {
                Read::Entry(entry) => entry,
                Read::Damaged { entry, message } => {
                    tracing::error!(alloc_id = %entry.order.alloc, message, "journal entry is damaged");
                    entry
                }
            };
            let alloc = entry.order.alloc.clone();
            tracing::info!(alloc_id = %alloc, found = ?found, "allocation found in the journal");
            let mut room = Room::default();
            room.keeps.extend(inheritance.keeps.remove(&alloc));
            self.rooms.insert(alloc.clone(), room);
            let acts = self.node.readopt(*entry, found, now_ms());
            if self.node.life(&alloc).is_some_and(|life| life.is_alive()) {
                let span = self.span(&alloc);
                let _in = span.enter();
                self.follow(&alloc);
            }
            self.perform(acts);
        }
    }
}

/// Finds what an earlier agent left and removes what no entry of the journal names. Blocking.
pub(super) fn inherit(
    journal: &Journal,
    data: &DataFolder,
    trash: &Trash,
    sandboxes: &dyn Sandboxes,
    material: &dyn Material,
) -> Result<Inheritance, AgentError> {
    let read = journal.read_all()?;
    let mut keeps = HashMap::new();
    let mut entries = Vec::new();
    let mut named = BTreeSet::new();
    for read in read {
        let (Read::Entry(entry) | Read::Damaged { entry, .. }) = &read;
        let alloc = entry.order.alloc.clone();
        let folder = data.alloc(&alloc);
        let layers = layers_of(&folder);
        if !layers.is_empty() {
            keeps.insert(alloc.clone(), material.adopt(&layers));
        }
        let found = match &read {
            Read::Entry(_) => follow::find(sandboxes, alloc.as_str(), &folder.exit())?,
            Read::Damaged { message, .. } => {
                remove_or_tell(sandboxes, alloc.as_str());
                Found::Broken {
                    message: message.clone(),
                }
            }
        };
        named.insert(alloc.to_string());
        entries.push((read, found));
    }
    remove_strays(&named, data, trash, sandboxes)?;
    Ok(Inheritance { entries, keeps })
}

/// A process that is stuck in the kernel must not keep the whole node from serving: its sandbox is
/// tried again at the next start.
fn remove_or_tell(sandboxes: &dyn Sandboxes, id: &str) {
    if let Err(error) = sandboxes.remove(id) {
        tracing::error!(alloc_id = id, %error, "sandbox cannot be removed, the next start tries again");
    }
}

fn remove_strays(
    named: &BTreeSet<String>,
    data: &DataFolder,
    trash: &Trash,
    sandboxes: &dyn Sandboxes,
) -> Result<(), AgentError> {
    for id in sandboxes.list()?.into_iter().filter(|id| !named.contains(id)) {
        tracing::warn!(alloc_id = id, "sandbox that the journal does not name is removed");
        remove_or_tell(sandboxes, &id);
    }
    let folder = data.allocs();
    for entry in std::fs::read_dir(&folder).map_err(AgentError::io(&folder))? {
        let path = entry.map_err(AgentError::io(&folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if !name.is_some_and(|name| named.contains(&name)) {
            trash.discard(&path).map_err(AgentError::io(&path))?;
        }
    }
    Ok(())
}
