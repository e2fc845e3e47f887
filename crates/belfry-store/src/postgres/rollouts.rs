//! Rollouts: writing them down, and reading what is kept.

use std::collections::BTreeMap;

use belfry_core::{
    ObjectKey, Seq, Time,
    plan::ObjectState,
    rollout::{Phase, Rollout, Successor},
};
use tokio_postgres::Row;

use super::{
    append::{column, read_state, small, sparse, unless_shut},
    filter::{Where, objects, page_size, text},
    link::{Link, Staged},
    names::Known,
    read::PgReader,
    transaction::PgWriter,
    walk::{FEW, MANY, Search, Span, TRIAL, Way},
};
use crate::{
    engine::Result,
    queries::{ObjectQuery, ObjectRow, Page, RolloutQuery, RolloutRow},
    rev,
};

/// The columns of a rollout, in the order in which [`rollout_row`] takes them.
pub(super) const COLUMNS: &str = "r.id, r.object, r.revision, r.origin_revision, r.commit_hash, r.token, r.oci_digest,
    r.state, r.started, r.finished, r.first_success, r.attempts, r.reason, r.message, r.superseded_by,
    r.successor_revision, r.successor_commit, r.last_event";
/// Which of them is the object.
pub(super) const OBJECT: usize = 1;

/// The rollout `r` is no longer needed.
const UNNEEDED: &str = "NOT EXISTS(SELECT 1 FROM event e WHERE e.seq = r.last_event)
    AND NOT EXISTS(SELECT 1 FROM delivery d WHERE d.rollout = r.id)
    AND EXISTS(SELECT 1 FROM rollout n WHERE n.object = r.object AND (n.started, n.id) > (r.started, r.id))";

const WRITE: &str = concat!("INSERT INTO rollout(id, object, rev, digest, revision, origin_revision, commit_hash, token, oci_digest, state,
        started, finished, first_success, attempts, reason, message, superseded_by, successor_revision, successor_commit, last_event)
    SELECT * FROM unnest($1::INT8[], $2::INT8[], $3::INT8[], $4::INT8[], $5::TEXT[], $6::TEXT[], $7::TEXT[], $8::TEXT[], $9::TEXT[],
        $10::INT2[], $11::INT8[], $12::INT8[], $13::INT8[], $14::INT8[], $15::TEXT[], $16::TEXT[], $17::INT8[], $18::TEXT[],
        $19::TEXT[], $20::INT8[]) WHERE ", unless_shut!(), "
    ON CONFLICT(id) DO UPDATE SET rev = excluded.rev, digest = excluded.digest,
        origin_revision = excluded.origin_revision, commit_hash = excluded.commit_hash, token = excluded.token,
        oci_digest = excluded.oci_digest, state = excluded.state, finished = excluded.finished,
        first_success = excluded.first_success, attempts = excluded.attempts, reason = excluded.reason,
        message = excluded.message, superseded_by = excluded.superseded_by,
        successor_revision = excluded.successor_revision, successor_commit = excluded.successor_commit,
        last_event = excluded.last_event");

impl PgWriter {
    pub(super) fn write_rollouts(&mut self, rollouts: &BTreeMap<Seq, (i64, Rollout)>) {
        if rollouts.is_empty() {
            return;
        }
        let rows: Vec<(i64, i64, &Rollout)> =
            rollouts.iter().map(|(id, (object, rollout))| (id.0, *object, rollout)).collect();
        let (revs, digests): (Vec<i64>, Vec<Option<i64>>) = rows.iter().map(|row| rev::of_rollout(row.2)).unzip();
        let next = |row: &(i64, i64, &Rollout)| row.2.superseded_by.clone();
        let written = Staged::new(WRITE)
            .with(column(&rows, |row| row.0))
            .with(column(&rows, |row| row.1))
            .with(revs)
            .with(digests)
            .with(column(&rows, |row| row.2.revision.clone()))
            .with(sparse(&rows, |row| row.2.origin_revision.clone()))
            .with(sparse(&rows, |row| row.2.commit.clone()))
            .with(sparse(&rows, |row| row.2.token.clone()))
            .with(sparse(&rows, |row| row.2.oci_digest.clone()))
            .with(column(&rows, |row| small(row.2.state.code())))
            .with(column(&rows, |row| row.2.started.0))
            .with(sparse(&rows, |row| row.2.finished.map(|at| at.0)))
            .with(sparse(&rows, |row| row.2.first_success.map(|at| at.0)))
            .with(column(&rows, |row| i64::from(row.2.attempts)))
            .with(column(&rows, |row| row.2.reason.clone()))
            .with(column(&rows, |row| row.2.message.clone()))
            .with(sparse(&rows, |row| next(row).map(|next| next.id.0)))
            .with(sparse(&rows, |row| next(row).map(|next| next.revision)))
            .with(sparse(&rows, |row| next(row).and_then(|next| next.commit)))
            .with(column(&rows, |row| row.2.last_event.0));
        self.stage(written);
    }

