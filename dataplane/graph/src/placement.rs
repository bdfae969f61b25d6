//! Which slot runs which subtask. No state: a function of a valid graph and the free slots.
//!
//! Always true of a [`Placement`]: each slot serves at most one slot group and at most one subtask of each vertex;
//! TaskManagers differ by at most one slot in what they give, unless one has no more; and the same graph and the same
//! offers, in any order, give the same placement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::job::{JobGraph, Subtask};

/// A slot of the cluster: one thread of a TaskManager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId {
    /// The TaskManager's id.
    pub taskmanager: u64,
    /// The slot's number within it.
    pub slot: u32,
}

/// A free slot, as a TaskManager offers it.
pub type SlotOffer = SlotId;

/// Where every subtask of a job runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The slots of each slot group, in the order of [`JobGraph::slots_needed`].
    groups: Vec<Vec<SlotId>>,
    /// For each vertex, its group's position and its parallelism.
    vertices: Vec<(u32, u32)>,
}

/// There are fewer slots than the job needs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the job needs {needed} slots, {available} are free on {taskmanagers} TaskManagers ({}): start TaskManagers with {} \
     more slots, lower the parallelism, or let groups share slots",
    shortages(groups),
    needed - available
)]
pub struct PlacementError {
    /// Slots that the job needs.
    pub needed: u32,
    /// Slots that are free.
    pub available: u32,
    /// TaskManagers that offer them.
    pub taskmanagers: u32,
    /// The same for each slot group, in the order in which they are served.
    pub groups: Vec<GroupNeed>,
}

/// What one slot group needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNeed {
    /// The group's name.
    pub group: String,
    /// Slots it needs: its largest parallelism.
    pub needed: u32,
    /// Slots that are left when the groups before it are served.
    pub available: u32,
}

