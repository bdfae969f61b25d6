//! The native profile: its defaults at the sizes people use, its refusals and warnings, the aliases of the Flink.NET
//! documents, and the layers of the configuration.

use tidegate_memory::plan::{
    Input, JobManagerPlan, Name, Origin, Plan, Process, Profile, Request, Rule, Settings, Syntax,
    TaskManagerPlan, Warning, keys, render, resolve,
};

const M: u64 = 1 << 20;

fn defines(values: &[&str]) -> Settings {
    let mut settings = Settings::new();
    for value in values {
        settings.add_define(value).expect("a key once");
    }
    settings.refuse_unknown().expect("known keys");
    settings
}

fn tm(values: &[&str]) -> TaskManagerPlan {
    let settings = defines(values);
    match resolve(&Request::new(Process::TaskManager, Profile::Native, &settings)) {
        Ok(Plan::TaskManager(plan)) => plan,
        other => panic!("{values:?}: {other:?}"),
    }
}

fn jm(values: &[&str]) -> JobManagerPlan {
    let settings = defines(values);
    match resolve(&Request::new(Process::JobManager, Profile::Native, &settings)) {
        Ok(Plan::JobManager(plan)) => plan,
        other => panic!("{values:?}: {other:?}"),
    }
}

fn refused(process: Process, values: &[&str]) -> &'static str {
    let settings = defines(values);
    resolve(&Request::new(process, Profile::Native, &settings)).expect_err("refused").code()
}

#[test]
fn nothing_configured_is_what_the_documents_recommend() {
    let plan = tm(&[]);
    assert_eq!((plan.total_process.bytes, plan.metaspace.bytes), (4 << 30, 0));
    assert_eq!(plan.metaspace.rule, Rule::NoJvm);
    assert_eq!(plan.warnings, []);
    let plan = jm(&[]);
    assert_eq!((plan.total_process.bytes, plan.off_heap.bytes), (1600 * M, 128 * M));
    assert_eq!(plan.heap.bytes, 1312 * M - 2);
    assert_eq!(plan.warnings, []);
}

#[test]
fn laptops_and_servers() {
    for (size, slots) in [("256m", 1), ("512m", 1), ("1g", 2), ("4g", 4), ("16g", 16), ("64g", 64)] {
        let size = format!("taskmanager.memory.process.size={size}");
        let slots = format!("taskmanager.numberOfTaskSlots={slots}");
        let plan = tm(&[&size, &slots]);
        assert_eq!(plan.warnings, [], "{size}");
        assert!(plan.task_heap.bytes >= plan.task_heap_min, "{size}");
        let unit = plan.shape.segment * u64::from(plan.shape.slots);
        assert_eq!(plan.network.bytes % unit, 0, "{size}: the arena is the component, to the byte");
        assert!(plan.per_slot().network_buffers >= 256 || size.contains('m'), "{size}");
    }
}

#[test]
fn a_small_host_gets_a_small_plan() {
    let settings = Settings::new();
    let request = Request::new(Process::TaskManager, Profile::Native, &settings);
    let plan = resolve(&Request { host_bytes: Some(2 << 30), ..request }).expect("it holds");
    assert_eq!(plan.total_process(), 512 * M);
}

#[test]
fn the_need_of_the_runtime_is_stated() {
    let one = tm(&["taskmanager.memory.process.size=16g"]);
    let many = tm(&["taskmanager.memory.process.size=16g", "taskmanager.numberOfTaskSlots=16"]);
    assert!(matches!(one.framework_off_heap.rule, Rule::Stated { .. }));
    assert!(many.framework_off_heap.bytes > one.framework_off_heap.bytes + 15 * 4 * M);
    let linked = tm(&["taskmanager.memory.process.size=16g", "taskmanager.network.links-per-slot=1024"]);
    assert!(linked.framework_off_heap.bytes > one.framework_off_heap.bytes);
    let little =
        tm(&["taskmanager.memory.process.size=16g", "taskmanager.memory.framework.off-heap.size=1m"]);
    assert!(matches!(little.warnings.as_slice(), [Warning::BelowStated { .. }]));
}

#[test]
fn a_task_heap_has_a_minimum() {
    let values = ["taskmanager.memory.process.size=4g", "taskmanager.memory.managed.fraction=0.882"];
    assert_eq!(refused(Process::TaskManager, &values), "E6");
    let lowered = tm(&[values[0], values[1], "taskmanager.memory.task.heap.min=1m"]);
    assert!(matches!(lowered.warnings.as_slice(), [Warning::TinyTaskHeap { .. }]));
    let explicit = ["taskmanager.memory.task.heap.size=1m", "taskmanager.memory.managed.size=1g"];
    assert_eq!(refused(Process::TaskManager, &explicit), "E6");
    let lowered = tm(&[explicit[0], explicit[1], "taskmanager.memory.task.heap.min=1m"]);
    assert!(lowered.warnings.iter().any(|warning| matches!(warning, Warning::TinyTaskHeap { .. })));
}