    pub(super) fn remove_rollouts(&mut self, rollouts: &[Seq]) -> Result<u64> {
        let ids = column(rollouts, |id| id.0);
        let sql = format!("DELETE FROM rollout r WHERE r.id = ANY($1) AND {UNNEEDED} RETURNING 1");
        Ok(self.query(&sql, &[&ids])?.len() as u64)
    }
}

impl PgReader {
    pub(super) fn find_unneeded_rollouts(link: &mut Link, after: Seq, before: Seq, limit: u32) -> Result<Vec<Seq>> {
        let sql = format!(
            "SELECT r.id FROM rollout r WHERE r.id > $1 AND r.id < $2 AND r.last_event < $2 AND {UNNEEDED}
             ORDER BY r.id LIMIT $3"
        );
        let rows = link.query(&sql, &[&after.0, &before.0, &i64::from(limit)])?;
        Ok(rows.iter().map(|row| Seq(row.get(0))).collect())
    }

    pub(super) fn find_rollouts(&self, link: &mut Link, query: &RolloutQuery) -> Result<Page<RolloutRow>> {
        let search = search(link, query)?;
        let newest = link.query("SELECT seq FROM head", &[])?.first().map_or(i64::MAX, |row| row.get::<_, i64>(0) + 1);
        let before = query.cursor.map_or(newest, |cursor| cursor.min(newest));
        let limit = page_size(query.limit);
        let found = search.first(link, Span { after: i64::MIN, before, ascending: false }, limit + 1)?;
        let more = found.numbers.len() > limit;
        let numbers = &found.numbers[..found.numbers.len().min(limit)];
        let sql = format!(
            "SELECT {COLUMNS} FROM unnest($1::INT8[]) WITH ORDINALITY s(id, n)
             CROSS JOIN LATERAL (SELECT * FROM rollout WHERE rollout.id = s.id LIMIT 1) r ORDER BY n"
        );
        let rows = link.query(&sql, &[&numbers])?;
        let items = self.rollout_rows(link, &rows)?;
        let next = if more { numbers.last().copied() } else { found.at };
        Ok(Page { next, items })
    }

    pub(super) fn find_rollout(&self, link: &mut Link, id: Seq) -> Result<Option<RolloutRow>> {
        let rows = link.query(&format!("SELECT {COLUMNS} FROM rollout r WHERE r.id = $1"), &[&id.0])?;
        Ok(self.rollout_rows(link, &rows)?.pop())
    }

    fn rollout_rows(&self, link: &mut Link, rows: &[Row]) -> Result<Vec<RolloutRow>> {
        let known = self.names.look_up(link, [], rows.iter().map(|row| row.get(OBJECT)))?;
        rows.iter().map(|row| rollout_row(row, 0, &known)).collect()
    }

    pub(super) fn find_object_states(link: &mut Link, objects: &[ObjectKey]) -> Result<Vec<Option<ObjectState>>> {
        const SQL: &str =
            "SELECT k.n, o.id, o.state FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[])
                 WITH ORDINALITY k(name, namespace, kind, api_group, cluster, n)
             JOIN object o ON o.name = k.name AND o.namespace = k.namespace AND o.kind = k.kind
                 AND o.api_group = k.api_group AND o.cluster = k.cluster";
        let (names, namespaces) = (column(objects, |key| &*key.name), column(objects, |key| &*key.namespace));
        let (kinds, groups) = (column(objects, |key| &*key.kind), column(objects, |key| &*key.group));
        let clusters = column(objects, |key| &*key.cluster);
        let mut states = vec![None; objects.len()];
        for row in link.query(SQL, &[&names, &namespaces, &kinds, &groups, &clusters])? {
            let place = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
            if let Some(state) = states.get_mut(place) {
                *state = Some(read_state(row.get(1), row.get(2)));
            }
        }
        Ok(states)
    }

