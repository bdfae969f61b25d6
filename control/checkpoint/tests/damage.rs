//! Every cut and every flipped bit of metadata is noticed; swapped files are, too.

use tidegate_checkpoint::frame::Damage;
use tidegate_checkpoint::metadata::Alignment;
use tidegate_checkpoint::*;
use tidegate_graph::PendingFolder;

fn metadata() -> Metadata {
    Metadata {
        job: 7,
        epoch: 2,
        attempt: 3,
        id: 5,
        base: Some(4),
        job_name: "delays".into(),
        args: vec!["--input".into(), "x".into()],
        parallelism: 4,
        graph_fingerprint: 11,
        binary_fingerprint: 12,
        triggered_ms: 1,
        completed_ms: 2,
        alignment: Alignment::Aligned,
        last: false,
        operators: vec![OperatorInfo {
            operator: 9,
            name: "count".into(),
            vertex: 1,
            parallelism: 4,
            max_parallelism: 128,
        }],
        tasks: vec![TaskPart {
            task: Task { vertex: 1, subtask: 0 },
            finished: false,
            alignment_ns: 10,
            bytes: 3,
            operators: vec![OperatorPart {
                operator: 9,
                inline: vec![1, 2, 3],
                object: Some(Object {
                    path: format!("{}/1-1-0-x.state", layout::checkpoint_dir(7, 5)),
                    len: 100,
                    hash: 3,
                }),
                groups: vec![GroupSlice { group: 0, offset: 0, len: 100, hash: 4 }],
                committables: vec![Committable {
                    pending: "/out/_pending/00000000000000000000000000000007-e2-a3/f".into(),
                    target: "/out/part-0-1.csv".into(),
                    len: 9,
                    hash: 8,
                }],
                schema: 6,
            }],
        }],
    }
}

#[test]
fn what_was_written_is_read() {
    let bytes = metadata().encode().unwrap();
    assert_eq!(Metadata::decode(7, 5, &bytes).unwrap(), metadata());
}

