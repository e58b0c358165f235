//! Files as the table was, rows as it is.

use arrow::array::{Decimal128Array, Float32Array, Int32Array, ListArray, MapArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Float64Type, Int32Type, Int64Type};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{ListType, Literal, MapType, StructType};

use super::*;

fn nested(id: i32, name: &str, r#type: Type) -> NestedFieldRef {
    Arc::new(NestedField::optional(id, name, r#type))
}

fn decimal(precision: u32) -> PrimitiveType {
    PrimitiveType::Decimal { precision, scale: 2 }
}

#[tokio::test]
async fn columns_are_found_by_their_ids_and_widened() {
    use PrimitiveType as P;
    let before = [
        column(1, "id", P::Int),
        column(2, "f", P::Float),
        column(3, "d", decimal(5)),
        column(4, "name", P::String),
        column(5, "gone", P::String),
    ];
    let mut rig = Rig::new(schema(before), nothing(), FormatVersion::V2);
    let decimals = Decimal128Array::from(vec![12345, -1, 0]).with_precision_and_scale(5, 2).unwrap();
    let data = rig
        .data(&rows([
            ("id", Arc::new(Int32Array::from(vec![-1, 2, 3]))),
            ("f", Arc::new(Float32Array::from(vec![0.5, 1.5, 2.5]))),
            ("d", Arc::new(decimals)),
            ("name", texts(&["a", "b", "c"])),
            ("gone", texts(&["x", "y", "z"])),
        ]))
        .await;
    rig.commit(data, vec![], &[]).await;
    let spec = rig.metadata.default_partition_spec().clone();
    let deletes =
        rig.equality(&[1], &rows([("id", Arc::new(Int32Array::from(vec![3])))]), (&spec, Struct::empty())).await;
    rig.commit(vec![], vec![deletes], &[]).await;

    // A new column has the name of one that is gone, and two have changed theirs.
    let after = [
        column(6, "gone", P::String),
        column(4, "f", P::String),
        column(3, "d", decimal(12)),
        column(2, "name", P::Double),
        column(1, "key", P::Long),
    ];
    rig.alter(schema(after));
    let new = rows([
        ("gone", texts(&["new"])),
        ("f", texts(&["e"])),
        ("d", Arc::new(Decimal128Array::from(vec![10_i128.pow(11)]).with_precision_and_scale(12, 2).unwrap())),
        ("name", Arc::new(arrow::array::Float64Array::from(vec![9.5]))),
        ("key", longs(&[1 << 40])),
    ]);
    let data = rig.data(&new).await;
    rig.commit(data, vec![], &[]).await;

    let found =
        find(&mut rig.base(), &[1], &rows([("key", longs(&[1 << 40, 2, 3, -1]))]), &[6, 4, 3, 2, 1]).await.unwrap();
    assert_eq!(found.places, [Some(0), Some(2), None, Some(1)]);
    let row = |row: usize| {
        let gone = found.rows.column(0).as_string::<i32>();
        let decimal = found.rows.column(2).as_primitive::<Decimal128Type>();
        (
            gone.is_valid(row).then(|| gone.value(row)),
            found.rows.column(1).as_string::<i32>().value(row),
            (decimal.precision(), decimal.value(row)),
            found.rows.column(3).as_primitive::<Float64Type>().value(row),
            found.rows.column(4).as_primitive::<Int64Type>().value(row),
        )
    };
    assert_eq!(row(0), (Some("new"), "e", (12, 10_i128.pow(11)), 9.5, 1 << 40));
    assert_eq!(row(1), (None, "a", (12, 12345), 0.5, -1));
    assert_eq!(row(2), (None, "b", (12, -1), 1.5, 2));
    let arrow = schema_to_arrow_schema(rig.schema()).unwrap();
    assert_eq!(found.rows.schema().fields(), arrow.fields());
}

/// `s: {x: int, y: string}`, `l: [{p: int}]`, `m: {string: int}`, in the table of before.
fn nested_before() -> Vec<NestedFieldRef> {
    use PrimitiveType as P;
    let inner = StructType::new(vec![column(5, "x", P::Int), column(6, "y", P::String)]);
    let element = StructType::new(vec![column(8, "p", P::Int)]);
    let list = ListType::new(NestedField::list_element(7, Type::Struct(element), false).into());
    let map = MapType::new(
        NestedField::map_key_element(9, Type::Primitive(P::String)).into(),
        NestedField::map_value_element(10, Type::Primitive(P::Int), false).into(),
    );
    vec![
        column(1, "id", P::Long),
        nested(2, "s", Type::Struct(inner)),
        nested(3, "l", Type::List(list)),
        nested(4, "m", Type::Map(map)),
    ]
}

/// `s: {new: string, z: string}` where y is called z and x is gone, `l: [{q: string, p: long}]`, `m: {string: long}`.
fn nested_after() -> Vec<NestedFieldRef> {
    use PrimitiveType as P;
    let inner = StructType::new(vec![column(11, "new", P::String), column(6, "z", P::String)]);
    let element = StructType::new(vec![column(12, "q", P::String), column(8, "p", P::Long)]);
    let list = ListType::new(NestedField::list_element(7, Type::Struct(element), false).into());
    let map = MapType::new(
        NestedField::map_key_element(9, Type::Primitive(P::String)).into(),
        NestedField::map_value_element(10, Type::Primitive(P::Long), false).into(),
    );
    vec![
        nested(4, "map", Type::Map(map)),
        column(1, "id", P::Long),
        nested(3, "l", Type::List(list)),
        nested(2, "s", Type::Struct(inner)),
    ]
}

fn fields_of(field: &Field) -> Fields {
    let DataType::Struct(fields) = field.data_type() else { panic!("{field:?}") };
    fields.clone()
}

/// Three rows: the values of everything, NULL in it, NULL instead of it.
fn nested_rows(schema: &Schema) -> RecordBatch {
    let arrow = schema_to_arrow_schema(schema).unwrap();
    let ints = |values: Vec<Option<i32>>| Arc::new(Int32Array::from(values)) as ArrayRef;
    let optional = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let last_is_null = || Some(NullBuffer::from(vec![true, true, false]));
    let offsets = |ends: Vec<i32>| OffsetBuffer::new(ScalarBuffer::from(ends));
    let structs = StructArray::new(
        fields_of(arrow.field(1)),
        vec![ints(vec![Some(1), None, None]), optional(vec![Some("one"), None, None])],
        last_is_null(),
    );
    let DataType::List(element) = arrow.field(2).data_type() else { panic!("a list") };
    let elements = StructArray::new(
        fields_of(element),
        vec![ints(vec![Some(10), Some(20), None])],
        Some(NullBuffer::from(vec![true, true, false])),
    );
    let lists = ListArray::new(element.clone(), offsets(vec![0, 2, 3, 3]), Arc::new(elements), last_is_null());
    let DataType::Map(entries, sorted) = arrow.field(3).data_type() else { panic!("a map") };
    let keys = Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
    let pairs = StructArray::new(fields_of(entries), vec![keys, ints(vec![Some(5), None])], None);
    let maps = MapArray::new(entries.clone(), offsets(vec![0, 2, 2, 2]), pairs, last_is_null(), *sorted);
    rows([("id", longs(&[1, 2, 3])), ("s", Arc::new(structs)), ("l", Arc::new(lists)), ("m", Arc::new(maps))])
}

#[tokio::test]
async fn nested_fields_are_found_by_their_ids_and_widened() {
    let mut rig = Rig::new(schema(nested_before()), nothing(), FormatVersion::V2);
    let ids = ["s.x", "s.y", "l.element", "l.element.p", "m.key", "m.value"].map(|name| rig.id(name));
    assert_eq!(ids, [5, 6, 7, 8, 9, 10]);
    let data = rig.data(&nested_rows(rig.schema())).await;
    rig.commit(data, vec![], &[]).await;
    rig.alter(schema(nested_after()));

    let found = find(&mut rig.base(), &[1], &rows([("id", longs(&[3, 2, 1]))]), &[2, 3, 4]).await.unwrap();
    assert_eq!(found.places, [Some(2), Some(1), Some(0)]);
    let structs = found.rows.column(0).as_struct();
    assert_eq!((structs.is_null(0), structs.is_null(1), structs.is_null(2)), (false, false, true));
    assert_eq!(structs.column_by_name("new").unwrap().null_count(), 3);
    let renamed = structs.column_by_name("z").unwrap().as_string::<i32>();
    assert_eq!((renamed.value(0), renamed.is_null(1)), ("one", true));
    let lists = found.rows.column(1).as_list::<i32>();
    assert_eq!((lists.value_length(0), lists.value_length(1), lists.is_null(2)), (2, 1, true));
    let elements = lists.values().as_struct();
    assert!(elements.is_null(2));
    let widened = elements.column_by_name("p").unwrap().as_primitive::<Int64Type>();
    assert_eq!((widened.value(0), widened.value(1)), (10, 20));
    assert_eq!(elements.column_by_name("q").unwrap().null_count(), 3);
    let maps = found.rows.column(2).as_map();
    assert_eq!((maps.value_length(0), maps.value_length(1), maps.is_null(2)), (2, 0, true));
    assert_eq!(maps.keys().as_string::<i32>().value(1), "b");
    let values = maps.values().as_primitive::<Int64Type>();
    assert_eq!((values.value(0), values.is_null(1)), (5, true));
}

#[tokio::test]
async fn a_struct_of_which_no_field_is_left_is_null_where_it_was() {
    let mut rig = Rig::new(schema(nested_before()), nothing(), FormatVersion::V2);
    let data = rig.data(&nested_rows(rig.schema())).await;
    rig.commit(data, vec![], &[]).await;
    let mut fields = nested_before();
    let inner = StructType::new(vec![column(11, "new", PrimitiveType::Int)]);
    fields[1] = nested(2, "s", Type::Struct(inner));
    rig.alter(schema(fields));
    let found = find(&mut rig.base(), &[1], &rows([("id", longs(&[1, 2, 3]))]), &[2]).await.unwrap();
    let structs = found.rows.column(0).as_struct();
    assert_eq!((structs.is_null(0), structs.is_null(1), structs.is_null(2)), (false, false, true));
    assert_eq!(structs.column(0).as_primitive::<Int32Type>().null_count(), 3);
}

#[tokio::test]
async fn rows_before_a_column_have_what_the_table_says() {
    let mut notes = Notes::new(FormatVersion::V3);
    notes.upsert(&[(1, "a")]).await;
    let default = NestedField::optional(3, "n", Type::Primitive(PrimitiveType::Long));
    let fields = [
        column(ID, "id", PrimitiveType::Long),
        column(NOTE, "note", PrimitiveType::String),
        Arc::new(default.with_initial_default(Literal::long(42))),
        column(4, "empty", PrimitiveType::Long),
    ];
    notes.0.alter(schema(fields));
    let columns = [("id", longs(&[2])), ("note", texts(&["b"])), ("n", longs(&[7])), ("empty", longs(&[8]))];
    let data = notes.0.data(&rows(columns)).await;
    notes.0.commit(data, vec![], &[]).await;
    let found = find(&mut notes.0.base(), &[ID], &rows([("id", longs(&[1, 2]))]), &[3, 4]).await.unwrap();
    let value = |column: usize, key: usize| {
        let values = found.rows.column(column).as_primitive::<Int64Type>();
        let row = found.places[key].unwrap();
        values.is_valid(row).then(|| values.value(row))
    };
    assert_eq!([value(0, 0), value(1, 0), value(0, 1), value(1, 1)], [Some(42), None, Some(7), Some(8)]);
}

#[tokio::test]
async fn a_type_that_cannot_have_become_the_tables_is_refused() {
    let mut notes = Notes::new(FormatVersion::V2);
    notes.upsert(&[(1, "a")]).await;
    // Some catalogs let this pass.
    notes.0.alter(schema([column(ID, "id", PrimitiveType::Long), column(NOTE, "note", PrimitiveType::Date)]));
    let error = find(&mut notes.0.base(), &[ID], &rows([("id", longs(&[1]))]), &[NOTE]).await.unwrap_err();
    let said = error.to_string();
    assert_eq!(error.kind(), philotes_sdk::ErrorKind::Data);
    assert!(said.contains(".parquet: column \"note\" has the type Utf8") && said.contains("date"), "{said}");
}
