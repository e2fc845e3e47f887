//! Sources are written by whoever may write a source: what they may choose, and what not.

use proptest::prelude::*;

use super::*;
use crate::tests::Case;

/// The repository of a source for a Provider of this type and address; with what it is at.
fn at(type_: &str, address: &str, source: &str) -> Result<String, NoRepository> {
    narrowed(type_, address, source, &[])
}

fn narrowed(type_: &str, address: &str, source: &str, allowed: &[&str]) -> Result<String, NoRepository> {
    let allowed: Vec<String> = allowed.iter().map(|entry| (*entry).to_owned()).collect();
    Case::new(type_, address)
        .with_settings(|settings| Repository::from_source(settings, source, &allowed))
        .map(|repository| format!("{} {}", repository.address.server(), repository.address.path))
}

#[test]
fn sources_of_every_form_name_a_repository() {
    for (type_, address, source, expected) in [
        ("github", "", "https://github.com/foo/bar", "https://github.com foo/bar"),
        ("github", "", "https://github.com/foo/bar.git", "https://github.com foo/bar"),
        ("github", "", "https://github.com/foo/bar/", "https://github.com foo/bar"),
        ("github", "", "https://www.github.com/foo/bar", "https://github.com foo/bar"),
        ("github", "https://www.github.com", "https://github.com/foo/bar", "https://github.com foo/bar"),
        ("github", "https://github.com/", "ssh://git@github.com/foo/bar", "https://github.com foo/bar"),
        ("github", "https://github.com", "ssh://git@ssh.github.com:443/foo/bar.git", "https://github.com foo/bar"),
        ("github", "https://github.com", "git@github.com:foo/bar.git", "https://github.com foo/bar"),
        ("github", "", "HTTPS://GitHub.com:443/Foo/Bar.git", "https://github.com Foo/Bar"),
        ("github", "", "https://user:p%40ss@github.com/foo/bar", "https://github.com foo/bar"),
        ("github", "", "http://github.com/foo/bar", "https://github.com foo/bar"),
        ("github", "", "https://github.com/foo/b%2Dr", "https://github.com foo/b-r"),
        ("github", "https://octo.ghe.com", "https://octo.ghe.com/foo/bar", "https://octo.ghe.com foo/bar"),
        ("github", "https://ghe.example:8443", "ssh://git@ghe.example/foo/bar", "https://ghe.example:8443 foo/bar"),
        ("github", "https://ghe.example:8443", "https://ghe.example:8443/a/b", "https://ghe.example:8443 a/b"),
        ("gitlab", "", "https://gitlab.com/a/b/c/d.git", "https://gitlab.com a/b/c/d"),
        ("gitlab", "", "git@altssh.gitlab.com:a/b.git", ""),
        ("gitlab", "", "ssh://git@altssh.gitlab.com:443/a/b/c.git", "https://gitlab.com a/b/c"),
        ("gitlab", "https://git.example", "ssh://git@git.example:2222/a/b", "https://git.example a/b"),
        ("gitea", "http://gitea.svc:3000", "http://gitea.svc:3000/a/b", "http://gitea.svc:3000 a/b"),
        ("gitea", "http://gitea.svc:3000", "git@gitea.svc:a/b", "http://gitea.svc:3000 a/b"),
        ("gitea", "https://[2001:DB8::1]", "ssh://git@[2001:db8:0::1]:2222/a/b", "https://[2001:db8::1] a/b"),
        ("gitea", "https://127.0.0.1", "https://0x7f.1/a/b", "https://127.0.0.1 a/b"),
        ("gitea", "https://bücher.example", "https://xn--bcher-kva.example/a/b", "https://bücher.example a/b"),
        ("bitbucket", "", "git@bitbucket.org:foo/bar.git", "https://bitbucket.org foo/bar"),
        ("bitbucketserver", "https://bb.example", "https://bb.example/scm/P/r.git", "https://bb.example scm/P/r"),
        (
            "bitbucketserver",
            "https://bb.example/ctx",
            "https://bb.example/ctx/scm/P/r",
            "https://bb.example ctx/scm/P/r",
        ),
        (
            "bitbucketserver",
            "https://bb.example/ctx/",
            "ssh://git@bb.example:7999/~me/r.git",
            "https://bb.example ctx/scm/~me/r",
        ),
        (
            "azuredevops",
            "",
            "https://org@dev.azure.com/org/My%20Proj/_git/r",
            "https://dev.azure.com org/My Proj/_git/r",
        ),
        ("azuredevops", "", "https://dev.azure.com/org/_git/r", "https://dev.azure.com org/r/_git/r"),
        ("azuredevops", "", "git@ssh.dev.azure.com:v3/org/proj/r", "https://dev.azure.com org/proj/_git/r"),
        ("azuredevops", "", "ssh://git@ssh.dev.azure.com:22/v3/org/proj/r", "https://dev.azure.com org/proj/_git/r"),
        ("azuredevops", "", "org@vs-ssh.visualstudio.com:v3/org/proj/r", "https://dev.azure.com org/proj/_git/r"),
        ("azuredevops", "", "https://org.visualstudio.com/proj/_git/r", "https://dev.azure.com org/proj/_git/r"),
        (
            "azuredevops",
            "",
            "https://org.visualstudio.com/DefaultCollection/proj/_git/r",
            "https://dev.azure.com org/proj/_git/r",
        ),
        (
            "azuredevops",
            "https://org.visualstudio.com",
            "https://dev.azure.com/Org/p/_git/r",
            "https://org.visualstudio.com p/_git/r",
        ),
        (
            "azuredevops",
            "https://org.visualstudio.com",
            "https://org.visualstudio.com/_git/r",
            "https://org.visualstudio.com r/_git/r",
        ),
        ("azuredevops", "https://tfs.example", "https://tfs.example/col/p/_git/r", "https://tfs.example col/p/_git/r"),
    ] {
        let found = at(type_, address, source);
        if expected.is_empty() {
            // Its port is what makes it the other name.
            assert!(matches!(found, Err(NoRepository::OtherHost { .. })), "{source}: {found:?}");
        } else {
            assert_eq!(found.as_deref(), Ok(expected), "{type_} {address} {source}");
        }
    }
}

