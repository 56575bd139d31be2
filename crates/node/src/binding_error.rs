use napi_derive::napi;
use tsserve_core::CoreError;

/// An expected failure, as a value.
#[napi(object)]
#[derive(Debug, Clone)]
pub struct BindingError {
    /// One of `EngineErrorCode`.
    pub code: String,
    /// One sentence for a person.
    pub message: String,
    /// The request's field that it is about.
    pub param: Option<String>,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<f64>,
}

impl From<CoreError> for BindingError {
    fn from(error: CoreError) -> Self {
        Self {
            code: error.code().into(),
            message: error.to_string(),
            param: error.param().map(Into::into),
            retry_after: error.retry_after().map(|after| after.as_secs_f64()),
        }
    }
}
