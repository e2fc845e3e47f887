//! Points in time and lengths of it. Without a database of time zones: UTC and offsets only.

use jiff::civil::{Date, DateTime};

use super::{
    Function, Meter, Outcome,
    Sig::{Duration, Int, String, Timestamp},
    convert::unreadable,
    function, member,
};
use crate::cel::{
    fault::{Fault, quoted},
    value::{Moment, Value},
};

const OF_POINT: &[super::Overload] = &[member(&[Timestamp], Int), member(&[Timestamp, String], Int)];
const OF_BOTH: &[super::Overload] =
    &[member(&[Timestamp], Int), member(&[Timestamp, String], Int), member(&[Duration], Int)];

pub(super) const TABLE: &[Function] = &[
    function("getFullYear", OF_POINT, |meter, args| part(meter, args, |at| i64::from(at.year()), None)),
    function("getMonth", OF_POINT, |meter, args| part(meter, args, |at| i64::from(at.month()) - 1, None)),
    function("getDayOfYear", OF_POINT, |meter, args| part(meter, args, |at| i64::from(at.day_of_year()) - 1, None)),
    function("getDayOfMonth", OF_POINT, |meter, args| part(meter, args, |at| i64::from(at.day()) - 1, None)),
    function("getDate", OF_POINT, |meter, args| part(meter, args, |at| i64::from(at.day()), None)),
    function("getDayOfWeek", OF_POINT, |meter, args| {
        part(meter, args, |at| i64::from(at.weekday().to_sunday_zero_offset()), None)
    }),
    function("getHours", OF_BOTH, |meter, args| part(meter, args, |at| i64::from(at.hour()), Some(3_600_000_000_000))),
    function("getMinutes", OF_BOTH, |meter, args| part(meter, args, |at| i64::from(at.minute()), Some(60_000_000_000))),
    function("getSeconds", OF_BOTH, |meter, args| part(meter, args, |at| i64::from(at.second()), Some(1_000_000_000))),
    function("getMilliseconds", OF_BOTH, |meter, args| {
        part(meter, args, |at| i64::from(at.millisecond()), Some(1_000_000))
    }),
];

fn part(_: &mut Meter, args: &[Value], of: fn(DateTime) -> i64, unit: Option<i64>) -> Outcome {
    let local = |moment: &Moment, offset: i32| {
        let local = moment.local(offset).ok_or_else(|| Fault::new("time offset out of range"))?;
        Ok(Value::Int(of(local)))
    };
    match (args, unit) {
        ([Value::Timestamp(moment)], _) => local(moment, 0),
        ([Value::Timestamp(moment), Value::String(zone)], _) => local(moment, offset(zone)?),
        ([Value::Duration(nanos)], Some(unit)) => Ok(Value::Int(nanos / unit)),
        _ => Err(Fault::no_overload()),
    }
}

/// `UTC`, `+02:00`, `-07:30` or `2:00`, in seconds.
fn offset(zone: &str) -> Outcome<i32> {
    let unknown = || Fault::new(format!("unknown time zone {}: known are UTC and offsets like +02:00", quoted(zone)));
    if matches!(zone, "" | "UTC") {
        return Ok(0);
    }
    let (sign, digits) = match zone.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = digits.split_once(':').ok_or_else(unknown)?;
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| text.len() <= 2).map(i32::from);
    let (hours, minutes) = number(hours).zip(number(minutes)).ok_or_else(unknown)?;
    Ok(sign * (hours * 3600 + minutes * 60))
}

/// A point in time, if it lies in the years 1 to 9999.
fn point(nanos: i128, offset: i32) -> Outcome {
    Moment::new(nanos, offset).map(Value::Timestamp).ok_or_else(|| Fault::new("timestamp overflow"))
}

pub(super) fn from_seconds(seconds: i64) -> Outcome {
    point(i128::from(seconds) * 1_000_000_000, 0)
}

