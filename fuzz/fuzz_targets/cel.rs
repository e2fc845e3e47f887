//! Any text is an expression or a refusal, and any expression comes to an end on any input.
#![no_main]

use belfry_core::cel::{self, Type, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (expression, body) = input;
    let Ok(program) = cel::compile(expression, &[("req", Type::Object)], Type::Dyn) else { return };
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    for req in [Value::from(&body), Value::typed(&body)] {
        if let Err(error) = program.evaluate(&[("req", req)]) {
            assert!(!error.message.is_empty());
        }
    }
});
