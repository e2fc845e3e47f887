//! What is asked of the API server, how often, and what is made of its answers.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use tower::service_fn;

use super::*;

/// An API server that counts its reviews. It knows the token `jane`, lets her get whatever is in `apps`, and is down
/// when told.
#[derive(Default)]
struct Server {
    asked: AtomicUsize,
    down: AtomicUsize,
}

impl Server {
    fn answer(&self, path: &str, body: &Value) -> (u16, Value) {
        if path == "/readyz" {
            return (200, json!("ok"));
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let spec = &body["spec"];
        match self.down.load(Ordering::SeqCst) {
            0 => {}
            code => return (code as u16, json!({ "kind": "Status", "code": code, "message": "no" })),
        }
        let status = match path.rsplit('/').next().unwrap() {
            "tokenreviews" if spec["token"] == "jane" => json!({
                "authenticated": true, "audiences": spec["audiences"],
                "user": { "username": "jane", "uid": "1", "groups": ["dev"], "extra": { "k": ["v"] } },
            }),
            "tokenreviews" => json!({ "authenticated": false, "error": "invalid bearer token" }),
            "subjectaccessreviews" => {
                assert_eq!(spec["extra"], json!({ "k": ["v"] }));
                json!({ "allowed": spec["user"] == "jane" && spec["resourceAttributes"]["namespace"] == "apps" })
            }
            other => panic!("{other}?"),
        };
        (201, json!({ "status": status }))
    }
}

fn reviews(server: &Arc<Server>) -> Reviews {
    let server = server.clone();
    let service = service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            tokio::time::sleep(Duration::from_millis(10)).await;
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
            let (status, answer) = server.answer(head.uri.path(), &body);
            let answer = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    Reviews::new(Client::new(service, "default"))
}

const READ: Access<'static> = Access {
    verb: "get",
    group: "kustomize.toolkit.fluxcd.io",
    resource: "kustomizations",
    namespace: "apps",
    name: "a",
};

#[tokio::test(start_paused = true)]
async fn answers_are_believed_for_a_while() {
    let server = Arc::<Server>::default();
    let reviews = reviews(&server);
    let jane = reviews.token("jane").await.unwrap().unwrap();
    assert_eq!((jane.name.as_str(), jane.groups.len()), ("jane", 1));
    for _ in 0..3 {
        assert!(reviews.token("jane").await.unwrap().is_some());
        assert!(reviews.token("john").await.unwrap().is_none());
        assert!(reviews.access(&jane, READ).await.unwrap());
        assert!(!reviews.access(&jane, Access { namespace: "other", ..READ }).await.unwrap());
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 4);
    tokio::time::advance(REFUSED).await;
    reviews.token("john").await.unwrap();
    reviews.token("jane").await.unwrap();
    assert_eq!(server.asked.load(Ordering::SeqCst), 5);
    tokio::time::advance(BELIEVED).await;
    reviews.token("jane").await.unwrap();
    reviews.access(&jane, READ).await.unwrap();
    assert_eq!(server.asked.load(Ordering::SeqCst), 7);
}

#[tokio::test(start_paused = true)]
async fn an_outage_and_a_missing_role_let_nobody_in() {
    let server = Arc::<Server>::default();
    let reviews = reviews(&server);
    let jane = reviews.token("jane").await.unwrap().unwrap();
    assert!(reviews.access(&jane, READ).await.unwrap());
    tokio::time::advance(BELIEVED).await;
    for (code, unavailable) in [(500, true), (403, false)] {
        server.down.store(code, Ordering::SeqCst);
        assert_eq!(reviews.token("jane").await.unwrap_err().is_unavailable(), unavailable);
        assert_eq!(reviews.access(&jane, READ).await.unwrap_err().is_unavailable(), unavailable);
    }
    server.down.store(0, Ordering::SeqCst);
    assert!(reviews.access(&jane, READ).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_once_share_few_requests() {
    let server = Arc::<Server>::default();
    let reviews = reviews(&server);
    let all = futures::future::join_all((0..1000).map(|_| reviews.token("jane"))).await;
    assert!(all.into_iter().all(|user| user.unwrap().is_some()));
    assert!(server.asked.load(Ordering::SeqCst) <= AT_A_TIME);
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_push_out_users() {
    let server = Arc::<Server>::default();
    let reviews = reviews(&server);
    for n in 0..=USERS {
        reviews.refused.put(digest([n.to_string().as_str()]), Instant::now(), ());
    }
    assert_eq!(reviews.refused.held.lock().unwrap().len(), USERS);
    reviews.token("jane").await.unwrap();
    for token in ["", "two words", "a\nb", &"x".repeat(TOKEN + 1)] {
        assert_eq!(reviews.token(token).await.unwrap(), None);
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1, "what can't be a token is nothing to ask about");
}

#[test]
fn a_token_for_another_audience_is_nobodys() {
    let answer = |audiences: Value| json!({ "status": { "authenticated": true, "audiences": audiences, "user": { "username": "jane" } } });
    assert!(user("", answer(json!(["other", "belfry"]))).unwrap().is_some());
    for audiences in [json!([]), json!(["https://kubernetes.default.svc"]), Value::Null, json!("belfry")] {
        assert_eq!(user("", answer(audiences.clone())).unwrap(), None, "{audiences}");
    }
    let nobody = json!({ "status": { "authenticated": true, "audiences": ["belfry"], "user": { "groups": ["g"] } } });
    assert!(user("", nobody).is_err());
}

#[test]
fn what_one_may_is_not_what_another_may() {
    let jane = User { name: "jane".into(), groups: vec!["a".into(), "b".into()], ..User::default() };
    let users = [
        jane.clone(),
        User { groups: vec!["a".into()], uid: "b".into(), ..jane.clone() },
        User { groups: vec!["ab".into()], ..jane.clone() },
        User { groups: vec!["a".into()], extra: [("b".into(), vec![])].into(), ..jane.clone() },
        User { extra: [("b".into(), vec![])].into(), ..jane.clone() },
        User { extra: [("b".into(), vec!["c".into()])].into(), ..jane.clone() },
        User { extra: [("b".into(), vec![]), ("c".into(), vec![])].into(), ..jane },
    ];
    let keys: std::collections::BTreeSet<Key> = users.iter().map(|user| key(user, READ)).collect();
    assert_eq!(keys.len(), users.len());
    assert_ne!(key(&users[0], READ), key(&users[0], Access { namespace: "a", name: "apps", ..READ }));
    let account = User::service_account("apps", "ci");
    assert_eq!(account.name, "system:serviceaccount:apps:ci");
    assert_eq!(account.groups, ["system:serviceaccounts", "system:serviceaccounts:apps", "system:authenticated"]);
}
