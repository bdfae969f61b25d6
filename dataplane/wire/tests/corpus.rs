//! The seeds of the fuzz targets, replayed on every machine through the same code that the targets run, without a
//! nightly compiler. A bug that fuzzing finds stays in the corpus under a name, and so in this test.

mod bodies;
mod common;

use std::fs;
use std::path::PathBuf;

use common::{hello, one_of_each, write};
use tidegate_wire::{
    Body, CREDITS_MAX, Data, Entry, HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, PAYLOAD_MAX, RECORD_MAX,
    Refusal,
};

/// A seed's name and its bytes.
type Seed = (String, Vec<u8>);

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Name and bytes of each seed of the target `manifest`: one lawful manifest of every shape, and edges.
fn manifest_seeds() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = one_of_each()
        .into_iter()
        .map(|entry| (format!("kind-{:02}", entry.kind() as u8), write(1, 2, &[entry])))
        .collect();
    let largest = Data { len: PAYLOAD_MAX, total: RECORD_MAX, offset: RECORD_MAX - PAYLOAD_MAX, crc: 1 };
    let data = Entry::data(0, 0, u32::MAX, u16::MAX, largest);
    let grant = Entry::control(0, u32::MAX, Body::Grant { credits: CREDITS_MAX, barriers: u32::MAX });
    let mut full = vec![data; 16];
    full.resize(64, grant);
    seeds.push(("all-kinds".into(), write(u64::MAX, u64::MAX, &one_of_each())));
    seeds.push(("full".into(), write(0, 0, &full)));
    seeds.push(("cut".into(), write(0, 0, &full)[..100].to_vec()));
    seeds.push(("header-only".into(), write(0, 0, &full)[..64].to_vec()));
    let mut damaged = write(0, 0, &[data]);
    damaged[70] ^= 1;
    seeds.push(("damaged".into(), damaged));
    seeds
}

/// Name and bytes of each seed of the target `hello`.
fn hello_seeds() -> Vec<Seed> {
    let mut bytes = [0; HELLO_LEN];
    hello().write(&mut bytes);
    let mut newer = [0; HELLO_LEN];
    Hello { version: 2, ..hello() }.write(&mut newer);
    let mut reply = [0; HELLO_REPLY_LEN];
    HelloReply { echo: 1, refusal: None }.write(&mut reply);
    let mut refusal = [0; HELLO_REPLY_LEN];
    HelloReply { echo: 1, refusal: Some(Refusal::busy(2, 3)) }.write(&mut refusal);
    vec![
        ("hello".into(), bytes.to_vec()),
        ("hello-newer".into(), newer.to_vec()),
        ("hello-cut".into(), bytes[..100].to_vec()),
        ("reply-accepted".into(), reply.to_vec()),
        ("reply-refused".into(), refusal.to_vec()),
    ]
}

fn seeds() -> [(&'static str, Vec<Seed>); 2] {
    [("manifest", manifest_seeds()), ("hello", hello_seeds())]
}

/// Every file of a target's corpus goes through its body. Returns how many there were.
fn replay(target: &str, body: fn(&[u8])) -> usize {
    let files: Vec<_> = fs::read_dir(corpus(target)).unwrap().map(|file| file.unwrap().path()).collect();
    for file in &files {
        println!("replaying {}", file.display());
        body(&fs::read(file).unwrap());
    }
    files.len()
}

#[test]
fn replay_manifest() {
    assert!(replay("manifest", bodies::manifest) >= manifest_seeds().len());
}

#[test]
fn replay_hello() {
    assert!(replay("hello", bodies::hello) >= hello_seeds().len());
}

#[test]
fn the_seeds_are_those_of_this_version() {
    for (target, seeds) in seeds() {
        for (name, bytes) in seeds {
            let kept = fs::read(corpus(target).join(&name)).unwrap_or_default();
            assert!(
                kept == bytes,
                "seed {target}/{name} is out of date: run the ignored test `write_the_seeds`"
            );
        }
    }
}

#[test]
#[ignore = "writes the seeds into fuzz/corpus: run it by name after a change of the format"]
fn write_the_seeds() {
    for (target, seeds) in seeds() {
        fs::create_dir_all(corpus(target)).unwrap();
        for (name, bytes) in seeds {
            fs::write(corpus(target).join(name), bytes).unwrap();
        }
    }
}
