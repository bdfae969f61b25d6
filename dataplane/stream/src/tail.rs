//! Where a chain ends: an edge (`edge`), a sink or a fork (here).
//!
//! A tail owns its partitioner or writer, never the ports: it is bound to them for one quantum, so that the record loop
//! looks nothing up. Always: a bound tail is pushed to only after it said `ready` and while it is not `pending`.

use std::marker::PhantomData;

use tidegate_exchange::Ports;

use crate::chain::{Chain, Out};
use crate::context::{Cx, OpenCx};
use crate::error::{Fault, TaskError};
use crate::files::{FileEvent, Files};
use crate::limits::INLINE_STATE_MAX;
use crate::sink::{Prepared, Sink, SinkContext, SinkWriter};
use crate::slot::snapshot::OperatorSnapshot;
use crate::stage::{CutCx, SnapshotCx, Stage, Wait};
use crate::state::Progress;

/// A tail during one quantum.
pub trait Bound<In: ?Sized>: Out<In> {
    /// Whether branches have outputs left; then nothing may be pushed.
    fn pending(&self) -> bool {
        false
    }

    /// What makes `ready` true, after it said no.
    fn blocked(&mut self, cx: &mut Cx<'_>) -> Wait;

    /// Pulls one output; false if outputs are full. Something must be pending.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn advance(&mut self, cx: &mut Cx<'_>) -> Result<bool, TaskError> {
        let _ = cx;
        Ok(false)
    }
}

/// The end of a chain.
pub trait Tail<In: ?Sized>: Stage + Send + 'static {
    /// The tail and its ports, for one quantum.
    type Bound<'a>: Bound<In>
    where
        Self: 'a;

    /// Binds it to the ports.
    fn bind<'a>(&'a mut self, ports: &'a mut Ports) -> Self::Bound<'a>;

    /// Whether branches have outputs left.
    fn pending(&self) -> bool {
        false
    }

    /// Items pushed so far.
    fn emitted(&self) -> u64;
}

/// A tail that writes to a sink.
pub struct SinkTail<In: ?Sized, S: Sink<In>> {
    sink: S,
    operator: usize,
    id: u64,
    name: String,
    writer: Option<S::Writer>,
    emitted: u64,
    /// The checkpoint whose part is still to be handed in.
    cutting: Option<u64>,
    item: PhantomData<fn(&In)>,
}

impl<In: ?Sized, S: Sink<In>> SinkTail<In, S> {
    /// For the operator at `operator` of the vertex.
    pub fn new(sink: S, operator: usize) -> Self {
        SinkTail {
            sink,
            operator,
            id: 0,
            name: String::new(),
            writer: None,
            emitted: 0,
            cutting: None,
            item: PhantomData,
        }
    }
}

impl<In: ?Sized + 'static, S: Sink<In>> Stage for SinkTail<In, S> {
    fn open(&mut self, cx: &mut OpenCx<'_>) -> Result<(), TaskError> {
        let restore = cx.take_restore(self.operator);
        let states: Vec<_> =
            restore.into_iter().flat_map(|restore| restore.payloads).map(|p| p.meta).collect();
        let runtime = cx.operator(self.operator);
        self.id = runtime.operator_id;
        runtime.operator.clone_into(&mut self.name);
        let context = SinkContext { runtime, states: &states, waker: cx.waker.clone() };
        self.writer = Some(self.sink.open(&context).map_err(|error| error.at(&runtime.operator))?);
        Ok(())
    }

    fn cut(&mut self, cx: &mut CutCx<'_>) -> Result<(), TaskError> {
        self.cutting = Some(cx.checkpoint);
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.cut(cx.checkpoint, cx.files).map_err(|error| error.at(&self.name))
    }

    fn snapshot(&mut self, cx: &mut SnapshotCx<'_>) -> Result<Progress, TaskError> {
        let (Some(_), Some(writer)) = (self.cutting, &mut self.writer) else { return Ok(Progress::Done) };
        match writer.prepare_commit(cx.checkpoint, cx.files).map_err(|error| error.at(&self.name))? {
            Prepared::Pending => Ok(Progress::Waiting),
            Prepared::Ready { state, committables } => {
                if state.len() > INLINE_STATE_MAX {
                    let message =
                        format!("{} bytes of sink state, at most {INLINE_STATE_MAX} are kept", state.len());
                    return Err(TaskError::new(Fault::TooLarge, message).at(&self.name));
                }
                self.cutting = None;
                let part =
                    OperatorSnapshot { operator: self.id, inline: state, committables, ..Default::default() };
                cx.parts.push(part);
                Ok(Progress::Done)
            }
        }
    }

    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.file_event(event).map_err(|error| error.at(&self.name))
    }

    fn notify(&mut self, checkpoint: u64) {
        if let Some(writer) = &mut self.writer {
            writer.notify(checkpoint);
        }
    }

    fn abort(&mut self, checkpoint: u64, _files: &mut dyn Files) {
        self.cutting = self.cutting.filter(|&cutting| cutting != checkpoint);
        if let Some(writer) = &mut self.writer {
            writer.abort(checkpoint);
        }
    }

    fn close(&mut self, files: &mut dyn Files) {
        if let Some(mut writer) = self.writer.take() {
            writer.close(files);
        }
    }
}