#[test]
fn there_is_no_metaspace() {
    let plan = tm(&["taskmanager.memory.process.size=1728m", "taskmanager.memory.jvm-metaspace.size=256m"]);
    assert_eq!(plan.metaspace.bytes, 0);
    assert!(matches!(plan.warnings.as_slice(), [Warning::MetaspaceWithoutJvm { .. }]));
    let plan = jm(&["jobmanager.memory.enable-jvm-direct-memory-limit=true"]);
    assert!(matches!(plan.warnings.as_slice(), [Warning::WithoutEffect { .. }]));
}

#[test]
fn bounds_of_the_runtime() {
    let size = "taskmanager.memory.process.size=4g";
    assert_eq!(refused(Process::TaskManager, &[size, "taskmanager.numberOfTaskSlots=65"]), "E11");
    assert_eq!(refused(Process::TaskManager, &[size, "taskmanager.memory.segment-size=2m"]), "E13");
    assert_eq!(refused(Process::TaskManager, &[size, "taskmanager.network.links-per-slot=0"]), "E11");
    let too_many = defines(&["taskmanager.numberOfTaskSlots=65", "taskmanager.memory.process.size=16g"]);
    let refusal =
        resolve(&Request::new(Process::TaskManager, Profile::Native, &too_many)).expect_err("refused");
    assert_eq!(refusal.changes[0].to.as_deref(), Some("64"), "the nearest, not the least");
    let capped = tm(&["taskmanager.memory.process.size=4g", "taskmanager.memory.jvm-overhead.max=128m"]);
    assert_eq!(capped.overhead.bytes, 128 * M);
    assert!(matches!(capped.warnings.as_slice(), [Warning::BelowStated { .. }]));
    let large = tm(&["taskmanager.memory.process.size=64g"]);
    assert_eq!(large.network.bytes, 1 << 30, "one slot, one shard");
    let forced = tm(&["taskmanager.memory.process.size=64g", "taskmanager.memory.network.max=8g"]);
    assert!(matches!(forced.warnings.as_slice(), [Warning::LargeShard { .. }]));
}

#[test]
fn off_heap_of_a_jobmanager_has_parts() {
    let parts = |values: &[&str]| {
        let plan = jm(values);
        let of =
            |part: &Option<tidegate_memory::plan::Component>| part.as_ref().map_or(0, |part| part.bytes / M);
        (plan.off_heap.bytes / M, of(&plan.network), of(&plan.checkpoint_metadata))
    };
    assert_eq!(parts(&[]), (128, 64, 64));
    assert_eq!(parts(&["jobmanager.memory.off-heap.size=256m"]), (256, 64, 192));
    assert_eq!(parts(&["jobmanager.memory.off-heap.size=64m"]), (64, 32, 32));
    assert_eq!(parts(&["jobmanager.memory.network.size=100m"]), (164, 100, 64));
    let both = ["jobmanager.memory.off-heap.size=256m", "jobmanager.memory.checkpoint-metadata.size=200m"];
    assert_eq!(parts(&both), (256, 56, 200));
    let values = [both[0], both[1], "jobmanager.memory.network.size=57m"];
    assert_eq!(refused(Process::JobManager, &values), "E9");
    assert_eq!(
        parts(&["jobmanager.memory.heap.size=256m", "jobmanager.memory.flink.size=512m"]),
        (256, 64, 192)
    );
}

#[test]
fn old_spellings_mean_new_keys() {
    let plan = tm(&[
        "taskmanager.process.memory.size=4g",
        "taskmanager.network.memory.size=256m",
        "taskmanager.state.memory.size=1g",
        "taskmanager.framework.memory.size=64m",
    ]);
    assert_eq!((plan.network.bytes, plan.managed.bytes), (256 * M, 1 << 30));
    assert_eq!((plan.framework_heap.bytes, plan.total_process.bytes), (64 * M, 4 << 30));
    assert_eq!(
        tm(&["taskmanager.heap.memory.size=1g", "taskmanager.state.memory.size=1g"]).task_heap.bytes,
        1 << 30
    );
    let plan = jm(&["jobmanager.heap.memory.size=512m", "jobmanager.network.memory.size=32m"]);
    assert_eq!((plan.heap.bytes, plan.off_heap.bytes), (512 * M, 96 * M));
    assert_eq!(jm(&["jobmanager.process.memory.size=1g"]).total_process.bytes, 1 << 30);
    assert_eq!(jm(&["jobmanager.offheap.memory.size=1g"]).off_heap.bytes, 1 << 30);
}