    pub(super) fn list_objects(link: &mut Link, query: &ObjectQuery) -> Result<Vec<ObjectRow>> {
        // In byte order, whatever the database's own is.
        const ORDER: &str =
            r#"name COLLATE "C", namespace COLLATE "C", kind COLLATE "C", api_group COLLATE "C", cluster COLLATE "C""#;
        let mut filter = Where::default();
        filter.object_fields(&query.object);
        if let Some(ObjectKey { cluster, group, kind, namespace, name }) = &query.after {
            let last = [name, namespace, kind, group, cluster].map(|part| text(part));
            filter.push(&format!("({ORDER}) > (?, ?, ?, ?, ?)"), last);
        }
        let sql = format!(
            "SELECT id, state, cluster, api_group, kind, namespace, name FROM object{} ORDER BY {ORDER} LIMIT {}",
            filter.sql(),
            page_size(query.limit)
        );
        let rows = link.query_once(&sql, &filter.params())?;
        let object = |row: &Row| ObjectRow {
            state: read_state(row.get(0), row.get(1)),
            key: ObjectKey {
                cluster: row.get(2),
                group: row.get(3),
                kind: row.get(4),
                namespace: row.get(5),
                name: row.get(6),
            },
        };
        Ok(rows.iter().map(object).collect())
    }
}

/// A rollout whose columns begin at this one.
pub(super) fn rollout_row(row: &Row, at: usize, known: &Known) -> Result<RolloutRow> {
    let successor = match (row.get::<_, Option<i64>>(at + 14), row.get::<_, Option<String>>(at + 15)) {
        (Some(id), Some(revision)) => Some(Successor { id: Seq(id), revision, commit: row.get(at + 16) }),
        _ => None,
    };
    Ok(RolloutRow {
        id: Seq(row.get(at)),
        object: known.object(row.get(at + OBJECT))?,
        revision: row.get(at + 2),
        origin_revision: row.get(at + 3),
        commit: row.get(at + 4),
        token: row.get(at + 5),
        oci_digest: row.get(at + 6),
        state: Phase::from_code(row.get::<_, i16>(at + 7).into()).unwrap_or(Phase::Superseded),
        started: Time(row.get(at + 8)),
        finished: row.get::<_, Option<i64>>(at + 9).map(Time),
        first_success: row.get::<_, Option<i64>>(at + 10).map(Time),
        attempts: row.get::<_, i64>(at + 11).try_into().unwrap_or(u32::MAX),
        reason: row.get(at + 12),
        message: row.get(at + 13),
        superseded_by: successor,
        last_event: Seq(row.get(at + 17)),
    })
}

/// What is asked, and the ways to it.
fn search(link: &mut Link, query: &RolloutQuery) -> Result<Search> {
    let ids = objects(link, &query.object)?;
    let among = ids.as_ref().map_or(0, Vec::len);
    let mut filter = Where::default();
    let by_object = ids.map(|ids| filter.bind_among("object", &ids));
    let by_revision = query.revision.as_deref().map(|revision| {
        let range = rev::range(revision);
        let (first, last) = (*range.start(), *range.end());
        let of = "(rev BETWEEN ? AND ? OR digest BETWEEN ? AND ?)";
        filter.bind(of, [Box::new(first), Box::new(last), Box::new(first), Box::new(last)])
    });
    // As literals, which is how an index knows that it has these.
    let codes: Vec<String> = query.states.iter().map(|state| state.code().to_string()).collect();
    let by_state = (!codes.is_empty()).then(|| format!("state IN ({})", codes.join(", ")));
    let ways = match (&by_object, &by_revision, &by_state) {
        (Some(objects), ..) if among <= FEW => vec![Way::Few(objects.keys())],
        (_, Some(revision), _) => vec![Way::Few(revision.clone())],
        (.., Some(states)) if !query.states.contains(&Phase::Succeeded) => {
            vec![Way::Keys(format!("state <> 3 AND {states}"))]
        }
        (Some(objects), ..) if among <= MANY => vec![Way::Log(TRIAL), Way::Each(objects.array())],
        _ => vec![Way::Log(i64::MAX)],
    };
    for term in [by_object.map(|objects| objects.rows()), by_revision, by_state].into_iter().flatten() {
        filter.push(&term, []);
    }
    if let Some(revision) = query.revision.as_deref().filter(|revision| rev::without_digest(revision) != *revision) {
        filter.push("revision = ?", [text(revision)]);
    }
    Ok(Search { table: "rollout", number: "id", columns: "object, rev, digest, state, revision", filter, ways })
}
