//! `cdevents`: what happened as CDEvents (<https://cdevents.dev>), each in a CloudEvent over HTTP.
//!
//! What an event becomes depends on what was said before about its object: which revision is live, which incident is
//! open. The lane remembers that, and it changes only once a delivery has ended well: every attempt says the same.

mod rules;
#[cfg(test)]
mod tests;

use belfry_api::{CdEventsIncidents, CdEventsKustomizationAs, CdEventsMode, CdEventsProfile, CdEventsSpec, Event};
use belfry_cdevents::{
    http::{ContentMode, request},
    mapping::{
        Facts, IncidentChange, Incidents, KustomizationAs, Mapped, Options, Profile, Reported, Unmappable, Version,
        custom, map, purl::Source,
    },
};
use belfry_core::{notification::Notification, plan::Origin};
use belfry_http::{HeaderMap, HeaderName, HeaderValue, Request, Url};
use rules::{Rules, Ruling};
use serde::{Deserialize, Serialize};

use super::authorized;
use crate::{
    Misconfigured, Reason,
    protocol::{Protocol, Unsent},
    settings::Resolved,
};

struct CdEvents {
    url: Url,
    headers: HeaderMap,
    authorization: Option<HeaderValue>,
    mode: ContentMode,
    options: Options,
    rules: Rules,
}

/// What a lane remembers of its object.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Memo {
    /// The revision that succeeded last.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none")]
    live: Option<String>,
    /// The incident that is open.
    #[serde(rename = "i", skip_serializing_if = "Option::is_none")]
    incident: Option<String>,
    /// The CDEvent that was sent last.
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    /// The chain of the attempt that failed last: a rollback belongs to it.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut spec = resolved.spec().cdevents.clone().unwrap_or_default();
    let rules = std::mem::take(&mut spec.rules);
    let mode = match spec.mode {
        CdEventsMode::Binary => ContentMode::Binary,
        CdEventsMode::Structured => ContentMode::Structured,
    };
    let options = options(spec, resolved.cluster())?;
    Ok(Box::new(CdEvents {
        url: resolved.url()?,
        headers: resolved.extra_headers()?,
        authorization: resolved.bearer()?,
        mode,
        rules: Rules::compile(&rules, options.version)?,
        options,
    }))
}
fn options(spec: CdEventsSpec, cluster: &str) -> Result<Options, Misconfigured> {
    let version = match &spec.spec_version {
        None => Version::default(),
        Some(text) => Version::parse(text).ok_or_else(|| {
            let text = format!("spec.cdevents.specVersion '{text}' is neither 0.4.1 nor 0.5.1");
            Misconfigured::new(Reason::CdEvents, text)
        })?,
    };
    Ok(Options {
        profile: match spec.profile {
            CdEventsProfile::Rfc => Profile::Rfc,
            CdEventsProfile::Pipeline => Profile::Pipeline,
            CdEventsProfile::Build => Profile::Build,
            CdEventsProfile::Delivery => Profile::Delivery,
        },
        version,
        cluster: cluster.to_owned(),
        source: spec.source,
        environment: spec.environment,
        incidents: match spec.incidents {
            CdEventsIncidents::Running => Incidents::Running,
            CdEventsIncidents::All => Incidents::All,
        },
        kustomization_as: match spec.kustomization_as {
            CdEventsKustomizationAs::Service => KustomizationAs::Service,
            CdEventsKustomizationAs::Environment => KustomizationAs::Environment,
            CdEventsKustomizationAs::None => KustomizationAs::None,
        },
        sources: spec.sources,
        assume_merged: spec.assume_merged,
        drift: spec.drift,
        omit_messages: spec.omit_messages,
        ..Options::default()
    })
}

fn source(known: &belfry_core::index::Source) -> Source<'_> {
    Source {
        kind: &known.kind,
        url: &known.url,
        path: known.path.as_deref(),
        chart: known.chart.as_deref(),
        revision: known.revision.as_deref(),
        repository: known.repository.as_deref(),
    }
}

