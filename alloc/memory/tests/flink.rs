//! The profile `flink` case by case: the vectors of the reference, every refusal by its code, and properties of any plan.

use proptest::prelude::*;
use tidegate_memory::plan::{
    ConfigError, Name, Plan, PlanError, Process, Profile, Request, Settings, Unreadable, Warning,
    accept_final, keys, resolve,
};
use tidegate_memory::plan::{Reason, TaskManagerPlan};

const M: u64 = 1 << 20;

fn settings(values: &str) -> Settings {
    let mut settings = Settings::new();
    for pair in values.split(' ').filter(|pair| !pair.is_empty()) {
        settings.add_define(pair).expect("a key once");
    }
    settings.refuse_unknown().expect("known keys");
    settings
}

/// Values without the prefix that all share; `numberOfTaskSlots` and the like are written out.
fn tm(values: &str) -> Settings {
    let full = |pair: &str| {
        if pair.starts_with("taskmanager.") { pair.to_owned() } else { format!("taskmanager.memory.{pair}") }
    };
    settings(&values.split(' ').filter(|pair| !pair.is_empty()).map(full).collect::<Vec<_>>().join(" "))
}

fn jm(values: &str) -> Settings {
    let pairs = values.split(' ').filter(|pair| !pair.is_empty());
    settings(&pairs.map(|pair| format!("jobmanager.memory.{pair}")).collect::<Vec<_>>().join(" "))
}

fn plan(values: &str) -> TaskManagerPlan {
    let settings = tm(values);
    match resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings)) {
        Ok(Plan::TaskManager(plan)) => plan,
        other => panic!("{values}: {other:?}"),
    }
}

fn refused(values: &str) -> PlanError {
    let settings = tm(values);
    resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings)).expect_err(values)
}

fn code(values: &str) -> &'static str {
    refused(values).code()
}

fn manager(values: &str) -> Result<Vec<(Name, u64)>, &'static str> {
    let settings = jm(values);
    match resolve(&Request::new(Process::JobManager, Profile::Flink, &settings)) {
        Ok(plan) => {
            Ok(plan.components().into_iter().map(|(name, component)| (name, component.bytes)).collect())
        }
        Err(refusal) => Err(refusal.code()),
    }
}

#[test]
fn from_a_total() {
    let t1 = plan("process.size=1728m");
    assert_eq!((t1.total_flink.bytes, t1.task_heap.bytes), (1_342_177_280, 402_653_174));
    assert_eq!((t1.network.bytes, t1.network_buffers(), t1.managed.bytes), (134_217_730, 4096, 536_870_920));
    assert_eq!((t1.metaspace.bytes, t1.overhead.bytes), (256 * M, 192 * M));
    let t2 = plan("flink.size=1280m");
    assert_eq!(
        (t2.task_heap.bytes, t2.overhead.bytes, t2.total_process.bytes),
        (402_653_174, 192 * M, 1728 * M)
    );
    let t5 = plan("process.size=8g");
    assert_eq!((t5.overhead.bytes, t5.total_flink.bytes), (858_993_472, 7_462_505_664));
    assert_eq!(
        (t5.managed.bytes, t5.network_buffers(), t5.task_heap.bytes),
        (2_985_002_310, 22773, 3_462_817_321)
    );
    let t6 = plan("process.size=16g");
    assert_eq!(
        (t6.overhead.bytes, t6.network.bytes, t6.task_heap.bytes),
        (1 << 30, 1_583_769_214, 7_650_410_378)
    );
    let t8 = plan("process.size=1g");
    assert_eq!((t8.network.bytes, t8.managed.bytes, t8.task_heap.bytes), (64 * M, 241_591_914, 26_843_542));
    let t14 = plan("flink.size=1g managed.size=0");
    assert_eq!((t14.network.bytes, t14.task_heap.bytes), (107_374_184, 697_932_184));
}

