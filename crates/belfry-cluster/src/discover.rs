//! Which version of a kind the API server serves, if any.

use kube::{Client, core::ApiResource};
use serde_json::Value;

use crate::{Error, call, kinds::Kind};

/// The kind in the version that it is watched in. `None` when it is not served, which is said only by an API server that
/// has finished its start.
pub(crate) async fn discover(client: &Client, kind: &Kind) -> Result<Option<ApiResource>, Error> {
    find(client, kind.group, kind.name, kind.version).await
}

/// The kind in the wanted version, else in the one that the API server prefers among those that have it.
pub(crate) async fn find(
    client: &Client,
    group: &str,
    kind: &str,
    wanted: Option<&str>,
) -> Result<Option<ApiResource>, Error> {
    let what = format!("which versions of {kind} are served");
    let all = match call::get(client, &what, &format!("/apis/{group}")).await {
        Ok(all) => all,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    for version in versions(&all, wanted) {
        let list = match call::get(client, &what, &format!("/apis/{group}/{version}")).await {
            Ok(list) => list,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        if let Some(plural) = plural(&list, kind) {
            return Ok(Some(ApiResource {
                group: group.to_owned(),
                api_version: format!("{group}/{version}"),
                version,
                kind: kind.to_owned(),
                plural,
            }));
        }
    }
    Ok(None)
}

/// The wanted version first, then the API server's preferred one, then the others in its order.
fn versions(group: &Value, wanted: Option<&str>) -> Vec<String> {
    let listed = group["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let served = |version: &&str| listed.iter().any(|entry| entry["version"] == *version);
    let mut versions: Vec<String> = wanted.filter(served).map(str::to_owned).into_iter().collect();
    for entry in std::iter::once(&group["preferredVersion"]).chain(listed) {
        if let Some(version) = entry["version"].as_str()
            && !versions.iter().any(|known| known == version)
        {
            versions.push(version.to_owned());
        }
    }
    versions
}

/// The plural under which a version serves the kind, if it can be listed and watched.
fn plural(list: &Value, kind: &str) -> Option<String> {
    let resources = list["resources"].as_array()?;
    let able = |resource: &Value, verb: &str| {
        resource["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|known| known == verb))
    };
    let resource = resources.iter().find(|resource| {
        let name = resource["name"].as_str().unwrap_or("/");
        resource["kind"] == kind && !name.contains('/') && able(resource, "list") && able(resource, "watch")
    })?;
    resource["name"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_preferred_version_comes_first_and_subresources_are_no_kinds() {
        let version = |name: &str| json!({ "version": name, "groupVersion": format!("g/{name}") });
        let group = json!({
            "versions": [version("v1"), version("v1beta2"), version("v1beta1")],
            "preferredVersion": version("v1beta2"),
        });
        assert_eq!(versions(&group, None), ["v1beta2", "v1", "v1beta1"]);
        assert_eq!(versions(&group, Some("v1beta1")), ["v1beta1", "v1beta2", "v1"]);
        assert_eq!(versions(&group, Some("v2")), ["v1beta2", "v1", "v1beta1"]);
        assert!(versions(&json!({}), Some("v1")).is_empty());

        let resource = |name: &str, verbs: &[&str]| json!({ "name": name, "kind": "Bell", "verbs": verbs });
        let list = json!({ "resources": [
            resource("bells/status", &["get", "list", "watch"]),
            resource("bells", &["get", "list", "watch"]),
        ]});
        assert_eq!(plural(&list, "Bell").as_deref(), Some("bells"));
        assert_eq!(plural(&json!({ "resources": [resource("bells", &["get"])] }), "Bell"), None);
    }
}