impl CdEvents {
    /// What becomes of an event, by the rules and then by the profile; the error is why it can't be told.
    fn map(&self, notification: &Notification, memo: &Memo) -> Result<Mapped, String> {
        let clusters = [notification.object.cluster.as_str(), self.options.cluster.as_str(), "local"];
        let cluster = clusters.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let live = memo.live.as_deref().unwrap_or_default();
        let mapped = match self.rules.rule(notification, cluster, live)? {
            Ruling::Drop => {
                return Ok(Mapped { skipped: Some("a rule of spec.cdevents.rules drops it"), ..Mapped::default() });
            }
            Ruling::Profile => self.mapped(notification, memo, |reported, facts| map(reported, facts, &self.options)),
            Ruling::Emit(rule) => self.mapped(notification, memo, |reported, facts| {
                let emission = custom(reported, facts, &self.options, rule)?;
                Ok(Mapped { events: vec![emission], ..Mapped::default() })
            }),
        };
        mapped.map_err(|error| format!("no valid CDEvent can be made of this: {error}"))
    }

    fn mapped(
        &self,
        notification: &Notification,
        memo: &Memo,
        make: impl FnOnce(&Reported<'_>, &Facts<'_>) -> Result<Mapped, Unmappable>,
    ) -> Result<Mapped, Unmappable> {
        let event = &notification.event;
        let reported = Reported {
            event,
            origin: Origin::Forwarded,
            object: &notification.object,
            change: notification.change,
            arrived: jiff::Timestamp::from_microsecond(notification.seq.0).unwrap_or_default(),
        };
        let rolls_back = event.reason.starts_with("Rollback");
        let facts = Facts {
            live: memo.live.as_deref(),
            incident: memo.incident.as_deref(),
            previous: memo.previous.as_deref(),
            chain: memo.chain.as_deref().filter(|_| rolls_back),
            source: notification.source.as_ref().map(source),
            ..Facts::default()
        };
        make(&reported, &facts)
    }

    fn request(&self, document: &serde_json::Value) -> Result<Request, Unsent> {
        let outgoing = request(document, self.mode);
        let mut request = Request::post(self.url.clone(), outgoing.content_type, outgoing.body);
        for (name, value) in outgoing.headers {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| Unsent::Reject(format!("the attribute {name} can't be sent as a header")))?;
            request.headers.insert(HeaderName::from_static(name), value);
        }
        for (name, value) in &self.headers {
            request.headers.insert(name, value.clone());
        }
        Ok(authorized(request, self.authorization.as_ref()))
    }
}

impl Protocol for CdEvents {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let mapped = self.map(notification, &Memo::read(notification)).map_err(Unsent::Reject)?;
        match mapped.skipped {
            Some(why) => Err(Unsent::Skip(why)),
            None => mapped.events.iter().map(|event| self.request(&event.document)).collect(),
        }
    }

    fn remember(&self, notification: &Notification) -> Option<Vec<u8>> {
        let mut memo = Memo::read(notification);
        let mapped = self.map(notification, &memo).ok()?;
        match mapped.incident {
            Some(IncidentChange::Opened(id)) => memo.incident = Some(id),
            Some(IncidentChange::Closed) => memo.incident = None,
            None => {}
        }
        if let Some(last) = mapped.events.last() {
            memo.previous = Some(last.id.clone());
        }
        let event = &notification.event;
        if event.severity == "error" {
            let chain = mapped.events.first().and_then(|sent| sent.document.pointer("/context/chainId")?.as_str());
            memo.chain = chain.map(str::to_owned).or(memo.chain);
        } else if succeeded(event) {
            memo.live = event.metadata.get("revision").cloned().or(memo.live);
        }
        let written = serde_json::to_vec(&memo).ok()?;
        (written != notification.memo).then_some(written)
    }
}

impl Memo {
    /// What can't be read is forgotten: the next event tells more than it would have to, and none tells less.
    fn read(notification: &Notification) -> Self {
        serde_json::from_slice(&notification.memo).unwrap_or_default()
    }
}

/// Whether an event says that its revision is live.
fn succeeded(event: &Event) -> bool {
    match event.reason.as_str() {
        "ReconciliationSucceeded" => event.metadata.get("commit_status").is_some_and(|status| status == "update"),
        reason => matches!(reason, "InstallSucceeded" | "UpgradeSucceeded" | "RollbackSucceeded"),
    }
}