#[test]
fn with_remainders() {
    let t3 = plan("task.heap.size=512m managed.size=512m");
    assert_eq!((t3.network.bytes, t3.network_buffers()), (149_130_811, 4551));
    assert_eq!((t3.total_flink.bytes, t3.total_process.bytes), (1_491_308_091, 1_961_070_139));
    let t15 = plan("flink.size=1g task.heap.size=256m");
    assert_eq!((t15.managed.bytes, t15.network.bytes), (429_496_736, 107_374_176));
    assert_eq!(plan("flink.size=1g task.heap.size=256m managed.size=256m").network.bytes, 256 * M);
    assert_eq!(plan("flink.size=1280m process.size=1728m").overhead.bytes, 192 * M);
    let t21 = plan("task.heap.size=1g managed.size=2g");
    assert_eq!((t21.network.bytes, t21.overhead.bytes), (387_740_109, 460_648_506));
    assert_eq!((t21.total_flink.bytes, t21.total_process.bytes), (3_877_401_037, 4_606_484_999));
    let t23 = plan("process.size=4g task.heap.size=1g");
    assert_eq!((t23.network.bytes, t23.network_buffers()), (816_043_761, 24903));
    assert!(t23.warnings.iter().any(|warning| matches!(warning, Warning::NetworkIsRemainder { .. })));
}

#[test]
fn the_smallest_that_works_and_what_is_offered_below_it() {
    assert_eq!(plan("process.size=982m").task_heap.bytes, 419_428);
    assert_eq!(plan("flink.size=534m").task_heap.bytes, 419_428);
    let below = refused("process.size=981m");
    assert_eq!(below.code(), "E6");
    let raised =
        below.changes.iter().find(|change| change.key == keys::TM_PROCESS).expect("a larger process works");
    let least: u64 = raised
        .to
        .as_deref()
        .unwrap_or_default()
        .parse::<tidegate_memory::MemorySize>()
        .expect("a size")
        .bytes();
    assert!(least > 981 * M && least <= 982 * M, "{least}");
    assert_eq!(plan(&format!("process.size={least}b")).task_heap.bytes, 0);
    assert_eq!(code(&format!("process.size={}b", least - 1)), "E6");
    assert_eq!(code("flink.size=533m"), "E6");
    assert_eq!(code("process.size=768m"), "E6");
    let t26 = refused("flink.size=2483027968b framework.heap.size=1619001344b");
    assert_eq!(t26.code(), "E6");
    let of = |name| t26.parts.iter().find(|part| part.component == name).map(|part| part.bytes);
    assert_eq!((of(Name::ManagedMemory), of(Name::NetworkMemory)), (Some(993_211_202), Some(248_302_800)));
}

#[test]
fn every_code() {
    assert_eq!(code(""), "E1");
    assert_eq!(code("task.heap.size=1g"), "E1");
    assert_eq!(code("managed.size=1g"), "E1");
    for values in [
        "network.min=2g network.max=1g",
        "network.fraction=1.0",
        "network.fraction=-0.1",
        "network.fraction=NaN",
        "managed.fraction=1",
        "managed.fraction=1e9",
        "jvm-overhead.min=2g",
        "jvm-overhead.max=1m",
        "jvm-overhead.fraction=Infinity",
    ] {
        assert_eq!(code(&format!("process.size=4g {values}")), "E2", "{values}");
    }
    assert_eq!(code("process.size=400m"), "E3");
    assert_eq!(code("flink.size=1280m process.size=1500m"), "E4");
    assert_eq!(code("flink.size=1280m process.size=1600m"), "E5");
    assert_eq!(code("flink.size=1280m process.size=4g"), "E5");
    assert_eq!(code("process.size=4g task.heap.size=2g"), "E6");
    assert_eq!(code("flink.size=1g task.heap.size=256m managed.size=256m network.max=128m"), "E7");
    let t24 = "process.size=1000m jvm-overhead.min=64m jvm-overhead.max=256m task.heap.size=100m";
    assert_eq!(code(t24), "E7");
    assert_eq!(code("process.size=4g managed.consumer-weights=OPERATOR:-1"), "E12");
    for size in ["0", "1k", "4095", "5000", "33k", "4g", "2tb"] {
        assert_eq!(code(&format!("process.size=4g segment-size={size}")), "E13", "{size}");
    }
    assert_eq!(code("flink.size=9000t segment-size=4k network.fraction=0.9 managed.fraction=0"), "E13");
}

