//! Every kind of record comes back as it was written, in place and owned.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tidegate_record::{Field, Plain, Record, Records, Slot, from_snapshot, to_snapshot};

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
#[repr(C)]
struct Tick {
    price: f64,
    size: u32,
    venue: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
#[repr(transparent)]
struct Code([u8; 3]);

#[derive(Clone, Debug, PartialEq, Record)]
#[record(derive(Debug))]
enum Event {
    Idle,
    Moved(i32, Code),
    Renamed { from: String, to: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Everything {
    flag: bool,
    letter: char,
    wide: u128,
    small: i8,
    ratio: f32,
    name: String,
    r#type: Option<i16>,
    list: Vec<String>,
    nested: Vec<Vec<u16>>,
    code: Code,
    ticks: Vec<Tick>,
    grid: [Option<u32>; 3],
    pair: (u8, String),
    events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Empty;

fn tick() -> impl Strategy<Value = Tick> {
    (any::<i32>(), any::<u32>(), any::<[u8; 4]>()).prop_map(|(price, size, venue)| Tick {
        price: f64::from(price),
        size,
        venue,
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Idle),
        (any::<i32>(), any::<[u8; 3]>()).prop_map(|(by, code)| Event::Moved(by, Code(code))),
        (".{0,20}", option::of(".{0,20}")).prop_map(|(from, to)| Event::Renamed { from, to }),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let scalars = (any::<bool>(), any::<char>(), any::<u128>(), any::<i8>(), any::<i16>());
    let texts =
        (".{0,40}", option::of(any::<i16>()), vec(".{0,12}", 0..9), vec(vec(any::<u16>(), 0..5), 0..5));
    let rest = (
        any::<[u8; 3]>(),
        vec(tick(), 0..5),
        any::<[Option<u32>; 3]>(),
        (any::<u8>(), ".{0,12}"),
        vec(event(), 0..4),
    );
    (scalars, texts, rest).prop_map(|(s, t, r)| Everything {
        flag: s.0,
        letter: s.1,
        wide: s.2,
        small: s.3,
        ratio: f32::from(s.4),
        name: t.0,
        r#type: t.1,
        list: t.2,
        nested: t.3,
        code: Code(r.0),
        ticks: r.1,
        grid: r.2,
        pair: r.3,
        events: r.4,
    })
}

#[repr(align(64))]
struct Segment([u8; 64 * 1024]);

fn through_a_slot<T: Record>(records: &[T]) -> Vec<T> {
    let mut segment = Box::new(Segment([0; 64 * 1024]));
    let mut slot = Slot::new(&mut segment.0, 0);
    for record in records {
        record.write(&mut slot).expect("64 KiB are enough");
    }
    Records::<T>::new(slot.bytes())
        .map(|view| T::to_owned_value(view.expect("written by us")).expect("written by us"))
        .collect()
}

proptest! {
    #[test]
    fn archived_records_come_back(records in vec(everything(), 0..6)) {
        prop_assert_eq!(through_a_slot(&records), records);
    }

    #[test]
    fn enums_come_back(records in vec(event(), 0..20)) {
        prop_assert_eq!(through_a_slot(&records), records);
    }

    #[test]
    fn plain_records_come_back(records in vec(tick(), 0..50)) {
        prop_assert_eq!(through_a_slot(&records), records);
    }

    #[test]
    fn snapshots_come_back_and_follow_each_other(values in vec(everything(), 1..5)) {
        let mut bytes = vec![7u8; 3];
        for value in &values {
            to_snapshot(value, &mut bytes).unwrap();
        }
        prop_assert_eq!(&bytes[..3], &[7, 7, 7]);
        let mut rest = &bytes[3..];
        for value in &values {
            let (back, used) = from_snapshot::<Everything>(rest).unwrap();
            prop_assert_eq!(&back, value);
            rest = &rest[used..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn the_same_value_has_the_same_bytes(value in everything()) {
        let write = || {
            let mut bytes = Vec::new();
            to_snapshot(&value, &mut bytes).unwrap();
            bytes
        };
        prop_assert_eq!(write(), write());
    }
}

#[test]
fn types_of_the_standard_library_come_back() {
    fn check<T: Record + Field + Clone + PartialEq + std::fmt::Debug>(value: T) {
        assert_eq!(through_a_slot(&[value.clone(), value.clone()]), [value.clone(), value.clone()]);
        let mut bytes = Vec::new();
        to_snapshot(&value, &mut bytes).unwrap();
        assert_eq!(from_snapshot::<T>(&bytes).unwrap(), (value, bytes.len()));
    }
    check(());
    check(true);
    check('ß');
    check(i128::MIN);
    check(-0.5f32);
    check([1u16, 2, 3]);
    check([[1u8; 3]; 2]);
    check(String::from("eight by"));
    check(Some(String::from("nine byte")));
    check(None::<u8>);
    check(vec![Some(1u64), None]);
    check((1u8,));
    check((1u8, 2u16, 3u32, 4u64, 5i8, 6i16, 7i32, String::from("8")));
    check(Empty);
}

#[test]
fn plain_bytes_are_the_records_themselves() {
    let tick = Tick { price: 1.5, size: 7, venue: *b"XTKS" };
    let mut buffer = [0u8; 64];
    let mut slot = Slot::new(&mut buffer, 0);
    tick.write(&mut slot).unwrap();
    let mut expected = Vec::new();
    expected.extend(1.5f64.to_le_bytes());
    expected.extend(7u32.to_le_bytes());
    expected.extend(b"XTKS");
    assert_eq!(slot.bytes(), expected);
    assert_eq!(Tick::as_bytes(&[tick]), expected);
}

#[test]
fn archived_bytes_are_pinned() {
    // A change here is a change of the format: it needs a new `FORMAT`, and old snapshots cannot be read any more.
    let mut buffer = [0u8; 64];
    let mut slot = Slot::new(&mut buffer, 0);
    (0x0102_0304u32, Some(5u16), String::from("a long text")).write(&mut slot).unwrap();
    let mut expected = Vec::new();
    expected.extend(26u32.to_le_bytes());
    expected.extend(b"a long text");
    expected.extend([4, 3, 2, 1]);
    expected.extend([1, 5, 0]);
    expected.extend([11 | 0x80, 0, 0, 0]);
    expected.extend((-18i32).to_le_bytes());
    assert_eq!(slot.bytes(), expected);
}

#[test]
fn a_view_derives_what_it_was_told_to() {
    let mut buffer = [0u8; 128];
    let mut slot = Slot::new(&mut buffer, 0);
    Event::Renamed { from: "a".into(), to: None }.write(&mut slot).unwrap();
    let view = Records::<Event>::new(slot.bytes()).next().unwrap().unwrap();
    assert_eq!(format!("{view:?}"), r#"Renamed { from: "a", to: None }"#);
    assert!(matches!(view, ArchivedEvent::Renamed { .. }));
}
