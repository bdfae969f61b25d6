//! What `deploy/` hands to other programs is what they take: manifests, units, the compose file. Offline; where a program is
//! missing, its part prints `skipped: …`. `cargo xtask test --only manifests` runs it and shows the skips.
//!
//! Not covered: nothing is applied to a cluster, no image is built. What the seccomp profile allows is in `e2e/driver.rs`.
//!
//! Always: a pod's memory limit is the only place for its size; the plan that it leads to holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// What a program prints to stdout, with its end and stderr in the panic if it fails. Nothing, and why, if it is missing.
fn output(command: &mut Command) -> Option<String> {
    let Output { status, stdout, stderr } = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: there is no {}", command.get_program().display());
            return None;
        }
        Err(error) => panic!("{command:?}: {error}"),
    };
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    Some(stdout.into_owned())
}

/// Every overlay, that of the guide among them, which is made in `folder`, and the installer of the seccomp profile.
fn kustomizations(folder: &Path) -> Vec<PathBuf> {
    let overlays = fs::read_dir(deploy().join("kubernetes/overlays")).expect("there are overlays");
    let overlays = overlays.map(|entry| entry.expect("readable").path());
    overlays.chain([guide(folder), deploy().join("seccomp")]).collect()
}

/// The overlay that `guides/pods.md` says to write, beside a copy of the base.
fn guide(folder: &Path) -> PathBuf {
    let (base, mine) = (folder.join("base"), folder.join("overlays/mine"));
    fs::create_dir_all(&base).and_then(|()| fs::create_dir_all(&mine)).expect("made");
    for entry in fs::read_dir(deploy().join("kubernetes/base")).expect("there is a base") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), base.join(entry.file_name())).expect("copied");
    }
    let page = fs::read_to_string(deploy().join("guides/pods.md")).expect("there is a guide");
    for block in page.split("```yaml ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("its name is on a line");
        let text = rest.split("```").next().expect("it ends");
        fs::write(mine.join(name), text).expect("written");
    }
    mine
}

/// The documents that a kustomization comes to. kubectl writes them all in one style, on which the readers below rely.
fn rendered(kustomization: &Path) -> Option<Vec<String>> {
    let text = output(Command::new("kubectl").arg("kustomize").arg(kustomization))?;
    Some(text.split("\n---\n").map(str::to_owned).collect())
}

/// The lines after `name`, as far as they are indented deeper. A list's dashes are indentation.
fn block<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let text = |line: &'a str| line.trim_start_matches([' ', '-']);
    let depth = |line: &'a str| line.len() - text(line).len();
    let mut lines = document.lines().skip_while(|line| text(line) != name);
    let Some(first) = lines.next() else { return Vec::new() };
    lines.take_while(|line| depth(line) > depth(first)).collect()
}

/// A quantity of Kubernetes in bytes, as the downward API gives it.
fn bytes(quantity: &str) -> u64 {
    let (number, unit) = quantity.split_at(quantity.len() - 2);
    let shift = match unit {
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => panic!("{quantity}: expected Ki, Mi or Gi"),
    };
    number.parse::<u64>().expect("a whole number") << shift
}

#[test]
#[ignore = "cargo xtask test --only manifests"]
fn the_manifests_fit_the_schemas_of_kubernetes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // In the build folder, where deploy/README.md puts it, or on the path.
    let build = Path::new(TIDEGATE).ancestors().nth(2).expect("it is in the build folder");
    let installed = build.join("kubernetes-validate/bin/kubernetes-validate");
    let validate = if installed.exists() { installed } else { PathBuf::from("kubernetes-validate") };
    for kustomization in kustomizations(folder.path()) {
        let Some(documents) = rendered(&kustomization) else { return };
        let file = folder.path().join("rendered.yaml");
        fs::write(&file, documents.join("\n---\n")).expect("written");
        if output(Command::new(&validate).args(["--strict", "--quiet"]).arg(&file)).is_none() {
            return;
        }
    }
}

