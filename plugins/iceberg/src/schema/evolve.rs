//! Schema evolution: what a table's schema must become before a batch fits, within what Iceberg's readers can follow and
//! what the connector allows.
//!
//! A column never becomes narrower. An incompatible type is refused here, because neither the iceberg crate nor the catalogs
//! check promotions and a wrong one makes the table unreadable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema};
use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type};
use philotes_sdk::batch::META_RELATION;
use philotes_sdk::{Error, Result};

use super::change::{Change, What};
use super::map::{self, Ids};
use super::matching::{self, ByNumber};
use super::numbers::{self, Numbers};
use super::{check_columns, path, position, type_name};

/// What may be done to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nothing.
    None,
    /// What takes nothing away and leaves every name: new columns, wider types, optional instead of required.
    Additive,
    /// The table follows its source also in names, order and comments, and where `drop` is set in what is gone.
    Full { drop: bool },
}

/// What is to fit, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) arrow: &'a ArrowSchema,
    pub(crate) policy: Policy,
    /// The rows come late, and their names and order may be old ones: fields are found by them and do not follow them.
    pub(crate) late: bool,
    /// Which fields the columns' numbers are, where it is known; of these batches' relation.
    pub(crate) known: Option<&'a Numbers>,
    /// Required fields that rows have NULL in.
    pub(crate) nulls: &'a BTreeSet<i32>,
    /// Fields of the top level that are never dropped, beside those that identify rows.
    pub(crate) fixed: &'a BTreeSet<i32>,
    /// The table's own and not the schema's highest: an id once used never returns.
    pub(crate) last_column_id: i32,
}

/// How batches fit.
#[derive(Debug)]
pub(crate) struct Fitted {
    /// What the schema has to become; `None` where it needs not change. The schema id is the present one; the catalog assigns
    /// the next.
    pub(crate) schema: Option<Schema>,
    /// What has to be done for it.
    pub(crate) changes: Vec<Change>,
    /// For each column of the batch, the id of its field.
    pub(crate) fields: Vec<i32>,
    /// What the table has to say of the columns' numbers; `None` where the source gives none.
    pub(crate) numbers: Option<Numbers>,
    /// What an operator should know.
    pub(crate) notes: Vec<String>,
}

