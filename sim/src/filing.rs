//! Reports on their way into the store: judged by the real rule on what the store holds, written in
//! a guarded transaction that arrives later, and answered when that is known.
//!
//! Not here: what an agent reports, and what the leader makes of it.

use crate::lie::Lie;
use crate::message::{AgentEvent, Event, Filing, ServerEvent, Stream};
use crate::world::World;
use api_core::fleet::{Held, Verdict, judge};
use model::{AllocId, Allocation, Observed, ObservedState, key};
use rand::Rng;
use store::{Expect, Txn};

/// How long a server waits for the store before it asks again what became of a report.
const ANSWER_MS: u64 = 400;
/// How often a report is judged anew when its keys change meanwhile. The node sends it again.
const TRIES_MAX: usize = 4;
/// How long an attempt may be prepared before that is filed.
const PREPARING_FILED_AFTER_MS: u64 = 2_000;

impl World {
    /// A report arrives.
    pub(crate) fn on_report(&mut self, which: usize, stream: Stream, report: Box<Observed>) {
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        if report.state == ObservedState::Ended {
            session.leaving.ended(&report.alloc);
        }
        if report.state == ObservedState::Preparing && session.standing.contains_key(&report.alloc) {
            let alloc = report.alloc.clone();
            session.preparing.insert(alloc.clone(), (*report).clone());
            let late = ServerEvent::FilePreparing { stream, alloc };
            self.tell_server(which, PREPARING_FILED_AFTER_MS, late);
            return self.answer_report(which, stream, &report, true);
        }
        session.preparing.remove(&report.alloc);
        self.tell_server(
            which,
            0,
            ServerEvent::Judge {
                stream,
                report,
                tries: 0,
            },
        );
    }

    pub(crate) fn file_preparing(&mut self, which: usize, stream: Stream, alloc: &AllocId) {
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        let stands = session.standing.contains_key(alloc);
        if let Some(report) = session.preparing.remove(alloc).filter(|_| stands) {
            let report = Box::new(report);
            self.tell_server(
                which,
                0,
                ServerEvent::Judge {
                    stream,
                    report,
                    tries: 0,
                },
            );
        }
    }

    /// Judges a report on what the store holds now.
    pub(crate) fn judge_report(&mut self, which: usize, stream: Stream, report: Box<Observed>, tries: usize) {
        if tries == TRIES_MAX {
            return;
        }
        let node = self.machines[stream.machine].record.id.clone();
        let filed = self.store.get(&key::observed(&report.alloc)).expect("legal");
        let order = self.store.get(&key::alloc(&node, &report.alloc)).expect("legal");
        let before = filed
            .as_ref()
            .map_or(Expect::Absent, |f| Expect::Revision(f.mod_revision));
        let filed: Option<Observed> = filed.map(|f| f.decode().expect("a report"));
        let order: Option<Allocation> = order.map(|o| o.decode().expect("an order"));
        let step = self.step_of(&report.alloc);
        let held = Held {
            order: order.as_ref(),
            filed: filed.as_ref(),
            step: step.as_ref(),
        };
        let verdict = if self.lie == Some(Lie::FilesAnything) {
            Verdict::File
        } else {
            judge(&report, &held)
        };
        match verdict {
            Verdict::File => {
                let filing = Box::new(Filing {
                    stream,
                    report: *report,
                    before,
                    tries,
                });
                let life = self.servers[which].life;
                let delay = 1 + self.delay();
                self.agenda.after(delay, Event::FileReport { which, life, filing });
            }
            Verdict::Known => self.answer_report(which, stream, &report, true),
            Verdict::Folded => {
                self.report.late_reports += 1;
                self.answer_report(which, stream, &report, true);
            }
            Verdict::Refused => {
                self.report.stale_reports += 1;
                self.answer_report(which, stream, &report, false);
            }
        }
    }

    /// The store gets a report's transaction, whatever became of its sender.
    pub(crate) fn file_report(&mut self, which: usize, life: u64, filing: Filing) {
        let now_ms = self.agenda.now_ms();
        let Filing {
            stream,
            report,
            before,
            tries,
        } = filing;
        let report = Box::new(report);
        let again = |report, tries| ServerEvent::Judge { stream, report, tries };
        let (delay, what) = if !self.network.store(which) {
            (ANSWER_MS, again(report, tries))
        } else {
            let node = &self.machines[stream.machine].record.id;
            let observed = key::observed(&report.alloc);
            let txn = Txn::new()
                .expect(key::alloc(node, &report.alloc), Expect::Present)
                .expect(observed.clone(), before)
                .put(observed, &*report);
            let txn = match self.lie {
                Some(Lie::FilesAnything) => Txn::new().put(key::observed(&report.alloc), &*report),
                _ => txn,
            };
            let applied = self.store.commit(txn, now_ms).expect("legal").is_applied();
            let server = &self.servers[which];
            let heard = server.up && server.life == life;
            self.report.reports_of_the_dead += usize::from(applied && !heard);
            if self.faulty && self.rng.random_bool(0.03) {
                (ANSWER_MS, again(report, tries))
            } else if applied {
                (self.rng.random_range(1..20), ServerEvent::Filed { stream, report })
            } else {
                self.report.reports_judged_anew += 1;
                (self.rng.random_range(1..20), again(report, tries + 1))
            }
        };
        self.agenda.after(delay, Event::Server { which, life, what });
    }

    pub(crate) fn answer_report(&mut self, which: usize, stream: Stream, report: &Observed, accepted: bool) {
        if self.session_mut(which, stream).is_none() {
            return;
        }
        let ack = AgentEvent::Ack {
            stream: stream.number,
            alloc: report.alloc.clone(),
            state: report.state,
            accepted,
        };
        // There is no room for the answer now and then: the report is repeated.
        if !self.faulty || self.rng.random_bool(0.95) {
            self.answer_agent(which, stream.machine, ack);
        }
    }
}
