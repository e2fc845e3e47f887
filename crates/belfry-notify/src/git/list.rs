//! Lists of JSON, read as far as they came, and the pages of long ones.

use belfry_http::{Response, header};
use serde::{
    Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::Value;

/// What is there of a list.
#[derive(Debug, PartialEq)]
pub(crate) struct List {
    /// The elements that are whole.
    pub(crate) items: Vec<Value>,
    /// There is no more of it.
    pub(crate) complete: bool,
    /// The answer points at a next page.
    pub(crate) next: bool,
}

impl List {
    /// Reads an array. An answer that is none has no elements, and isn't complete.
    pub(crate) fn read(answer: &Response) -> Self {
        Self::from(&answer.body, answer)
    }

    /// Reads the first array inside an object.
    pub(crate) fn inside(answer: &Response) -> Self {
        let start = answer.body.iter().position(|byte| *byte == b'[').unwrap_or(answer.body.len());
        Self::from(&answer.body[start..], answer)
    }

    fn from(json: &[u8], answer: &Response) -> Self {
        let mut list = Self { items: Vec::new(), complete: false, next: links_to_next(answer) };
        // The error is that of the place where the answer ends: what was read before it stays.
        let _ = serde_json::Deserializer::from_slice(json).deserialize_seq(Collect(&mut list));
        list
    }

    /// The newest of some elements: that with the highest id, and where there are no ids the first.
    pub(crate) fn newest(&self, of: impl Fn(&Value) -> bool) -> Option<&Value> {
        let id = |item: &Value| item.get("id").and_then(Value::as_u64).unwrap_or_default();
        self.items
            .iter()
            .filter(|item| of(item))
            .reduce(|newest, item| if id(item) > id(newest) { item } else { newest })
    }
}

struct Collect<'a>(&'a mut List);

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            self.0.items.push(element);
        }
        self.0.complete = true;
        Ok(())
    }
}

/// `Link: <…>; rel="next"` (RFC 8288).
fn links_to_next(answer: &Response) -> bool {
    let links = answer.headers.get_all(header::LINK);
    links.iter().filter_map(|link| link.to_str().ok()).any(|link| link.contains(r#"rel="next""#))
}

/// A text inside an element, by its path.
pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// One page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Elements on a page.
    pub(crate) size: u64,
    /// Its number, from 1.
    pub(crate) number: u64,
}

impl Page {
    /// The first of the largest.
    pub(crate) const FIRST: Self = Self { size: 100, number: 1 };

    /// The page after it, larger again when that fits.
    pub(crate) fn next(self, largest: u64) -> Self {
        let passed = self.size * self.number;
        let mut size = self.size;
        while size * 10 <= largest && passed.is_multiple_of(size * 10) {
            size *= 10;
        }
        Self { size, number: passed / size + 1 }
    }

    /// A page a tenth of it, that begins where it does. `None` when there is only one element on it.
    pub(crate) fn smaller(self) -> Option<Self> {
        let passed = self.size * (self.number - 1);
        (self.size >= 10).then(|| Self { size: self.size / 10, number: passed / (self.size / 10) + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::answer;

    #[test]
    fn lists_are_read_as_far_as_they_came() {
        let list = |body: &str| {
            let List { items, complete, .. } = List::read(&answer(200, body));
            (items.len(), complete)
        };
        assert_eq!(list("[]"), (0, true));
        assert_eq!(list(r#"[{"a":1},{"a":2}]"#), (2, true));
        assert_eq!(list(r#"[{"a":1},{"a":2}"#), (2, false));
        assert_eq!(list(r#"[{"a":1},{"a":"xxx"#), (1, false));
        assert_eq!(list("{}"), (0, false));
        assert_eq!(list(""), (0, false));
        assert_eq!(list("<html>"), (0, false));
    }

    #[test]
    fn the_newest_is_found_in_either_order() {
        let newest = |body: &str| {
            let list = List::inside(&answer(200, body));
            list.newest(|item| text(item, "/context") == "a").map(|item| text(item, "/state").to_owned())
        };
        let (old, new, other) = (
            r#"{"id":1,"context":"a","state":"old"}"#,
            r#"{"id":2,"context":"a","state":"new"}"#,
            r#"{"id":3,"context":"b","state":"other"}"#,
        );
        assert_eq!(newest(&format!(r#"{{"value":[{old},{other},{new}]}}"#)).unwrap(), "new");
        assert_eq!(newest(&format!(r#"{{"count":2,"value":[{new},{old}"#)).unwrap(), "new");
        assert_eq!(newest(r#"[{"context":"a","state":"first"},{"context":"a","state":"second"}]"#).unwrap(), "first");
        assert_eq!(newest(&format!("[{other}]")), None);
    }

    #[test]
    fn pages_cover_the_list_whatever_fits() {
        let page = |size, number| Page { size, number };
        assert_eq!(page(100, 1).next(100), page(100, 2));
        assert_eq!(page(100, 3).smaller(), Some(page(10, 21)));
        assert_eq!(page(10, 21).smaller(), Some(page(1, 201)));
        assert_eq!(page(1, 201).smaller(), None);
        assert_eq!(page(1, 209).next(100), page(1, 210));
        assert_eq!(page(1, 210).next(100), page(10, 22));
        assert_eq!(page(10, 29).next(100), page(10, 30));
        assert_eq!(page(10, 30).next(100), page(100, 4));
        assert_eq!(page(10, 30).next(10), page(10, 31));
    }
}
