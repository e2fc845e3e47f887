//! Rollouts: writing them down, and reading what is kept.

use std::collections::{BTreeMap, HashSet};

use belfry_core::{
    ObjectKey, Seq, Time,
    plan::ObjectState,
    rollout::{Phase, Rollout, Successor},
};
use rusqlite::{Connection, OptionalExtension, Row, Statement, params, params_from_iter};

use super::{
    SqliteWriter,
    append::read_state,
    deferred,
    query::{Where, object_ids, page_size},
    read::{SqliteReader, all},
    walk::{self, FEW, MANY, Pager, Span, TRIAL, Way},
};
use crate::{
    engine::Result,
    queries::{ObjectQuery, ObjectRow, Page, RolloutQuery, RolloutRow},
    rev,
};

/// The columns of a rollout, in the order in which [`SqliteReader::rollout_row`] takes them.
pub(super) const COLUMNS: &str = "r.id, r.object, r.revision, r.origin_revision, r.commit_hash, r.token, r.oci_digest,
    r.state, r.started, r.finished, r.first_success, r.attempts, r.reason, r.message, r.superseded_by,
    r.successor_revision, r.successor_commit, r.last_event";

/// The rollout `r` is no longer needed.
const UNNEEDED: &str = "NOT EXISTS(SELECT 1 FROM event e WHERE e.seq = r.last_event)
    AND NOT EXISTS(SELECT 1 FROM delivery d WHERE d.rollout = r.id)
    AND EXISTS(SELECT 1 FROM rollout n WHERE n.object = r.object AND (n.started, n.id) > (r.started, r.id))";

/// Ways to rollouts: two statements for a merge, and one for all of a revision.
const BY_OBJECT: &str = "SELECT id FROM rollout INDEXED BY rollout_object
    WHERE object = ?1 AND id > ?2 AND id < ?3 ORDER BY id {} LIMIT ?4";
const BY_STATE: &str = "SELECT id FROM rollout INDEXED BY rollout_state
    WHERE state <> 3 AND state = ?1 AND id > ?2 AND id < ?3 ORDER BY id {} LIMIT ?4";
const BY_REVISION: &str = "SELECT id FROM rollout_rev WHERE rev BETWEEN ?1 AND ?2 AND id < ?3
    UNION SELECT id FROM rollout WHERE id > (SELECT upto FROM indexed) AND rev BETWEEN ?1 AND ?2 AND id < ?3
    UNION SELECT id FROM rollout WHERE digest BETWEEN ?1 AND ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4";

/// Both take the same parameters.
const ADD: &str = "INSERT INTO rollout(id, object, rev, digest, revision, origin_revision, commit_hash, token, oci_digest, state,
        started, finished, first_success, attempts, reason, message, superseded_by, successor_revision, successor_commit,
        last_event)
    VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
const CHANGE: &str = "UPDATE rollout SET rev = ?3, digest = ?4, origin_revision = ?6, commit_hash = ?7, token = ?8, oci_digest = ?9,
        state = ?10, finished = ?12, first_success = ?13, attempts = ?14, reason = ?15, message = ?16, superseded_by = ?17,
        successor_revision = ?18, successor_commit = ?19, last_event = ?20
    WHERE id = ?1";

