//! A table that follows its source by the numbers of its columns.

use std::collections::BTreeSet;

use philotes_sdk::batch::{META_COLUMN_NUMBER, META_COMMENT, META_RELATION};

use super::*;

const FULL: Policy = Policy::Full { drop: false };
const DROP: Policy = Policy::Full { drop: true };

/// A column with a number.
fn column(number: u32, name: &str, r#type: DataType) -> Field {
    Field::new(name, r#type, true).with_metadata([(META_COLUMN_NUMBER.to_owned(), number.to_string())].into())
}

fn text(number: u32, name: &str) -> Field {
    column(number, name, DataType::Utf8)
}

fn relation(fields: Vec<Field>) -> ArrowSchema {
    ArrowSchema::new_with_metadata(fields, [(META_RELATION.to_owned(), "5.16384".to_owned())].into())
}

fn string(id: i32, name: &str) -> NestedField {
    NestedField::optional(id, name, primitive(PrimitiveType::String))
}

/// Numbers that are the fields of the same value.
fn known(numbers: &[(u32, i32)]) -> Numbers {
    let fields: Vec<String> = numbers.iter().map(|(number, id)| format!("\"{number}\":{id}")).collect();
    serde_json::from_str(&format!(r#"{{"relation":"5.16384","fields":{{{}}}}}"#, fields.join(","))).unwrap()
}

struct Case<'a> {
    policy: Policy,
    late: bool,
    known: &'a [(u32, i32)],
    fixed: &'a [i32],
    nulls: &'a [i32],
}

impl Case<'_> {
    fn of(policy: Policy, known: &[(u32, i32)]) -> Case<'_> {
        Case { policy, late: false, known, fixed: &[], nulls: &[] }
    }

    fn run(&self, table: &Schema, arrow: &ArrowSchema) -> Result<Fitted> {
        let numbers = known(self.known);
        let wish = Wish {
            arrow,
            policy: self.policy,
            late: self.late,
            known: Some(&numbers).filter(|numbers| numbers.speak_of(arrow) && !self.known.is_empty()),
            nulls: &self.nulls.iter().copied().collect::<BTreeSet<_>>(),
            fixed: &self.fixed.iter().copied().collect::<BTreeSet<_>>(),
            last_column_id: 20,
        };
        super::super::evolve(table, &wish)
    }
}

fn changes(fitted: &Fitted) -> Vec<String> {
    fitted.changes.iter().map(ToString::to_string).collect()
}

fn schema(fitted: &Fitted) -> &Schema {
    fitted.schema.as_ref().unwrap()
}

/// Names and ids, in the schema's order.
fn columns(fitted: &Fitted) -> Vec<(String, i32)> {
    schema(fitted).as_struct().fields().iter().map(|field| (field.name.clone(), field.id)).collect()
}

fn owned(columns: &[(&str, i32)]) -> Vec<(String, i32)> {
    columns.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect()
}

fn numbers(fitted: &Fitted) -> serde_json::Value {
    serde_json::to_value(fitted.numbers.as_ref().unwrap()).unwrap()["fields"].clone()
}

#[test]
fn a_rename_keeps_the_field_and_what_is_said_of_it() {
    let old = table(vec![string(1, "a").with_doc("mine"), string(2, "b")]);
    let fitted = Case::of(FULL, &[(7, 1), (8, 2)]).run(&old, &relation(vec![text(7, "x"), text(8, "b")])).unwrap();
    assert_eq!(changes(&fitted), ["rename a to x"]);
    assert_eq!(columns(&fitted), owned(&[("x", 1), ("b", 2)]));
    assert_eq!(schema(&fitted).field_by_id(1).unwrap().doc.as_deref(), Some("mine"));
    assert_eq!(fitted.fields, [1, 2]);
    assert_eq!(numbers(&fitted), serde_json::json!({"7": 1, "8": 2}));
    // The table fits now.
    let again = Case::of(FULL, &[(7, 1), (8, 2)]).run(schema(&fitted), &relation(vec![text(7, "x"), text(8, "b")]));
    assert!(again.unwrap().changes.is_empty());
}