#[test]
fn each_layer_is_named() {
    let mut settings = Settings::new();
    let file = r#"{"taskmanager": {"memory": {"process": {"size": "8g"}, "managed.fraction": 0.3}}}"#;
    settings.add_file("appsettings.json", file, Syntax::Json).expect("read");
    settings.add_environment([("TIDEGATE_TASKMANAGER_MEMORY_PROCESS_SIZE", "2g")]).expect("read");
    settings.add_flag("--slots", keys::TM_SLOTS, "2").expect("once");
    let request = Request::new(Process::TaskManager, Profile::Native, &settings);
    let Ok(Plan::TaskManager(plan)) = resolve(&request) else { panic!("it holds") };
    assert_eq!((plan.total_process.bytes, plan.shape.slots), (2 << 30, 2));
    let expected = Input {
        key: keys::TM_MANAGED_FRACTION,
        value: "0.3".into(),
        origin: Origin::File { path: "appsettings.json".into(), line: 1 },
    };
    assert_eq!(plan.managed.inputs, [expected]);
    let text = render::explain(&Plan::TaskManager(plan), &settings);
    assert!(text.contains("environment variable TIDEGATE_TASKMANAGER_MEMORY_PROCESS_SIZE"), "{text}");
    assert!(text.contains("instead of 8g (appsettings.json:1)"), "{text}");
    assert!(text.contains("what the runtime needs: rings 2 × 128.000kb"), "{text}");
}

#[test]
fn a_plan_as_json() {
    let plan = Plan::TaskManager(tm(&["taskmanager.memory.process.size=1g"]));
    let json = serde_json::to_value(&plan).expect("JSON");
    for (name, component) in plan.components() {
        assert_eq!(json[name.json()], component.bytes);
    }
    assert_eq!(json["segmentSize"], 32768);
    assert_eq!(json["perSlot"]["networkBuffers"], json["networkBuffers"]);
    assert_eq!((json["process"].as_str(), json["profile"].as_str()), (Some("taskmanager"), Some("native")));
    assert!(json.get("explain").is_none());
    let explained = serde_json::to_value(plan.explained()).expect("JSON");
    assert_eq!(explained["explain"]["totalProcessMemory"]["rule"], "configured");
    assert_eq!(explained["explain"]["totalProcessMemory"]["inputs"][0]["origin"]["from"], "define");
    assert_eq!(explained["explain"]["frameworkOffHeap"]["rule"], "stated");
    let json = serde_json::to_value(Plan::JobManager(jm(&[]))).expect("JSON");
    assert_eq!((json["heap"].as_u64(), json["offHeap"].as_u64()), (Some(1312 * M - 2), Some(128 * M)));
    assert_eq!(json["checkpointMetadata"], 64 * M);
    assert!(json.get("perSlot").is_none());
    assert_eq!(Name::TotalFlinkMemory.json(), "totalFlinkMemory");
}

#[test]
fn the_largest_record_follows_the_network_memory_or_is_refused_with_the_arithmetic() {
    let sized = |size: &str, more: &[&str]| {
        let network = [
            format!("taskmanager.memory.network.min={size}"),
            format!("taskmanager.memory.network.max={size}"),
            "taskmanager.memory.process.size=64g".to_owned(),
        ];
        let values: Vec<&str> = network.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let settings = defines(&values);
        resolve(&Request::new(Process::TaskManager, Profile::Native, &settings))
    };
    let largest = |size, more: &[&str]| match sized(size, more).expect("it holds") {
        Plan::TaskManager(plan) => plan.record_max,
        Plan::JobManager(_) => unreachable!("it was not asked for"),
    };
    // A 64th, as a power of two, while that is more than a segment and up to what the wire carries.
    assert_eq!(["2m", "6m", "80m", "1g"].map(|size| largest(size, &[])), [0, 64 << 10, M, 16 * M]);
    assert_eq!(largest("80m", &["taskmanager.numberOfTaskSlots=2"]), 512 << 10);
    let record = "taskmanager.network.max-record-size";
    let asked = |value: &str| format!("{record}={value}");
    assert_eq!(largest("80m", &[&asked("16m")]), 16 * M);
    assert_eq!(largest("80m", &[&asked("20k")]), 0, "it fits a segment");
    assert_eq!(largest("80m", &[&asked("0b")]), 0);
    let refusal = |size, value: &str| sized(size, &[&asked(value)]).expect_err("refused");
    let refused = refusal("16m", "16m");
    assert_eq!(refused.code(), "E14");
    let said = refused.to_string();
    assert!(
        said.contains("2 regions of 513 buffers and 5 more are 1031 buffers, and a slot has 512"),
        "{said}"
    );
    assert_eq!(refused.changes[0].key, record, "{said}");
    let said = refusal("1g", "17m").to_string();
    assert!(said.contains("expected at most 16777216"), "{said}");
}