#[test]
fn unreadable_values() {
    for value in
        ["", "-1m", "1.5g", "16kib", "g", "1 g b", "0x10", "9223372036854775808", "8388608t", "+1g", "1_000m"]
    {
        assert_eq!(refused_size(value), "E11", "{value:?}");
    }
    for value in
        ["1728m", "1769472k", "1811939328", "1811939328B", "1728 mb", " 1728\tMebiBytes ", "1811939328 bytes"]
    {
        let mut settings = Settings::new();
        settings.add_define(&format!("taskmanager.memory.process.size={value}")).expect("once");
        let plan = resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings)).expect(value);
        assert_eq!(plan.total_process(), 1728 * M, "{value:?}");
    }
    for (values, expected) in [
        ("managed.fraction=10%", "a number"),
        ("managed.fraction=", "a number"),
        ("taskmanager.numberOfTaskSlots=0", "a whole number"),
        ("taskmanager.numberOfTaskSlots=-1", "a whole number"),
        ("taskmanager.numberOfTaskSlots=1.0", "a whole number"),
        ("taskmanager.numberOfTaskSlots=two", "a whole number"),
        ("taskmanager.numberOfTaskSlots=99999999999", "a whole number"),
        ("managed.consumer-weights=OPERATOR", "colon"),
        ("managed.consumer-weights=OPERATOR:x", "no whole number"),
    ] {
        let refusal = refused(&format!("process.size=4g {values}"));
        assert_eq!(refusal.code(), "E11", "{values}");
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
    let guess = refused("process.size=4gib");
    assert!(guess.changes.iter().any(|change| change.to.as_deref() == Some("4g")), "{guess}");
    assert!(matches!(guess.reason, Reason::Unreadable { why: Unreadable::Size(_), .. }));
}

fn refused_size(value: &str) -> &'static str {
    let mut settings = Settings::new();
    settings.add_define(&format!("taskmanager.memory.process.size={value}")).expect("once");
    resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings)).expect_err(value).code()
}

#[test]
fn what_is_not_needed_is_not_read() {
    // As Flink: the fraction does not matter beside the size, the task heap and managed memory need no fraction.
    let odd = plan("process.size=4g managed.size=1g managed.fraction=7");
    assert_eq!(odd.managed.bytes, 1 << 30);
    assert!(odd.warnings.iter().any(|warning| matches!(warning, Warning::WithoutEffect { .. })));
    assert!(odd.warnings.iter().any(|warning| matches!(warning, Warning::Malformed { .. })));
}

#[test]
fn sums_beyond_any_size_are_refused() {
    let max = "9223372036854775807b";
    assert_eq!(code(&format!("task.heap.size={max} managed.size={max}")), "E6");
    assert_eq!(code("task.heap.size=8000000t managed.size=0 network.fraction=0.9"), "E7");
    assert_eq!(code(&format!("flink.size={max}")), "E4");
    assert_eq!(code(&format!("process.size={max} framework.heap.size={max}")), "E6");
    assert_eq!(code(&format!("process.size={max} jvm-metaspace.size={max}")), "E3");
    assert_eq!(manager(&format!("heap.size={max}")), Err("E9"));
    assert_eq!(manager(&format!("flink.size={max}")), Err("E4"));
    // Not even the largest process is too large.
    assert_eq!(plan(&format!("process.size={max} segment-size=1g")).overhead.bytes, 1 << 30);
}

#[test]
fn traps_warn() {
    let t20 = plan("process.size=1728m managed.fraction=0.7");
    assert_eq!(t20.task_heap.bytes, 15);
    assert!(t20.warnings.iter().any(|warning| matches!(warning, Warning::TinyTaskHeap { bytes: 15, .. })));
    let weights = plan("process.size=4g managed.consumer-weights=DATAPROC:70,OPERATOR:1").warnings;
    assert!(weights.iter().any(|warning| matches!(warning, Warning::UnknownConsumer { .. })));
    let shuffle = plan("process.size=4g framework.off-heap.size=64m").warnings;
    assert!(shuffle.iter().any(|warning| matches!(warning, Warning::BatchShuffleTooLarge { .. })));
    let fraction = plan("flink.size=1280m process.size=1728m jvm-overhead.fraction=0.2").warnings;
    assert!(fraction.iter().any(|warning| matches!(warning, Warning::OverheadIsRemainder { .. })));
    assert_eq!(plan("process.size=4g").warnings, []);
    let buffers = plan("process.size=4g segment-size=1m taskmanager.numberOfTaskSlots=100").warnings;
    assert!(buffers.iter().any(|warning| matches!(warning, Warning::FewBuffers { .. })));
}