/// The point so many nanoseconds later.
pub(super) fn shifted(moment: Moment, nanos: i128) -> Outcome {
    point(moment.nanos() + nanos, moment.offset)
}

pub(super) fn length(nanos: Option<i64>) -> Outcome {
    nanos.map(Value::Duration).ok_or_else(|| Fault::new("duration overflow"))
}

/// RFC 3339 with capital letters, as Go takes it.
pub(super) fn read(text: &str) -> Outcome {
    let bad = || unreadable(text, "google.protobuf.Timestamp");
    let (nanos, offset) = parse(text).ok_or_else(bad)?;
    point(nanos, offset)
}

fn parse(text: &str) -> Option<(i128, i32)> {
    if !text.is_ascii() {
        return None;
    }
    let (date, clock) = text.split_at_checked(10).and_then(|(date, rest)| Some((date, rest.strip_prefix('T')?)))?;
    let number = |text: &str, from: usize, length: usize| -> Option<i16> {
        let digits = text.get(from..from + length)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let mark = |text: &str, at: usize, mark: u8| (text.as_bytes().get(at) == Some(&mark)).then_some(());
    mark(date, 4, b'-')?;
    mark(date, 7, b'-')?;
    let small = |value: i16| i8::try_from(value).ok();
    let date = Date::new(number(date, 0, 4)?, small(number(date, 5, 2)?)?, small(number(date, 8, 2)?)?).ok()?;
    mark(clock, 2, b':')?;
    mark(clock, 5, b':')?;
    let (hour, minute, second) = (number(clock, 0, 2)?, number(clock, 3, 2)?, number(clock, 6, 2)?);
    let (fraction, zone) = match clock[8..].strip_prefix(['.', ',']) {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
            rest.split_at(end)
        }
        None => ("", &clock[8..]),
    };
    let nanos: i32 = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    let time = jiff::civil::Time::new(small(hour)?, small(minute)?, small(second)?, nanos).ok()?;
    let offset = match zone {
        "Z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { zone.starts_with('+').then_some(1)? };
            mark(zone, 3, b':')?;
            let (hours, minutes) = (number(zone, 1, 2)?, number(zone, 4, 2)?);
            if zone.len() != 6 || hours > 24 || minutes >= 60 {
                return None;
            }
            sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60)
        }
    };
    let written = Moment { at: date.to_datetime(time), offset };
    Some((written.nanos() - i128::from(offset) * 1_000_000_000, offset))
}

/// A duration as Go takes it: `1h30m`, `-1.5s`, `0`.
pub(super) fn read_length(text: &str) -> Outcome {
    let bad = || unreadable(text, "google.protobuf.Duration");
    let (negative, size) = match text.strip_prefix('-') {
        Some(size) => (true, size),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if size.starts_with(['-', '+']) {
        return Err(bad());
    }
    let size = crate::duration::parse(size).map_err(|_| bad())?;
    let nanos = i64::try_from(size.as_nanos()).map_err(|_| bad())?;
    Ok(Value::Duration(if negative { -nanos } else { nanos }))
}

/// A duration as `string()` writes it: in seconds.
pub(in crate::cel) fn seconds(nanos: i64) -> std::string::String {
    format!("{}s", nanos as f64 / 1e9)
}

pub(super) fn in_utc(moment: Moment) -> Moment {
    Moment { offset: 0, ..moment }
}

/// RFC 3339 with as many digits of the second as there are.
pub(in crate::cel) fn rfc3339(moment: Moment) -> std::string::String {
    let Some(local) = moment.local(moment.offset) else { return rfc3339(in_utc(moment)) };
    let mut out = local.strftime("%Y-%m-%dT%H:%M:%S%.f").to_string();
    match moment.offset {
        0 => out.push('Z'),
        offset => {
            let minutes = offset.abs() / 60;
            out.push_str(&format!("{}{:02}:{:02}", if offset < 0 { '-' } else { '+' }, minutes / 60, minutes % 60));
        }
    }
    out
}
