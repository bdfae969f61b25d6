//! Submission and cancellation: what is refused, with which numbers, before anything is begun.
//!
//! Always: a job that is accepted fitted into the slots that were free, less those that older waiting jobs
//! will take; the same request under the same id is accepted once and answered alike every time, and not before its
//! record is durable.

use super::job::{Cx, Job, clash_check};
use super::{Action, Core, Rejection, Submission};
use crate::limits::{ARGS_MAX, JOBS_ACTIVE_MAX, JOBS_LISTED_MAX};
use crate::record::{JobRequest, JobState};
use tidegate_graph::{JobGraph, MAX_PARALLELISM_MAX, Segments, SlotNeed, SlotOffer, place, segment_need};
use tidegate_memory::plan::keys;
use tidegate_rpc::{JobId, Register};

impl Core {
    pub(super) fn submit(&mut self, ticket: u64, submission: Submission, now_ms: u64) {
        let id = submission.id;
        if let Some(known) = self.jobs.get_mut(&id) {
            let answer = if known.record.request != submission.request {
                Err(Rejection::new(409, format!("job {id} exists with another request; choose another id")))
            } else if known.is_unanswered() {
                // Its record may yet turn out not to be writable, or this leader to be replaced.
                return known.tickets.push(ticket);
            } else {
                Ok(id)
            };
            self.actions.push(Action::Answer { ticket, answer });
            return;
        }
        if let Err(rejection) = self.check(&submission) {
            self.actions.push(Action::Answer { ticket, answer: Err(rejection) });
            return;
        }
        self.forget_oldest();
        let rank = self.next_rank;
        self.next_rank += 1;
        let job = Job::submitted(submission, &self.config, rank, ticket, now_ms);
        self.jobs.insert(id, job);
        self.with_job(id, now_ms, |job, cx| job.save_if_due(cx));
    }

    /// A job whose first record could not be written is no job.
    pub(super) fn drop_unsaved(&mut self, id: JobId) {
        if self.jobs.get(&id).is_some_and(Job::is_unsaved) {
            self.jobs.remove(&id);
        }
    }

