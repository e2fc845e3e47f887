//! One file a provider: render a notification, classify the answer
