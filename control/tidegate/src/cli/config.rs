//! `config`: every key with its meaning and present value. And the configuration as `plan` reads it: file, environment,
//! defines, each over the one before.
//!
//! Owner of the state: nobody; what the host says is read once for each command.
//!
//! Always true: a refusal under `--json` is one object `{"error": …}` on stdout, and the same in words on stderr; unknown
//! keys are refused; at most `FILE_BYTES_MAX` of a file are read.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};
use tidegate_memory::limits::FILE_BYTES_MAX;
use tidegate_memory::plan::keys::{KEYS, Preset};
use tidegate_memory::plan::{ConfigError, Listed, PlanError, Profile, Settings, Syntax, render};

use super::args::{ConfigArgs, SourcesArgs};
use super::exit::{Exit, Failure};
use super::out;

/// What a command knows of the host besides its arguments.
pub(super) struct Host {
    /// The environment, as far as names can be those of keys.
    pub variables: Vec<(String, String)>,
    /// Memory of the machine or the control group.
    pub memory: Option<u64>,
}

impl Host {
    pub(super) fn probe() -> Self {
        let variables = std::env::vars_os()
            // A value that is no text reaches the key that it was meant for, and is refused there.
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        Self { variables, memory: tidegate_memory::host_memory(Path::new("/")) }
    }
}

/// Why there is no answer, for people and for programs.
#[derive(Debug)]
pub(super) struct Refused {
    pub failure: Failure,
    /// What stands under `error`.
    pub object: Value,
}

impl Refused {
    pub(super) fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { object: json!({ "code": code, "message": message }), failure: Failure::new(exit, message) }
    }
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        let exit = if error.is_usage() { Exit::Usage } else { Exit::Refused };
        Self::new(exit, error.code(), error.to_string())
    }
}

impl From<PlanError> for Refused {
    fn from(error: PlanError) -> Self {
        let text = render::refusal(&error);
        let mut lines = text.lines().map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned());
        let line = lines.next().unwrap_or_default();
        let failure = Failure { details: lines.collect(), ..Failure::new(Exit::Refused, line) };
        Self { failure, object: value(&error) }
    }
}

/// Prints an answer, or why there is none.
pub(super) fn finish(json: bool, answer: Result<String, Refused>) -> Result<(), Failure> {
    let (text, end) = match answer {
        Ok(text) => (text, Ok(())),
        Err(Refused { failure, object }) if json => (json!({ "error": object }).to_string(), Err(failure)),
        Err(Refused { failure, .. }) => return Err(failure),
    };
    out::answer(text.trim_end())?;
    end
}

/// A file's text, for a configuration and for peaks.
pub(super) fn read(path: &Path) -> Result<String, Refused> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Refused::new(Exit::Io, "io", format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() > FILE_BYTES_MAX {
        let line =
            format!("{} has more than {FILE_BYTES_MAX} bytes; is that the right file?", path.display());
        return Err(Refused::new(Exit::Refused, "syntax", line));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = format!("{} is no UTF-8 text: {}", path.display(), error.utf8_error());
        Refused::new(Exit::Refused, "syntax", line)
    })
}

/// The layers from the lowest; flags of their own are for the caller to add.
pub(super) fn settings(args: &SourcesArgs, host: &Host) -> Result<Settings, Refused> {
    let mut settings = Settings::new();
    if let Some(path) = &args.config {
        let name = path.display().to_string();
        settings.add_file(&name, &read(path)?, Syntax::of(&name))?;
    }
    settings.add_environment(host.variables.iter().map(|(name, value)| (name, value)))?;
    for define in &args.define {
        settings.add_define(define)?;
    }
    settings.refuse_unknown()?;
    Ok(settings)
}

/// `config`.
pub(super) fn config(args: &ConfigArgs) -> Result<(), Failure> {
    finish(args.json, answer(args, &Host::probe()))
}

fn answer(args: &ConfigArgs, host: &Host) -> Result<String, Refused> {
    if args.markdown {
        return Ok(render::reference(&[KEYS]));
    }
    let settings = settings(&args.settings.sources, host)?;
    let profile = args.settings.profile;
    let mut listing = settings.listing(profile);
    readable(&listing)?;
    let part = args.part.as_deref().unwrap_or_default();
    listing.retain(|listed| listed.known.key.contains(part));
    if listing.is_empty() {
        return Err(Refused::new(Exit::Refused, "unknown-key", format!("no key contains {part:?}")));
    }
    if args.json {
        let keys: Vec<Value> = listing.iter().map(|listed| object(listed, &settings, profile)).collect();
        return Ok(json!({ "profile": value(&profile), "keys": keys }).to_string());
    }
    Ok(listing.iter().map(|listed| lines(listed, &settings, profile)).collect())
}

/// Every value can be read as what its key is, also where no plan would look at it.
fn readable(listing: &[Listed]) -> Result<(), Refused> {
    let wrong = listing.iter().filter_map(|Listed { known, value, origin }| {
        let value = value.as_deref().filter(|value| !known.kind.accepts(value))?;
        Some(format!("{} = {value:?} ({origin}) cannot be read, expected: {}", known.key, known.kind.name()))
    });
    let mut wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let first = format!("configuration: {}", wrong.remove(0));
    let mut refused = Refused::new(Exit::Refused, "E11", first);
    refused.failure.details = wrong;
    Err(refused)
}

fn lines(listed: &Listed, settings: &Settings, profile: Profile) -> String {
    let Listed { known, value, origin } = listed;
    let default = default(listed, profile);
    let now = match value {
        Some(value) => format!("{} = {value} ({origin})", known.key),
        None => format!("{} ({default})", known.key),
    };
    let shadowed = settings.shadowed(known.key);
    let shadowed: String =
        shadowed.map(|setting| format!("    instead of {} ({})\n", setting.value, setting.origin)).collect();
    format!(
        "{now}\n{shadowed}    {}\n    {}; default: {default}; {}\n",
        known.meaning,
        known.kind.name(),
        known.variable()
    )
}

fn object(listed: &Listed, settings: &Settings, profile: Profile) -> Value {
    let Listed { known, value: now, origin } = listed;
    let alias = settings.get(known.key).and_then(|setting| setting.alias).map(|alias| alias.spelled);
    let shadowed = settings.shadowed(known.key);
    let shadowed =
        shadowed.map(|setting| json!({ "value": setting.value, "origin": value(&setting.origin) }));
    json!({
        "key": known.key,
        "type": known.kind.name(),
        "default": default(listed, profile),
        "meaning": known.meaning,
        "environment": known.variable(),
        "value": now,
        "origin": value(origin),
        "spelled": alias,
        "shadowed": shadowed.collect::<Vec<_>>(),
    })
}

fn default(listed: &Listed, profile: Profile) -> &'static str {
    match listed.known.preset(profile) {
        _ if !listed.known.applies(profile) => "not used in this profile",
        Preset::None => "none",
        Preset::Text(text) | Preset::Stated(text) => text,
    }
}

/// As JSON.
pub(super) fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).expect(JSON)
}

/// As JSON, in the order of the type.
pub(super) fn text(of: &impl serde::Serialize) -> String {
    serde_json::to_string(of).expect(JSON)
}

const JSON: &str = "plans, refusals and origins are maps with texts as keys";