#[test]
fn a_token_stays_at_the_host_of_its_provider() {
    for source in [
        "https://github.com.evil.example/foo/bar",
        "https://evil.example#@github.com/foo/bar",
        "https://evil.example?@github.com/foo/bar",
        "https://evil.example/github.com/foo",
        "https://evilgithub.com/foo/bar",
        "https://github.com@evil.example/foo/bar",
        "https://github.com:x@evil.example/foo/bar",
        "https://evil.example:443/foo/bar",
        "https://github.com./foo/bar",
        "https://github.com:8443/foo/bar",
        "https://api.github.com/foo/bar",
        "https://gist.github.com/foo/bar",
        "https://xn--gthub-cta.com/foo/bar",
        "https://gıthub.com/foo/bar",
        "https://gitlab.com/foo/bar",
        "https://140.82.121.4/foo/bar",
        "https://0x8c527904/foo/bar",
        "https://2354215172/foo/bar",
        "https://[::1]/foo/bar",
        "https://localhost/foo/bar",
        "git@evil.example:foo/bar",
        "git@github.com.evil.example:foo/bar",
        "github.com@evil.example:foo/bar",
        "ssh://git@ssh.github.com.evil.example:443/foo/bar",
        "ssh://github.com@evil.example/foo/bar",
        "ssh://git@ssh.github.com:8022/foo/bar",
        "https://github.com%2eevil.example/foo/bar",
    ] {
        let found = at("github", "", source);
        assert!(matches!(found, Err(NoRepository::OtherHost { .. })), "{source}: {found:?}");
    }
    let elsewhere = |address: &str, source: &str| {
        let found = at("azuredevops", address, source);
        assert!(matches!(found, Err(NoRepository::OtherHost { .. })), "{source}: {found:?}");
    };
    elsewhere("https://org.visualstudio.com", "https://dev.azure.com/other/p/_git/r");
    elsewhere("https://org.visualstudio.com", "https://other.visualstudio.com/p/_git/r");
    elsewhere("https://tfs.example", "https://dev.azure.com/org/p/_git/r");
    elsewhere("", "https://dev.azure.com.evil.example/org/p/_git/r");
    elsewhere("", "https://evil.org.visualstudio.com/p/_git/r");
    elsewhere("", "https://tfs.example/org/p/_git/r");
    let found = at("bitbucketserver", "https://bb.example", "https://bb.example.evil/scm/p/r");
    assert!(matches!(found, Err(NoRepository::OtherHost { .. })), "{found:?}");
}