/// The schema that `table` must become so that such batches fit. New columns are optional.
///
/// # Errors
/// Data: a column whose type neither fits nor widens the table's, or that no table can hold; an identifier field that
/// the batch lacks; anything that would have to change where nothing may.
pub(crate) fn evolve(table: &Schema, wish: &Wish<'_>) -> Result<Fitted> {
    let arrow = wish.arrow;
    check_columns(arrow)?;
    let (old, incoming) = (table.as_struct().fields(), arrow.fields());
    let numbers = incoming.iter().map(|field| numbers::number(field)).collect::<Result<Vec<_>>>()?;
    let given: BTreeSet<u32> = numbers.iter().copied().flatten().collect();
    let full = matches!(wish.policy, Policy::Full { .. }) && arrow.metadata().contains_key(META_RELATION);
    let follows = full && !wish.late;
    let mut leaving = BTreeSet::new();
    let mut notes = Vec::new();
    if let (true, Policy::Full { drop: true }, Some(known)) = (follows, wish.policy, wish.known) {
        let gone = old.iter().filter(|field| known.is_of_others(field.id, &given) && !wish.fixed.contains(&field.id));
        let leaves = gone.filter(|field| !table.identifier_field_ids().any(|id| lies_within(field, id)));
        leaving = leaves.map(|field| field.id).collect();
    }
    let targets = match wish.known {
        Some(known) if full => {
            let leaving = &leaving;
            ByNumber { table: old, incoming, numbers: &numbers, known, leaving, renames: follows }.targets()?
        }
        _ => matching::by_name(old, incoming)?,
    };

    let mut evolution = Evolution { ids: Ids::after(wish.last_column_id), changes: Vec::new(), wish, table };
    let mut fields: Vec<NestedFieldRef> = Vec::with_capacity(old.len());
    let mut ids = Vec::with_capacity(incoming.len());
    let mut followed: BTreeMap<i32, NestedFieldRef> = BTreeMap::new();
    let mut added = Vec::new();
    for ((field, target), number) in incoming.iter().zip(&targets).zip(&numbers) {
        let new = match target {
            Some(at) => {
                let new = evolution.field(&old[*at], field, &old[*at].name)?;
                let new = if follows && number.is_some() { evolution.follow(new, field) } else { new };
                followed.insert(new.id, new.clone());
                new
            }
            None => {
                let new = evolution.add(field, "")?;
                added.push(new.clone());
                new
            }
        };
        if !follows
            && !wish.late
            && let Some(before) = number.and_then(|number| wish.known?.field(number))
            && let Some(before) = old.iter().find(|f| f.id == before && f.id != new.id)
        {
            notes.push(format!(
                "column {:?} is called {:?} at the source now; here it is another column, since only `evolve: full` renames",
                before.name,
                field.name()
            ));
        }
        ids.push(new.id);
    }
    for field in old {
        match followed.remove(&field.id) {
            Some(new) => fields.push(new),
            None if leaving.contains(&field.id) => {
                evolution.changes.push(Change::new(&field.name, What::Drop((*field.field_type).clone())));
            }
            None => {
                let known = wish.known.filter(|_| follows);
                if wish.policy == (Policy::Full { drop: true })
                    && known.is_some_and(|known| known.is_of_others(field.id, &given))
                {
                    notes.push(format!(
                        "column {:?} is gone from the source and stays: the table is partitioned or sorted by it, or it is \
                         an identifier field",
                        field.name
                    ));
                }
                fields.push(evolution.missing(field, &field.name)?);
            }
        }
    }
    fields.extend(added);
    if follows {
        evolution.order(&mut fields, old, &ids);
    }
    let changes = evolution.changes;
    if let (Policy::None, Some(change), false) = (wish.policy, changes.first(), is_stub(table)) {
        return Err(not_allowed(change));
    }
    let found = numbers.iter().zip(&ids).filter_map(|(number, id)| Some(((*number)?, *id))).collect();
    let mut renewed = Numbers::renewed(wish.known, arrow, found);
    if let Some(renewed) = &mut renewed {
        renewed.retain(|id| fields.iter().any(|field| field.id == id));
    }
    let schema = if changes.is_empty() {
        None
    } else {
        let builder = Schema::builder()
            .with_schema_id(table.schema_id())
            .with_identifier_field_ids(table.identifier_field_ids())
            .with_fields(fields);
        Some(super::build(builder)?)
    };
    Ok(Fitted { schema, changes, fields: ids, numbers: renewed, notes })
}

/// Whether the table was only made to hold a place: its columns are still to come.
fn is_stub(table: &Schema) -> bool {
    table.as_struct().fields().iter().all(|field| field.name.starts_with(philotes_sdk::batch::RESERVED_PREFIX))
}

/// Whether values of this column can go on in a field, wider if need be.
pub(super) fn goes_on(field: &NestedField, incoming: &Field) -> bool {
    let (nothing, table) = (BTreeSet::new(), Schema::builder().build());
    let arrow = ArrowSchema::empty();
    let wish = Wish {
        arrow: &arrow,
        policy: Policy::Additive,
        late: false,
        known: None,
        nulls: &nothing,
        fixed: &nothing,
        last_column_id: 0,
    };
    table.is_ok_and(|table| {
        let mut trial = Evolution { ids: Ids::after(0), changes: Vec::new(), wish: &wish, table: &table };
        trial.merge(&field.field_type, incoming, &field.name).is_ok()
    })
}

struct Evolution<'a> {
    ids: Ids,
    changes: Vec<Change>,
    wish: &'a Wish<'a>,
    table: &'a Schema,
}

