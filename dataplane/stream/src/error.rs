//! Errors of running tasks and of building jobs: who is at fault, what was found, what to change.
//!
//! Owns no state. A `TaskError` is one pointer wide so that the record path returns it in a register;
//! its operator is empty only until the runtime fills it in.

use std::fmt;

/// Who caused a task to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A user function returned an error.
    User,
    /// A user function panicked.
    Panic,
    /// A user function emitted more outputs for one input than it declared.
    FanOut,
    /// A user function chose a channel that does not exist, or a record exceeds what a channel carries.
    Output,
    /// Input data is not what the job expects (a malformed row, a field out of range).
    Data,
    /// A source could not be read this time; it may be readable again.
    Source,
    /// What a source was to read is missing, forbidden, damaged or another than before: waiting does not change that.
    Input,
    /// A sink could not be written.
    Sink,
    /// Snapshot or output files could not be written.
    Files,
    /// The bytes of a snapshot are not what was written.
    State,
    /// A state, a position or an output item is larger than what is kept of one.
    TooLarge,
    /// More memory was asked for than is planned for it: keyed state, or what an operator reserves.
    Memory,
    /// The tasks of a slot hold more heap than is planned for them, and this one holds most.
    Heap,
    /// The job asks for what cannot be: a setting out of range, or state of other operators or types than it has.
    Setup,
    /// Bytes that arrived on a channel are not records of its type.
    Exchange,
    /// The runtime broke a rule of its own: a defect of Tidegate.
    Runtime,
}

impl Fault {
    /// The sentence opening that names the party at fault.
    pub fn party(self) -> &'static str {
        match self {
            Fault::User => "user function failed",
            Fault::Panic => "user function panicked",
            Fault::FanOut => "user function emitted too much",
            Fault::Output => "record could not be sent",
            Fault::Data => "input data is malformed",
            Fault::Source | Fault::Input => "source could not be read",
            Fault::Sink => "sink could not be written",
            Fault::Files => "files could not be written",
            Fault::State => "state could not be read back",
            Fault::TooLarge => "too large to be kept",
            Fault::Memory => "more memory is needed than is planned for it",
            Fault::Heap => "too much heap is held",
            Fault::Setup => "the job cannot run as it is set up",
            Fault::Exchange => "received bytes are not the expected records",
            Fault::Runtime => "the runtime broke its own rule",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    fault: Fault,
    operator: String,
    message: String,
}

/// Why a task failed: the fault, the operator (filled in by the runtime) and the cause in words.
///
/// ```
/// use tidegate_stream::error::{Fault, TaskError};
/// let error = TaskError::user("negative fare").at("fares");
/// assert_eq!(error.fault(), Fault::User);
/// assert_eq!(error.to_string(), "operator `fares`: user function failed: negative fare");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TaskError(Box<Inner>);

impl TaskError {
    /// An error with the given fault and cause; the runtime adds the operator.
    #[cold]
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        TaskError(Box::new(Inner { fault, operator: String::new(), message: message.into() }))
    }

    /// A user function's own error.
    #[cold]
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Fault::User, message)
    }

    /// Malformed input data: say which row, what was expected and what was found.
    #[cold]
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Fault::Data, message)
    }

    /// Names the operator, unless one is named already (the innermost wins).
    #[must_use]
    pub fn at(mut self, operator: &str) -> Self {
        if self.0.operator.is_empty() {
            operator.clone_into(&mut self.0.operator);
        }
        self
    }

    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        self.0.fault
    }

    /// The operator the error arose in; empty while it is not known.
    pub fn operator(&self) -> &str {
        &self.0.operator
    }

    /// The cause in words, without fault and operator.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.operator.is_empty() {
            write!(f, "operator `{}`: ", self.0.operator)?;
        }
        write!(f, "{}: {}", self.0.fault.party(), self.0.message)
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskError({self})")
    }
}

impl std::error::Error for TaskError {}

impl From<String> for TaskError {
    fn from(message: String) -> Self {
        TaskError::user(message)
    }
}

impl From<&str> for TaskError {
    fn from(message: &str) -> Self {
        TaskError::user(message)
    }
}

/// The words of a caught panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
