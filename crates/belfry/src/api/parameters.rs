//! What requests are asked with: query parameters and ids, read strictly, so that a misspelt filter is told rather than
//! passed over. And the pages that lists are answered with.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use axum::extract::{FromRequestParts, Path, Query};
use belfry_core::{ObjectKey, Time, duration, limits};
use belfry_store::{ObjectFilter, Page, StoreError};
use http::{StatusCode, request::Parts};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};

use super::{Caller, Problem};

/// Pages of rows that are looked through for one page of an answer.
const LOOKED_THROUGH: usize = 10;
/// After this long without anything to show the asker gets a cursor, and may go on.
const PATIENCE: Duration = Duration::from_millis(20);

/// Query parameters.
pub(super) struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri).map(|Query(given)| Self(given)).map_err(|error| refused(&error.body_text()))
    }
}

/// `Failed to …: limit: is …`, ``Failed to …: x: unknown field `x`, expected …``, ``Failed to …: duplicate field `x` ``.
fn refused(text: &str) -> Problem {
    let said = text.split_once(": ").map_or(text, |(_, said)| said);
    let name = match said.split_once(": ") {
        Some((name, _)) if !name.contains(' ') => name,
        _ => said.split('`').nth(1).unwrap_or_default(),
    };
    let why = said.strip_prefix(name).and_then(|why| why.strip_prefix(": ")).unwrap_or(said);
    let why = why.replacen(&format!("unknown field `{name}`, expected"), "there is no such parameter; there are", 1);
    let why = why.replacen("there are one of ", "there are ", 1).replace('`', "");
    Problem::parameter(name, why)
}

/// The number in a path.
pub(super) struct Id(pub i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<i64>::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id)).map_err(|_| Problem::parameter("id", "is not a number"))
    }
}

/// How many items a page has at most.
pub(super) fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(from)?;
    let number = text.parse().ok().filter(|number| (1..=limits::PAGE).contains(number));
    number.map(Some).ok_or_else(|| D::Error::custom(format!("{text:?} is not a number from 1 to {}", limits::PAGE)))
}

/// Where a page begins.
pub(super) fn cursor<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let text = String::deserialize(from)?;
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.map(Some).ok_or_else(|| D::Error::custom(format!("{text:?} is none that a page before gave")))
}

/// A text that must say something.
pub(super) fn filled<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() { Err(D::Error::custom("is empty")) } else { Ok(Some(text)) }
}

/// Which objects, as parameters say.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) cluster: Option<String>,
    pub(super) object: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl Objects {
    pub(super) fn filter(self) -> Result<ObjectFilter, Problem> {
        let Self { cluster, object, kind, namespace, name } = self;
        let any = |part: Option<String>| part.filter(|part| part != "*");
        let filter = match object {
            None => ObjectFilter { kind: any(kind), namespace: any(namespace), name: any(name), ..Default::default() },
            Some(object) if kind.is_none() && namespace.is_none() && name.is_none() => object_filter(&object)?,
            Some(_) => return Err(Problem::parameter("object", "goes without kind, namespace and name")),
        };
        Ok(ObjectFilter { cluster: any(cluster), ..filter })
    }
}

/// `Kind/namespace/name`, each of them possibly `*`.
pub(super) fn object_filter(value: &str) -> Result<ObjectFilter, Problem> {
    match value.split('/').collect::<Vec<_>>()[..] {
        [kind, namespace, name] => {
            let (kind, namespace, name) = (any(kind), any(namespace), any(name));
            Ok(ObjectFilter { kind, namespace, name, ..ObjectFilter::default() })
        }
        _ => Err(Problem::parameter("object", format!("{value:?} is not KIND/NAMESPACE/NAME"))),
    }
}

/// A name, or `*` for any.
pub(super) fn any(part: &str) -> Option<String> {
    (part != "*").then(|| part.to_owned())
}

/// A point in time: RFC 3339, or how long ago. The error names the parameter.
pub(super) fn point(parameter: &str, text: &str, now: Time) -> Result<Time, String> {
    if let Ok(ago) = duration::parse(text) {
        return Ok(now.before(ago));
    }
    text.parse::<jiff::Timestamp>()
        .map(|at| Time(at.as_microsecond()))
        .map_err(|_| format!("{parameter}: {text:?} is neither an RFC 3339 time nor a duration such as 1h30m"))
}

/// A point in time, if there is one.
pub(super) fn perhaps_point(parameter: &str, text: Option<&str>, now: Time) -> Result<Option<Time>, Problem> {
    text.map(|text| point(parameter, text, now)).transpose().map_err(bad_request)
}

/// What is said of a parameter, which it begins with.
pub(super) fn bad_request(said: String) -> Problem {
    match said.split_once(": ") {
        Some((name, why)) if !name.contains(' ') => Problem::parameter(name, why),
        _ => Problem::new(StatusCode::BAD_REQUEST, said),
    }
}

/// A row of a list: what it is about, its number, and whether it is wanted.
pub(super) trait Listed {
    fn object(&self) -> &ObjectKey;
    fn id(&self) -> i64;
}