#[test]
fn every_cut_is_noticed() {
    let bytes = metadata().encode().unwrap();
    for end in 0..bytes.len() {
        let damage = Metadata::decode(7, 5, &bytes[..end]).unwrap_err();
        assert!(matches!(damage, Damage::Truncated { .. }), "cut at {end}: {damage}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(Metadata::decode(7, 5, &longer), Err(Damage::TooLong { .. })));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = metadata().encode().unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Metadata::decode(7, 5, &damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn another_checkpoints_metadata_is_refused() {
    let bytes = metadata().encode().unwrap();
    let damage = Metadata::decode(7, 6, &bytes).unwrap_err();
    assert!(damage.to_string().contains("swapped"), "{damage}");
    assert!(Metadata::decode(8, 5, &bytes).is_err());
    let outputs = Outputs { job: 7, epoch: 2, id: 5, files: Vec::new() }.encode().unwrap();
    assert!(matches!(Metadata::decode(7, 5, &outputs), Err(Damage::Kind { .. })));
}

#[test]
fn acknowledgements_are_checked() {
    let Metadata { operators, mut tasks, .. } = metadata();
    let good = tasks.remove(0);
    good.check(7, 5, &operators).unwrap();
    let bad = |change: fn(&mut OperatorPart)| {
        let mut part = good.clone();
        change(&mut part.operators[0]);
        part.check(7, 5, &operators).unwrap_err()
    };
    bad(|part| part.inline = vec![0; limits::INLINE_STATE_BYTES_MAX + 1]);
    bad(|part| part.object.as_mut().unwrap().path = "jobs/../x".into());
    bad(|part| part.object.as_mut().unwrap().path.push_str("/../../x"));
    bad(|part| part.groups[0].len = 101);
    bad(|part| part.groups[0].offset = u64::MAX);
    bad(|part| part.groups.push(part.groups[0]));
    bad(|part| part.committables[0].target = "/etc/passwd".into());
    bad(|part| part.committables[0].target = "/out/../etc/passwd".into());
    bad(|part| part.committables[0].target = "/out/_pending/x".into());
    bad(|part| part.committables[0].pending = "/out/e2-a3/f".into());
    bad(|part| part.committables[0].pending = "/out/_pending/f".into());
    bad(|part| {
        part.committables[0].pending = "/out/_pending/00000000000000000000000000000009-e2-a3/f".into()
    });
    let error = bad(|part| {
        let file = &mut part.committables[0];
        file.pending = format!("/a/../{}", file.pending);
        file.target = format!("/a/../{}", file.target);
    });
    assert!(error.contains("`..` component"), "{error}");
    assert!(good.check(7, 6, &operators).is_err(), "the object lies in another checkpoint");
}

#[test]
fn key_groups_may_come_in_any_order_but_fill_their_object() {
    let Metadata { operators, mut tasks, .. } = metadata();
    let mut part = tasks.remove(0);
    let mut check = |slices: &[(u32, u64, u64)]| {
        let slice = |&(group, offset, len): &(u32, u64, u64)| GroupSlice { group, offset, len, hash: 0 };
        part.operators[0].groups = slices.iter().map(slice).collect();
        part.check(7, 5, &operators)
    };
    check(&[]).unwrap();
    check(&[(0, 0, 30), (5, 30, 30), (127, 60, 40)]).unwrap();
    // As they were written, and the same sorted by group.
    check(&[(127, 0, 40), (0, 40, 30), (5, 70, 30)]).unwrap();
    check(&[(0, 40, 30), (5, 70, 30), (127, 0, 40)]).unwrap();
    for (what, slices) in [
        ("twice", &[(3, 0, 50), (3, 50, 50)][..]),
        ("no such group", &[(128, 0, 100)]),
        ("overlap", &[(1, 0, 60), (2, 50, 50)]),
        ("gap", &[(1, 0, 40), (2, 50, 50)]),
        ("end missing", &[(1, 0, 40), (2, 40, 50)]),
        ("beginning missing", &[(1, 10, 90)]),
        ("beyond the end", &[(1, 0, 40), (2, 40, 70)]),
        ("beyond all numbers", &[(1, 0, 1), (2, 1, u64::MAX)]),
    ] {
        assert!(check(slices).is_err(), "{what}");
    }
}

#[test]
fn sizes_that_no_number_holds_are_cut() {
    let mut metadata = metadata();
    metadata.tasks.push(TaskPart { bytes: u64::MAX, ..metadata.tasks[0].clone() });
    assert_eq!(metadata.bytes(), u64::MAX, "a TaskManager may say anything");
}

#[test]
fn names_are_read_back() {
    assert_eq!(layout::parse_epoch("7"), Some((7, false)));
    assert_eq!(layout::parse_epoch("7.settled"), Some((7, true)));
    assert_eq!(layout::parse_checkpoint("chk-12"), Some((12, false)));
    assert_eq!(layout::parse_checkpoint("chk-12.damaged"), Some((12, true)));
    for name in ["", "07", "+7", "7.", "settled", "7.settled.settled", "-1"] {
        assert_eq!(layout::parse_epoch(name), None, "{name}");
    }
    let (attempt, dir) =
        (PendingFolder { job: 7, epoch: 3, attempt: 4 }, "00000000000000000000000000000007-e3-a4");
    assert_eq!((layout::owner(dir), layout::owner(&layout::fenced_dir(dir))), (Some(attempt), Some(attempt)));
    assert_eq!((layout::owner("e3-a4"), layout::owner("fenced-e3-a4")), (None, None));
    assert_eq!(
        layout::fenced_path(&format!("/out/_pending/{dir}/sub/f")).unwrap(),
        "/out/_pending/fenced-00000000000000000000000000000007-e3-a4/sub/f"
    );
}