#[test]
fn names_that_were_swapped_are_swapped() {
    let old = table(vec![NestedField::optional(1, "a", primitive(PrimitiveType::Int)), string(2, "b")]);
    let batch = relation(vec![column(1, "b", DataType::Int64), text(2, "a")]);
    let fitted = Case::of(FULL, &[(1, 1), (2, 2)]).run(&old, &batch).unwrap();
    assert_eq!(changes(&fitted), ["a: int to long", "rename a to b", "rename b to a"]);
    assert_eq!(columns(&fitted), owned(&[("b", 1), ("a", 2)]));
    assert_eq!(fitted.fields, [1, 2]);
    // By name nothing of this is seen, and the types do not fit.
    let message = data_error(Case::of(Policy::Additive, &[(1, 1), (2, 2)]).run(&old, &batch));
    assert!(message.starts_with("column \"b\": the table has string, the batch long"), "{message}");
}

#[test]
fn a_new_column_may_take_the_old_name_of_a_renamed_one() {
    let old = table(vec![string(1, "a")]);
    let fitted = Case::of(FULL, &[(1, 1)]).run(&old, &relation(vec![text(1, "b"), text(2, "a")])).unwrap();
    assert_eq!(changes(&fitted), ["rename a to b", "add a: string"]);
    assert_eq!(columns(&fitted), owned(&[("b", 1), ("a", 21)]));
    assert_eq!(numbers(&fitted), serde_json::json!({"1": 1, "2": 21}));
}

#[test]
fn where_nothing_is_renamed_the_new_name_is_a_new_column_and_the_number_goes_on_there() {
    let old = table(vec![string(1, "a"), string(2, "c")]);
    let batch = relation(vec![text(1, "b"), text(2, "c")]);
    let fitted = Case::of(Policy::Additive, &[(1, 1), (2, 2)]).run(&old, &batch).unwrap();
    assert_eq!(changes(&fitted), ["add b: string"]);
    assert_eq!(columns(&fitted), owned(&[("a", 1), ("c", 2), ("b", 21)]));
    assert_eq!(numbers(&fitted), serde_json::json!({"1": 21, "2": 2}));
    assert_eq!(fitted.notes.len(), 1);
    assert!(fitted.notes[0].contains("\"a\"") && fitted.notes[0].contains("evolve: full"), "{:?}", fitted.notes);
    let again = Case::of(Policy::Additive, &[(1, 21), (2, 2)]).run(schema(&fitted), &batch).unwrap();
    assert!(again.notes.is_empty() && again.changes.is_empty());
}

#[test]
fn a_rename_onto_a_name_that_is_taken_falls_back_on_it_or_is_refused() {
    let old = table(vec![string(1, "a"), string(2, "b")]);
    let batch = relation(vec![text(1, "b")]);
    // b was dropped at the source and stays here: the values go on there, and a is NULL.
    let fitted = Case::of(FULL, &[(1, 1), (2, 2)]).run(&old, &batch).unwrap();
    assert_eq!((changes(&fitted), fitted.fields.clone()), (vec!["order: b, a".to_owned()], vec![2]));
    assert_eq!(numbers(&fitted), serde_json::json!({"1": 2}));
    // Where it is dropped here too, its name is free.
    let fitted = Case::of(DROP, &[(1, 1), (2, 2)]).run(&old, &batch).unwrap();
    assert_eq!(changes(&fitted), ["rename a to b", "drop b: string"]);
    assert_eq!(columns(&fitted), owned(&[("b", 1)]));
    // A column that is none of the source's is never dropped.
    let fitted = Case::of(DROP, &[(1, 1)]).run(&old, &batch).unwrap();
    assert_eq!((columns(&fitted), fitted.fields), (owned(&[("b", 2), ("a", 1)]), vec![2]));

    let old = table(vec![string(1, "a"), NestedField::optional(2, "b", primitive(PrimitiveType::Int))]);
    let message = data_error(Case::of(FULL, &[(1, 1), (2, 2)]).run(&old, &batch));
    assert!(message.contains("\"a\" was renamed to \"b\"") && message.contains("int, which string"), "{message}");
}