/// A sink during one quantum.
pub struct SinkOut<'a, W> {
    writer: &'a mut W,
    emitted: &'a mut u64,
    name: &'a str,
}

impl<In: ?Sized, W: SinkWriter<In>> Out<In> for SinkOut<'_, W> {
    #[inline]
    fn ready(&mut self, cx: &mut Cx<'_>) -> bool {
        self.writer.ready(cx.files)
    }

    #[inline]
    fn push(&mut self, item: &In, cx: &mut Cx<'_>) -> Result<(), TaskError> {
        *self.emitted += 1;
        self.writer.write(item, cx.files).map_err(|error| error.at(self.name))
    }
}

impl<In: ?Sized, W: SinkWriter<In>> Bound<In> for SinkOut<'_, W> {
    fn blocked(&mut self, _cx: &mut Cx<'_>) -> Wait {
        Wait::SINK
    }
}

impl<In: ?Sized + 'static, S: Sink<In>> Tail<In> for SinkTail<In, S> {
    type Bound<'a> = SinkOut<'a, S::Writer>;

    fn bind<'a>(&'a mut self, _ports: &'a mut Ports) -> SinkOut<'a, S::Writer> {
        let writer = self.writer.as_mut().expect("invariant: a task runs between open and close");
        SinkOut { writer, emitted: &mut self.emitted, name: &self.name }
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }
}

/// One way out of a fork: a tail behind a dynamic call.
pub trait Branch<In: ?Sized>: Stage + Send {
    /// Whether it takes one more item.
    fn ready(&mut self, ports: &mut Ports, cx: &mut Cx<'_>) -> bool;
    /// Takes an item.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn push(&mut self, item: &In, ports: &mut Ports, cx: &mut Cx<'_>) -> Result<(), TaskError>;
    /// Whether it has outputs left.
    fn pending(&self) -> bool;
    /// Pulls one output; false if none can be taken now.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn advance(&mut self, ports: &mut Ports, cx: &mut Cx<'_>) -> Result<bool, TaskError>;
    /// What makes `ready` true, after it said no.
    fn blocked(&mut self, ports: &mut Ports, cx: &mut Cx<'_>) -> Wait;
    /// Items that left it.
    fn emitted(&self) -> u64;
}

impl<In: ?Sized + 'static, T: Tail<In>> Branch<In> for T {
    fn ready(&mut self, ports: &mut Ports, cx: &mut Cx<'_>) -> bool {
        self.bind(ports).ready(cx)
    }

    fn push(&mut self, item: &In, ports: &mut Ports, cx: &mut Cx<'_>) -> Result<(), TaskError> {
        self.bind(ports).push(item, cx)
    }

    fn pending(&self) -> bool {
        Tail::pending(self)
    }

    fn advance(&mut self, ports: &mut Ports, cx: &mut Cx<'_>) -> Result<bool, TaskError> {
        self.bind(ports).advance(cx)
    }

    fn blocked(&mut self, ports: &mut Ports, cx: &mut Cx<'_>) -> Wait {
        self.bind(ports).blocked(cx)
    }

    fn emitted(&self) -> u64 {
        Tail::emitted(self)
    }
}

/// A chain and its tail: together a tail again.
pub struct Chained<In: ?Sized, C, T> {
    chain: C,
    tail: T,
    item: PhantomData<fn(&In)>,
}

impl<In: ?Sized, C, T> Chained<In, C, T> {
    /// `tail` behind `chain`.
    pub fn new(chain: C, tail: T) -> Self {
        Chained { chain, tail, item: PhantomData }
    }
}

impl<In: ?Sized + 'static, C: Chain<In>, T: Tail<C::Out>> Stage for Chained<In, C, T> {
    fn open(&mut self, cx: &mut OpenCx<'_>) -> Result<(), TaskError> {
        self.chain.open(cx)?;
        self.tail.open(cx)
    }

    fn cut(&mut self, cx: &mut CutCx<'_>) -> Result<(), TaskError> {
        self.tail.cut(cx)
    }

    fn snapshot(&mut self, cx: &mut SnapshotCx<'_>) -> Result<Progress, TaskError> {
        self.tail.snapshot(cx)
    }

    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        self.tail.file_event(event)
    }

    fn notify(&mut self, checkpoint: u64) {
        self.tail.notify(checkpoint);
    }

    fn abort(&mut self, checkpoint: u64, files: &mut dyn Files) {
        self.tail.abort(checkpoint, files);
    }

    fn close(&mut self, files: &mut dyn Files) {
        self.chain.close();
        self.tail.close(files);
    }
}

/// A chain and its bound tail, during one quantum.
pub struct ChainedOut<'a, C, B> {
    chain: &'a mut C,
    out: B,
}

