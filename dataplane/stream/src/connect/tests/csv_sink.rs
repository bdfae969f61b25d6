//! The sink of parts: one part per barrier with rows, handed in until its checkpoint is complete, and named faults.

use super::{runtime, waker};
use crate::connect::{CsvRow, CsvSink};
use crate::context::RuntimeContext;
use crate::error::Fault;
use crate::files::{FileEvent, Files};
use crate::limits::SINK_ITEM_MAX;
use crate::sink::{Committable, Prepared, Sink, SinkContext, SinkWriter};
use crate::testing::MemoryFiles;

fn put(n: &u64, row: &mut CsvRow<'_>) {
    row.value(n).text("x,y");
}

type Put = fn(&u64, &mut CsvRow<'_>);

fn sink() -> CsvSink<u64, Put> {
    CsvSink::new("out", ["n", "text"], put as Put)
}

struct Rig {
    writer: <CsvSink<u64, Put> as Sink<u64>>::Writer,
    files: MemoryFiles,
}

impl Rig {
    fn new(sink: &CsvSink<u64, Put>, runtime: &RuntimeContext) -> Self {
        let context = SinkContext { runtime, states: &[], waker: waker() };
        Rig { writer: sink.open(&context).unwrap(), files: MemoryFiles::new(4) }
    }

    fn write(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            assert!(self.writer.ready(&mut self.files));
            self.writer.write(&number, &mut self.files).unwrap();
        }
    }

    fn cut(&mut self, checkpoint: u64) {
        self.writer.cut(checkpoint, &mut self.files).unwrap();
    }

    fn pump(&mut self) {
        for event in self.files.pump(usize::MAX) {
            self.writer.file_event(&event).unwrap();
        }
    }

    fn prepared(&mut self, checkpoint: u64) -> Option<Vec<Committable>> {
        match self.writer.prepare_commit(checkpoint, &mut self.files).unwrap() {
            Prepared::Pending => None,
            Prepared::Ready { state, committables } => {
                assert!(state.is_empty(), "{state:?}");
                Some(committables)
            }
        }
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.files.store().read(path).unwrap()).unwrap()
    }
}

fn targets(committables: &[Committable]) -> Vec<&str> {
    committables.iter().map(|committable| committable.target.as_str()).collect()
}

#[test]
fn a_part_per_barrier_with_its_header() {
    let mut rig = Rig::new(&sink(), &runtime(2, 4, None));
    rig.write([1, 2]);
    rig.cut(1);
    assert_eq!(rig.prepared(1), None, "the file is not on disk yet");
    rig.write([3]);
    rig.pump();
    let parts = rig.prepared(1).unwrap();
    let [part] = parts.as_slice() else { panic!("{parts:?}") };
    assert_eq!(
        (part.pending.as_str(), part.target.as_str()),
        ("out/_pending/00000000000000000000000000000001-e1-a1/part-2-1.csv", "out/part-2-1.csv")
    );
    let text = rig.text(&part.pending);
    assert_eq!(text, "n,text\n1,\"x,y\"\n2,\"x,y\"\n");
    assert_eq!(part.len, text.len() as u64);
    assert!(rig.files.store().rename(&part.pending, &part.target, part.hash));
    rig.writer.notify(1);

    rig.cut(2);
    rig.pump();
    let parts = rig.prepared(2).unwrap();
    assert_eq!(targets(&parts), ["out/part-2-2.csv"]);
    assert_eq!(
        rig.text("out/_pending/00000000000000000000000000000001-e1-a1/part-2-2.csv"),
        "n,text\n3,\"x,y\"\n"
    );
}

#[test]
fn no_rows_no_part() {
    let mut rig = Rig::new(&sink(), &runtime(0, 1, None));
    rig.cut(1);
    assert_eq!(rig.prepared(1), Some(vec![]));
    // Started, but nothing written: it waits for rows, and is no part until then.
    assert!(rig.writer.ready(&mut rig.files));
    rig.cut(2);
    assert_eq!(rig.prepared(2), Some(vec![]));
    rig.write([1]);
    rig.cut(3);
    rig.pump();
    assert_eq!(targets(&rig.prepared(3).unwrap()), ["out/part-0-1.csv"]);
    assert!(rig.writer.ready(&mut rig.files));
    rig.writer.close(&mut rig.files);
    rig.pump();
    assert_eq!((rig.files.on_loan(), rig.files.open_files()), (0, 0));
    assert_eq!(
        rig.files.store().paths(),
        ["out/_pending/00000000000000000000000000000001-e1-a1/part-0-1.csv"]
    );
}