#[test]
fn what_names_no_repository() {
    for (type_, address, source) in [
        ("github", "", ""),
        ("github", "", "https://github.com"),
        ("github", "", "https://github.com/foo"),
        ("github", "", "https://github.com/foo/bar/baz"),
        ("github", "", "https://github.com/foo/%2e%2e"),
        ("github", "", "https://github.com/foo/../../orgs"),
        ("github", "", "https://github.com/foo%2Fbar/baz"),
        ("github", "", "https://github.com/foo/b%0Aar"),
        ("github", "", "https://github.com//foo"),
        ("github", "", "https://evil.example\\@github.com/foo/bar"),
        ("github", "", "https://github.com/foo/bar baz"),
        ("github", "", " https://github.com/foo/bar"),
        ("github", "", "https://github.com\t/foo/bar"),
        ("github", "", "file:///foo/bar"),
        ("github", "", "oci://ghcr.io/foo/bar"),
        ("github", "", "git@github.com:2222/foo/bar"),
        ("github", "", "foo/bar"),
        ("gitlab", "", "https://gitlab.com/foo"),
        ("gitlab", "", "https://gitlab.com/foo/bar/-/tree/main"),
        ("bitbucketserver", "https://bb.example", "https://bb.example/projects/P/repos/r"),
        ("bitbucketserver", "https://bb.example/ctx", "https://bb.example/scm/P/r"),
        ("bitbucketserver", "https://bb.example", "https://bb.example/ctx/scm/P/r"),
        ("bitbucketserver", "https://bb.example", "https://bb.example/scm/a/scm/P/r"),
        ("azuredevops", "", "https://dev.azure.com/org/proj"),
        ("azuredevops", "", "https://dev.azure.com/v3/org/proj/r"),
        ("azuredevops", "", "https://org.visualstudio.com/proj/r"),
        ("azuredevops", "https://tfs.example", "https://tfs.example/a/b/c/d"),
    ] {
        let found = at(type_, address, source);
        assert!(matches!(found, Err(NoRepository::Source(_))), "{type_} {source}: {found:?}");
    }
}

#[test]
fn the_providers_own_repository_is_the_only_one() {
    let own = at("github", "https://github.com/foo/bar", "https://github.com/other/repo");
    assert_eq!(own.as_deref(), Ok("https://github.com foo/bar"));
    let artifact = at("gitlab", "https://git.example/a/b.git", "oci://registry.example/app");
    assert_eq!(artifact.as_deref(), Ok("https://git.example a/b"));
    for address in ["git@ssh.dev.azure.com:v3/org/r/r", "https://dev.azure.com/org/_git/r"] {
        assert_eq!(at("azuredevops", address, "").as_deref(), Ok("https://dev.azure.com org/r/_git/r"), "{address}");
    }
    let server = at("bitbucketserver", "https://bb.example/scm/foo-scm/r.git", "");
    assert_eq!(server.as_deref(), Ok("https://bb.example scm/foo-scm/r"));
}

