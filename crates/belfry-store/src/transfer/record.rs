//! What a store holds, as records that no engine knows of: a line of an export each.

use belfry_core::{
    ConfigKind,
    plan::{Change, ObjectState, Origin},
    rollout::Phase,
};
use serde::{Deserialize, Serialize};

use super::field::{Cell, Field, Kind, Octets, Word};
use crate::{
    hooks::HookVerdict,
    queries::{DeliveryKind, DeliveryState},
    types::AttemptOutcome,
};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

/// Declares the tables in the order in which they are written: the records of each, and the columns that these come from. The first
/// columns are the key.
macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident $name:literal key $key:literal {
        $($(#[$attribute:meta])* $field:ident: $type:ty = $column:literal,)*
    })*) => {
        /// A table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Table {
            $($(#[$doc])* $table,)*
        }

        impl Table {
            pub const ALL: [Self; [$(Self::$table),*].len()] = [$(Self::$table),*];

            /// Its name in every engine, and that of its lines.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$table => $name,)*
                }
            }

            pub fn columns(self) -> &'static [Column] {
                match self {
                    $(Self::$table => &[$(Column { name: $column, kind: <$type as Field>::KIND }),*],)*
                }
            }

            /// How many columns the key has.
            pub fn key(self) -> usize {
                match self {
                    $(Self::$table => $key,)*
                }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[serde(rename_all = "camelCase", deny_unknown_fields)]
            pub(crate) struct $table {
                $($(#[$attribute])* pub(super) $field: $type,)*
            }
        )*

        /// One row of a store.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub(crate) enum Record {
            $($(#[$doc])* $table(Box<$table>),)*
        }

        impl Record {
            pub fn table(&self) -> Table {
                match self {
                    $(Self::$table(_) => Table::$table,)*
                }
            }

            /// Its values, in the order of the columns.
            pub fn into_cells(self) -> Vec<Cell> {
                match self {
                    $(Self::$table(row) => vec![$(row.$field.into_cell()),*],)*
                }
            }

            /// The record with these values, in the order of the columns; an error names the column that is wrong.
            pub fn from_cells(table: Table, cells: Vec<Cell>) -> Result<Self, &'static str> {
                let mut cells = cells.into_iter();
                match table {
                    $(Table::$table => Ok(Self::$table(Box::new($table {
                        $($field: cells.next().and_then(Field::from_cell).ok_or($column)?,)*
                    }))),)*
                }
            }

            /// Why no database takes it, if so.
            pub fn refuse(&self) -> Option<String> {
                match self {
                    $(Self::$table(row) => {
                        $(if let Some(why) = row.$field.refuse() {
                            return Some(format!("{} {why}", $column));
                        })*
                        None
                    })*
                }
            }

            #[cfg(test)]
            pub fn sample(table: Table, rng: &mut fastrand::Rng) -> Self {
                match table {
                    $(Table::$table => Self::$table(Box::new($table { $($field: Field::sample(rng),)* })),)*
                }
            }
        }
    };
}

