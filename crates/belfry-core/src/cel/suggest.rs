//! The name that was probably meant.

/// The known name nearest to a misspelt one, if any is near.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const LONGEST: usize = 32;
    if name.len() > LONGEST {
        return None;
    }
    let near = known.map(|known| (distance(name, known), known)).min()?;
    (near.0 <= 1 + name.len() / 5).then_some(near.1)
}

/// How many letters have to be changed, added or left out; case counts little enough to be passed over.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<u8> = to.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, byte) in from.bytes().map(|byte| byte.to_ascii_lowercase()).enumerate() {
        let mut corner = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let changed = corner + usize::from(byte != *other);
            corner = row[column + 1];
            row[column + 1] = changed.min(corner + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