impl Evolution<'_> {
    /// The fields of a struct.
    fn fields(&mut self, table: &[NestedFieldRef], incoming: &Fields, parent: &str) -> Result<Vec<NestedFieldRef>> {
        map::check_names(incoming, parent)?;
        let mut fields = table.to_vec();
        let mut found = vec![false; table.len()];
        for field in incoming {
            match position(table.iter().map(|f| f.name.as_str()), field.name(), parent)? {
                Some(index) => {
                    let old = &table[index];
                    found[index] = true;
                    fields[index] = self.field(old, field, &path(parent, &old.name))?;
                }
                None => fields.push(self.add(field, parent)?),
            }
        }
        for (index, old) in table.iter().enumerate().filter(|(index, _)| !found[*index]) {
            fields[index] = self.missing(old, &path(parent, &old.name))?;
        }
        Ok(fields)
    }

    fn add(&mut self, field: &Field, parent: &str) -> Result<NestedFieldRef> {
        let id = self.ids.next();
        let added = map::optional_field(field, id, parent, &mut self.ids)?;
        self.changes.push(Change::new(path(parent, field.name()), What::Add((*added.field_type).clone())));
        Ok(added)
    }

    /// A field that the batch lacks: it reads as NULL from now on.
    fn missing(&mut self, old: &NestedFieldRef, at: &str) -> Result<NestedFieldRef> {
        if !old.required {
            return Ok(old.clone());
        }
        if self.identifies(old) {
            return Err(Error::data(format!(
                "column {at:?} is required by the table, as an identifier field, and missing from the batch"
            )));
        }
        Ok(self.relax(old, at))
    }

    fn relax(&mut self, old: &NestedField, at: &str) -> NestedFieldRef {
        self.changes.push(Change::new(at, What::Relax((*old.field_type).clone())));
        Arc::new(NestedField { required: false, ..old.clone() })
    }

    /// Whether the field is an identifier field, or one lies within it: both stay required.
    fn identifies(&self, field: &NestedField) -> bool {
        self.table.identifier_field_ids().any(|id| lies_within(field, id))
    }

    fn field(&mut self, old: &NestedFieldRef, incoming: &Field, at: &str) -> Result<NestedFieldRef> {
        let before = self.changes.len();
        let r#type = self.merge(&old.field_type, incoming, at)?;
        let mut new = old.clone();
        if self.changes.len() > before {
            let widened = matches!(r#type, Type::Primitive(_));
            let doc = map::doc(incoming).filter(|_| widened).or_else(|| old.doc.clone());
            new = Arc::new(NestedField { field_type: Box::new(r#type), doc, ..(**old).clone() });
        }
        if old.required && self.wish.nulls.contains(&old.id) && !self.identifies(old) {
            new = self.relax(&new, at);
        }
        Ok(new)
    }

    /// Gives a field its column's name and comment.
    fn follow(&mut self, mut field: NestedFieldRef, incoming: &Field) -> NestedFieldRef {
        let before = field.name.clone();
        if matching::renamed(&field, incoming) {
            let what = What::Rename { r#type: (*field.field_type).clone(), to: incoming.name().clone() };
            self.changes.push(Change::new(&before, what));
            field = Arc::new(NestedField { name: incoming.name().clone(), ..(*field).clone() });
        }
        let doc = map::doc(incoming);
        if doc.is_some() && doc != field.doc {
            self.changes.push(Change::new(&before, What::Comment((*field.field_type).clone())));
            field = Arc::new(NestedField { doc, ..(*field).clone() });
        }
        field
    }

    /// Puts the fields in the order of the batch, those that it lacks last.
    fn order(&mut self, fields: &mut [NestedFieldRef], old: &[NestedFieldRef], ids: &[i32]) {
        let place = |id: i32| ids.iter().position(|other| *other == id).unwrap_or(ids.len());
        fields.sort_by_key(|field| place(field.id));
        let stay: Vec<i32> = fields.iter().map(|f| f.id).filter(|id| old.iter().any(|o| o.id == *id)).collect();
        let before = old.iter().map(|field| field.id).filter(|id| stay.contains(id));
        if !before.eq(stay.iter().copied()) {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            self.changes.push(Change::new(names.join(", "), What::Reorder));
        }
    }

    fn merge(&mut self, table: &Type, incoming: &Field, at: &str) -> Result<Type> {
        match (table, incoming.data_type()) {
            (Type::Struct(old), DataType::Struct(new)) => {
                Ok(Type::Struct(StructType::new(self.fields(old.fields(), new, at)?)))
            }
            (Type::List(old), DataType::List(element)) => {
                let element = self.field(&old.element_field, element, &path(at, "element"))?;
                Ok(Type::List(ListType::new(element)))
            }
            (Type::Map(old), DataType::Map(entries, _)) => {
                let (key, value) = map::map_entries(entries, at)?;
                let before = self.changes.len();
                let key_field = self.field(&old.key_field, key, &path(at, "key"))?;
                // Iceberg forbids every change of a map's key.
                if self.changes.len() > before {
                    return Err(incompatible(&old.key_field.field_type, key, &path(at, "key")));
                }
                let value_field = self.field(&old.value_field, value, &path(at, "value"))?;
                Ok(Type::Map(MapType::new(key_field, value_field)))
            }
            (Type::Primitive(old), _) => {
                if incoming.data_type().is_nested() {
                    return Err(incompatible(table, incoming, at));
                }
                let new = map::primitive(incoming).ok_or_else(|| map::unsupported(incoming, at))?;
                match fit(old, &new) {
                    Fit::Fits => Ok(table.clone()),
                    Fit::Widens(to) => {
                        let to = Type::Primitive(to);
                        self.changes.push(Change::new(at, What::Widen { from: table.clone(), to: to.clone() }));
                        Ok(to)
                    }
                    Fit::Never => Err(incompatible(table, incoming, at)),
                }
            }
            _ => Err(incompatible(table, incoming, at)),
        }
    }
}

/// Whether a field is the one with this id, or holds it.
pub(crate) fn lies_within(field: &NestedField, id: i32) -> bool {
    field.id == id
        || match &*field.field_type {
            Type::Primitive(_) => false,
            Type::Struct(fields) => fields.fields().iter().any(|field| lies_within(field, id)),
            Type::List(list) => lies_within(&list.element_field, id),
            Type::Map(map) => lies_within(&map.key_field, id) || lies_within(&map.value_field, id),
        }
}

enum Fit {
    /// Every value of the incoming type is one of the table's type.
    Fits,
    /// The table's type can be promoted to this one, which holds every value of the incoming type.
    Widens(PrimitiveType),
    Never,
}

/// How an incoming type stands to the table's, by the promotions of the Iceberg specification (version 2).
fn fit(table: &PrimitiveType, incoming: &PrimitiveType) -> Fit {
    use PrimitiveType::{Decimal, Double, Float, Int, Long};
    match (table, incoming) {
        (table, incoming) if table == incoming => Fit::Fits,
        (Long, Int) | (Double, Float) => Fit::Fits,
        (Int, Long) | (Float, Double) => Fit::Widens(incoming.clone()),
        (Decimal { precision, scale }, Decimal { precision: new_precision, scale: new_scale }) => {
            // The scale never changes; what comes with fewer digits behind the point gets zeros.
            let needed = (new_precision - new_scale) + scale;
            match needed {
                _ if new_scale > scale || needed > 38 => Fit::Never,
                needed if needed <= *precision => Fit::Fits,
                needed => Fit::Widens(Decimal { precision: needed, scale: *scale }),
            }
        }
        _ => Fit::Never,
    }
}

/// A column's type as Iceberg calls it, or as Arrow does where it has no simple name there.
pub(super) fn incoming_type(incoming: &Field) -> String {
    match map::primitive(incoming) {
        Some(primitive) => primitive.to_string(),
        None => incoming.data_type().to_string(),
    }
}

/// The error for a column whose type cannot become what the batch brings.
pub(super) fn incompatible(table: &Type, incoming: &Field, at: &str) -> Error {
    Error::data(format!(
        "column {at:?}: the table has {}, the batch {}; allowed are the same type, int to long, float to \
         double, and a decimal with at most the table's digits behind the point and at most 38 with them",
        type_name(table),
        incoming_type(incoming)
    ))
}

/// The error for a change where none is allowed.
fn not_allowed(change: &Change) -> Error {
    let column = &change.column;
    Error::data(match &change.what {
        What::Add(r#type) => format!(
            "column {column:?} of type {} is not in the table, and `evolve: none` adds none; add it to the table, drop it by \
             `columns`, or allow `evolve: additive`",
            type_name(r#type)
        ),
        What::Widen { from, to } => format!(
            "column {column:?}: the table has {}, the batch {}, and `evolve: none` widens none; widen it in the table, or \
             allow `evolve: additive`",
            type_name(from),
            type_name(to)
        ),
        What::Relax(_) => format!(
            "column {column:?} is required by the table and missing from the batch, and `evolve: none` makes none optional; \
             make it optional in the table, or allow `evolve: additive`"
        ),
        What::Rename { .. } | What::Drop(_) | What::Comment(_) | What::Reorder => {
            format!("{change}: `evolve: none` does not allow it")
        }
    })
}

/// Whether values of this field can be written to a column of the table's type without a change of the table.
pub(super) fn fits(table: &PrimitiveType, incoming: &Field) -> bool {
    map::primitive(incoming).is_some_and(|new| matches!(fit(table, &new), Fit::Fits))
}