tables! {
    /// A configuration object: its number, and its last good version.
    Config "config" key 1 {
        id: i64 = "id",
        kind: ConfigKind = "kind",
        namespace: String = "namespace",
        name: String = "name",
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<String> = "body",
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<i64> = "absent",
    }
    /// An object of Flux: its number, and its state.
    Object "object" key 1 {
        id: i64 = "id",
        cluster: String = "cluster",
        group: String = "api_group",
        kind: String = "kind",
        namespace: String = "namespace",
        name: String = "name",
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<Box<ObjectState>> = "state",
    }
    /// A lane, and what it remembers of its destination.
    Lane "lane" key 1 {
        id: i64 = "id",
        dest: i64 = "dest",
        kind: Word<DeliveryKind> = "kind",
        #[serde(skip_serializing_if = "Option::is_none")]
        rollout: Option<i64> = "rollout",
        #[serde(skip_serializing_if = "Option::is_none")]
        due: Option<i64> = "due",
        tail: i64 = "tail",
        memo: Octets = "memo",
    }
    /// A delivery.
    Delivery "delivery" key 1 {
        id: i64 = "id",
        lane: i64 = "lane",
        event: i64 = "event",
        object: i64 = "object",
        route: i64 = "route",
        dest: i64 = "dest",
        kind: Word<DeliveryKind> = "kind",
        #[serde(skip_serializing_if = "Option::is_none")]
        rollout: Option<i64> = "rollout",
        state: Word<DeliveryState> = "state",
        attempts: i64 = "attempts",
        #[serde(skip_serializing_if = "Option::is_none")]
        settled: Option<i64> = "settled",
        #[serde(skip_serializing_if = "Option::is_none")]
        answer: Option<String> = "answer",
    }
    /// One try at a delivery.
    Attempt "attempt" key 2 {
        delivery: i64 = "delivery",
        n: i64 = "n",
        at: i64 = "at",
        took: i64 = "took",
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<i64> = "status",
        outcome: Word<AttemptOutcome> = "outcome",
        error: String = "error",
    }
    /// A rollout.
    Rollout "rollout" key 1 {
        id: i64 = "id",
        object: i64 = "object",
        rev: i64 = "rev",
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<i64> = "digest",
        revision: String = "revision",
        #[serde(skip_serializing_if = "Option::is_none")]
        origin_revision: Option<String> = "origin_revision",
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<String> = "commit_hash",
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<String> = "token",
        #[serde(skip_serializing_if = "Option::is_none")]
        oci_digest: Option<String> = "oci_digest",
        state: Word<Phase> = "state",
        started: i64 = "started",
        #[serde(skip_serializing_if = "Option::is_none")]
        finished: Option<i64> = "finished",
        #[serde(skip_serializing_if = "Option::is_none")]
        first_success: Option<i64> = "first_success",
        attempts: i64 = "attempts",
        reason: String = "reason",
        message: String = "message",
        #[serde(skip_serializing_if = "Option::is_none")]
        superseded_by: Option<i64> = "superseded_by",
        #[serde(skip_serializing_if = "Option::is_none")]
        successor_revision: Option<String> = "successor_revision",
        #[serde(skip_serializing_if = "Option::is_none")]
        successor_commit: Option<String> = "successor_commit",
        last_event: i64 = "last_event",
    }
    /// An event, or an observation.
    Event "event" key 1 {
        seq: i64 = "seq",
        object: i64 = "object",
        origin: Word<Origin> = "origin",
        dedupe: i64 = "dedupe",
        body_hash: i64 = "body_hash",
        severity: String = "severity",
        reason: String = "reason",
        #[serde(skip_serializing_if = "Option::is_none")]
        revision: Option<String> = "revision",
        #[serde(skip_serializing_if = "Option::is_none")]
        rev: Option<i64> = "rev",
        #[serde(skip_serializing_if = "Option::is_none")]
        change: Option<Word<Change>> = "change",
        #[serde(skip_serializing_if = "Option::is_none")]
        hints: Option<i64> = "hints",
        #[serde(skip_serializing_if = "Option::is_none")]
        ident: Option<i64> = "ident",
        #[serde(skip_serializing_if = "Option::is_none")]
        via: Option<String> = "via",
        repeats: i64 = "repeats",
        body: Octets = "body",
    }
    /// A webhook.
    Hook "hook" key 1 {
        seq: i64 = "seq",
        receiver: i64 = "receiver",
        refused: bool = "refused",
        at: i64 = "at",
        #[serde(skip_serializing_if = "Option::is_none")]
        delivery_id: Option<String> = "delivery_id",
        verdict: Word<HookVerdict> = "verdict",
        reason: String = "reason",
        event: String = "event",
        bytes: i64 = "bytes",
        resources: i64 = "resources",
        merged: i64 = "merged",
    }
}

impl Record {
    /// By what the records of a table are in order.
    pub fn key(&self) -> (i64, i64) {
        match self {
            Self::Config(row) => (row.id, 0),
            Self::Object(row) => (row.id, 0),
            Self::Lane(row) => (row.id, 0),
            Self::Delivery(row) => (row.id, 0),
            Self::Attempt(row) => (row.delivery, row.n),
            Self::Rollout(row) => (row.id, 0),
            Self::Event(row) => (row.seq, 0),
            Self::Hook(row) => (row.seq, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_survive_lines_and_columns(seed: u64, table in 0..Table::ALL.len()) {
            let table = Table::ALL[table];
            let record = Record::sample(table, &mut fastrand::Rng::with_seed(seed));
            let line = serde_json::to_string(&record).unwrap();
            prop_assert!(!line.contains('\n') && line.starts_with(&format!("{{\"{}\":", table.name())), "{}", line);
            prop_assert_eq!(&serde_json::from_str::<Record>(&line).unwrap(), &record);
            let cells = record.clone().into_cells();
            prop_assert_eq!(cells.len(), table.columns().len());
            prop_assert_eq!(Record::from_cells(table, cells).unwrap(), record.clone());
            prop_assert_eq!((record.table(), record.refuse()), (table, None));
        }
    }

    #[test]
    fn lines_look_like_this() {
        let line = r#"{"lane":{"id":3,"dest":1,"kind":"event","due":7,"tail":9,"memo":{"base64":"/w=="}}}"#;
        let record: Record = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), line);
        for (bad, why) in [
            (line.replace("\"event\"", "\"letter\""), "expected one of event, rollout, trigger, not \"letter\""),
            (line.replace("\"tail\"", "\"head\""), "unknown field `head`"),
            (line.replace("\"tail\":9,", ""), "missing field `tail`"),
            (line.replace("/w==", "/w"), "padding"),
            (line.replace("{\"base64\":\"/w==\"}", "7"), "expected a text"),
        ] {
            let error = serde_json::from_str::<Record>(&bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let nul = serde_json::from_str::<Record>(&line.replace("{\"base64\":\"/w==\"}", "\"a\\u0000\"")).unwrap();
        assert_eq!(nul.refuse(), None, "bytes may be anything");
    }

    #[test]
    fn columns_that_make_no_sense_are_named() {
        let mut cells = Record::sample(Table::Event, &mut fastrand::Rng::with_seed(1)).into_cells();
        cells[2] = Cell::Integer(77);
        assert_eq!(Record::from_cells(Table::Event, cells), Err("origin"));
    }
}
