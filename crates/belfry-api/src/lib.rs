//! What users and Flux write: the custom resources and the Event
