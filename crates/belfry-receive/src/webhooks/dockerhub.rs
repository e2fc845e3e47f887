//! `dockerhub`: Docker Hub signs nothing; the path is the credential.

use crate::{
    Inbound, json,
    read::{Payload, subject},
    webhook::Webhook,
};

pub(crate) const WEBHOOK: Webhook =
    Webhook { name: "dockerhub", read, unreadable: "cannot decode DockerHub webhook payload: ", ..Webhook::BASE };

fn read(inbound: &Inbound<'_>) -> Result<Payload, String> {
    let body = json::first_object(inbound.body)?;
    let tag = json::text(&json::member(&body, "push_data")?, "tag")?;
    let url = json::text(&json::member(&body, "repository")?, "repo_url")?;
    Ok(Payload { subject: subject(&url, &tag), ..Payload::default() })
}