fn shortages(groups: &[GroupNeed]) -> String {
    let one = |need: &GroupNeed| {
        format!("group {:?} needs {}, {} left for it", need.group, need.needed, need.available)
    };
    groups.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Places a valid graph on free slots. Subtask i of every vertex of a slot group goes to that group's i-th slot; each next
/// slot comes from the TaskManager that gave the fewest so far (then from the one with more left, then by id).
///
/// # Errors
/// [`PlacementError`] when there are not enough slots; a slot that is offered twice counts once.
///
/// ```
/// use tidegate_graph::{place, Edge, JobGraph, Operator, OperatorKind, Partitioner, SlotOffer, Subtask, Vertex};
/// # let vertex = |id, name: &str, kind, parallelism| Vertex {
/// #     id, name: name.into(), parallelism, slot_group: "default".into(),
/// #     operators: vec![Operator { id: u64::from(id) + 100, name: name.into(), kind, managed_memory: false }],
/// # };
/// # let graph = JobGraph {
/// #     name: "count".into(),
/// #     max_parallelism: 128,
/// #     vertices: vec![vertex(0, "read", OperatorKind::Source, 1), vertex(1, "count", OperatorKind::Keyed, 2)],
/// #     edges: vec![Edge { from: 0, to: 1, input: 0, partitioner: Partitioner::KeyGroup, schema: 7, record: "Word".into() }],
/// # };
/// // "read" has one subtask, "count" has two; they share slots.
/// let offers = [(8, 0), (8, 1), (9, 0)].map(|(taskmanager, slot)| SlotOffer { taskmanager, slot });
/// let placement = place(&graph, &offers)?;
/// assert_eq!(placement.slot_of(Subtask { vertex: 0, subtask: 0 }), SlotOffer { taskmanager: 8, slot: 0 });
/// assert_eq!(placement.slot_of(Subtask { vertex: 1, subtask: 1 }), SlotOffer { taskmanager: 9, slot: 0 });
/// # Ok::<(), tidegate_graph::PlacementError>(())
/// ```
pub fn place(graph: &JobGraph, offers: &[SlotOffer]) -> Result<Placement, PlacementError> {
    let mut pool = Pool::new(offers);
    let needs = graph.slots_needed();
    let needed = needs.iter().map(|(_, slots)| slots).sum();
    let available = pool.free();
    if needed > available {
        return Err(shortage(&needs, needed, available, pool.taskmanagers.len() as u32));
    }
    let groups = needs.iter().map(|(_, slots)| (0..*slots).map(|_| pool.take()).collect()).collect();
    let group_of = |name: &str| needs.iter().position(|(group, _)| *group == name);
    let vertices = graph.vertices.iter().map(|vertex| {
        let group = group_of(&vertex.slot_group).expect("invariant: every vertex's group is listed");
        (group as u32, vertex.parallelism)
    });
    Ok(Placement { groups, vertices: vertices.collect() })
}

fn shortage(needs: &[(&str, u32)], needed: u32, available: u32, taskmanagers: u32) -> PlacementError {
    let mut left = available;
    let groups = needs.iter().map(|&(group, needed)| {
        let need = GroupNeed { group: group.to_owned(), needed, available: left };
        left = left.saturating_sub(needed);
        need
    });
    PlacementError { needed, available, taskmanagers, groups: groups.collect() }
}

impl Placement {
    /// The slot that runs `subtask`.
    ///
    /// # Panics
    /// If the placed graph has no such subtask.
    #[must_use]
    pub fn slot_of(&self, subtask: Subtask) -> SlotId {
        let (group, parallelism) = self.vertices[subtask.vertex as usize];
        assert!(
            subtask.subtask < parallelism,
            "misuse: {subtask:?} does not exist, its vertex has {parallelism}"
        );
        self.groups[group as usize][subtask.subtask as usize]
    }

    /// Every slot that the job uses, ascending.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotId> {
        let mut slots: Vec<SlotId> = self.groups.iter().flatten().copied().collect();
        slots.sort_unstable();
        slots
    }

    /// The subtasks that run in `slot`, by vertex; none if the job does not use it.
    #[must_use]
    pub fn tasks_in(&self, slot: SlotId) -> Vec<Subtask> {
        let found = self.groups.iter().enumerate().find_map(|(group, slots)| {
            slots.iter().position(|&used| used == slot).map(|index| (group as u32, index as u32))
        });
        let Some((group, subtask)) = found else { return Vec::new() };
        let runs_here = |(vertex, &(of, parallelism)): (u32, &(u32, u32))| {
            (of == group && subtask < parallelism).then_some(Subtask { vertex, subtask })
        };
        (0..).zip(&self.vertices).filter_map(runs_here).collect()
    }
}

/// The free slots of each TaskManager, and how many it has given.
struct Pool {
    taskmanagers: BTreeMap<u64, FreeSlots>,
}

struct FreeSlots {
    /// Descending, so that the lowest number is taken first.
    slots: Vec<u32>,
    given: u32,
}

impl Pool {
    fn new(offers: &[SlotOffer]) -> Self {
        let mut sorted = offers.to_vec();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        sorted.dedup();
        let mut taskmanagers = BTreeMap::new();
        for SlotId { taskmanager, slot } in sorted {
            let free = taskmanagers.entry(taskmanager).or_insert(FreeSlots { slots: Vec::new(), given: 0 });
            free.slots.push(slot);
        }
        Self { taskmanagers }
    }

    fn free(&self) -> u32 {
        self.taskmanagers.values().map(|free| free.slots.len() as u32).sum()
    }

    fn take(&mut self) -> SlotId {
        let with_slots = self.taskmanagers.iter_mut().filter(|(_, free)| !free.slots.is_empty());
        let (taskmanager, free) = with_slots
            .min_by_key(|(taskmanager, free)| (free.given, usize::MAX - free.slots.len(), **taskmanager))
            .expect("invariant: the need was compared with what is free");
        free.given += 1;
        let slot = free.slots.pop().expect("invariant: filtered for free slots");
        SlotId { taskmanager: *taskmanager, slot }
    }
}
