//! Work off the event loop: a closure for libuv's pool whose expected failures come back as values.

use std::panic::{AssertUnwindSafe, catch_unwind};

use napi::bindgen_prelude::{AsyncTask, Either, ToNapiValue, TypeName};
use napi::{Env, Result, Task};
use tsserve_core::CoreError;

use crate::BindingError;

/// A value, or why there is none.
pub type Reply<T> = Either<T, BindingError>;

/// A closure that runs once on libuv's pool.
pub struct Work<T>(Option<Box<dyn FnOnce() -> std::result::Result<T, CoreError> + Send>>);

/// Runs `work` off the event loop. A panic in it becomes an `internal` error: Node lives on.
pub fn off_loop<T>(work: impl FnOnce() -> std::result::Result<T, CoreError> + Send + 'static) -> AsyncTask<Work<T>>
where
    T: ToNapiValue + TypeName + Send + 'static,
{
    AsyncTask::new(Work(Some(Box::new(work))))
}

impl<T: ToNapiValue + TypeName + Send + 'static> Task for Work<T> {
    type Output = Reply<T>;
    type JsValue = Reply<T>;

    fn compute(&mut self) -> Result<Self::Output> {
        let Some(work) = self.0.take() else {
            return Ok(Either::B(CoreError::Internal("work was started twice".into()).into()));
        };
        Ok(match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => Either::A(value),
            Ok(Err(error)) => Either::B(error.into()),
            Err(panic) => Either::B(CoreError::from_panic(&*panic).into()),
        })
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> Result<Self::JsValue> {
        Ok(output)
    }
}