#[test]
#[ignore = "cargo xtask test --only manifests"]
fn a_pods_memory_limit_is_the_size_of_its_process_and_its_plan_holds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut pods = 0;
    for kustomization in kustomizations(folder.path()) {
        let Some(documents) = rendered(&kustomization) else { return };
        let file = folder.path().join("tidegate.yaml");
        for document in &documents {
            let configuration = block(document, "tidegate.yaml: |").join("\n");
            if !configuration.is_empty() {
                fs::write(&file, configuration).expect("written");
            }
        }
        for role in ["jobmanager", "taskmanager"] {
            let of_role = |document: &&String| document.contains(&format!("- {role}\n"));
            for pod in documents.iter().filter(of_role) {
                pods += 1;
                let overlay = kustomization.file_name().expect("it is a folder").display();
                let what = format!("{role} of {overlay}");
                // Kubernetes' own variables of the service would be refused as misspelled keys.
                assert!(pod.contains("enableServiceLinks: false"), "{what}");
                let variable = format!("TIDEGATE_{}_MEMORY_PROCESS_SIZE", role.to_uppercase());
                let from_limit = format!(
                    "- name: {variable}\n          valueFrom:\n            resourceFieldRef:\n              resource: limits.memory\n"
                );
                assert!(pod.contains(&from_limit), "{what}: {pod}");
                let sizes: Vec<&str> =
                    pod.lines().filter_map(|line| line.trim_start().strip_prefix("memory: ")).collect();
                let [limit] = sizes[..] else { panic!("{what}: one size, in the limits: {sizes:?}") };
                assert!(block(pod, "limits:").iter().any(|line| line.ends_with(limit)), "{what}");
                let mut plan = Command::new(TIDEGATE);
                plan.args(["plan", "--process", role, "--config"]).arg(&file).env_clear();
                plan.env(variable, bytes(limit).to_string());
                output(&mut plan).expect("it was built");
                println!("{what}: a plan for {limit} holds");
                takes_its_command_line(pod);
            }
        }
    }
    assert!(pods >= 6, "{pods}: each overlay has both roles");
}

/// The binary knows every flag of a container, and their values are of the form.
fn takes_its_command_line(pod: &str) {
    let arguments = block(pod, "args:").into_iter().map(|line| line.trim_start().trim_start_matches("- "));
    // The kubelet puts the address there.
    let arguments: Vec<String> =
        arguments.map(|argument| argument.replace("$(POD_IP)", "192.0.2.1")).collect();
    assert!(arguments.len() > 2, "{pod}");
    output(Command::new(TIDEGATE).args(arguments).arg("--help")).expect("it was built");
}

#[test]
#[ignore = "cargo xtask test --only manifests"]
fn systemd_takes_the_units() {
    let (units, folder) = (deploy().join("systemd"), tempfile::tempdir().expect("a temporary folder"));
    let path = |name: &str| folder.path().join(name);
    // With a program that exists here in the place of the one that is installed there.
    let unit = |from: &str, to: &str| {
        let text = fs::read_to_string(units.join(from)).expect("there is such a unit");
        let installed = "ExecStart=/usr/local/bin/tidegate ";
        assert!(text.contains(installed), "{from}");
        fs::write(path(to), text.replace(installed, &format!("ExecStart={TIDEGATE} "))).expect("written");
    };
    unit("tidegate-jobmanager.service", "tidegate-jobmanager.service");
    unit("tidegate-taskmanager@.service", "tidegate-taskmanager@0.service");
    fs::create_dir(path("tidegate-taskmanager@0.service.d")).expect("made");
    for drop_in in ["size.conf", "cores.conf"] {
        let to = path("tidegate-taskmanager@0.service.d").join(drop_in);
        fs::copy(units.join(drop_in), to).expect("copied");
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    verify.args(["tidegate-jobmanager.service", "tidegate-taskmanager@0.service"].map(path));
    output(&mut verify);

    // The only place for a size that systemd does not hand on: its two lines agree.
    let text = fs::read_to_string(units.join("size.conf")).expect("there is such a drop-in");
    let after =
        |what: &str| text.lines().find_map(|line| line.strip_prefix(what)).expect("the line is there");
    let size = after("Environment=TIDEGATE_TASKMANAGER_MEMORY_PROCESS_SIZE=");
    assert!(after("MemoryMax=").eq_ignore_ascii_case(size), "{text}");
}

#[test]
#[ignore = "cargo xtask test --only manifests"]
fn compose_takes_its_file() {
    let has_compose = Command::new("docker").args(["compose", "version"]).output();
    if !has_compose.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no docker compose");
        return;
    }
    let mut compose = Command::new("docker");
    compose.args(["compose", "--file"]).arg(deploy().join("compose.yaml")).args(["config", "--quiet"]);
    output(&mut compose);
}
