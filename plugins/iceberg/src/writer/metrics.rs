//! The metrics of a data file, taken from its Parquet footer: what readers prune by, so every bound must hold.
//!
//! As in Iceberg's own writers the counts are of leaves, columns in lists and maps have no bounds, and bounds of text
//! and bytes are cut to 16.

use std::cmp::Ordering;
use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use iceberg::spec::{Datum, NestedFieldRef, PrimitiveLiteral, PrimitiveType, Schema, Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use uuid::Uuid;

/// Code points of text, or bytes, that a bound keeps.
const BOUND_LENGTH: usize = 16;

/// Metrics by field id.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) column_sizes: HashMap<i32, u64>,
    pub(super) value_counts: HashMap<i32, u64>,
    pub(super) null_value_counts: HashMap<i32, u64>,
    pub(super) lower_bounds: HashMap<i32, Datum>,
    pub(super) upper_bounds: HashMap<i32, Datum>,
}

/// The metrics of a file that was written with this schema.
pub(super) fn of(parquet: &ParquetMetaData, schema: &Schema) -> Metrics {
    let mut metrics = Metrics::default();
    for group in parquet.row_groups() {
        for chunk in group.columns() {
            let leaf = chunk.column_descr();
            let info = leaf.self_type().get_basic_info();
            if !info.has_id() {
                continue;
            }
            let id = info.id();
            *metrics.column_sizes.entry(id).or_default() += chunk.compressed_size().unsigned_abs();
            *metrics.value_counts.entry(id).or_default() += chunk.num_values().unsigned_abs();
            let Some(statistics) = chunk.statistics() else { continue };
            if let Some(nulls) = statistics.null_count_opt() {
                *metrics.null_value_counts.entry(id).or_default() += nulls;
            }
            let Some(Type::Primitive(r#type)) = schema.field_by_id(id).map(|field| &*field.field_type) else {
                continue;
            };
            if leaf.max_rep_level() > 0 {
                continue;
            }
            // Without a bound a row group has nothing but NULL and NaN, which no bound speaks of.
            keep(&mut metrics.lower_bounds, id, bound(statistics, statistics.min_bytes_opt(), r#type), Ordering::Less);
            keep(
                &mut metrics.upper_bounds,
                id,
                bound(statistics, statistics.max_bytes_opt(), r#type),
                Ordering::Greater,
            );
        }
    }
    metrics.lower_bounds.retain(|_, bound| cut_lower(bound));
    metrics.upper_bounds.retain(|_, bound| cut_upper(bound));
    metrics.bound_uuids();
    metrics
}

impl Metrics {
    /// Widens bounds of UUIDs until they hold in both orders that readers have, or takes them out.
    fn bound_uuids(&mut self) {
        let uuid = |bound: &Datum| match bound.literal() {
            PrimitiveLiteral::UInt128(uuid) if *bound.data_type() == PrimitiveType::Uuid => Some(*uuid),
            _ => None,
        };
        let lower: HashMap<i32, u128> =
            self.lower_bounds.iter().filter_map(|(id, bound)| Some((*id, uuid(bound)?))).collect();
        for (id, lower) in lower {
            let upper = self.upper_bounds.get(&id).and_then(uuid).unwrap_or(u128::MAX);
            let (lower, upper) = in_both_orders(lower, upper);
            put(&mut self.lower_bounds, id, lower);
            put(&mut self.upper_bounds, id, upper);
        }
    }

    /// Takes the bounds of UUIDs out, for files of deletes. Java holds them against those of data files, where its own bounds are those by
    /// bytes and compared as signed halves: it would leave out deletes that it has to apply, however these are bounded.
    pub(super) fn leave_uuids_unbounded(&mut self) {
        for bounds in [&mut self.lower_bounds, &mut self.upper_bounds] {
            bounds.retain(|_, bound| *bound.data_type() != PrimitiveType::Uuid);
        }
    }
}

fn put(bounds: &mut HashMap<i32, Datum>, id: i32, uuid: Option<u128>) {
    match uuid {
        Some(uuid) => drop(bounds.insert(id, Datum::uuid(Uuid::from_u128(uuid)))),
        None => drop(bounds.remove(&id)),
    }
}

/// UUIDs are ordered by their bytes. Java up to Iceberg 1.10 compares their halves as signed numbers instead, and would not look
/// into files for rows that are there. A bound that is apart from all values in the upper half holds for both, if no sign is between.
fn in_both_orders(lower: u128, upper: u128) -> (Option<u128>, Option<u128>) {
    const SIGN: u128 = 1 << 127;
    const LOWER_HALF: u128 = u64::MAX as u128;
    const ONE: u128 = 1 << 64;
    let same_sign = |one: u128, other: u128| (one ^ other) & SIGN == 0;
    if !same_sign(lower, upper) {
        return (None, None);
    }
    let below = (lower & !LOWER_HALF).checked_sub(ONE).filter(|below| same_sign(*below, lower));
    let above = (upper & !LOWER_HALF).checked_add(ONE).filter(|above| same_sign(*above, upper));
    (below, above)
}

fn keep(bounds: &mut HashMap<i32, Datum>, id: i32, bound: Option<Datum>, wanted: Ordering) {
    let Some(bound) = bound else { return };
    match bounds.entry(id) {
        std::collections::hash_map::Entry::Vacant(entry) => {
            entry.insert(bound);
        }
        std::collections::hash_map::Entry::Occupied(mut entry) => {
            if bound.literal().partial_cmp(entry.get().literal()) == Some(wanted) {
                entry.insert(bound);
            }
        }
    }
}

fn bound(statistics: &Statistics, bytes: Option<&[u8]>, r#type: &PrimitiveType) -> Option<Datum> {
    let bytes = bytes?;
    // Parquet's plain encoding is Iceberg's for all but decimals, which Iceberg has big-endian and Parquet, where they
    // fit an integer, not.
    let datum = match (r#type, statistics) {
        (PrimitiveType::Decimal { .. }, Statistics::Int32(_) | Statistics::Int64(_)) => {
            let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
            Datum::try_from_bytes(&reversed, r#type.clone())
        }
        _ => Datum::try_from_bytes(bytes, r#type.clone()),
    };
    datum.ok().filter(|datum| !datum.is_nan())
}

fn cut_lower(bound: &mut Datum) -> bool {
    match bound.literal() {
        PrimitiveLiteral::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(BOUND_LENGTH) {
                *bound = Datum::string(&text[..end]);
            }
        }
        PrimitiveLiteral::Binary(bytes) if bytes.len() > BOUND_LENGTH => {
            let cut = bytes[..BOUND_LENGTH].to_vec();
            return replace(bound, &cut);
        }
        _ => {}
    }
    true
}

/// Cuts and then counts up, so that what was cut off is still below. False where nothing of this length is above.
fn cut_upper(bound: &mut Datum) -> bool {
    match bound.literal() {
        PrimitiveLiteral::String(text) => {
            let Some((end, _)) = text.char_indices().nth(BOUND_LENGTH) else { return true };
            let mut cut: Vec<char> = text[..end].chars().collect();
            while let Some(last) = cut.pop() {
                if let Some(next) = successor(last) {
                    cut.push(next);
                    *bound = Datum::string(cut.into_iter().collect::<String>());
                    return true;
                }
            }
            false
        }
        PrimitiveLiteral::Binary(bytes) if bytes.len() > BOUND_LENGTH => {
            let mut cut = bytes[..BOUND_LENGTH].to_vec();
            while let Some(last) = cut.pop() {
                if let Some(next) = last.checked_add(1) {
                    cut.push(next);
                    return replace(bound, &cut);
                }
            }
            false
        }
        _ => true,
    }
}

fn replace(bound: &mut Datum, bytes: &[u8]) -> bool {
    match Datum::try_from_bytes(bytes, bound.data_type().clone()) {
        Ok(cut) => {
            *bound = cut;
            true
        }
        Err(_) => false,
    }
}

/// The next code point that text can hold: surrogates are skipped.
fn successor(c: char) -> Option<char> {
    match u32::from(c) + 1 {
        0xd800 => Some('\u{e000}'),
        next => char::from_u32(next),
    }
}

/// The floating point columns of a table whose NaNs are counted: those in structs, but not those in lists and maps.
#[derive(Debug)]
pub(super) struct NanColumns {
    columns: Vec<(i32, Vec<usize>)>,
}

impl NanColumns {
    pub(super) fn of(schema: &Schema) -> Self {
        let mut columns = Vec::new();
        collect(schema.as_struct().fields(), &mut Vec::new(), &mut columns);
        Self { columns }
    }

    pub(super) fn count(&self, rows: &RecordBatch, into: &mut HashMap<i32, u64>) {
        for (id, place) in &self.columns {
            let Some((first, rest)) = place.split_first() else { continue };
            let leaf: &ArrayRef =
                rest.iter().fold(rows.column(*first), |column, index| column.as_struct().column(*index));
            let nans = match leaf.data_type() {
                DataType::Float32 => {
                    count_nans(leaf, leaf.as_primitive::<Float32Type>().values().iter().map(|v| v.is_nan()))
                }
                DataType::Float64 => {
                    count_nans(leaf, leaf.as_primitive::<Float64Type>().values().iter().map(|v| v.is_nan()))
                }
                _ => 0,
            };
            if nans > 0 {
                *into.entry(*id).or_default() += nans;
            }
        }
    }

    /// A count for every column, zero as well: that there is none is worth knowing.
    pub(super) fn all(&self, counted: &HashMap<i32, u64>) -> HashMap<i32, u64> {
        self.columns.iter().map(|(id, _)| (*id, counted.get(id).copied().unwrap_or(0))).collect()
    }
}

fn count_nans(array: &ArrayRef, nans: impl Iterator<Item = bool>) -> u64 {
    match array.nulls() {
        None => nans.filter(|nan| *nan).count() as u64,
        Some(valid) => nans.zip(valid).filter(|(nan, valid)| *nan && *valid).count() as u64,
    }
}

fn collect(fields: &[NestedFieldRef], place: &mut Vec<usize>, into: &mut Vec<(i32, Vec<usize>)>) {
    for (index, field) in fields.iter().enumerate() {
        place.push(index);
        match &*field.field_type {
            Type::Primitive(PrimitiveType::Float | PrimitiveType::Double) => into.push((field.id, place.clone())),
            Type::Struct(inner) => collect(inner.fields(), place, into),
            _ => {}
        }
        place.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `java.util.UUID.compareTo` has it.
    fn signed(uuid: u128) -> (i64, i64) {
        let (high, low) = Uuid::from_u128(uuid).as_u64_pair();
        (high.cast_signed(), low.cast_signed())
    }

    #[test]
    fn bounds_of_uuids_hold_in_both_orders() {
        let id = |text: &str| Uuid::parse_str(text).unwrap().as_u128();
        for (values, bounded) in [
            (["01890000-0000-7000-8000-000000000000", "0189ffff-0000-7000-0000-000000000000"], (true, true)),
            (["f79c3e09-677c-4bbd-a479-3f349cb785e7", "f79c3e09-677c-4bbd-0479-3f349cb785e7"], (true, true)),
            (["00000000-0000-0000-0000-000000000001", "7fffffff-ffff-ffff-0000-000000000001"], (false, false)),
            (["80000000-0000-0000-0000-000000000001", "90000000-0000-0000-0000-000000000001"], (false, true)),
            (["00000000-0000-0000-0000-000000000001", "f79c3e09-677c-4bbd-a479-3f349cb785e7"], (false, false)),
        ] {
            let values = values.map(id);
            let (lower, upper) = in_both_orders(values[0].min(values[1]), values[0].max(values[1]));
            assert_eq!((lower.is_some(), upper.is_some()), bounded, "{values:x?}");
            for value in values {
                assert!(lower.is_none_or(|lower| lower <= value && signed(lower) <= signed(value)), "{value:x}");
                assert!(upper.is_none_or(|upper| value <= upper && signed(value) <= signed(upper)), "{value:x}");
            }
        }
    }
}
