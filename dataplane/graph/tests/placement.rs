//! Where subtasks go, what is said when there are too few slots, and how many segments each slot must have.

mod common;

use std::collections::BTreeMap;

use common::{any_graph, edge, graph, sample, vertex};
use proptest::prelude::*;
use tidegate_graph::{Partitioner, Segments, SlotId, SlotNeed, SlotOffer, Subtask, place, segment_need};

fn slot(taskmanager: u64, slot: u32) -> SlotId {
    SlotId { taskmanager, slot }
}

/// `slots` free slots on each of `taskmanagers` TaskManagers.
fn offers(taskmanagers: u64, slots: u32) -> Vec<SlotOffer> {
    (1..=taskmanagers).flat_map(|tm| (0..slots).map(move |number| slot(tm, number))).collect()
}

fn task(vertex: u32, subtask: u32) -> Subtask {
    Subtask { vertex, subtask }
}

#[test]
fn groups_share_slots_within_and_not_across() {
    // Group a needs 2 slots (source and map share them), group b needs 3.
    let placement = place(&sample(), &offers(2, 3)).unwrap();
    assert_eq!(placement.slot_of(task(0, 0)), placement.slot_of(task(1, 0)));
    assert_eq!(placement.slot_of(task(0, 1)), placement.slot_of(task(1, 1)));
    assert_eq!(placement.slots().len(), 5);
    assert_eq!(placement.tasks_in(placement.slot_of(task(1, 1))), [task(0, 1), task(1, 1)]);
    assert_eq!(placement.tasks_in(placement.slot_of(task(2, 2))), [task(2, 2)]);
    assert_eq!(placement.tasks_in(slot(9, 9)), []);
}

#[test]
fn slots_are_taken_evenly_lowest_first() {
    let placement = place(&sample(), &offers(3, 4)).unwrap();
    let order =
        [task(0, 0), task(0, 1), task(2, 0), task(2, 1), task(2, 2)].map(|task| placement.slot_of(task));
    assert_eq!(order, [slot(1, 0), slot(2, 0), slot(3, 0), slot(1, 1), slot(2, 1)]);
}

#[test]
fn a_small_taskmanager_gives_as_much_as_a_large_one_while_it_can() {
    let offers =
        [slot(1, 0), slot(1, 1), slot(1, 2), slot(1, 3), slot(1, 4), slot(1, 5), slot(2, 0), slot(2, 1)];
    let placement = place(&sample(), &offers).unwrap();
    assert_eq!(placement.slots(), [slot(1, 0), slot(1, 1), slot(1, 2), slot(2, 0), slot(2, 1)]);
}

#[test]
fn too_few_slots_are_refused_with_what_each_group_lacks() {
    let error = place(&sample(), &[slot(1, 0), slot(1, 1), slot(2, 0), slot(2, 0)]).unwrap_err();
    assert_eq!((error.needed, error.available, error.taskmanagers), (5, 3, 2));
    let groups: Vec<_> = error.groups.iter().map(|g| (g.group.as_str(), g.needed, g.available)).collect();
    assert_eq!(groups, [("a", 2, 3), ("b", 3, 1)]);
    let text = error.to_string();
    assert!(text.contains("needs 5 slots, 3 are free on 2 TaskManagers"), "{text}");
    assert!(text.contains("group \"b\" needs 3, 1 left for it") && text.contains("2 more slots"), "{text}");
}

#[test]
fn no_offers_at_all() {
    let error = place(&sample(), &[]).unwrap_err();
    assert_eq!((error.available, error.taskmanagers, error.groups[1].available), (0, 0, 0));
}

/// One source feeding two keyed subtasks; three slots in all, on the TaskManagers given.
fn fan_out(taskmanagers: [u64; 3]) -> Vec<SlotNeed> {
    let graph = graph(
        vec![vertex(0, "source", 1, "a"), vertex(1, "keyed", 2, "b")],
        vec![edge(0, 1, 0, Partitioner::KeyGroup)],
    );
    let offers: Vec<_> = (0..).zip(taskmanagers).map(|(number, tm)| slot(tm, number)).collect();
    segment_need(&graph, &place(&graph, &offers).unwrap(), 0)
}

#[test]
fn need_within_one_process_is_that_of_its_partitions() {
    let needs = fan_out([1, 1, 1]);
    let source = &needs[0];
    assert_eq!((source.partitions, source.gates, source.links), (1, 0, 0));
    assert_eq!(source.segments, Segments { minimum: 2, wanted: 2 + 32 });
    for keyed in &needs[1..] {
        assert_eq!((keyed.partitions, keyed.gates, keyed.links), (0, 0, 0));
        assert_eq!((keyed.segments, &keyed.most), (Segments::default(), &None));
    }
}

#[test]
fn need_across_processes_counts_each_link_at_both_ends() {
    let needs = fan_out([1, 2, 3]);
    assert_eq!(needs[0].links, 2);
    assert_eq!(needs[0].segments, Segments { minimum: 2 + 2 * 2, wanted: 34 + 2 * 2 });
    for keyed in &needs[1..] {
        assert_eq!((keyed.gates, keyed.links), (1, 1));
        assert_eq!(keyed.segments, Segments { minimum: 2 + 2, wanted: (2 + 32) + 2 });
    }
    let most = needs[0].most.as_ref().unwrap();
    assert_eq!((most.edge, most.name.as_str(), most.segments.wanted), (0, "source -> keyed", 38));
    assert_eq!(needs[0].most_links.as_ref(), Some(most));
    assert_eq!(most.links, 2);
}

