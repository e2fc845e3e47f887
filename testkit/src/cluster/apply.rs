//! Applying YAML, as a user does with `kubectl apply --server-side`.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Client,
    api::{Api, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, ApiCapabilities, ApiResource, Scope},
    runtime::wait::{Condition as _, conditions::is_crd_established},
};
use serde_json::{Value, json};

use super::Cluster;
use crate::until;

const SERVED_WITHIN: Duration = Duration::from_secs(20);
const MANAGER: &str = "testkit";

/// What the server sets, and refuses to be told: recorded objects carry it.
const SERVER_SET: [&str; 6] =
    ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "deletionTimestamp"];

impl Cluster {
    /// Applies every document of `yaml`: first CustomResourceDefinitions, waiting until all are served, then
    /// Namespaces, then the rest in its order. A `status` in a document is written too, where the kind has a status
    /// subresource.
    ///
    /// # Errors
    /// When the YAML is broken, the server refuses an object, or a CRD isn't served in time.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<()> {
        apply(&self.admin(), None, parse(yaml)?).await
    }

    /// Like [`Cluster::apply_yaml`], where objects that name no namespace go into `namespace`.
    ///
    /// # Errors
    /// As [`Cluster::apply_yaml`].
    pub async fn apply_yaml_in(&self, namespace: &str, yaml: &str) -> Result<()> {
        apply(&self.admin(), Some(namespace), parse(yaml)?).await
    }

    /// Applies a YAML file, or all of a folder's in the order of their names, as if they were one.
    ///
    /// # Errors
    /// As [`Cluster::apply_yaml`], and when there is nothing to read.
    pub async fn apply_path(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        apply(&self.admin(), None, read(path).with_context(|| path.display().to_string())?).await
    }
}

fn read(path: &Path) -> Result<Vec<Value>> {
    if !path.is_dir() {
        return parse(&fs::read_to_string(path)?);
    }
    let mut files = fs::read_dir(path)?
        .map(|entry| Ok(entry?.path()))
        .filter(|file| file.as_ref().map_or(true, |file| file.extension().is_some_and(|end| end == "yaml")))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut documents = Vec::new();
    for file in files {
        documents.extend(read(&file).with_context(|| file.display().to_string())?);
    }
    Ok(documents)
}

fn parse(yaml: &str) -> Result<Vec<Value>> {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    documents.retain(|document| !document.is_null());
    Ok(documents)
}

async fn apply(client: &Client, namespace: Option<&str>, documents: Vec<Value>) -> Result<()> {
    ensure!(!documents.is_empty(), "nothing to apply");
    let (definitions, rest): (Vec<_>, Vec<_>) =
        documents.into_iter().partition(|document| document["kind"] == "CustomResourceDefinition");
    let (namespaces, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|document| document["kind"] == "Namespace");
    for definition in &definitions {
        apply_one(client, None, definition).await?;
    }
    for definition in &definitions {
        served(client, definition).await?;
    }
    for document in namespaces.iter().chain(&rest) {
        apply_one(client, namespace, document).await?;
    }
    Ok(())
}

async fn apply_one(client: &Client, namespace: Option<&str>, document: &Value) -> Result<()> {
    let kind = document["kind"].as_str().context("a document without kind")?;
    let name = document["metadata"]["name"].as_str().with_context(|| format!("a {kind} without name"))?;
    let version = document["apiVersion"].as_str().with_context(|| format!("{kind} {name} without apiVersion"))?;
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let known = discovery::pinned_kind(client, &GroupVersionKind::gvk(group, version, kind)).await;
    let (resource, able) = known.with_context(|| format!("{kind} {group}/{version} is not known to the server"))?;

    let api: Api<DynamicObject> = match able.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = document["metadata"]["namespace"].as_str().or(namespace);
            let namespace = namespace.with_context(|| format!("{kind} {name} names no namespace"))?;
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    let mut wanted = document.clone();
    if let Some(metadata) = wanted["metadata"].as_object_mut() {
        metadata.retain(|field, _| !SERVER_SET.contains(&field.as_str()));
    }
    let how = PatchParams::apply(MANAGER).force();
    api.patch(name, &how, &Patch::Apply(&wanted)).await.with_context(|| format!("{kind} {name}"))?;
    if document.get("status").is_some() && has_status(&resource, &able) {
        let status = json!({ "status": document["status"] });
        let how = PatchParams::default();
        api.patch_status(name, &how, &Patch::Merge(&status))
            .await
            .with_context(|| format!("the status of {kind} {name}"))?;
    }
    Ok(())
}

fn has_status(resource: &ApiResource, able: &ApiCapabilities) -> bool {
    resource.kind != "CustomResourceDefinition" && able.subresources.iter().any(|(sub, _)| sub.plural == "status")
}

/// Waits until the kind that `definition` defines can be asked for: established, and in the discovery documents.
async fn served(client: &Client, definition: &Value) -> Result<()> {
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    let definitions = &Api::<CustomResourceDefinition>::all(client.clone());
    until(&format!("the CRD {name} is served"), SERVED_WITHIN, || async move {
        let now = definitions.get(name).await?;
        ensure!(is_crd_established().matches_object(Some(&now)), "not established: {:?}", now.status);
        for version in now.spec.versions.iter().filter(|version| version.served) {
            let gvk = GroupVersionKind::gvk(&now.spec.group, &version.name, &now.spec.names.kind);
            discovery::pinned_kind(client, &gvk).await?;
        }
        Ok(())
    })
    .await
}