#[test]
fn a_fall_back_sets_free_a_name_for_the_next() {
    // a was renamed to b, whose field stays; c was renamed to a, whose field nobody has now.
    let old = table(vec![string(1, "a"), string(2, "b"), string(3, "c")]);
    let batch = relation(vec![text(1, "b"), text(3, "a")]);
    let fitted = Case::of(FULL, &[(1, 1), (2, 2), (3, 3)]).run(&old, &batch).unwrap();
    assert_eq!((fitted.fields.clone(), numbers(&fitted)), (vec![2, 1], serde_json::json!({"1": 2, "3": 1})));
    assert_eq!(columns(&fitted), owned(&[("b", 2), ("a", 1), ("c", 3)]));
}

#[test]
fn dropped_columns_stay_or_go() {
    let old = table(vec![
        string(1, "a"),
        NestedField::required(2, "b", primitive(PrimitiveType::String)),
        string(3, "theirs"),
        string(4, "_cdc_lsn"),
    ]);
    let batch = relation(vec![text(1, "a"), Field::new("_cdc_lsn", DataType::Utf8, true)]);
    let known = &[(1, 1), (2, 2)];
    for policy in [Policy::Additive, FULL] {
        let fitted = Case::of(policy, known).run(&old, &batch).unwrap();
        assert_eq!(changes(&fitted)[0], "b: required to optional", "{policy:?}");
        assert!(!schema(&fitted).field_by_id(2).unwrap().required);
        assert_eq!(numbers(&fitted), serde_json::json!({"1": 1, "2": 2}), "{policy:?}");
    }
    let fitted = Case::of(DROP, known).run(&old, &batch).unwrap();
    assert_eq!(changes(&fitted), ["drop b: string", "order: a, _cdc_lsn, theirs"]);
    assert_eq!(columns(&fitted), owned(&[("a", 1), ("_cdc_lsn", 4), ("theirs", 3)]));
    assert_eq!(numbers(&fitted), serde_json::json!({"1": 1}));
    // What partitions or sorts the table stays.
    let fitted = Case { fixed: &[2], ..Case::of(DROP, known) }.run(&old, &batch).unwrap();
    assert!(changes(&fitted).contains(&"b: required to optional".to_owned()), "{:?}", changes(&fitted));
    assert!(fitted.notes[0].contains("\"b\" is gone from the source and stays"), "{:?}", fitted.notes);
    // Of another relation no number is known, and nothing is known to be gone.
    let fitted = Case::of(DROP, &[]).run(&old, &batch).unwrap();
    assert_eq!(changes(&fitted)[0], "b: required to optional");
    assert_eq!(numbers(&fitted), serde_json::json!({"1": 1}));
}

#[test]
fn a_column_that_came_again_goes_on_where_the_old_one_stays_and_is_another_where_it_goes() {
    let old = table(vec![string(1, "a"), string(2, "b")]);
    let known = &[(1, 1), (2, 2)];
    let batch = relation(vec![text(1, "a"), text(3, "b")]);
    let fitted = Case::of(FULL, known).run(&old, &batch).unwrap();
    assert_eq!((changes(&fitted), fitted.fields.clone()), (Vec::<String>::new(), vec![1, 2]));
    assert_eq!(numbers(&fitted), serde_json::json!({"1": 1, "3": 2}));
    let fitted = Case::of(DROP, known).run(&old, &batch).unwrap();
    assert_eq!(changes(&fitted), ["add b: string", "drop b: string"]);
    assert_eq!((columns(&fitted), fitted.fields.clone()), (owned(&[("a", 1), ("b", 21)]), vec![1, 21]));
    assert_eq!(numbers(&fitted), serde_json::json!({"1": 1, "3": 21}));

    let batch = relation(vec![text(1, "a"), column(3, "b", DataType::Int32)]);
    let message = data_error(Case::of(FULL, known).run(&old, &batch));
    assert!(message.starts_with("column \"b\": the table has string, the batch int"), "{message}");
    let fitted = Case::of(DROP, known).run(&old, &batch).unwrap();
    assert_eq!(changes(&fitted), ["add b: int", "drop b: string"]);
    // What partitions the table cannot go, so the new column goes on there.
    let fitted = Case { fixed: &[2], ..Case::of(DROP, known) }.run(&old, &relation(vec![text(1, "a"), text(3, "b")]));
    assert_eq!(fitted.unwrap().fields, [1, 2]);
}