#[test]
fn channels_to_one_slot_share_its_link_and_directions_do_not() {
    // Two edges from slot group a to b and one back: a producer slot has one link out and one in per peer slot.
    let graph = graph(
        vec![vertex(0, "source", 1, "a"), vertex(1, "map", 1, "b"), vertex(2, "late", 1, "a")],
        vec![
            edge(0, 1, 0, Partitioner::Rebalance),
            edge(0, 1, 1, Partitioner::Broadcast),
            edge(1, 2, 0, Partitioner::Rebalance),
        ],
    );
    let needs = segment_need(&graph, &place(&graph, &[slot(1, 0), slot(2, 0)]).unwrap(), 0);
    assert_eq!(needs.iter().map(|need| need.links).collect::<Vec<_>>(), [2, 2]);
    // Slot 1: two partitions and one gate; slot 2: one gate for both edges, and one partition.
    assert_eq!(needs[0].segments, Segments { minimum: 3 * 2 + 2 * 2, wanted: 33 + 33 + 34 + 2 * 2 });
    assert_eq!(needs[1].segments, Segments { minimum: 2 * 2 + 2 * 2, wanted: (2 * 2 + 32) + 33 + 2 * 2 });
    assert_eq!(needs[1].most.as_ref().unwrap().name, "source -> map");
    let most = needs[1].most_links.as_ref().unwrap();
    assert_eq!((most.edge, most.links), (0, 1), "a link that two edges share is the first one's");
}

#[test]
fn only_the_remote_channels_of_a_gate_count() {
    // Three producers, one of them in the consumer's process.
    let graph = graph(
        vec![vertex(0, "source", 3, "a"), vertex(1, "map", 1, "b")],
        vec![edge(0, 1, 0, Partitioner::Rebalance)],
    );
    let offers = [slot(1, 0), slot(1, 1), slot(2, 0), slot(3, 0)];
    let placement = place(&graph, &offers).unwrap();
    let consumer = placement.slot_of(task(1, 0));
    assert_eq!(consumer, slot(1, 1));
    let needs = segment_need(&graph, &placement, 0);
    let need = needs.iter().find(|need| need.slot == consumer).unwrap();
    assert_eq!((need.gates, need.links), (1, 2));
    assert_eq!(need.segments, Segments { minimum: 2 + 2 * 2, wanted: (2 * 2 + 32) + 2 * 2 });
}

#[test]
fn a_job_without_edges_needs_nothing() {
    let graph = graph(vec![vertex(0, "source", 1, "a")], vec![]);
    let needs = segment_need(&graph, &place(&graph, &offers(1, 1)).unwrap(), 0);
    assert_eq!((needs[0].segments, &needs[0].most), (Segments::default(), &None));
}

proptest! {
    #![proptest_config(common::config())]

    /// Every subtask has one slot, siblings never share one, groups never share one, TaskManagers are used evenly, and
    /// the order of the offers does not matter.
    #[test]
    fn placement_properties(graph in any_graph(), taskmanagers in 1..5_u64, shuffle in any::<u64>()) {
        let needed: u32 = graph.slots_needed().iter().map(|(_, slots)| slots).sum();
        let mut offers = offers(taskmanagers, needed);
        let placement = place(&graph, &offers).unwrap();
        offers.sort_by_key(|slot| (slot.taskmanager ^ shuffle).wrapping_mul(u64::from(slot.slot) | 1).rotate_left(7));
        prop_assert_eq!(&place(&graph, &offers).unwrap(), &placement);

        let mut group_of = BTreeMap::new();
        for task in graph.subtasks() {
            let slot = placement.slot_of(task);
            let vertex = &graph.vertices[task.vertex as usize];
            prop_assert!(placement.tasks_in(slot).contains(&task));
            let owner = group_of.entry(slot).or_insert((vertex.slot_group.clone(), task.subtask));
            prop_assert_eq!((&owner.0, owner.1), (&vertex.slot_group, task.subtask));
        }
        prop_assert_eq!(group_of.len() as u32, needed);
        let total: usize = placement.slots().into_iter().map(|slot| placement.tasks_in(slot).len()).sum();
        prop_assert_eq!(total, graph.subtasks().count());

        let mut used = BTreeMap::new();
        placement.slots().iter().for_each(|slot| *used.entry(slot.taskmanager).or_insert(0) += 1);
        let most = used.values().max().unwrap();
        prop_assert!((1..=taskmanagers).all(|tm| used.get(&tm).unwrap_or(&0) + 1 >= *most), "{used:?}");
    }

    /// The need of a slot is the sum of its parts, and links have two ends.
    #[test]
    fn needs_add_up(graph in any_graph(), taskmanagers in 1..4_u64) {
        let needed: u32 = graph.slots_needed().iter().map(|(_, slots)| slots).sum();
        let placement = place(&graph, &offers(taskmanagers, needed)).unwrap();
        let needs = segment_need(&graph, &placement, 0);
        prop_assert_eq!(needs.len() as u32, needed);
        for need in &needs {
            prop_assert!(need.segments.minimum <= need.segments.wanted);
            prop_assert_eq!(need.segments.minimum, 2 * (need.partitions + need.gates + need.links));
            prop_assert!(taskmanagers > 1 || need.links == 0);
        }
        prop_assert_eq!(needs.iter().map(|need| need.links).sum::<u32>() % 2, 0);
    }
}