impl<In: ?Sized, C: Chain<In>, B: Bound<C::Out>> Out<In> for ChainedOut<'_, C, B> {
    #[inline]
    fn ready(&mut self, cx: &mut Cx<'_>) -> bool {
        self.out.ready(cx)
    }

    #[inline]
    fn push(&mut self, item: &In, cx: &mut Cx<'_>) -> Result<(), TaskError> {
        self.chain.push(item, cx, &mut self.out)
    }
}

impl<In: ?Sized, C: Chain<In>, B: Bound<C::Out>> Bound<In> for ChainedOut<'_, C, B> {
    #[inline]
    fn pending(&self) -> bool {
        self.chain.pending() || self.out.pending()
    }

    fn blocked(&mut self, cx: &mut Cx<'_>) -> Wait {
        self.out.blocked(cx)
    }

    #[inline]
    fn advance(&mut self, cx: &mut Cx<'_>) -> Result<bool, TaskError> {
        if self.out.pending() {
            return self.out.advance(cx);
        }
        if !self.out.ready(cx) {
            return Ok(false);
        }
        self.chain.advance(cx, &mut self.out)?;
        Ok(true)
    }
}

impl<In: ?Sized + 'static, C: Chain<In>, T: Tail<C::Out>> Tail<In> for Chained<In, C, T> {
    type Bound<'a> = ChainedOut<'a, C, T::Bound<'a>>;

    #[inline]
    fn bind<'a>(&'a mut self, ports: &'a mut Ports) -> Self::Bound<'a> {
        ChainedOut { chain: &mut self.chain, out: self.tail.bind(ports) }
    }

    fn pending(&self) -> bool {
        self.chain.pending() || self.tail.pending()
    }

    fn emitted(&self) -> u64 {
        self.tail.emitted()
    }
}

/// A tail with several branches; each gets every item.
pub struct ForkTail<In: ?Sized> {
    branches: Vec<Box<dyn Branch<In>>>,
}

impl<In: ?Sized> ForkTail<In> {
    /// Into `branches`.
    pub fn new(branches: Vec<Box<dyn Branch<In>>>) -> Self {
        ForkTail { branches }
    }
}

impl<In: ?Sized> Stage for ForkTail<In> {
    fn open(&mut self, cx: &mut OpenCx<'_>) -> Result<(), TaskError> {
        self.branches.iter_mut().try_for_each(|branch| branch.open(cx))
    }

    fn cut(&mut self, cx: &mut CutCx<'_>) -> Result<(), TaskError> {
        self.branches.iter_mut().try_for_each(|branch| branch.cut(cx))
    }

    fn snapshot(&mut self, cx: &mut SnapshotCx<'_>) -> Result<Progress, TaskError> {
        let mut progress = Progress::Done;
        for branch in &mut self.branches {
            progress = progress.and(branch.snapshot(cx)?);
        }
        Ok(progress)
    }

    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        self.branches.iter_mut().try_for_each(|branch| branch.file_event(event))
    }

    fn notify(&mut self, checkpoint: u64) {
        self.branches.iter_mut().for_each(|branch| branch.notify(checkpoint));
    }

    fn abort(&mut self, checkpoint: u64, files: &mut dyn Files) {
        self.branches.iter_mut().for_each(|branch| branch.abort(checkpoint, files));
    }

    fn close(&mut self, files: &mut dyn Files) {
        self.branches.iter_mut().for_each(|branch| branch.close(files));
    }
}

/// A fork during one quantum.
pub struct ForkOut<'a, In: ?Sized> {
    branches: &'a mut [Box<dyn Branch<In>>],
    ports: &'a mut Ports,
}

impl<In: ?Sized> Out<In> for ForkOut<'_, In> {
    fn ready(&mut self, cx: &mut Cx<'_>) -> bool {
        self.branches.iter_mut().all(|branch| branch.ready(self.ports, cx))
    }

    fn push(&mut self, item: &In, cx: &mut Cx<'_>) -> Result<(), TaskError> {
        self.branches.iter_mut().try_for_each(|branch| branch.push(item, self.ports, cx))
    }
}

impl<In: ?Sized> Bound<In> for ForkOut<'_, In> {
    fn pending(&self) -> bool {
        self.branches.iter().any(|branch| branch.pending())
    }

    fn blocked(&mut self, cx: &mut Cx<'_>) -> Wait {
        let mut wait = Wait::NOTHING;
        for branch in self.branches.iter_mut() {
            if !branch.ready(self.ports, cx) {
                wait = wait.or(branch.blocked(self.ports, cx));
            }
        }
        wait
    }

    fn advance(&mut self, cx: &mut Cx<'_>) -> Result<bool, TaskError> {
        for branch in self.branches.iter_mut().filter(|branch| branch.pending()) {
            if branch.advance(self.ports, cx)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<In: ?Sized + 'static> Tail<In> for ForkTail<In> {
    type Bound<'a> = ForkOut<'a, In>;

    fn bind<'a>(&'a mut self, ports: &'a mut Ports) -> ForkOut<'a, In> {
        ForkOut { branches: &mut self.branches, ports }
    }

    fn pending(&self) -> bool {
        self.branches.iter().any(|branch| branch.pending())
    }

    fn emitted(&self) -> u64 {
        self.branches.iter().map(|branch| branch.emitted()).sum()
    }
}