/// A page of what the caller may read. What others may read leaves no gaps in it: pages are fetched, from a cursor on and
/// with a size, until it is full, there is no more, or enough was looked through.
pub(super) async fn readable_page<T, F>(
    caller: &Caller,
    mut cursor: Option<i64>,
    limit: Option<u32>,
    fetch: impl Fn(Option<i64>, u32) -> F,
) -> Result<Page<T>, Problem>
where
    T: Listed,
    F: Future<Output = Result<Page<T>, StoreError>>,
{
    let wanted = limit.unwrap_or(limits::PAGE) as usize;
    let mut items = Vec::new();
    let mut size = wanted as u32;
    let begun = Instant::now();
    for _ in 0..LOOKED_THROUGH {
        let page = fetch(cursor, size).await?;
        cursor = page.next;
        // It is large, and what is shown is held in memory: one such page is enough.
        let ended_early = page.items.len() < size as usize;
        items.extend(caller.readable(page.items, T::object).await?);
        if items.len() > wanted || (items.len() == wanted && cursor.is_some()) {
            items.truncate(wanted);
            // That of what is shown: what comes after it may be nobody else's business.
            cursor = items.last().map(T::id);
            break;
        }
        if cursor.is_none() || (ended_early && (!items.is_empty() || begun.elapsed() > PATIENCE)) {
            break;
        }
        size = limits::PAGE;
    }
    Ok(Page { next: cursor, items })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Given {
        #[serde(deserialize_with = "limit")]
        limit: Option<u32>,
        #[serde(deserialize_with = "cursor")]
        cursor: Option<i64>,
        #[serde(deserialize_with = "filled")]
        reason: Option<String>,
    }

    fn given(query: &str) -> Result<Given, String> {
        let uri = format!("/?{query}").parse().unwrap();
        Query::try_from_uri(&uri)
            .map(|Query(given)| given)
            .map_err(|error| format!("{:?}", refused(&error.body_text())))
    }

    #[test]
    fn what_is_wrong_is_named() {
        let all = given("limit=500&cursor=7&reason=x").unwrap();
        assert_eq!((all.limit, all.cursor, all.reason.as_deref()), (Some(500), Some(7), Some("x")));
        for (query, name, expected) in [
            ("limit=0", "limit", r#"limit: \"0\" is not a number from 1 to 500"#),
            ("limit=501", "limit", "is not a number from 1 to 500"),
            ("limit=", "limit", "is not a number from 1 to 500"),
            ("cursor=abc", "cursor", r#"cursor: \"abc\" is none that a page before gave"#),
            ("cursor=-1", "cursor", "none that a page before gave"),
            ("reason=", "reason", "reason: is empty"),
            ("reasons=x", "reasons", "reasons: there is no such parameter; there are limit, cursor, reason"),
            ("limit=1&limit=2", "limit", "limit: duplicate field limit"),
        ] {
            let problem = given(query).unwrap_err();
            assert!(problem.contains(expected), "{query}: {problem}");
            assert!(problem.contains(&format!("parameter: Some({name:?})")), "{query}: {problem}");
        }
    }

    #[test]
    fn objects_are_named_in_one_way_or_the_other() {
        let text = |text: &str| Some(text.to_owned());
        let whole = Objects { object: text("Kustomization/*/app"), cluster: text(""), ..Objects::default() };
        let parts = Objects { kind: text("Kustomization"), name: text("app"), cluster: text(""), ..Objects::default() };
        assert_eq!(whole.filter().unwrap(), parts.filter().unwrap());
        let both = Objects { object: text("a/b/c"), kind: text("a"), ..Objects::default() };
        assert!(both.filter().is_err());
        assert!(object_filter("a/b").is_err());
        assert_eq!(object_filter("//").unwrap().name.as_deref(), Some(""), "the unnamed object");
    }

    #[test]
    fn times_are_points_or_ago() {
        let now = Time(7_200_000_000);
        assert_eq!(perhaps_point("since", Some("1h"), now).unwrap(), Some(Time(3_600_000_000)));
        assert_eq!(perhaps_point("since", Some("1970-01-01T00:00:01Z"), now).unwrap(), Some(Time(1_000_000)));
        assert_eq!(perhaps_point("since", None, now).unwrap(), None);
        let problem = format!("{:?}", perhaps_point("since", Some("monday"), now).unwrap_err());
        assert!(problem.contains("neither an RFC 3339 time nor a duration such as 1h30m"), "{problem}");
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_told_what_is_wrong_with_it(query in "(limit|cursor|reason|x|%|=|&|[ -~]){0,8}") {
            if let Ok(uri) = format!("/?{query}").parse::<http::Uri>()
                && let Err(error) = Query::<Given>::try_from_uri(&uri)
            {
                prop_assert!(!refused(&error.body_text()).detail.is_empty());
            }
        }
    }

    struct Number(i64, ObjectKey);

    impl Listed for Number {
        fn object(&self) -> &ObjectKey {
            &self.1
        }

        fn id(&self) -> i64 {
            self.0
        }
    }

    #[tokio::test]
    async fn pages_go_on_where_they_ended() {
        let fetch = |cursor: Option<i64>, size: u32| async move {
            let below = (0..cursor.unwrap_or(10)).rev();
            let items: Vec<_> = below.take(size as usize).map(|n| Number(n, ObjectKey::default())).collect();
            Ok(Page { next: items.last().map(|last| last.0).filter(|last| *last > 0), items })
        };
        let mut cursor = None;
        let mut seen = Vec::new();
        loop {
            let page = readable_page(&Caller::Everything, cursor, Some(4), fetch).await.unwrap();
            seen.push(page.items.iter().map(|item| item.0).collect::<Vec<_>>());
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, [vec![9, 8, 7, 6], vec![5, 4, 3, 2], vec![1, 0]]);
    }
}
