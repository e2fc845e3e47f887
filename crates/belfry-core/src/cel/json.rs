//! Values into JSON, for what expressions are to fill in.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Number, Value as Json};

use super::{
    functions::{rfc3339, seconds},
    value::{Key, Value, whole},
};

/// A value that JSON can't hold, or that is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// JSON has neither infinity nor what isn't a number.
    #[error("{0} is no number in JSON")]
    Number(String),
    /// A type is no value there.
    #[error("a type is no value in JSON")]
    Type,
    /// It would have more bytes than allowed, about.
    #[error("the value has more than {0} bytes as JSON")]
    TooLarge(usize),
}

/// What a list, a map, or anything small takes, about.
const SMALL: usize = 8;

impl Value {
    /// The value as JSON: bytes as base64, times and durations as texts. An optional is what it holds, and `None` or left
    /// out when it holds nothing. `most` bounds the bytes: a value that shares its parts may be far larger written out.
    ///
    /// # Errors
    /// When it has no form in JSON, or is too large.
    pub fn to_json(&self, most: usize) -> Result<Option<Json>, NotJson> {
        Writer { most, left: most }.write(self)
    }
}

struct Writer {
    most: usize,
    left: usize,
}

impl Writer {
    fn pay(&mut self, bytes: usize) -> Result<(), NotJson> {
        self.left = self.left.checked_sub(bytes.saturating_add(SMALL)).ok_or(NotJson::TooLarge(self.most))?;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<Json, NotJson> {
        self.pay(text.len())?;
        Ok(text.into())
    }

    fn write(&mut self, value: &Value) -> Result<Option<Json>, NotJson> {
        Ok(Some(match value {
            Value::Optional(None) => return Ok(None),
            Value::Optional(Some(inner)) => return self.write(inner),
            Value::String(text) => self.text(text)?,
            Value::Bytes(bytes) => {
                self.pay(bytes.len().saturating_mul(2))?;
                STANDARD.encode(bytes).into()
            }
            Value::List(items) => {
                self.pay(0)?;
                let mut list = Vec::new();
                for item in items.iter() {
                    list.extend(self.write(item)?);
                }
                list.into()
            }
            Value::Map(entries) => {
                self.pay(0)?;
                let mut map = Map::new();
                for (key, value) in entries.iter() {
                    let name = match key {
                        Key::String(name) => name.as_ref().to_owned(),
                        key => key.to_string(),
                    };
                    self.pay(name.len())?;
                    if let Some(value) = self.write(value)? {
                        map.insert(name, value);
                    }
                }
                map.into()
            }
            small => {
                self.pay(0)?;
                self.scalar(small)?
            }
        }))
    }

    fn scalar(&self, value: &Value) -> Result<Json, NotJson> {
        Ok(match value {
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Uint(value) => (*value).into(),
            // Numbers that came from JSON go back as they came.
            Value::Double(number) => match whole(*number) {
                Some(whole) => whole.into(),
                None => Number::from_f64(*number).ok_or_else(|| NotJson::Number(number.to_string()))?.into(),
            },
            Value::Timestamp(moment) => rfc3339(*moment).into(),
            Value::Duration(nanos) => seconds(*nanos).into(),
            Value::Type(_) => return Err(NotJson::Type),
            _ => Json::Null,
        })
    }
}
