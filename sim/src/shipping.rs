//! The agent's side of a log's way: the real state machine of its offsets over the file.
//!
//! As the agent does, whatever is due is sent whenever something has happened. Not here: what is
//! printed ([`crate::machine`]), and the server's side ([`crate::hub`]).

use crate::message::ServerEvent;
use crate::world::World;
use bytes::Bytes;
use model::AllocId;
use node_agent::{LogShip, LogStep};

impl World {
    /// The log is shipped from now on.
    pub(crate) fn begin_to_ship(&mut self, which: usize, alloc: &AllocId) {
        let Some(agent) = &mut self.machines[which].agent else {
            return;
        };
        let mut ship = LogShip::new();
        if agent.is_welcome() {
            ship.connected();
        }
        agent.ships.insert(alloc.clone(), ship);
        self.ship(which, alloc);
    }

    /// Something has happened to a log.
    pub(crate) fn tell_ship(&mut self, which: usize, alloc: &AllocId, what: impl FnOnce(&mut LogShip)) {
        if let Some(agent) = &mut self.machines[which].agent
            && let Some(ship) = agent.ships.get_mut(alloc)
        {
            what(ship);
            self.ship(which, alloc);
        }
    }

    /// Something has happened to the stream, or time has passed.
    pub(crate) fn tell_ships(&mut self, which: usize, what: impl Fn(&mut LogShip)) {
        let agent = self.machines[which].agent.as_ref();
        let all: Vec<AllocId> = agent.iter().flat_map(|a| a.ships.keys()).cloned().collect();
        for alloc in all {
            self.tell_ship(which, &alloc, &what);
        }
    }

    /// Sends whatever is to be sent.
    fn ship(&mut self, which: usize, alloc: &AllocId) {
        let now_ms = self.agenda.now_ms();
        loop {
            let chunk_max = self.mood.log_data_max;
            let machine = &mut self.machines[which];
            let file = machine.files.get(alloc);
            let size = file.map_or(0, Vec::len);
            let Some(agent) = &mut machine.agent else { return };
            let Some(ship) = agent.ships.get_mut(alloc) else {
                return;
            };
            ship.grown(size as u64);
            match ship.next(now_ms, chunk_max) {
                LogStep::Wait => return,
                LogStep::Open => {
                    let alloc = alloc.clone();
                    self.send_in_order(which, |stream| ServerEvent::LogOpen { stream, alloc });
                }
                LogStep::Send { offset, len, end } => {
                    let from = usize::try_from(offset).expect("small");
                    let to = from + usize::try_from(len).expect("small");
                    let bytes = if len == 0 {
                        Bytes::new()
                    } else {
                        Bytes::copy_from_slice(&file.expect("it is sent from there")[from..to])
                    };
                    let alloc = alloc.clone();
                    self.send_in_order(which, |stream| ServerEvent::LogData {
                        stream,
                        alloc,
                        offset,
                        bytes,
                        end,
                    });
                }
                LogStep::Complete => {
                    agent.ships.remove(alloc);
                    return self.learned(which, 1, alloc, node_agent::Event::LogComplete);
                }
            }
        }
    }
}
