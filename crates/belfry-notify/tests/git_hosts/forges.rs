//! The APIs: what each of them promises about statuses and comments.

use axum::response::Response;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    SHA,
    host::{Call, Kept, Remark, World, answer, page},
};

/// Splits the path and asks the API that it belongs to.
pub fn answer_to(call: &Call, world: &mut World) -> Response {
    let parts: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["api", "v3", ref rest @ ..] => github(call, world, rest),
        ["api", "v4", ref rest @ ..] => gitlab(call, world, rest),
        ["api", "v1", ref rest @ ..] => gitea(call, world, rest),
        ["2.0", "repositories", "foo", "bar", ref rest @ ..] => bitbucket(call, world, rest),
        ["ctx", "rest", "api", "latest", "projects", "proj", "repos", "repo", ref rest @ ..] => {
            bitbucket_server(call, world, rest)
        }
        ["org", "proj", "_apis", "git", "repositories", "repo", ref rest @ ..] => azure(call, world, rest),
        _ => answer(404, json!({ "message": "Not Found" })),
    }
}

fn basic(pair: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

fn unauthorized() -> Response {
    answer(401, json!({ "message": "Bad credentials" }))
}

fn keep(call: &Call, sha: &str, id: &str) -> Kept {
    Kept {
        sha: sha.into(),
        id: call.text(id),
        state: call.text("state"),
        description: call.text("description"),
        name: call.text("name"),
        genre: String::new(),
    }
}

fn invalid(what: &str) -> Response {
    answer(
        422,
        json!({ "message": "Validation Failed", "errors": [{ "resource": "Status", "code": "custom", "message": what }] }),
    )
}

fn github(call: &Call, world: &mut World, path: &[&str]) -> Response {
    if let Some(response) = crate::apps::answer_to(call, world, path) {
        return response;
    }
    let me = match call.header("authorization").strip_prefix("Bearer ") {
        Some("tok") => "me",
        Some(token) if world.app.valid.iter().any(|valid| valid == token) => "ringer[bot]",
        _ => return unauthorized(),
    };
    match (call.method.as_str(), path) {
        ("GET", ["user"]) => answer(200, json!({ "login": me })),
        ("GET", ["repos", "foo", "bar", "commits", sha, "statuses"]) => {
            let list = world.statuses.iter().rev().filter(|kept| kept.sha == *sha);
            let shown = |kept: &Kept| json!({ "context": kept.id, "state": kept.state, "description": kept.description, "creator": { "login": me } });
            page(call, list.map(shown).collect(), call.number("per_page", 30).min(100))
        }
        ("POST", ["repos", "foo", "bar", "statuses", sha]) => {
            let kept = keep(call, sha, "context");
            if *sha != SHA {
                return answer(422, json!({ "message": format!("No commit found for SHA: {sha}") }));
            }
            if !["error", "failure", "pending", "success"].contains(&&*kept.state) || kept.description.len() > 140 {
                return invalid("is not included in the list, or too long");
            }
            if world.statuses.iter().filter(|there| there.id == kept.id).count() >= 1000 {
                return invalid("This SHA and context has reached the maximum number of statuses.");
            }
            world.statuses.push(kept);
            answer(201, json!({ "id": world.id() }))
        }
        ("POST", ["repos", "foo", "bar", "dispatches"]) => {
            world.comments.push(Remark {
                id: 0,
                author: call.text("event_type"),
                body: call.body["client_payload"].to_string(),
            });
            answer(204, Value::Null)
        }
        (_, ["repos", "foo", "bar", "issues", rest @ ..]) => issues(call, world, rest, me, false),
        _ => answer(404, json!({ "message": "Not Found" })),
    }
}

/// Comments, of GitHub and Gitea alike; Gitea's list has no pages, but its timeline has.
fn issues(call: &Call, world: &mut World, path: &[&str], me: &str, gitea: bool) -> Response {
    let shown = |remark: &Remark| json!({ "id": remark.id, "type": "comment", "user": { "login": remark.author }, "body": remark.body });
    let list: Vec<Value> = world.comments.iter().map(shown).collect();
    match (call.method.as_str(), path) {
        ("GET", ["42", "comments"]) if gitea => answer(200, list.into()),
        ("GET", ["42", "comments"]) => page(call, list, call.number("per_page", 30).min(100)),
        ("GET", ["42", "timeline"]) if gitea => page(call, list, call.number("limit", 50).min(50)),
        ("POST", ["42", "comments"]) => {
            let id = world.id();
            world.comments.push(Remark { id, author: me.into(), body: call.text("body") });
            answer(201, json!({ "id": id }))
        }
        ("GET", ["comments", id]) => one(list, id),
        ("PATCH", ["comments", id]) => change(call, world, id, me),
        _ => answer(404, json!({ "message": "Not Found" })),
    }
}

fn one(list: Vec<Value>, id: &str) -> Response {
    let found = list.into_iter().find(|item| item["id"].as_i64() == id.parse().ok());
    found.map_or_else(|| answer(404, json!({ "message": "Not Found" })), |item| answer(200, item))
}

fn change(call: &Call, world: &mut World, id: &str, me: &str) -> Response {
    match world.comments.iter_mut().find(|remark| remark.id.to_string() == id) {
        None => answer(404, json!({ "message": "Not Found" })),
        Some(remark) if remark.author != me => answer(403, json!({ "message": "Must have admin rights" })),
        Some(remark) => {
            remark.body = call.text("body");
            answer(200, json!({ "id": remark.id }))
        }
    }
}

fn gitlab(call: &Call, world: &mut World, path: &[&str]) -> Response {
    if call.header("private-token") != "tok" {
        return answer(401, json!({ "message": "401 Unauthorized" }));
    }
    match (call.method.as_str(), path) {
        ("GET", ["user"]) => answer(200, json!({ "id": 3, "username": "me" })),
        ("GET", ["projects", "foo%2Fsub%2Fbar", "repository", "commits", sha, "statuses"]) => {
            if *sha != SHA {
                return answer(404, json!({ "message": "404 Commit Not Found" }));
            }
            let name = call.unescaped("name");
            let list = world.statuses.iter().rev().find(|kept| kept.id == name);
            let shown = |kept: &Kept| json!({ "sha": kept.sha, "name": kept.id, "status": kept.state, "description": kept.description });
            page(call, list.map(shown).into_iter().collect(), 20)
        }
        ("POST", ["projects", "foo%2Fsub%2Fbar", "statuses", sha]) => {
            let kept = keep(call, sha, "name");
            let before = world.statuses.iter().rev().find(|there| there.id == kept.id).map(|there| there.state.clone());
            let how = match &*kept.state {
                "pending" => "enqueue",
                "running" => "run",
                "success" | "failed" | "canceled" => "",
                _ => return answer(400, json!({ "error": "state does not have a valid value" })),
            };
            match before.as_deref() {
                Some(before @ ("pending" | "running")) if how == "enqueue" || (how, before) == ("run", "running") => {
                    let why = format!(
                        "Cannot transition status via :{how} from :{before} (Reason(s): Status cannot transition via \"{how}\")"
                    );
                    return answer(400, json!({ "message": why }));
                }
                _ => world.statuses.push(kept),
            }
            answer(201, json!({ "id": world.id() }))
        }
        ("GET", ["projects", "foo%2Fsub%2Fbar", "merge_requests", "42", "notes"]) => {
            let shown = |remark: &Remark| json!({ "id": remark.id, "author": { "username": remark.author }, "body": remark.body });
            page(call, world.comments.iter().map(shown).collect(), call.number("per_page", 20).min(100))
        }
        ("GET", ["projects", "foo%2Fsub%2Fbar", "merge_requests", "42", "notes", id]) => {
            let shown = |remark: &Remark| json!({ "id": remark.id, "author": { "username": remark.author }, "body": remark.body });
            one(world.comments.iter().map(shown).collect(), id)
        }
        ("POST", ["projects", "foo%2Fsub%2Fbar", "merge_requests", "42", "notes"]) => {
            let id = world.id();
            world.comments.push(Remark { id, author: "me".into(), body: call.text("body") });
            answer(201, json!({ "id": id }))
        }
        ("PUT", ["projects", "foo%2Fsub%2Fbar", "merge_requests", "42", "notes", id]) => change(call, world, id, "me"),
        _ => answer(404, json!({ "message": "404 Project Not Found" })),
    }
}

fn gitea(call: &Call, world: &mut World, path: &[&str]) -> Response {
    if call.header("authorization") != "token tok" {
        return unauthorized();
    }
    match (call.method.as_str(), path) {
        ("GET", ["user"]) => answer(200, json!({ "login": "me" })),
        ("GET", ["repos", "foo", "bar", "commits", sha, "statuses"]) => {
            let list = world.statuses.iter().rev().filter(|kept| kept.sha == *sha);
            let shown =
                |kept: &Kept| json!({ "context": kept.id, "status": kept.state, "description": kept.description });
            page(call, list.map(shown).collect(), call.number("limit", 30).min(50))
        }
        ("POST", ["repos", "foo", "bar", "statuses", sha]) => {
            let kept = keep(call, sha, "context");
            world.statuses.push(kept);
            answer(201, json!({ "id": world.id() }))
        }
        (_, ["repos", "foo", "bar", "issues", rest @ ..]) => issues(call, world, rest, "me", true),
        _ => answer(404, json!({ "message": "not found" })),
    }
}

fn bitbucket(call: &Call, world: &mut World, path: &[&str]) -> Response {
    if ![basic("user:pass"), "Bearer access".into()].contains(&call.header("authorization").to_owned()) {
        return unauthorized();
    }
    match (call.method.as_str(), path) {
        ("GET", ["commit", sha, "statuses", "build", key]) => {
            let found = world.statuses.iter().rev().find(|kept| kept.sha == *sha && kept.id == *key);
            let none = || answer(404, json!({ "type": "error", "error": { "message": "Not found" } }));
            found.map_or_else(none, |kept| {
                answer(200, json!({ "key": kept.id, "state": kept.state, "description": kept.description }))
            })
        }
        ("POST", ["commit", sha, "statuses", "build"]) => {
            let kept = keep(call, sha, "key");
            if *sha != SHA {
                return answer(404, json!({ "type": "error", "error": { "message": "Commit not found" } }));
            }
            if kept.id.len() > 40 || kept.name.is_empty() {
                return answer(400, json!({ "type": "error", "error": { "message": "Bad request" } }));
            }
            world.statuses.push(kept);
            answer(201, json!({}))
        }
        _ => answer(404, json!({ "type": "error" })),
    }
}

fn bitbucket_server(call: &Call, world: &mut World, path: &[&str]) -> Response {
    let credentials = ["Bearer tok".to_owned(), basic("user:pass")].contains(&call.header("authorization").to_owned());
    if !credentials || call.header("x-atlassian-token") != "no-check" {
        return unauthorized();
    }
    match (call.method.as_str(), path) {
        ("GET", ["commits", sha, "builds"]) => {
            let found = world.statuses.iter().rev().find(|kept| kept.sha == *sha && kept.id == call.unescaped("key"));
            let none = || {
                answer(404, json!({ "errors": [{ "exceptionName": "com.atlassian.bitbucket.NoSuchEntityException" }] }))
            };
            found.map_or_else(none, |kept| {
                answer(
                    200,
                    json!({ "key": kept.id, "state": kept.state, "description": kept.description, "name": kept.name }),
                )
            })
        }
        ("POST", ["commits", sha, "builds"]) => {
            let url = call.text("url");
            assert!(url.ends_with("/ctx/scm/proj/repo.git") || url.ends_with("/ctx/projects/proj/repos/repo"), "{url}");
            let kept = keep(call, sha, "key");
            if *sha != SHA {
                let name = "com.atlassian.bitbucket.commit.NoSuchCommitException";
                return answer(404, json!({ "errors": [{ "exceptionName": name }] }));
            }
            world.statuses.push(kept);
            answer(204, Value::Null)
        }
        _ => answer(404, json!({})),
    }
}

fn azure(call: &Call, world: &mut World, path: &[&str]) -> Response {
    if call.header("authorization") != basic(":tok") {
        return unauthorized();
    }
    assert_eq!(call.header("accept"), "application/json;api-version=6.0");
    match (call.method.as_str(), path) {
        ("GET", ["commits", sha, "statuses"]) => {
            let list = world.statuses.iter().rev().filter(|kept| kept.sha == *sha);
            let shown = |kept: &Kept| json!({ "state": kept.state, "description": kept.description, "context": { "name": kept.id, "genre": kept.genre } });
            let mut list: Vec<Value> = list.map(shown).collect();
            if call.query("latestOnly") == Some("true") {
                let mut seen = Vec::new();
                list.retain(|item| {
                    !seen.contains(&item["context"]) && {
                        seen.push(item["context"].clone());
                        true
                    }
                });
            }
            let list: Vec<Value> =
                list.into_iter().skip(call.number("skip", 0)).take(call.number("top", 1000)).collect();
            answer(200, json!({ "count": list.len(), "value": list }))
        }
        ("POST", ["commits", sha, "statuses"]) => {
            let context = |key: &str| call.body["context"][key].as_str().unwrap().to_owned();
            world.statuses.push(Kept { id: context("name"), genre: context("genre"), ..keep(call, sha, "") });
            answer(201, json!({ "id": world.id() }))
        }
        _ => answer(404, json!({})),
    }
}
