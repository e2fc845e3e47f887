//! The table against the official schemas, and what each mode says of a document.

mod oracle;
mod samples;
mod verdicts;