impl SqliteWriter {
    pub(super) fn write_rollouts(&mut self, rollouts: &BTreeMap<Seq, (i64, Rollout)>) -> Result<()> {
        let mut add = self.connection.prepare_cached(ADD)?;
        let mut change = self.connection.prepare_cached(CHANGE)?;
        for (id, (object, rollout)) in rollouts {
            let (rev, digest) = rev::of_rollout(rollout);
            let next = rollout.superseded_by.as_ref();
            let write = |statement: &mut Statement<'_>| {
                statement.execute(params![
                    id.0,
                    object,
                    rev,
                    digest,
                    rollout.revision,
                    rollout.origin_revision,
                    rollout.commit,
                    rollout.token,
                    rollout.oci_digest,
                    rollout.state.code(),
                    rollout.started.0,
                    rollout.finished.map(|at| at.0),
                    rollout.first_success.map(|at| at.0),
                    rollout.attempts,
                    rollout.reason,
                    rollout.message,
                    next.map(|next| next.id.0),
                    next.map(|next| &next.revision),
                    next.and_then(|next| next.commit.as_ref()),
                    rollout.last_event.0,
                ])
            };
            if *id > self.last.seq {
                write(&mut add)?;
                if let Some(deferred) = &mut self.deferred {
                    deferred.gather_rollout(*id, rev);
                }
            } else if write(&mut change)? == 0 {
                // One that was removed, and that its object still remembers.
                write(&mut add)?;
                deferred::index_rollout(&self.connection, *id, rev)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_rollouts(&mut self, rollouts: &[Seq]) -> Result<u64> {
        let mut remove = self.connection.prepare_cached(&format!(
            "DELETE FROM rollout WHERE id IN (SELECT r.id FROM rollout r WHERE r.id = ?1 AND {UNNEEDED})"
        ))?;
        let mut count = 0;
        for id in rollouts {
            count += remove.execute([id.0])?;
        }
        Ok(count as u64)
    }
}

impl SqliteReader {
    pub(super) fn find_unneeded_rollouts(
        connection: &Connection,
        after: Seq,
        before: Seq,
        limit: u32,
    ) -> Result<Vec<Seq>> {
        let sql = format!(
            "SELECT r.id FROM rollout r WHERE r.id > ?1 AND r.id < ?2 AND r.last_event < ?2 AND {UNNEEDED}
             ORDER BY r.id LIMIT ?3"
        );
        all(connection, &sql, [after.0, before.0, i64::from(limit)], |row| row.get(0).map(Seq))
    }

    pub(super) fn find_rollouts(&self, connection: &Connection, query: &RolloutQuery) -> Result<Page<RolloutRow>> {
        let span = Span { after: i64::MIN, before: query.cursor.unwrap_or(i64::MAX), ascending: false };
        let objects = object_ids(connection, &query.object)?;
        let ways = ways(connection, query, objects.as_deref(), span)?;
        let objects: Option<HashSet<i64>> = objects.map(HashSet::from_iter);
        let range = query.revision.as_deref().map(rev::range);
        let exact = query.revision.as_deref().filter(|revision| rev::without_digest(revision) != *revision);
        let states: Vec<i64> = query.states.iter().map(|state| state.code()).collect();
        let wanted = |row: &Row<'_>| -> rusqlite::Result<bool> {
            let is_of = |column: usize| -> rusqlite::Result<bool> {
                let number: Option<i64> = row.get(column)?;
                Ok(range.as_ref().is_none_or(|range| number.is_some_and(|number| range.contains(&number))))
            };
            Ok((states.is_empty() || states.contains(&row.get(7)?))
                && objects.as_ref().map_or(Ok(true), |objects| row.get(1).map(|object| objects.contains(&object)))?
                && (is_of(18)? || is_of(19)?)
                && exact.map_or(Ok(true), |exact| row.get_ref(2).map(|is| is.as_str().is_ok_and(|is| is == exact)))?)
        };
        let page = Pager::new(page_size(query.limit), usize::MAX);
        let select = format!("SELECT {COLUMNS}, r.rev, r.digest FROM rollout r");
        walk::fill(connection, (&select, "r.id"), ways, span, page, |row| {
            if wanted(row)? { self.rollout_row(connection, row, 0).map(|rollout| Some((rollout, 0))) } else { Ok(None) }
        })
    }

    pub(super) fn find_rollout(&self, connection: &Connection, id: Seq) -> Result<Option<RolloutRow>> {
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM rollout r WHERE r.id = ?1"))?;
        let mut rows = statement.query([id.0])?;
        rows.next()?.map(|row| self.rollout_row(connection, row, 0)).transpose()
    }

    /// A rollout whose columns begin at this one.
    pub(super) fn rollout_row(&self, connection: &Connection, row: &Row<'_>, at: usize) -> Result<RolloutRow> {
        let successor = match (row.get::<_, Option<i64>>(at + 14)?, row.get::<_, Option<String>>(at + 15)?) {
            (Some(id), Some(revision)) => Some(Successor { id: Seq(id), revision, commit: row.get(at + 16)? }),
            _ => None,
        };
        Ok(RolloutRow {
            id: Seq(row.get(at)?),
            object: self.object(connection, row.get(at + 1)?)?,
            revision: row.get(at + 2)?,
            origin_revision: row.get(at + 3)?,
            commit: row.get(at + 4)?,
            token: row.get(at + 5)?,
            oci_digest: row.get(at + 6)?,
            state: Phase::from_code(row.get(at + 7)?).unwrap_or(Phase::Superseded),
            started: Time(row.get(at + 8)?),
            finished: row.get::<_, Option<i64>>(at + 9)?.map(Time),
            first_success: row.get::<_, Option<i64>>(at + 10)?.map(Time),
            attempts: row.get(at + 11)?,
            reason: row.get(at + 12)?,
            message: row.get(at + 13)?,
            superseded_by: successor,
            last_event: Seq(row.get(at + 17)?),
        })
    }

    pub(super) fn find_object_states(
        connection: &Connection,
        objects: &[ObjectKey],
    ) -> Result<Vec<Option<ObjectState>>> {
        let mut statement = connection.prepare_cached(
            "SELECT id, state FROM object
             WHERE name = ?1 AND namespace = ?2 AND kind = ?3 AND api_group = ?4 AND cluster = ?5",
        )?;
        let state = |object: &ObjectKey| {
            let key = params![object.name, object.namespace, object.kind, object.group, object.cluster];
            let known = statement.query_row(key, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            Ok(known.map(|(id, state)| read_state(id, state)))
        };
        objects.iter().map(state).collect()
    }

    pub(super) fn list_objects(connection: &Connection, query: &ObjectQuery) -> Result<Vec<ObjectRow>> {
        let mut filter = Where::default();
        filter.object_fields(&query.object);
        if let Some(ObjectKey { cluster, group, kind, namespace, name }) = &query.after {
            // The order of the table's own index.
            let last = [name, namespace, kind, group, cluster].map(|text| text.clone().into());
            filter.push("(name, namespace, kind, api_group, cluster) > (?, ?, ?, ?, ?)", last);
        }
        let sql = format!(
            "SELECT id, state, cluster, api_group, kind, namespace, name FROM object{}
             ORDER BY name, namespace, kind, api_group, cluster LIMIT {}",
            filter.sql(),
            page_size(query.limit)
        );
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(filter.values), |row| {
            Ok(ObjectRow {
                state: read_state(row.get(0)?, row.get(1)?),
                key: ObjectKey {
                    cluster: row.get(2)?,
                    group: row.get(3)?,
                    kind: row.get(4)?,
                    namespace: row.get(5)?,
                    name: row.get(6)?,
                },
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// The ways to what a query asks for.
fn ways(connection: &Connection, query: &RolloutQuery, objects: Option<&[i64]>, span: Span) -> Result<Vec<Way>> {
    let states: Vec<i64> = query.states.iter().map(|state| state.code()).collect();
    let few = objects.filter(|ids| ids.len() <= FEW);
    Ok(match (few, &query.revision, &query.states[..], objects) {
        (Some(few), ..) => vec![Way::keys(BY_OBJECT, few)],
        (_, Some(revision), ..) => {
            let range = rev::range(revision);
            let of = [*range.start(), *range.end(), span.before, walk::LOOKS as i64 + 1];
            vec![Way::Numbers(all(connection, BY_REVISION, of, |row| row.get(0))?)]
        }
        (_, _, [_, ..], _) if !query.states.contains(&Phase::Succeeded) => vec![Way::keys(BY_STATE, &states)],
        (.., Some(objects)) if objects.len() <= MANY => vec![Way::Log(TRIAL), Way::keys(BY_OBJECT, objects)],
        _ => vec![Way::Log(usize::MAX)],
    })
}