#[test]
fn order_and_comments_follow_with_numbers_only() {
    let old = table(vec![string(1, "a").with_doc("text"), string(2, "theirs"), string(3, "b")]);
    let comment = |mut field: Field, comment: &str| {
        field.set_metadata(
            [
                (META_COLUMN_NUMBER.to_owned(), field.metadata()[META_COLUMN_NUMBER].clone()),
                (META_SOURCE_TYPE.to_owned(), "text".to_owned()),
                (META_COMMENT.to_owned(), comment.to_owned()),
            ]
            .into(),
        );
        field
    };
    let fields = vec![text(3, "b"), text(4, "new"), comment(text(1, "a"), "who")];
    let fitted = Case::of(FULL, &[]).run(&old, &relation(fields.clone())).unwrap();
    assert_eq!(changes(&fitted), ["add new: string", "comment of a", "order: b, new, a, theirs"]);
    assert_eq!(columns(&fitted), owned(&[("b", 3), ("new", 21), ("a", 1), ("theirs", 2)]));
    assert_eq!(schema(&fitted).field_by_id(1).unwrap().doc.as_deref(), Some("who"));
    for (policy, batch) in [(FULL, arrow(fields.clone())), (Policy::Additive, relation(fields))] {
        let fitted = Case::of(policy, &[]).run(&old, &batch).unwrap();
        assert_eq!(changes(&fitted), ["add new: string"], "{policy:?}");
        assert_eq!(columns(&fitted).last().unwrap().0, "new");
    }
}

#[test]
fn letters_that_come_late_are_found_by_number_and_change_no_name() {
    let old = table(vec![string(1, "x"), string(2, "b")]);
    let late = Case { late: true, ..Case::of(DROP, &[(1, 1), (2, 2)]) };
    let fitted = late.run(&old, &relation(vec![text(1, "a")])).unwrap();
    assert_eq!((changes(&fitted), fitted.fields), (Vec::<String>::new(), vec![1]));
}

#[test]
fn case_alone_is_no_rename() {
    let old = table(vec![string(1, "ID")]);
    let fitted = Case::of(FULL, &[(1, 1)]).run(&old, &relation(vec![text(1, "id")])).unwrap();
    assert!(fitted.changes.is_empty(), "{:?}", fitted.changes);
}

#[test]
fn where_nothing_may_change_the_change_is_the_error() {
    let old = table(vec![
        NestedField::required(1, "a", primitive(PrimitiveType::Int)),
        NestedField::optional(2, "b", primitive(PrimitiveType::Int)),
    ]);
    let run = |fields: Vec<Field>| Case::of(Policy::None, &[]).run(&old, &arrow(fields));
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    assert!(run(vec![int("a")]).unwrap().changes.is_empty());
    let message = data_error(run(vec![int("a"), int("c")]));
    assert!(message.contains("\"c\" of type int") && message.contains("evolve: none"), "{message}");
    let message = data_error(run(vec![int("a"), Field::new("b", DataType::Int64, true)]));
    assert!(message.starts_with("column \"b\": the table has int, the batch long, and `evolve: none`"), "{message}");
    let message = data_error(run(vec![int("b")]));
    assert!(message.contains("\"a\" is required") && message.contains("evolve: none"), "{message}");
    // A table that has no column yet is not done being made.
    let stub = table(vec![string(1, "_cdc_operation")]);
    let fitted = Case::of(Policy::None, &[]).run(&stub, &arrow(vec![int("a")])).unwrap();
    assert_eq!(changes(&fitted), ["add a: int"]);
}

