//! `plan` and `config` as scripts see them: exit codes, one object on stdout, and words on stderr.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// The binary in `folder`, with no environment but `variables`.
fn tidegate(folder: &Path, variables: &[(&str, &str)], line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(line).current_dir(folder).env_clear().envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

fn here(line: &[&str]) -> Output {
    tidegate(Path::new("."), &[], line)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn object(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stdout(output)))
}

#[test]
fn a_jobmanager_is_sized_for_its_load() {
    let of = |load: &str| object(&here(&["plan", "--process", "jobmanager", "--load", load, "--json"]), 0);
    let (few, many) = (of("jobs=1"), of("jobs=100,taskmanagers=40"));
    for part in ["heap", "networkMemory", "checkpointMetadata"] {
        assert!(few[part].as_u64() < many[part].as_u64(), "{part}: {few} {many}");
    }
    assert_eq!(few["warnings"], json!([]));
    for (process, load, words) in [
        ("taskmanager", "jobs=1", "--load is for jobmanager"),
        ("jobmanager", "slots=1", "stateful-operators"),
    ] {
        let output = here(&["plan", "--process", process, "--load", load]);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
}

/// A plan of the profile `flink` with these values.
#[track_caller]
fn flink(process: &str, values: &[&str]) -> Value {
    let mut line = vec!["plan", "--profile", "flink", "--process", process, "--json"];
    line.extend(values.iter().flat_map(|value| ["-D", value]));
    object(&here(&line), 0)
}

/// `line` is refused: exit code, code of the error, each of `words` in its message, and the first line on stderr.
#[track_caller]
fn refused(exit: i32, code: &str, line: &[&str], words: &[&str]) -> Value {
    let output = here(&[line, &["--json"]].concat());
    let error = object(&output, exit)["error"].take();
    assert_eq!(error["code"], code, "{error}");
    let message = error["message"].as_str().expect("a text");
    for word in words {
        assert!(message.contains(word), "{word:?} in {message}");
    }
    assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    // The same for people: nothing on stdout.
    let output = here(line);
    assert_eq!((output.status.code(), stdout(&output)), (Some(exit), String::new()), "{line:?}");
    assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    error
}

#[test]
fn a_taskmanager_has_the_names_of_flinks_rest() {
    let plan = flink("taskmanager", &["taskmanager.memory.process.size=1728m"]);
    let wanted = json!({
        "frameworkHeap": 134_217_728, "taskHeap": 402_653_174, "frameworkOffHeap": 134_217_728, "taskOffHeap": 0,
        "networkMemory": 134_217_730, "managedMemory": 536_870_920, "jvmMetaspace": 268_435_456,
        "jvmOverhead": 201_326_592, "totalFlinkMemory": 1_342_177_280, "totalProcessMemory": 1_811_939_328,
        "networkBuffers": 4096, "segmentSize": 32768,
    });
    for (name, value) in wanted.as_object().expect("an object") {
        assert_eq!(&plan[name], value, "{name}");
    }
    let plan =
        flink("taskmanager", &["taskmanager.memory.process.size=8g", "taskmanager.numberOfTaskSlots=4"]);
    assert_eq!(plan["perSlot"]["managedMemory"], 2_985_002_310u64 / 4);
    assert_eq!(plan["perSlot"]["networkBuffers"], 22773 / 4);
    assert_eq!(plan["perSlot"]["consumers"]["python"], 0.176_470_588_235_294_1);
}

#[test]
fn a_jobmanager_has_the_names_of_flinks_rest() {
    let plan = flink("jobmanager", &["jobmanager.memory.process.size=1600m"]);
    let wanted = [
        ("heap", 1024),
        ("offHeap", 128),
        ("jvmMetaspace", 256),
        ("jvmOverhead", 192),
        ("totalFlinkMemory", 1152),
        ("totalProcessMemory", 1600),
    ];
    for (name, mebibytes) in wanted {
        assert_eq!(plan[name], u64::from(mebibytes as u32) << 20, "{name}");
    }
}

#[test]
fn the_native_profile_is_the_default() {
    let size = "taskmanager.memory.process.size=1g";
    let plan = object(&here(&["plan", "--process", "taskmanager", "-D", size, "--json"]), 0);
    assert_eq!((&plan["profile"], &plan["jvmMetaspace"]), (&json!("native"), &json!(0)));
    let parts = [
        "frameworkHeap",
        "taskHeap",
        "frameworkOffHeap",
        "taskOffHeap",
        "networkMemory",
        "managedMemory",
        "jvmOverhead",
    ];
    let sum: u64 = parts.iter().map(|part| plan[part].as_u64().expect("bytes")).sum();
    assert_eq!(sum, 1 << 30);
}

#[test]
fn a_table_for_people() {
    let size = "taskmanager.memory.process.size=4g";
    let output = here(&["plan", "--process", "taskmanager", "-D", size, "--slots", "2", "--explain"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for wanted in [
        "total process memory           4294967296       4.000gb  100.0%",
        "each of 2 slots",
        "from taskmanager.memory.process.size = 4g (-D)",
        "from taskmanager.numberOfTaskSlots = 2 (flag --slots)",
        "from taskmanager.memory.segment-size = 32k (default)",
        "from taskmanager.memory.managed.fraction = 0.4 (default)",
    ] {
        assert!(text.contains(wanted), "{wanted} in\n{text}");
    }
    let bar = text.lines().find(|line| line.starts_with("  [")).expect("a bar");
    assert!(bar.contains("TTT") && bar.contains("MMM") && bar.contains("==="), "{bar}");
    let explained = ["plan", "--process", "taskmanager", "-D", size, "--explain", "--json"];
    let explained = object(&here(&explained), 0);
    assert_eq!(explained["explain"]["managedMemory"]["rule"], "fraction");
    assert_eq!(explained["explain"]["totalProcessMemory"]["inputs"][0]["origin"]["from"], "define");
}

#[test]
fn a_sum_that_does_not_hold_is_2() {
    let plan = ["plan", "--profile", "flink", "--process", "taskmanager", "-D"];
    let with = |value| [&plan[..], &[value]].concat();
    let error =
        refused(2, "E6", &with("taskmanager.memory.process.size=981m"), &["533.200mb", "smallest change"]);
    let parts = error["parts"].as_object().expect("an object");
    assert_eq!(parts.values().filter_map(Value::as_u64).sum::<u64>(), 559_100_726);
    assert_eq!(error["changes"][0]["key"], "taskmanager.memory.process.size");
    refused(2, "E1", &plan[..5], &["taskmanager.memory.process.size"]);
    refused(2, "E3", &with("taskmanager.memory.process.size=400m"), &["448.000mb"]);
    refused(2, "E11", &with("taskmanager.memory.process.size=1.5g"), &["`.5g` is not a unit", "1536m"]);
    refused(2, "E11", &with("taskmanager.memory.process.size=-1g"), &["-1g"]);
    refused(2, "E11", &with("taskmanager.memory.process.size="), &["taskmanager.memory.process.size"]);
    let size = "taskmanager.memory.process.size=2g";
    let with = |value| [&plan[..], &[size, "-D", value]].concat();
    refused(2, "E2", &with("taskmanager.memory.managed.fraction=1"), &["0 to below 1"]);
    refused(2, "E11", &with("taskmanager.memory.managed.fraction=half"), &["managed.fraction"]);
    refused(2, "E11", &with("taskmanager.numberOfTaskSlots=0"), &["whole number from 1"]);
    refused(2, "E11", &with("taskmanager.numberOfTaskSlots=1.5"), &["whole number from 1"]);
    refused(2, "E12", &with("taskmanager.memory.managed.consumer-weights=OPERATOR:-1"), &["OPERATOR is -1"]);
    refused(2, "E11", &with("taskmanager.memory.managed.consumer-weights=PYTHON:x"), &["no whole number"]);
    refused(2, "E13", &with("taskmanager.memory.segment-size=33k"), &["power of two"]);
    refused(2, "E13", &with("taskmanager.memory.segment-size=2k"), &["4096"]);
    let manager = ["plan", "--profile", "flink", "--process", "jobmanager", "-D"];
    refused(2, "E9", &[&manager[..], &["jobmanager.memory.process.size=576m"]].concat(), &["off-heap"]);
}

#[test]
fn a_line_without_sense_is_64() {
    for line in [
        &["plan"][..],
        &["plan", "--process", "worker"],
        &["plan", "--process", "taskmanager", "--profile", "spark"],
        &["plan", "--process", "taskmanager", "--slots", "0"],
        &["plan", "--process", "taskmanager", "--slots", "many"],
        &["plan", "--process", "taskmanager", "--size", "4g"],
        &["plan", "--process", "taskmanager", "-D"],
        &["config", "--markdown", "--json"],
    ] {
        let output = here(line);
        assert_eq!((output.status.code(), stdout(&output)), (Some(64), String::new()), "{line:?}");
        assert!(stderr(&output).starts_with("error: "), "{line:?}: {}", stderr(&output));
    }
    let plan = ["plan", "--process", "taskmanager", "-D"];
    refused(64, "usage", &[&plan[..], &["taskmanager.memory.process.size"]].concat(), &["key=value"]);
    refused(64, "usage", &["plan", "--process", "jobmanager", "--slots", "2"], &["--slots"]);
}

#[test]
fn a_configuration_that_cannot_be_read() {
    let plan = ["plan", "--process", "taskmanager", "-D", "taskmanager.memory.process.size=1g"];
    let twice = [&plan[..], &["-D", "taskmanager.memory.process.size=2g"]].concat();
    refused(2, "duplicate-key", &twice, &["set already"]);
    // The same key under its old name.
    let twice = [&plan[..], &["-D", "taskmanager.process.memory.size=2g"]].concat();
    refused(2, "duplicate-key", &twice, &["taskmanager.memory.process.size"]);
    let unknown = [&plan[..], &["-D", "taskmanager.memory.netwrk.min=1m"]].concat();
    refused(2, "unknown-key", &unknown, &["did you mean `taskmanager.memory.network.min`"]);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.display().to_string()
    };
    let with = |path: &str, code: i32, name: &str, words: &[&str]| {
        refused(code, name, &[&plan[..], &["--config", path]].concat(), words);
    };
    let missing = folder.path().join("missing.yaml").display().to_string();
    with(&missing, 74, "io", &[&missing]);
    with(&folder.path().display().to_string(), 74, "io", &["directory"]);
    with(&file("a.yaml", b"taskmanager:\n\tmemory: 1\n"), 2, "syntax", &["a.yaml:2"]);
    with(&file("b.json", b"{\"a\": }"), 2, "syntax", &["b.json:1"]);
    with(&file("c.toml", b"a = 1\n[b\n"), 2, "syntax", &["c.toml:2"]);
    with(&file("d.yaml", b"a: \xff\n"), 2, "syntax", &["UTF-8"]);
    with(&file("e.yaml", &vec![b'#'; (1 << 20) + 1]), 2, "syntax", &["more than 1048576 bytes"]);
    let twice = b"taskmanager.numberOfTaskSlots: 1\ntaskmanager:\n  numberOfTaskSlots: 2\n";
    with(&file("f.yaml", twice), 2, "duplicate-key", &["f.yaml:1", "f.yaml:3"]);
    with(
        &file("g.yaml", b"\ntaskmanager.memory.proces.size: 1g\n"),
        2,
        "unknown-key",
        &["g.yaml:2", "did you mean"],
    );
}

#[test]
fn a_later_layer_wins_in_every_syntax() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    for (name, text) in [
        ("t.yaml", "taskmanager:\n  memory:\n    process.size: 1g\n    managed.fraction: 0.3\n"),
        ("t.json", r#"{"taskmanager": {"memory": {"process.size": "1g", "managed.fraction": 0.3}}}"#),
        ("t.toml", "[taskmanager.memory]\nprocess.size = \"1g\"\nmanaged.fraction = 0.3\n"),
    ] {
        std::fs::write(folder.join(name), text).expect("written");
        let line = ["plan", "--process", "taskmanager", "--config", name, "--json", "--explain"];
        let origin = |variables: &[(&str, &str)], more: &[&str]| {
            let plan = object(&tidegate(folder, variables, &[&line, more].concat()), 0);
            let input = plan["explain"]["totalProcessMemory"]["inputs"][0].clone();
            assert_eq!(plan["explain"]["managedMemory"]["inputs"][0]["value"], "0.3", "{name}");
            (input["value"].as_str().expect("a text").to_owned(), input["origin"]["from"].clone())
        };
        assert_eq!(origin(&[], &[]), ("1g".to_owned(), json!("file")), "{name}");
        let variable = [("TIDEGATE_TASKMANAGER_MEMORY_PROCESS_SIZE", "2g")];
        assert_eq!(origin(&variable, &[]), ("2g".to_owned(), json!("env")));
        let define = ["-D", "taskmanager.memory.process.size=3g"];
        assert_eq!(origin(&variable, &define), ("3g".to_owned(), json!("define")));
    }
}

#[test]
fn a_run_proposes_a_tighter_plan() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    std::fs::write(folder.join("peaks.json"), r#"{"taskHeap": 104857600, "networkMemory": 41943040}"#)
        .expect("written");
    std::fs::write(folder.join("wrong.json"), r#"{"taskHeep": 1}"#).expect("written");
    let line = ["plan", "--process", "taskmanager", "-D", "taskmanager.memory.process.size=4g", "--fit"];
    let output = tidegate(folder, &[], &[&line[..], &["peaks.json"]].concat());
    let text = stdout(&output);
    assert!(text.contains("taskmanager.memory.task.heap.size: 131072000b"), "{text}");
    let fitted = object(&tidegate(folder, &[], &[&line[..], &["peaks.json", "--json"]].concat()), 0);
    assert_eq!(fitted["taskHeap"], 131_072_000);
    assert!(fitted["fit"]["saved"].as_i64().is_some_and(|saved| saved > 1 << 30), "{fitted}");
    // What is proposed, configured, is the plan that was proposed.
    let values = fitted["fit"]["values"].as_object().expect("an object");
    let file: String =
        values.iter().map(|(key, value)| format!("{key}: {}\n", value.as_str().expect("a text"))).collect();
    std::fs::write(folder.join("fitted.yaml"), file).expect("written");
    let again =
        tidegate(folder, &[], &["plan", "--process", "taskmanager", "--config", "fitted.yaml", "--json"]);
    assert_eq!(object(&again, 0)["totalProcessMemory"], fitted["totalProcessMemory"]);
    let output = tidegate(folder, &[], &[&line[..], &["wrong.json", "--json"]].concat());
    assert!(object(&output, 2)["error"]["message"].as_str().is_some_and(|text| text.contains("taskHeep")));
    let output = tidegate(folder, &[], &[&line[..], &["missing.json"]].concat());
    assert_eq!(output.status.code(), Some(74));
}

#[test]
fn every_key_is_listed_with_its_value_and_origin() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    std::fs::write(folder.join("t.yaml"), "\ntaskmanager.process.memory.size: 1g\n").expect("written");
    let variable = [("TIDEGATE_TASKMANAGER_NUMBER_OF_TASK_SLOTS", "2")];
    let line = ["config", "--config", "t.yaml", "-D", "taskmanager.memory.process.size=2g"];
    let text = stdout(&tidegate(folder, &variable, &line));
    for wanted in [
        "taskmanager.memory.process.size = 2g (-D)\n    instead of 1g (t.yaml:2)\n",
        "taskmanager.numberOfTaskSlots = 2 (environment variable TIDEGATE_TASKMANAGER_NUMBER_OF_TASK_SLOTS)",
        "taskmanager.memory.managed.fraction = 0.4 (default)\n    Managed memory as a fraction of total flink memory.\n    \
         fraction; default: 0.4; TIDEGATE_TASKMANAGER_MEMORY_MANAGED_FRACTION\n",
    ] {
        assert!(text.contains(wanted), "{wanted} in\n{text}");
    }
    let listing = object(&tidegate(folder, &variable, &["config", "--json"]), 0);
    let keys = listing["keys"].as_array().expect("a list");
    assert_eq!(keys.len(), tidegate_memory::plan::keys::KEYS.len());
    let slots = keys.iter().find(|key| key["key"] == "taskmanager.numberOfTaskSlots").expect("listed");
    assert_eq!((&slots["value"], &slots["origin"]["from"]), (&json!("2"), &json!("env")));
    let part = object(&here(&["config", "managed", "--json"]), 0);
    assert_eq!(part["keys"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_configuration_is_checked() {
    refused(2, "unknown-key", &["config", "nothing-like-this"], &["nothing-like-this"]);
    refused(2, "unknown-key", &["config", "-D", "taskmanager.memory.size=1g"], &["not a known key"]);
    let both = ["config", "-D", "taskmanager.numberOfTaskSlots=0", "-D", "jobmanager.memory.heap.size=much"];
    refused(2, "E11", &both, &["taskmanager.numberOfTaskSlots = \"0\" (-D)"]);
    assert!(stderr(&here(&both)).contains("\n  jobmanager.memory.heap.size = \"much\" (-D)"));
    refused(64, "usage", &["config", "-D", "no-pair"], &["key=value"]);
}
