//! Requests that carry a CDEvent.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Attribute, STRUCTURED};

/// How a CloudEvent stands in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentMode {
    /// Attributes in headers, the document as the body: what most readers understand.
    #[default]
    Binary,
    /// An envelope around the document.
    Structured,
}

/// A request to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Media type of the body.
    pub content_type: &'static str,
    /// More headers, in lower case; their values consist of printable ASCII.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// The request for a document. Attributes that the document has no value for are left out.
pub fn request(document: &Value, mode: ContentMode) -> Outgoing {
    let attributes = Attribute::ALL.into_iter().filter_map(|attribute| Some((attribute, value(document, attribute)?)));
    match mode {
        ContentMode::Binary => {
            let mut headers = vec![("ce-specversion", "1.0".to_owned())];
            headers.extend(attributes.map(|(attribute, value)| (attribute.header(), encoded(value))));
            Outgoing { content_type: "application/json", headers, body: document.to_string().into_bytes() }
        }
        ContentMode::Structured => {
            let mut envelope = json!({"specversion": "1.0", "datacontenttype": "application/json", "data": document});
            for (attribute, value) in attributes {
                envelope[attribute.name()] = value.into();
            }
            Outgoing { content_type: STRUCTURED, headers: Vec::new(), body: envelope.to_string().into_bytes() }
        }
    }
}

fn value(document: &Value, attribute: Attribute) -> Option<&str> {
    attribute.field().split('.').try_fold(document, |value, name| value.get(name))?.as_str()
}

/// As the CloudEvents HTTP binding asks: everything that isn't printable ASCII is escaped, as are space, `"` and `%`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
