//! The seccomp profile that containers run under (`deploy/seccomp/tidegate.json`), enforced here: its JSON, which container
//! runtimes read, becomes filters of this kernel.
//!
//! The profile is in the form that Docker and the kubelet take. Always: a call it names is one that exists, so a misspelled
//! name fails the test.

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde::Deserialize;
use serde_json::{Value, json};

const PROFILE: &str = include_str!("../../../../../deploy/seccomp/tidegate.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: u32,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

impl Condition {
    /// As the crate reads it. What is compared here are ints, of which the kernel looks at the lower half.
    fn translated(&self) -> Value {
        let (op, value) = match self.op.as_str() {
            "SCMP_CMP_LT" => (json!("lt"), self.value),
            "SCMP_CMP_EQ" => (json!("eq"), self.value),
            "SCMP_CMP_GT" => (json!("gt"), self.value),
            "SCMP_CMP_MASKED_EQ" => (json!({ "masked_eq": self.value }), self.value_two),
            other => panic!("the profile compares with {other}, which this test does not know"),
        };
        json!({ "index": self.index, "type": "dword", "op": op, "val": value })
    }
}

/// Whether what the profile adds to a runtime's own is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IoUring {
    Allowed,
    /// As in the profiles that Docker and containerd bring along.
    Forbidden,
    /// Rings may be made, and nothing may be registered with them.
    NothingRegistered,
    /// As allowed, but for the registration of buffers.
    NoBuffersRegistered,
    /// As allowed, but rings can't be made, with this error of the kernel.
    Fails(u32),
}

/// Puts this thread, and every process that it starts from now on, under the profile.
pub fn confine(io_uring: IoUring) {
    let mut profile: Profile = serde_json::from_str(PROFILE).expect("the profile is of the form");
    let forbidden = match io_uring {
        IoUring::Allowed | IoUring::NoBuffersRegistered | IoUring::Fails(_) => None,
        IoUring::Forbidden => Some("io_uring_"),
        IoUring::NothingRegistered => Some("io_uring_register"),
    };
    if let Some(forbidden) = forbidden {
        profile.syscalls.iter_mut().for_each(|rule| rule.names.retain(|name| !name.starts_with(forbidden)));
    }
    if io_uring == IoUring::NoBuffersRegistered {
        // IORING_REGISTER_BUFFERS, IORING_REGISTER_BUFFERS2, whichever way the ring is named.
        for opcode in [0, 15] {
            let (index, op) = (1, "SCMP_CMP_MASKED_EQ".into());
            let condition = Condition { index, value: 0x7fff_ffff, value_two: opcode, op };
            profile.syscalls.push(Rule {
                names: vec!["io_uring_register".into()],
                action: "SCMP_ACT_ERRNO".into(),
                errno_ret: Some(1),
                args: vec![condition],
            });
        }
    }
    if let IoUring::Fails(errno) = io_uring {
        profile.syscalls.push(Rule {
            names: vec!["io_uring_setup".into()],
            action: "SCMP_ACT_ERRNO".into(),
            errno_ret: Some(errno),
            args: Vec::new(),
        });
    }
    let filter = |answer: Value, otherwise: Value, rules: &[&Rule]| {
        let calls = rules.iter().flat_map(|rule| {
            rule.names.iter().map(|name| match rule.args.as_slice() {
                [] => json!({ "syscall": name }),
                args => json!({
                    "syscall": name,
                    "args": args.iter().map(Condition::translated).collect::<Vec<_>>(),
                }),
            })
        });
        let calls: Vec<Value> = calls.collect();
        install(json!({ "it": { "match_action": answer, "mismatch_action": otherwise, "filter": calls } }));
    };
    let (allowed, refused): (Vec<&Rule>, Vec<&Rule>) =
        profile.syscalls.iter().partition(|rule| rule.action == "SCMP_ACT_ALLOW");
    assert_eq!(profile.default_action, "SCMP_ACT_ERRNO");
    filter(json!("allow"), json!({ "errno": profile.default_errno_ret }), &allowed);
    // Of several errors the kernel gives the one of the filter that came last.
    for rule in refused {
        assert_eq!(rule.action, "SCMP_ACT_ERRNO", "{:?}", rule.names);
        let errno = rule.errno_ret.expect("the rule says which error");
        filter(json!({ "errno": errno }), json!("allow"), &[rule]);
    }
}

fn install(filters: Value) {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("the crate knows it");
    let mut programs = compile_from_json(filters.to_string().as_bytes(), architecture).expect("it compiles");
    let program: BpfProgram = programs.remove("it").expect("it was just given");
    apply_filter(&program).expect("the kernel takes it");
}