#[test]
fn slots_divide() {
    let plan = plan("process.size=1728m taskmanager.numberOfTaskSlots=3");
    let slot = plan.per_slot();
    assert_eq!((slot.task_heap, slot.managed_memory), (134_217_724, 178_956_973));
    assert_eq!((slot.network_memory, slot.network_buffers), (44_739_243, 1365));
    assert_eq!(slot.consumers.python, 0.1764705882352941);
}

#[test]
fn jobmanagers() {
    let of = |values: &str| {
        manager(values).map(|plan| plan.into_iter().map(|(_, bytes)| bytes / M).collect::<Vec<_>>())
    };
    assert_eq!(of("process.size=1600m"), Ok(vec![1024, 128, 256, 192, 1152, 1600]));
    assert_eq!(of("flink.size=1g"), Ok(vec![896, 128, 256, 192, 1024, 1472]));
    assert_eq!(of("heap.size=1g"), Ok(vec![1024, 128, 256, 192, 1152, 1600]));
    assert_eq!(of("heap.size=1g flink.size=1300m"), Ok(vec![1024, 276, 256, 192, 1300, 1748]));
    assert_eq!(
        of("heap.size=1g flink.size=1300m off-heap.size=276m"),
        Ok(vec![1024, 276, 256, 192, 1300, 1748])
    );
    assert_eq!(of("heap.size=1g flink.size=1g"), Ok(vec![1024, 0, 256, 192, 1024, 1472]));
    assert_eq!(of("heap.size=1g flink.size=1023m"), Err("E9"));
    assert_eq!(of("heap.size=1g flink.size=1300m off-heap.size=275m"), Err("E9"));
    assert_eq!(of("process.size=600m"), Ok(vec![24, 128, 256, 192, 152, 600]));
    assert_eq!(of("process.size=576m"), Err("E9"));
    assert_eq!(of("process.size=500m"), Err("E9"));
    assert_eq!(of(""), Err("E1"));
    assert_eq!(of("off-heap.size=1g"), Err("E1"));
    let settings = jm("process.size=600m");
    let plan = resolve(&Request::new(Process::JobManager, Profile::Flink, &settings)).expect("J5");
    assert!(matches!(plan.warnings(), [Warning::TinyHeap { .. }]));
}

#[test]
fn workers_take_final_values_only() {
    let first = Plan::TaskManager(plan("process.size=1728m"));
    let values = first.final_settings();
    let accept = |settings: &Settings| {
        accept_final(&Request::new(Process::TaskManager, Profile::Flink, settings))
            .map_err(|error| error.code())
    };
    assert!(accept(&values).is_ok());
    assert_eq!(accept(&values.with(keys::TM_NETWORK_MIN, "64m")).err(), Some("E10"));
    assert_eq!(accept(&tm("process.size=1728m")).err(), Some("E10"));
    assert_eq!(accept(&values.with(keys::TM_FLINK, "1281m")).err(), Some("E8"));
    assert!(accept(&values.with(keys::TM_FLINK, "1280m")).is_ok());
}

#[test]
fn duplicates_and_spaces_in_arguments() {
    let mut settings = Settings::new();
    settings
        .add_define(" taskmanager.memory.process.size = 1728m ")
        .expect("spaces around are no part of it");
    let twice = settings.add_define("taskmanager.memory.process.size=1g");
    assert!(matches!(twice, Err(ConfigError::Duplicate { .. })));
    assert!(resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings)).is_ok());
}

