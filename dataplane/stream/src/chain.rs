//! Chains: operators that call each other, compiled into one function per task.
//!
//! `Then<A, B>` pushes what A emits into B; the types carry the whole chain, so a record passes it without a dynamic
//! call or an allocation. Rule R4: `push` and `advance` emit at most one output at the end of the chain, because room
//! for one is all that was checked; an operator with more to say keeps a cursor and says so through `pending`. Always:
//! nothing is pushed into an operator that is pending.

use crate::context::{Cx, OpenCx};
use crate::error::TaskError;
use crate::function::{FilterFunction, FlatMapFunction, MapFunction};

/// Where items go.
pub trait Out<In: ?Sized> {
    /// Whether one more item may be pushed now, whatever it is.
    fn ready(&mut self, cx: &mut Cx<'_>) -> bool;

    /// Takes an item; only after `ready` said yes.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn push(&mut self, item: &In, cx: &mut Cx<'_>) -> Result<(), TaskError>;
}

/// One or more chained operators, of one subtask.
pub trait Chain<In: ?Sized>: Clone + Send + 'static {
    /// What the last operator emits.
    type Out: ?Sized + 'static;

    /// Takes one item in and pushes at most one output. Nothing may be pending.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn push<S: Out<Self::Out>>(&mut self, item: &In, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError>;

    /// Whether an operator has outputs left from items it took in.
    #[inline]
    fn pending(&self) -> bool {
        false
    }

    /// Pulls on the deepest pending operator: at most one output. Something must be pending.
    ///
    /// # Errors
    /// Whatever fails the task.
    #[inline]
    fn advance<S: Out<Self::Out>>(&mut self, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        let _ = (cx, out);
        Ok(())
    }

    /// Opens the functions.
    ///
    /// # Errors
    /// A function's own.
    fn open(&mut self, cx: &OpenCx<'_>) -> Result<(), TaskError> {
        let _ = cx;
        Ok(())
    }

    /// Closes the functions.
    fn close(&mut self) {}
}

/// No operator: what goes in comes out.
#[derive(Clone, Copy, Debug)]
pub struct Identity;

impl<In: ?Sized + 'static> Chain<In> for Identity {
    type Out = In;

    #[inline]
    fn push<S: Out<In>>(&mut self, item: &In, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        out.push(item, cx)
    }
}

/// `A`, and behind it `B`.
#[derive(Clone, Debug)]
pub struct Then<A, B> {
    first: A,
    second: B,
}

impl<A, B> Then<A, B> {
    pub(crate) fn new(first: A, second: B) -> Self {
        Then { first, second }
    }
}

/// The way out of `A`: into `B`, whose way out is `S`.
pub(crate) struct Link<'a, B, S> {
    pub(crate) next: &'a mut B,
    pub(crate) out: &'a mut S,
}

impl<In: ?Sized, B: Chain<In>, S: Out<B::Out>> Out<In> for Link<'_, B, S> {
    #[inline]
    fn ready(&mut self, cx: &mut Cx<'_>) -> bool {
        self.out.ready(cx)
    }

    #[inline]
    fn push(&mut self, item: &In, cx: &mut Cx<'_>) -> Result<(), TaskError> {
        self.next.push(item, cx, self.out)
    }
}

impl<In: ?Sized, A: Chain<In>, B: Chain<A::Out>> Chain<In> for Then<A, B> {
    type Out = B::Out;

    #[inline]
    fn push<S: Out<B::Out>>(&mut self, item: &In, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        self.first.push(item, cx, &mut Link { next: &mut self.second, out })
    }

    #[inline]
    fn pending(&self) -> bool {
        self.first.pending() || self.second.pending()
    }

    #[inline]
    fn advance<S: Out<B::Out>>(&mut self, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        if self.second.pending() {
            self.second.advance(cx, out)
        } else {
            self.first.advance(cx, &mut Link { next: &mut self.second, out })
        }
    }

    fn open(&mut self, cx: &OpenCx<'_>) -> Result<(), TaskError> {
        self.first.open(cx)?;
        self.second.open(cx)
    }

    fn close(&mut self) {
        self.first.close();
        self.second.close();
    }
}

macro_rules! lifecycle {
    ($function:ident) => {
        fn open(&mut self, cx: &OpenCx<'_>) -> Result<(), TaskError> {
            let context = cx.operator(self.operator);
            self.function.open(context).map_err(|error| error.at(&context.operator))?;
            context.operator.clone_into(&mut self.name);
            Ok(())
        }

        fn close(&mut self) {
            self.function.close();
        }
    };
}

macro_rules! operator {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name<F> {
            function: F,
            operator: usize,
            name: String,
        }

        impl<F> $name<F> {
            pub(crate) fn new(function: F, operator: usize) -> Self {
                Self { function, operator, name: String::new() }
            }
        }
    };
}

operator!(
    /// One output per item.
    Map
);

impl<In: ?Sized, F: MapFunction<In>> Chain<In> for Map<F> {
    type Out = F::Out;

    #[inline]
    fn push<S: Out<F::Out>>(&mut self, item: &In, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        let output = self.function.map(item).map_err(|error| error.at(&self.name))?;
        out.push(&output, cx)
    }

    lifecycle!(MapFunction);
}

operator!(
    /// Items that pass.
    Filter
);

impl<In: ?Sized + 'static, F: FilterFunction<In>> Chain<In> for Filter<F> {
    type Out = In;

    #[inline]
    fn push<S: Out<In>>(&mut self, item: &In, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        if self.function.keep(item).map_err(|error| error.at(&self.name))? {
            return out.push(item, cx);
        }
        Ok(())
    }

    lifecycle!(FilterFunction);
}

/// Any number of outputs per item, one at a time.
pub struct FlatMap<F, I> {
    function: F,
    operator: usize,
    name: String,
    /// What the last item still has to say.
    outputs: Option<I>,
}

impl<F, I> FlatMap<F, I> {
    pub(crate) fn new(function: F, operator: usize) -> Self {
        FlatMap { function, operator, name: String::new(), outputs: None }
    }
}

impl<F: Clone, I> Clone for FlatMap<F, I> {
    fn clone(&self) -> Self {
        FlatMap::new(self.function.clone(), self.operator)
    }
}

impl<In: ?Sized, F: FlatMapFunction<In>> Chain<In> for FlatMap<F, F::Outputs> {
    type Out = F::Out;

    #[inline]
    fn push<S: Out<F::Out>>(&mut self, item: &In, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        debug_assert!(self.outputs.is_none(), "nothing is pushed into a pending operator");
        let outputs = self.function.expand(item).map_err(|error| error.at(&self.name))?;
        self.outputs = Some(outputs);
        Chain::<In>::advance(self, cx, out)
    }

    #[inline]
    fn pending(&self) -> bool {
        self.outputs.is_some()
    }

    #[inline]
    fn advance<S: Out<F::Out>>(&mut self, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        let Some(outputs) = &mut self.outputs else { return Ok(()) };
        match outputs.next() {
            Some(output) => out.push(&output, cx),
            None => {
                self.outputs = None;
                Ok(())
            }
        }
    }

    lifecycle!(FlatMapFunction);
}