#[test]
fn parts_are_handed_in_until_a_checkpoint_is_complete() {
    let mut rig = Rig::new(&sink(), &runtime(0, 1, None));
    for checkpoint in 1..=3 {
        rig.write([checkpoint]);
        rig.cut(checkpoint);
    }
    rig.pump();
    rig.writer.abort(1);
    assert_eq!(targets(&rig.prepared(2).unwrap()), ["out/part-0-1.csv", "out/part-0-2.csv"]);
    assert_eq!(rig.prepared(3).unwrap().len(), 3);
    rig.writer.notify(2);
    assert_eq!(targets(&rig.prepared(3).unwrap()), ["out/part-0-3.csv"]);
}

#[test]
fn numbers_go_on_behind_the_restored_checkpoint() {
    let mut rig = Rig::new(&sink().folder("sub"), &runtime(0, 1, Some(41)));
    rig.write([1]);
    rig.cut(43);
    rig.pump();
    assert_eq!(targets(&rig.prepared(43).unwrap()), ["out/sub/part-0-42.csv"]);
    assert_eq!(
        rig.files.store().paths(),
        ["out/_pending/00000000000000000000000000000001-e1-a1/sub/part-0-42.csv"]
    );
}

#[test]
fn a_folder_does_not_lead_out_of_the_output() {
    for (folder, target) in [("../sub/", "out/sub/part-0-1.csv"), ("a/../..", "out/part-0-1.csv")] {
        let mut rig = Rig::new(&sink().folder(folder), &runtime(0, 1, None));
        rig.write([1]);
        rig.cut(1);
        rig.pump();
        assert_eq!(targets(&rig.prepared(1).unwrap()), [target]);
    }
}

#[test]
fn without_a_buffer_it_is_not_ready() {
    let mut rig = Rig::new(&sink(), &runtime(0, 1, None));
    let loans: Vec<_> = (0..4).map(|_| rig.files.try_buffer().unwrap()).collect();
    assert!(!rig.writer.ready(&mut rig.files));
    assert!(!rig.writer.ready(&mut rig.files));
    drop(loans);
    rig.write(0..20_000);
    rig.cut(1);
    rig.pump();
    let part = &rig.prepared(1).unwrap()[0];
    let text = rig.text(&part.pending);
    assert_eq!(text.lines().count(), 20_001);
    assert_eq!(text.lines().filter(|line| *line == "n,text").count(), 1);
}

#[test]
fn an_output_that_cannot_be_written_fails_by_name() {
    let mut rig = Rig::new(&sink(), &runtime(0, 1, None));
    rig.files.break_paths(Some("out/"));
    rig.write([1]);
    rig.cut(1);
    let events = rig.files.pump(usize::MAX);
    let error = events.iter().find_map(|event| rig.writer.file_event(event).err()).unwrap();
    assert_eq!(error.fault(), Fault::Sink);
    assert!(
        error.message().starts_with("output out: it cannot be written: out/_pending/00000000000000000000000000000001-e1-a1/part-0-1.csv"),
        "{error}"
    );
}

#[test]
fn an_output_that_cannot_even_be_started_fails_before_the_first_row() {
    let mut rig = Rig::new(&sink(), &runtime(0, 1, None));
    assert!(rig.writer.ready(&mut rig.files));
    let file = rig.writer.part_file().unwrap();
    let refused = FileEvent::Failed { file, cause: "out: Permission denied".to_owned() };
    assert!(rig.writer.file_event(&refused).unwrap_err().message().contains("Permission denied"));
    let other = FileEvent::Failed { file: crate::files::FileId(999), cause: "not mine".to_owned() };
    assert_eq!(rig.writer.file_event(&other), Ok(()));
}

#[test]
fn rows_that_are_wrong_fail_by_name() {
    let open = |put: Put| Rig::new(&CsvSink::new("out", ["n", "text"], put), &runtime(0, 1, None));
    let mut short = open(|n, row| {
        row.value(n);
    });
    assert!(short.writer.ready(&mut short.files));
    let error = short.writer.write(&1, &mut short.files).unwrap_err();
    assert_eq!(error.message(), "output out: a row has 1 fields and the header 2 columns");
    assert_eq!(error.fault(), Fault::Setup);

    let mut long = open(|n, row| {
        row.value(n).text(&"y".repeat(SINK_ITEM_MAX));
    });
    assert!(long.writer.ready(&mut long.files));
    let error = long.writer.write(&1, &mut long.files).unwrap_err();
    assert!(error.message().contains("a row has more than 65536 bytes"), "{error}");
    assert_eq!(error.fault(), Fault::TooLarge);
}

#[test]
fn parts_that_wait_are_bounded() {
    let mut rig = Rig::new(&sink(), &runtime(0, 1, None));
    let error = (1..).find_map(|checkpoint| {
        rig.write([checkpoint]);
        let error = rig.writer.cut(checkpoint, &mut rig.files).err();
        rig.pump();
        rig.writer.abort(checkpoint);
        error
    });
    assert!(error.unwrap().message().contains("1024 parts wait for a checkpoint"));
}
