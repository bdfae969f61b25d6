//! The seeds of every corpus, made by the real encoders: the same bytes in every run.
//!
//! For the test that replays them, which also says when a committed seed is out of date, and writes them anew.

mod control;
mod data;

pub(crate) use control::job_graph;

/// One file of a corpus.
pub struct Seed {
    /// The target whose corpus it belongs to.
    pub target: &'static str,
    /// The name of the file.
    pub name: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// Seeds as they are made.
#[derive(Default)]
struct Seeds(Vec<Seed>);

impl Seeds {
    fn put(&mut self, target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push(Seed { target, name: name.into(), bytes: bytes.into() });
    }
}

/// All seeds of all targets.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Seeds::default();
    data::manifest(&mut seeds);
    data::hello(&mut seeds);
    data::link(&mut seeds);
    data::records(&mut seeds);
    data::state(&mut seeds);
    control::checkpoint(&mut seeds);
    control::rpc(&mut seeds);
    control::leader(&mut seeds);
    control::config(&mut seeds);
    control::plan(&mut seeds);
    control::rest(&mut seeds);
    control::graph(&mut seeds);
    seeds.0
}