#[test]
fn required_fields_become_optional_however_deep_but_identifiers() {
    let inner = StructType::new(vec![NestedField::required(4, "x", primitive(PrimitiveType::Int)).into()]);
    let list = iceberg::spec::ListType::new(NestedField::list_element(5, Type::Struct(inner), true).into());
    let fields = vec![
        NestedField::required(1, "id", primitive(PrimitiveType::Long)),
        NestedField::required(2, "v", primitive(PrimitiveType::Int)),
        NestedField::optional(3, "l", Type::List(list)),
    ];
    let old =
        Schema::builder().with_fields(fields.into_iter().map(Arc::new)).with_identifier_field_ids([1]).build().unwrap();
    let item = DataType::Struct(vec![Field::new("x", DataType::Int32, true)].into());
    let batch = arrow(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("v", DataType::Int32, true),
        Field::new("l", DataType::List(Arc::new(Field::new("item", item, true))), true),
    ]);
    let with = |nulls| Case { nulls, ..Case::of(Policy::Additive, &[]) }.run(&old, &batch).unwrap();
    assert!(with(&[]).changes.is_empty());
    let fitted = with(&[1, 2, 4, 5]);
    let relaxed = |name: &str| format!("{name}: required to optional");
    assert_eq!(changes(&fitted), [relaxed("v"), relaxed("l.element.x"), relaxed("l.element")]);
    assert!(schema(&fitted).field_by_id(1).unwrap().required);
    assert_eq!(schema(&fitted).identifier_field_ids().collect::<Vec<_>>(), [1]);
    let message = data_error(Case::of(DROP, &[(9, 1)]).run(&old, &relation(vec![])));
    assert!(message.contains("\"id\" is required") && message.contains("identifier"), "{message}");
}

#[test]
fn nulls_are_found_where_they_are_seen() {
    let inner = StructType::new(vec![NestedField::required(3, "x", primitive(PrimitiveType::Int)).into()]);
    let list = iceberg::spec::ListType::new(NestedField::list_element(5, primitive(PrimitiveType::Int), true).into());
    let old = table(vec![
        NestedField::required(1, "v", primitive(PrimitiveType::Int)),
        NestedField::optional(2, "s", Type::Struct(inner)),
        NestedField::optional(4, "l", Type::List(list)),
    ]);
    let nulls = |v: Vec<Option<i32>>, x: Vec<Option<i32>>, s: Vec<bool>, l: Vec<Option<Vec<Option<i32>>>>| {
        let x: ArrayRef = Arc::new(Int32Array::from(x));
        let fields = Fields::from(vec![Field::new("x", DataType::Int32, true)]);
        let batch = RecordBatch::try_from_iter([
            ("v", Arc::new(Int32Array::from(v)) as ArrayRef),
            ("s", Arc::new(StructArray::new(fields, vec![x], Some(NullBuffer::from(s))))),
            ("l", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(l))),
        ])
        .unwrap();
        Projection::new(&old, &batch.schema()).unwrap().nulls(&batch).into_iter().collect::<Vec<_>>()
    };
    let one = || Some(vec![Some(1)]);
    assert_eq!(nulls(vec![Some(1), Some(2)], vec![Some(1), None], vec![true, false], vec![None, one()]), [0; 0]);
    assert_eq!(nulls(vec![Some(1), None], vec![Some(1), None], vec![true, true], vec![one(), one()]), [1, 3]);
    assert_eq!(nulls(vec![Some(1)], vec![Some(1)], vec![true], vec![Some(vec![None])]), [5]);
}
