//! Engine options for every test at once: `TIDEGATE_E2E="driver=epoll,transport=shm,send=plain"`.
//!
//! Each is given to every process with an engine that a test starts, unless the test itself says what it wants. Whoever waits
//! for the slots of a cluster also sees that its TaskManagers run with what they were given: no run of the tests is one of the
//! defaults by mistake.

use serde_json::Value;

const VARIABLE: &str = "TIDEGATE_E2E";
const NAMES: [&str; 3] = ["driver", "transport", "send"];
/// Commands that take these options.
const ENGINES: [&str; 3] = ["taskmanager", "run", "demo"];

/// The arguments of a process, with the options of this run of the tests.
pub fn applied(arguments: &[String]) -> Vec<String> {
    with(arguments, &wanted())
}

/// Sees that a TaskManager that was started with `arguments` runs as they say, by its entry under `/taskmanagers`.
pub fn check(arguments: &[String], taskmanager: &Value) {
    if let Err(complaint) = in_effect(arguments, taskmanager) {
        panic!("{complaint}");
    }
}

/// What the environment says: names and values.
fn wanted() -> Vec<(String, String)> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    parse(&text).unwrap_or_else(|complaint| panic!("{VARIABLE}={text:?}: {complaint}"))
}

fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let option = |part: &str| {
        let known = part.split_once('=').filter(|(name, _)| NAMES.contains(name));
        let (name, value) =
            known.ok_or(format!("expected {} = a value, found {part:?}", NAMES.join(", ")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    text.split(',').filter(|part| !part.is_empty()).map(option).collect()
}

fn with(arguments: &[String], options: &[(String, String)]) -> Vec<String> {
    let mut all = arguments.to_vec();
    if !arguments.first().is_some_and(|command| ENGINES.contains(&command.as_str())) {
        return all;
    }
    // What follows is the job's own.
    let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    for (name, value) in options {
        if value_of(&arguments[..end], name).is_none() {
            all.splice(end..end, [format!("--{name}"), value.clone()]);
        }
    }
    all
}

fn value_of<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|word| word.strip_prefix("--") == Some(name))?;
    arguments.get(at + 1).map(String::as_str)
}

fn in_effect(arguments: &[String], taskmanager: &Value) -> Result<(), String> {
    let epoll = taskmanager["driver"].as_str().is_some_and(|driver| driver.starts_with("epoll"));
    for (name, field) in NAMES.into_iter().zip(["driver", "transport", "sendMode"]) {
        let shown = taskmanager[field].as_str().unwrap_or_default();
        let effective = match (name, value_of(arguments, name)) {
            (_, None) | ("driver", Some("auto")) => true,
            // Where a process can share memory nothing stands in the way of its tests.
            ("transport", Some("auto")) => shown.starts_with("shm"),
            ("send", Some(_)) if epoll => shown == "plain",
            (_, Some(value)) => shown.split(' ').next() == Some(value),
        };
        if !effective {
            let wanted = value_of(arguments, name).unwrap_or_default();
            return Err(format!(
                "--{name} {wanted} has no effect on this TaskManager: is it possible here (`tidegate doctor`)? {taskmanager}"
            ));
        }
    }
    Ok(())
}

#[test]
fn options_of_a_run_go_to_engines_that_say_nothing_themselves() {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let options = parse("driver=epoll,send=plain").expect("good");
    assert_eq!(with(&words("run job"), &options), words("run job --send plain --driver epoll"));
    let own = "taskmanager --driver auto --slots 2";
    assert_eq!(with(&words(own), &options), words(&format!("{own} --send plain")));
    let job = with(&words("run job -- --driver hired"), &options);
    assert_eq!(job, words("run job --send plain --driver epoll -- --driver hired"), "the job's own");
    assert_eq!(with(&words("jobmanager --dir x"), &options), words("jobmanager --dir x"));
    assert!(parse("drive=epoll").unwrap_err().contains("driver"));
    assert!(parse("driver").is_err() && parse("").expect("nothing").is_empty());
}

#[test]
fn an_option_without_effect_is_noticed() {
    let shown = |driver: &str, transport: &str, send: &str| serde_json::json!({ "driver": driver, "transport": transport, "sendMode": send });
    let check =
        |line: &str, shown: &Value| in_effect(&line.split(' ').map(str::to_owned).collect::<Vec<_>>(), shown);
    let usual = shown("io_uring [single issuer]", "tcp", "auto (fixed at first)");
    assert_eq!(check("taskmanager --driver io_uring --transport tcp --send auto", &usual), Ok(()));
    for line in ["--driver epoll", "--transport shm", "--transport auto", "--send fixed", "--send zc"] {
        assert!(check(line, &usual).unwrap_err().contains(line), "{line}");
    }
    let epoll = shown("epoll [edge triggered]", "shm within the host, else tcp", "plain");
    assert_eq!(check("taskmanager --driver epoll --transport auto --send zc", &epoll), Ok(()));
}
