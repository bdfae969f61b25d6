//! The `tidegate` binary: the bundled jobs, every role, and a demo on bundled data.

use std::process::ExitCode;

use tidegate::cli::App;
use tidegate::demo::DemoData;

/// Accounted, so that heap use of every slot is reported.
#[global_allocator]
static HEAP: tidegate::Allocator = tidegate::Allocator::new();

/// A year of flights out of New York; see `examples/data/README.md`.
const DEMO: DemoData = DemoData {
    flights: include_bytes!("../../../examples/data/flights.csv.gz"),
    airports: include_str!("../../../examples/data/airports.csv"),
};

fn main() -> ExitCode {
    App::new(tidegate::jobs::all()).demo(DEMO).run()
}
