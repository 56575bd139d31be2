//! The napi binding: converts and calls, never decides. Everything that crosses is named `Binding*`.

mod binding_constraint;
mod binding_engine;
mod binding_error;
mod binding_event;
mod binding_generate;
mod binding_load;
mod binding_machine;
mod binding_transcription;
mod tasks;

pub use binding_constraint::BindingConstraint;
pub use binding_engine::NativeEngine;
pub use binding_error::BindingError;
pub use binding_event::{BindingAlternative, BindingEvent, BindingPiece, BindingToken};
pub use binding_generate::{BindingBias, BindingGenerateRequest, BindingSampling};
pub use binding_load::{
    BindingCachedModel, BindingLoadOptions, BindingLoadProgress, BindingLoadedModel, BindingNamedText,
};
pub use binding_machine::BindingMachineReport;
pub use binding_transcription::{
    BindingBatchedChunking, BindingSegment, BindingTranscribedToken, BindingTranscriptionRequest, BindingWord,
};