#[test]
fn what_a_provider_must_have() {
    let reason = |type_: &str, address: &str| match at(type_, address, "https://github.com/foo/bar") {
        Err(NoRepository::Provider(error)) => error.reason,
        other => panic!("{type_} {address}: {other:?}"),
    };
    for (type_, address) in [
        ("gitea", ""),
        ("bitbucketserver", ""),
        ("bitbucketserver", "ssh://git@bb.example:7999/p/r"),
        ("github", "https://github.com/foo"),
        ("github", "github.com"),
        ("azuredevops", "https://dev.azure.com/org"),
    ] {
        assert_eq!(reason(type_, address), Reason::Address, "{type_} {address}");
    }
    assert_eq!(reason("slack", "https://slack.example"), Reason::UnsupportedType);
    assert_eq!(reason("githubdispatch", ""), Reason::UnsupportedType);
    assert_eq!(reason("foo", ""), Reason::UnknownType);
}

#[test]
fn a_list_narrows_it() {
    let allowed = |source: &str, list: &[&str]| narrowed("gitlab", "", source, list).is_ok();
    assert!(allowed("https://gitlab.com/a/b", &[]));
    assert!(allowed("https://gitlab.com/A/b", &["x/y", "/a/B.git"]));
    assert!(allowed("https://gitlab.com/a/b/c", &["a/*"]));
    for list in [&["a"][..], &["a/b*"], &["*"], &["aa/*"], &["a/*"], &[""]] {
        assert!(!allowed("https://gitlab.com/ab/c", list), "{list:?}");
    }
    // The Provider's own repository too: the list says what may be written to.
    let own = narrowed("github", "https://github.com/foo/bar", "", &["foo/other"]);
    assert_eq!(own, Err(NoRepository::NotAllowed("foo/bar".into())));
    let azure = |list| narrowed("azuredevops", "", "https://dev.azure.com/org/p/_git/r", list);
    assert!(azure(&["org/p/r"]).is_ok() && azure(&["org/p/*"]).is_ok() && azure(&["org/q/*"]).is_err());
    let server = |list| narrowed("bitbucketserver", "https://bb.example/c", "https://bb.example/c/scm/P/r", list);
    assert!(server(&["p/r"]).is_ok() && server(&["c/scm/p/r"]).is_err());
}

#[test]
fn errors_name_hosts_and_no_credentials() {
    let error = at("github", "", "https://user:hunter22@evil.example/a/b").unwrap_err().to_string();
    assert_eq!(error, "the source is at 'evil.example', and the Provider's token is only for 'github.com'");
    let error = at("github", "", "https://user:hunter22@github.com/a").unwrap_err().to_string();
    assert_eq!(error, "the source's URL names no repository of such a host");
}

proptest! {
    /// Whatever the source says, requests go to the API of the Provider's host, below the path for one repository.
    #[test]
    fn no_source_leads_elsewhere(
        source in "(https|http|ssh|git)?(://)?[a-z@:]{0,8}@?(github\\.com|evil\\.example)[:/@\\\\#?.%2ef]{0,4}[a-z/.%0-9@~-]{0,24}",
    ) {
        let found = Case::new("github", "").with_settings(|settings| Repository::from_source(settings, &source, &[]));
        if let Ok(repository) = found {
            let status = super::super::tests::status("id");
            let host = repository.host.open(&repository.address).unwrap();
            for request in [host.read(&status, 0).unwrap(), host.post(&status).unwrap()] {
                prop_assert_eq!(request.url.host_str(), Some("api.github.com"), "{}", source);
                prop_assert_eq!(request.url.port(), None);
                let path: Vec<&str> = request.url.path().split('/').collect();
                prop_assert!(path[1] == "repos" && path.len() >= 6 && !path[1..].contains(&""), "{}", request.url);
                prop_assert!(path[4] == "statuses" || path[4] == "commits", "{}", request.url);
            }
        }
    }
}