    pub(super) fn cancel(&mut self, ticket: u64, id: JobId, now_ms: u64) {
        let answer = match self.jobs.get(&id) {
            None => Err(unknown_job(id)),
            // Asked twice, done once.
            Some(job) if job.is_over() && job.state() != JobState::Canceled => {
                Err(Rejection::new(409, format!("job {id} is {} already", job.record.state)))
            }
            Some(_) => Ok(id),
        };
        let accepted = answer.is_ok();
        self.actions.push(Action::Answer { ticket, answer });
        if accepted {
            self.with_job(id, now_ms, |job: &mut Job, cx: &mut Cx<'_>| job.cancel(cx));
        }
    }

    fn check(&self, submission: &Submission) -> Result<(), Rejection> {
        if self.draining {
            return Err(Rejection::new(503, "the JobManager is shutting down"));
        }
        let active = self.jobs.values().filter(|job| !job.is_over()).count();
        if active >= JOBS_ACTIVE_MAX {
            return Err(Rejection::new(
                409,
                format!("{active} jobs are active, at most {JOBS_ACTIVE_MAX} may be"),
            ));
        }
        check_request(&submission.request)?;
        let graph = &submission.planned.graph;
        graph.validate().map_err(|e| Rejection::new(422, format!("the job's graph is invalid: {e}")))?;
        if let Some((root, other)) = clash_check(&submission.planned.outputs, &self.jobs) {
            return Err(Rejection::new(
                409,
                format!("output directory {root} belongs to job {other}, which is not over; choose another"),
            ));
        }
        if let Some(objection) = &submission.objection {
            return Err(objection.clone());
        }
        self.check_slots(graph)?;
        self.check_room(graph)
    }

    fn check_slots(&self, graph: &JobGraph) -> Result<(), Rejection> {
        let waiting: u32 = self.jobs.values().map(Job::slots_wanted).sum();
        let mut free = self.registry.offers();
        free.truncate(free.len().saturating_sub(waiting as usize));
        let Err(error) = place(graph, &free) else { return Ok(()) };
        let total = self.registry.all_slots();
        let busy = place(graph, &total).is_ok();
        let status = if busy { 409 } else { 422 };
        let mut rejection = Rejection::new(
            status,
            format!(
                "not enough slots: needed {}, available {} of {}",
                error.needed,
                error.available,
                total.len()
            ),
        );
        rejection.errors.push(error.to_string());
        Err(rejection)
    }

    /// Whether the slots that the job would get now are big enough for it.
    fn check_room(&self, graph: &JobGraph) -> Result<(), Rejection> {
        let offers: Vec<SlotOffer> = self.registry.offers();
        let Ok(placement) = place(graph, &offers) else { return Ok(()) };
        let (_, region) = self.registry.record_max(&placement);
        for need in segment_need(graph, &placement, region) {
            let found = self.registry.get(need.slot.taskmanager).map(|found| &found.register);
            if let Some(short) = found.and_then(|register| shortage(&need, register, region)) {
                return Err(Rejection::new(422, short));
            }
        }
        Ok(())
    }

    /// Keeps the list of jobs bounded.
    fn forget_oldest(&mut self) {
        while self.jobs.len() >= JOBS_LISTED_MAX {
            let over = self.jobs.values().filter(|job| job.is_over());
            let Some(oldest) = over.min_by_key(|job| job.record.ended_ms).map(|job| job.id) else { return };
            self.jobs.remove(&oldest);
        }
    }
}

/// What a slot of this TaskManager has too little of for its part of a job: how much is needed, how much there is, which edge
/// asks for most of it, and what to change.
pub(super) fn shortage(need: &SlotNeed, register: &Register, region: u32) -> Option<String> {
    let slot = format!("slot {} of TaskManager {:016x}", need.slot.slot, need.slot.taskmanager);
    let (needed, available) = (need.segments.minimum, register.segments_per_slot);
    if needed > available {
        let edge = need.most.as_ref().map_or_else(String::new, |edge| {
            let Segments { minimum, wanted } = edge.segments;
            format!("; edge {:?} asks for most of them: at least {minimum}, {wanted} wanted", edge.name)
        });
        let regions = need.partitions + need.gates;
        let large = match region {
            0 => String::new(),
            _ => format!(
                "; {regions} regions of {region} for large records are part of it, see {}",
                keys::TM_RECORD
            ),
        };
        return Some(format!(
            "not enough segments: {slot} needs {needed}, available {available}{edge}{large}; give TaskManagers more \
             segments or lower the parallelism"
        ));
    }
    let (needed, available) = (need.links, register.links_per_slot);
    if needed > available {
        let edge = need.most_links.as_ref().map_or_else(String::new, |edge| {
            format!("; edge {:?} asks for most of them: {}", edge.name, edge.links)
        });
        return Some(format!(
            "not enough links to slots of other TaskManagers: {slot} needs {needed}, available {available}{edge}; raise \
             {} or lower the parallelism",
            keys::TM_LINKS
        ));
    }
    None
}

/// The rejection of an id that nobody knows.
pub(crate) fn unknown_job(id: JobId) -> Rejection {
    Rejection::new(404, format!("Job {id} not found"))
}

fn check_request(request: &JobRequest) -> Result<(), Rejection> {
    if request.parallelism == 0 || request.parallelism > MAX_PARALLELISM_MAX {
        let found = request.parallelism;
        return Err(Rejection::new(
            400,
            format!("parallelism: 1 to {MAX_PARALLELISM_MAX} allowed, found {found}"),
        ));
    }
    if request.args.len() > ARGS_MAX {
        let found = request.args.len();
        return Err(Rejection::new(400, format!("args: at most {ARGS_MAX} allowed, found {found}")));
    }
    Ok(())
}