#[test]
fn refusals_as_json() {
    let refusal = refused("process.size=981m");
    let json = serde_json::to_value(&refusal).expect("JSON");
    assert_eq!(json["code"], "E6");
    assert!(
        json["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("TaskManager memory configuration failed"))
    );
    assert_eq!(json["parts"]["frameworkHeap"], 128 * M);
    assert_eq!(json["inputs"][0]["from"], serde_json::Value::Null);
    assert_eq!(json["inputs"][0]["origin"]["from"], "define");
    assert!(json["changes"][0]["key"].is_string());
}

const SIZES: &[&str] = &[
    "process.size",
    "flink.size",
    "task.heap.size",
    "task.off-heap.size",
    "framework.heap.size",
    "framework.off-heap.size",
    "managed.size",
    "network.min",
    "network.max",
    "jvm-metaspace.size",
    "jvm-overhead.min",
    "jvm-overhead.max",
    "segment-size",
];

fn any_size() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0u64..16 << 30).prop_map(|bytes| format!("{bytes}b")),
        4 => (0u64..8192).prop_map(|count| format!("{count}m")),
        1 => (0u64..=u64::MAX).prop_map(|bytes| bytes.to_string()),
        1 => "\\PC{0,6}",
    ]
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let sizes = proptest::collection::vec(proptest::option::weighted(0.35, any_size()), SIZES.len());
    let fractions = proptest::collection::vec(proptest::option::weighted(0.4, 0f32..1.05), 3);
    (sizes, fractions, proptest::option::of(0u32..80)).prop_map(|(sizes, fractions, slots)| {
        let mut settings = Settings::new();
        for (key, size) in SIZES.iter().zip(sizes) {
            if let Some(size) = size {
                settings.add_define(&format!("taskmanager.memory.{key}={size}")).expect("once");
            }
        }
        for (key, fraction) in ["managed", "network", "jvm-overhead"].iter().zip(fractions) {
            if let Some(fraction) = fraction {
                settings.add_define(&format!("taskmanager.memory.{key}.fraction={fraction}")).expect("once");
            }
        }
        if let Some(slots) = slots {
            settings.add_flag("--slots", keys::TM_SLOTS, &slots.to_string()).expect("once");
        }
        settings
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Components add up; each is within its bounds; the plan's values give the plan; every offered change helps.
    #[test]
    fn any_configuration_is_a_plan_or_a_refusal(settings in any_settings(), native: bool) {
        let profile = if native { Profile::Native } else { Profile::Flink };
        let request = Request::new(Process::TaskManager, profile, &settings);
        let plan = match resolve(&request) {
            Ok(plan) => plan,
            Err(refusal) => {
                prop_assert!(!refusal.to_string().is_empty());
                for change in &refusal.changes {
                    let changed = settings.changed(change);
                    let helped = resolve(&Request { settings: &changed, ..request.clone() });
                    prop_assert!(helped.is_ok(), "{change}");
                }
                return Ok(());
            }
        };
        let leaves: u64 = plan.leaves().iter().map(|part| part.bytes).sum();
        prop_assert_eq!(leaves, plan.total_process());
        let Plan::TaskManager(tm) = &plan else { panic!("a TaskManager was asked for") };
        let inside: u64 = plan.leaves().iter().take(6).map(|part| part.bytes).sum();
        prop_assert_eq!(inside, tm.total_flink.bytes);
        prop_assert_eq!(tm.total_flink.bytes + tm.metaspace.bytes + tm.overhead.bytes, tm.total_process.bytes);
        let bound = |key: &str, default: u64| {
            settings.get(key).map_or(default, |setting| setting.value.parse().map_or(default, tidegate_memory::MemorySize::bytes))
        };
        let (min, max) = if native { (16 * M, u64::MAX) } else { (64 * M, u64::MAX) };
        let (min, max) = (bound(keys::TM_NETWORK_MIN, min), bound(keys::TM_NETWORK_MAX, max));
        prop_assert!(tm.network.bytes >= min && tm.network.bytes <= max);
        let most = if native { u64::MAX } else { 1 << 30 };
        prop_assert!(tm.overhead.bytes <= bound(keys::TM_OVERHEAD_MAX, most));
        prop_assert!(tm.overhead.bytes >= bound(keys::TM_OVERHEAD_MIN, 0));
        let again = plan.final_settings();
        let again = resolve(&Request { settings: &again, ..request.clone() }).expect("final values hold");
        prop_assert_eq!(again.leaves(), plan.leaves());
        let worker = plan.final_settings();
        let accepted = accept_final(&Request { settings: &worker, ..request });
        prop_assert!(accepted.is_ok());
    }
}
