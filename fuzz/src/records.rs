//! Bytes as payloads of several record types: whatever validates is touched in every field, and has one form.
//!
//! The first byte picks the type, so that one corpus serves all. Oracle: a record that is read can be written, and what was
//! written reads as the same bytes again; an error moves nothing and ends the cursor; no read leaves the payload.

use tidegate_record::{
    Field, Key, KeyRef, KeyedBatch, KeyedCodec, Plain, Record, Records, Slot, from_snapshot, to_snapshot,
};

/// Numbers in a row: a payload is an array of it.
#[derive(Clone, Copy, Debug, PartialEq, Plain)]
#[repr(C)]
pub(crate) struct Tick {
    pub price: f64,
    pub size: u32,
    pub venue: [u8; 4],
}

#[derive(Clone, Debug, PartialEq, Record)]
#[record(derive(Debug))]
pub(crate) enum Event {
    Idle,
    Moved(i32, [u8; 3]),
    Renamed { from: String, to: Option<String> },
}

/// One field of every kind.
#[derive(Clone, Debug, PartialEq, Record)]
pub(crate) struct Everything {
    pub flag: bool,
    pub letter: char,
    pub wide: u128,
    pub name: String,
    pub maybe: Option<i16>,
    pub list: Vec<String>,
    pub nested: Vec<Vec<u16>>,
    pub ticks: Vec<Tick>,
    pub grid: [Option<u32>; 3],
    pub pair: (u8, String),
    pub events: Vec<Event>,
}

/// A key that travels with its record.
pub(crate) type TextKey = (String, u8);

/// The first byte says as what the rest is read.
pub fn records(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    // A copy of its own: aligned as a payload in a segment is, and with nothing readable behind its end.
    let bytes = &*bytes.to_vec();
    match which % 8 {
        0 => payload::<String>(bytes),
        1 => payload::<Everything>(bytes),
        2 => payload::<Tick>(bytes),
        3 => payload::<u64>(bytes),
        4 => payload::<Event>(bytes),
        5 => keyed(bytes),
        6 => snapshot::<Everything>(bytes),
        _ => snapshot::<(u64, Vec<Option<String>>)>(bytes),
    }
}

fn payload<T: Record>(bytes: &[u8]) {
    // What read as a record takes no more room than it took. Of the two rooms neither is empty, as no segment is that was used
    // before: a byte that the writer leaves out makes them differ.
    let mut rooms = [0x55, 0xAA].map(|used| vec![used; 2 * bytes.len() + 64]);
    let [first, second] = &mut rooms;
    let mut cursor = Records::<T>::new(bytes);
    let mut last = 0;
    while let Some(view) = cursor.next() {
        let Ok(view) = view else {
            assert_eq!(cursor.position(), last, "an error moves nothing");
            assert!(cursor.next().is_none(), "an error ends the cursor");
            return;
        };
        assert!(cursor.position() > last && cursor.position() as usize <= bytes.len());
        last = cursor.position();
        let value = T::to_owned_value(view).expect("what validated can be owned");
        let first = written(&value, first);
        let read = T::read(first, &mut 0).expect("what was written is read").expect("there is one");
        let second = written(&T::to_owned_value(read).expect("what was written can be owned"), second);
        assert_eq!(first, second, "a value has one form");
    }
    assert_eq!(last as usize, bytes.len(), "the end is the end of the bytes");
}

/// The bytes of one record, at the start of `room`, which is aligned as a payload is.
fn written<'a, T: Record>(value: &T, room: &'a mut [u8]) -> &'a [u8] {
    let mut slot = Slot::new(room, 0);
    value.write(&mut slot).expect("what came out of a payload fits into one");
    let len = slot.len() as usize;
    &room[..len]
}

fn keyed(bytes: &[u8]) {
    type Codec = <Everything as Record>::Keyed<TextKey>;
    let key_of = |_: &Everything| -> TextKey { unreachable!("the key travels") };
    let (mut batch, mut position) = (<Codec as KeyedCodec<TextKey, Everything>>::Batch::default(), 0);
    let mut batched = 0;
    while batch.read(bytes, &mut position, 7, &key_of).is_ok() && !batch.hashes().is_empty() {
        batched += batch
            .iter(0)
            .inspect(|(key, _)| drop(key.to_key().expect("what validated can be owned")))
            .count();
    }
    let (mut position, mut single) = (0, 0);
    while let Ok(Some((key, view))) = Codec::read(bytes, &mut position, &key_of) {
        assert!(position as usize <= bytes.len());
        let hash = key.hash();
        let own = key.to_key().expect("what validated can be owned");
        assert_eq!(own.hash(), hash, "a key in place is the key");
        Everything::to_owned_value(view).expect("what validated can be owned");
        single += 1;
    }
    // A batch fails as a whole.
    assert!(batched <= single && single - batched < 7, "{batched} in batches, {single} one by one");
}

fn snapshot<T: Field>(bytes: &[u8]) {
    let Ok((value, used)) = from_snapshot::<T>(bytes) else { return };
    assert!(used <= bytes.len());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    to_snapshot(&value, &mut first).expect("what was read can be written");
    let (again, all) = from_snapshot::<T>(&first).expect("what was written is read");
    assert_eq!(all, first.len());
    to_snapshot(&again, &mut second).expect("what was read can be written");
    assert_eq!(first, second, "a value has one form");
}
