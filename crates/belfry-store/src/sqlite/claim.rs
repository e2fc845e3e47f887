//! Reading: claims.

use belfry_core::{Seq, Time, limits, plan::Change, rollout::Hints};
use bytes::Bytes;
use rusqlite::Connection;

use super::{
    append::origin_from,
    flight::Snapshot,
    read::{SqliteReader, lock},
    rollouts::COLUMNS,
};
use crate::{
    engine::{Result, via},
    queries::DeliveryKind,
    types::{Claim, Claims, DestId, LaneId, Room, Row, What},
};

/// Bytes of bodies after which no more of a lane is claimed.
const LANE_BYTES: usize = 1 << 20;
/// Bytes of bodies after which no more lanes are claimed.
const CLAIM_BYTES: usize = 32 << 20;

struct Due {
    lane: LaneId,
    kind: DeliveryKind,
    due: Time,
    tail: i64,
    memo: Vec<u8>,
}

impl SqliteReader {
    pub(super) fn take_lanes(&self, rooms: &[(DestId, Room)], now: Time) -> Result<Claims> {
        let connection = lock(&self.claims);
        loop {
            let flight = self.flight.snapshot();
            let mut claims = {
                let _snapshot = connection.unchecked_transaction()?;
                self.find_lanes(&connection, &flight, rooms, now)?
            };
            let lanes: Vec<_> = claims
                .lanes
                .iter()
                .map(|claim| (claim.lane, claim.dest, claim.rows.first().map(|row| row.id)))
                .collect();
            if let Some(recovered) = self.flight.claim(&flight, &lanes) {
                for (claim, recovered) in claims.lanes.iter_mut().zip(recovered) {
                    claim.recovered = recovered;
                }
                return Ok(claims);
            }
        }
    }

    fn find_lanes(
        &self,
        connection: &Connection,
        flight: &Snapshot,
        rooms: &[(DestId, Room)],
        now: Time,
    ) -> Result<Claims> {
        let mut claims = Claims::default();
        let mut bytes = 0;
        for (dest, room) in rooms {
            let mut next_due = None;
            for (taken, due) in (0..).zip(find_due(connection, flight, *dest, room.lanes)?) {
                let may = taken < room.lanes && (room.probe || due.due <= now) && bytes < CLAIM_BYTES;
                if !may {
                    next_due = Some(due.due);
                    break;
                }
                let rows = match due.kind {
                    DeliveryKind::Event => self.find_rows(connection, due.lane, due.tail)?,
                    DeliveryKind::Rollout => self.find_state(connection, due.lane)?,
                    DeliveryKind::Trigger => self.find_trigger(connection, due.lane)?,
                };
                bytes += rows.iter().map(|row| row.what.bytes()).sum::<usize>();
                claims.lanes.push(Claim {
                    lane: due.lane,
                    dest: *dest,
                    dest_key: self.config(connection, dest.0)?,
                    memo: due.memo,
                    recovered: false,
                    tail: due.tail,
                    rows,
                });
            }
            claims.next_due.push((*dest, next_due));
        }
        Ok(claims)
    }

    fn find_rows(&self, connection: &Connection, lane: LaneId, tail: i64) -> Result<Vec<Row>> {
        let mut statement = connection.prepare_cached(
            "SELECT d.id, d.event, d.attempts, d.route, d.object, e.origin, e.change, e.body, e.hints, e.via
             FROM delivery d INDEXED BY delivery_pending CROSS JOIN event e ON e.seq = d.event
             WHERE d.lane = ?1 AND d.state = 0 ORDER BY d.id LIMIT ?2",
        )?;
        let mut found = statement.query([lane.0, i64::from(limits::LANE_CLAIM)])?;
        let mut rows = Vec::new();
        let mut bytes = 0;
        while bytes < LANE_BYTES
            && let Some(row) = found.next()?
        {
            let id = row.get(0)?;
            let body: Vec<u8> = row.get(7)?;
            bytes += body.len();
            rows.push(Row {
                id,
                cause: Seq(row.get(1)?),
                created: Time(id),
                attempts: row.get(2)?,
                route: self.config(connection, row.get(3)?)?,
                object: self.object(connection, row.get(4)?)?,
                newest: id >= tail,
                what: What::Event {
                    origin: origin_from(row.get(5)?),
                    change: row.get::<_, Option<i64>>(6)?.and_then(Change::from_code),
                    hints: Hints::from_code(row.get(8)?),
                    via: via(row.get(9)?),
                    body: Bytes::from(body),
                },
            });
        }
        Ok(rows)
    }

    /// What a destination is to hold now: the newest of the lane, with the rollout as it is.
    fn find_state(&self, connection: &Connection, lane: LaneId) -> Result<Vec<Row>> {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT d.id, d.event, d.attempts, d.route, d.object, e.origin, e.body, {COLUMNS}
             FROM delivery d INDEXED BY delivery_pending CROSS JOIN event e ON e.seq = d.event
             CROSS JOIN rollout r ON r.id = d.rollout WHERE d.lane = ?1 AND d.state = 0 ORDER BY d.id DESC LIMIT 1"
        ))?;
        let mut found = statement.query([lane.0])?;
        let Some(row) = found.next()? else { return Ok(Vec::new()) };
        let what = What::Rollout {
            rollout: Box::new(self.rollout_row(connection, row, 7)?),
            origin: origin_from(row.get(5)?),
            body: Bytes::from(row.get::<_, Vec<u8>>(6)?),
        };
        Ok(vec![self.newest(connection, row, what)?])
    }

    fn find_trigger(&self, connection: &Connection, lane: LaneId) -> Result<Vec<Row>> {
        let mut statement = connection.prepare_cached(
            "SELECT d.id, d.event, d.attempts, d.route, d.object, h.at
             FROM delivery d INDEXED BY delivery_pending CROSS JOIN hook h ON h.seq = d.event
             WHERE d.lane = ?1 AND d.state = 0 ORDER BY d.id DESC LIMIT 1",
        )?;
        let mut found = statement.query([lane.0])?;
        let Some(row) = found.next()? else { return Ok(Vec::new()) };
        Ok(vec![self.newest(connection, row, What::Trigger { asked: Time(row.get(5)?) })?])
    }

    fn newest(&self, connection: &Connection, row: &rusqlite::Row<'_>, what: What) -> Result<Row> {
        let id = row.get(0)?;
        Ok(Row {
            id,
            cause: Seq(row.get(1)?),
            created: Time(id),
            attempts: row.get(2)?,
            route: self.config(connection, row.get(3)?)?,
            object: self.object(connection, row.get(4)?)?,
            newest: true,
            what,
        })
    }
}

/// The lanes of a destination that are due first and not in flight, one more than there is room for.
fn find_due(connection: &Connection, flight: &Snapshot, dest: DestId, room: u32) -> Result<Vec<Due>> {
    let in_flight = flight.lanes.values().filter(|of| **of == dest).count();
    let limit = i64::from(room) + i64::try_from(in_flight).unwrap_or(i64::MAX / 2) + 1;
    let mut statement = connection.prepare_cached(
        "SELECT id, due, tail, memo, kind FROM lane WHERE dest = ?1 AND due IS NOT NULL ORDER BY due LIMIT ?2",
    )?;
    let mut rows = statement.query([dest.0, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let lane = LaneId(row.get(0)?);
        if !flight.lanes.contains_key(&lane) {
            let kind = DeliveryKind::from_code(row.get(4)?).unwrap_or(DeliveryKind::Event);
            found.push(Due { lane, kind, due: Time(row.get(1)?), tail: row.get(2)?, memo: row.get(3)? });
        }
    }
    Ok(found)
}
