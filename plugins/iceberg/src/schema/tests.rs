mod numbered;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Int16Array, Int32Array,
    Int64Array, LargeStringArray, ListArray, MapArray, RecordBatch, StringArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Fields, Float64Type, Int32Type, Int64Type, Schema as ArrowSchema, TimeUnit,
};
use iceberg::spec::{NestedField, PrimitiveType, Schema, StructType, Type};
use philotes_sdk::ErrorKind;
use philotes_sdk::batch::META_SOURCE_TYPE;

use super::*;

fn arrow(fields: Vec<Field>) -> ArrowSchema {
    ArrowSchema::new(fields)
}

fn one(name: &str, r#type: DataType) -> ArrowSchema {
    arrow(vec![Field::new(name, r#type, true)])
}

fn uuid(name: &str) -> Field {
    let metadata = HashMap::from([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())]);
    Field::new(name, DataType::FixedSizeBinary(16), true).with_metadata(metadata)
}

fn map_type() -> DataType {
    let entries = Fields::from(vec![Field::new("k", DataType::Utf8, false), Field::new("v", DataType::Int64, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

fn timestamp(zone: Option<&str>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
}

fn table(fields: Vec<NestedField>) -> Schema {
    Schema::builder().with_schema_id(3).with_fields(fields.into_iter().map(Arc::new)).build().unwrap()
}

fn primitive(r#type: PrimitiveType) -> Type {
    Type::Primitive(r#type)
}

fn decimal(precision: u32, scale: u32) -> Type {
    primitive(PrimitiveType::Decimal { precision, scale })
}

/// What has to change under `evolve: additive`, without numbers.
fn evolve(table: &Schema, arrow: &ArrowSchema, last_column_id: i32) -> Result<Option<(Schema, Vec<Change>)>> {
    let nothing = BTreeSet::new();
    let wish = Wish {
        arrow,
        policy: Policy::Additive,
        late: false,
        known: None,
        nulls: &nothing,
        fixed: &nothing,
        last_column_id,
    };
    let fitted = super::evolve(table, &wish)?;
    Ok(fitted.schema.map(|schema| (schema, fitted.changes)))
}

fn data_error<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    error.to_string()
}

#[test]
fn every_type_of_the_map_has_its_counterpart() {
    let cases = [
        (DataType::Boolean, "boolean"),
        (DataType::Int8, "int"),
        (DataType::Int16, "int"),
        (DataType::Int32, "int"),
        (DataType::Int64, "long"),
        (DataType::Float32, "float"),
        (DataType::Float64, "double"),
        (DataType::Decimal128(38, 0), "decimal(38, 0)"),
        (DataType::Decimal128(9, 9), "decimal(9, 9)"),
        (DataType::Date32, "date"),
        (DataType::Time64(TimeUnit::Microsecond), "time"),
        (timestamp(None), "timestamp"),
        (timestamp(Some("UTC")), "timestamptz"),
        (timestamp(Some("+00:00")), "timestamptz"),
        (DataType::Utf8, "string"),
        (DataType::LargeUtf8, "string"),
        (DataType::Binary, "binary"),
        (DataType::LargeBinary, "binary"),
        (DataType::FixedSizeBinary(16), "fixed(16)"),
        (DataType::FixedSizeBinary(3), "fixed(3)"),
        (DataType::new_list(DataType::Utf8, true), "list<string>"),
        (map_type(), "map<string, long>"),
        (DataType::Struct(Fields::from(vec![Field::new("a", DataType::Int32, true)])), "struct<a: int>"),
    ];
    for (from, to) in cases {
        let schema = table_schema(&one("c", from.clone())).unwrap();
        let field = &schema.as_struct().fields()[0];
        assert_eq!(type_name(&field.field_type), to, "{from}");
        assert!(!field.required);
    }
    let schema = table_schema(&arrow(vec![uuid("u")])).unwrap();
    assert_eq!(*schema.as_struct().fields()[0].field_type, primitive(PrimitiveType::Uuid));
}

#[test]
fn a_type_without_a_counterpart_is_refused_by_name() {
    let refused = [
        DataType::UInt64,
        DataType::Null,
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Timestamp(TimeUnit::Second, None),
        timestamp(Some("Europe/Paris")),
        DataType::Decimal128(10, -2),
        DataType::Decimal256(40, 2),
    ];
    for r#type in refused {
        let message = data_error(table_schema(&one("odd", r#type.clone())));
        assert!(message.contains("\"odd\"") && message.contains(&r#type.to_string()), "{message}");
        assert!(message.contains("allowed are boolean"), "{message}");
    }
    let nested = DataType::Struct(Fields::from(vec![Field::new("deep", DataType::UInt8, true)]));
    assert!(data_error(table_schema(&one("outer", nested))).contains("\"outer.deep\""));
}

#[test]
fn names_that_a_table_cannot_have_are_refused() {
    assert!(data_error(table_schema(&one("_pos", DataType::Int32))).contains("reserved by Iceberg"));
    assert!(data_error(table_schema(&one("_Row_ID", DataType::Int32))).contains("\"_Row_ID\""));
    assert!(data_error(table_schema(&one("", DataType::Int32))).contains("empty name"));
    let twice = arrow(vec![Field::new("Id", DataType::Int32, true), Field::new("id", DataType::Int32, true)]);
    assert!(data_error(table_schema(&twice)).contains("differ only in case"));
    let inner = vec![Field::new("x", DataType::Int32, true), Field::new("X", DataType::Int32, true)];
    assert!(data_error(table_schema(&one("s", DataType::Struct(inner.into())))).contains("\"s.x\""));
    table_schema(&one("pos", DataType::Int32)).expect("only delete files have a pos");
}

#[test]
fn field_ids_are_unique_and_a_level_precedes_what_is_beneath_it() {
    let inner = DataType::Struct(Fields::from(vec![
        Field::new("a", DataType::new_list(DataType::Int32, true), true),
        Field::new("b", DataType::Int32, true),
    ]));
    let schema = table_schema(&arrow(vec![
        Field::new("s", inner, false),
        Field::new("m", map_type(), true),
        Field::new("z", DataType::Int32, false).with_metadata([(META_SOURCE_TYPE.into(), "int4".into())].into()),
    ]))
    .unwrap();
    let id = |name: &str| schema.field_id_by_name(name).unwrap();
    assert_eq!((id("s"), id("m"), id("z")), (1, 2, 3));
    assert_eq!((id("s.a"), id("s.b"), id("s.a.element")), (4, 5, 6));
    assert_eq!((id("m.key"), id("m.value")), (7, 8));
    let z = schema.field_by_name("z").unwrap();
    assert!(!z.required, "append tables require nothing, whatever the batch says");
    assert_eq!(z.doc.as_deref(), Some("int4"));
}

#[test]
fn a_batch_that_fits_changes_nothing() {
    let table = table(vec![
        NestedField::optional(1, "id", primitive(PrimitiveType::Long)),
        NestedField::optional(2, "price", decimal(12, 4)),
        NestedField::optional(3, "ratio", primitive(PrimitiveType::Double)),
        NestedField::optional(4, "gone", primitive(PrimitiveType::String)),
    ]);
    let batch = arrow(vec![
        Field::new("ratio", DataType::Float32, true),
        Field::new("ID", DataType::Int32, true),
        Field::new("price", DataType::Decimal128(10, 2), true),
    ]);
    assert_eq!(evolve(&table, &batch, 4).unwrap(), None);
}

#[test]
fn new_columns_are_optional_and_never_take_a_used_id() {
    let inner = StructType::new(vec![NestedField::required(3, "a", primitive(PrimitiveType::Int)).into()]);
    let list = iceberg::spec::ListType::new(NestedField::list_element(4, Type::Struct(inner), false).into());
    let old = table(vec![
        NestedField::required(1, "id", primitive(PrimitiveType::Int)),
        NestedField::optional(2, "items", Type::List(list)),
    ]);
    let item =
        DataType::Struct(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Date32, false)].into());
    let batch = arrow(vec![
        Field::new("id", DataType::Int32, false),
        Field::new("items", DataType::List(Arc::new(Field::new("item", item, true))), true),
        Field::new("note", DataType::Utf8, false),
    ]);
    let (new, changes) = evolve(&old, &batch, 40).unwrap().unwrap();
    let printed: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(printed, ["add items.element.b: date", "add note: string"]);
    assert_eq!(new.field_id_by_name("items.element.b"), Some(41));
    assert_eq!(new.field_id_by_name("note"), Some(42));
    assert_eq!(new.field_id_by_name("items.element.a"), Some(3));
    assert!(new.field_by_name("id").unwrap().required, "what is required stays so");
    assert!(!new.field_by_name("note").unwrap().required);
    assert_eq!(new.schema_id(), 3);
    assert_eq!(evolve(&new, &batch, 42).unwrap(), None, "the new schema fits");
}

#[test]
fn the_promotions_of_the_specification_widen_a_column() {
    let old = table(vec![
        NestedField::optional(1, "i", primitive(PrimitiveType::Int)),
        NestedField::optional(2, "f", primitive(PrimitiveType::Float)),
        NestedField::optional(3, "d", decimal(5, 2)),
        NestedField::optional(4, "e", decimal(10, 4)),
    ]);
    let batch = arrow(vec![
        Field::new("i", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("d", DataType::Decimal128(20, 2), true),
        // The table's scale stays, and eight digits before the point need twelve in all.
        Field::new("e", DataType::Decimal128(10, 2), true),
    ]);
    let (new, changes) = evolve(&old, &batch, 4).unwrap().unwrap();
    let printed: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        printed,
        [
            "i: int to long",
            "f: float to double",
            "d: decimal(5, 2) to decimal(20, 2)",
            "e: decimal(10, 4) to decimal(12, 4)"
        ]
    );
    assert_eq!(new.field_id_by_name("d"), Some(3));
    assert_eq!(*new.field_by_name("i").unwrap().field_type, primitive(PrimitiveType::Long));
}

#[test]
fn what_no_reader_could_follow_is_refused_with_both_types() {
    let cases = [
        (primitive(PrimitiveType::String), DataType::Int32, "string", "int"),
        (primitive(PrimitiveType::Int), DataType::Utf8, "int", "string"),
        (primitive(PrimitiveType::Long), DataType::Float64, "long", "double"),
        (primitive(PrimitiveType::Timestamp), timestamp(Some("UTC")), "timestamp", "timestamptz"),
        (primitive(PrimitiveType::Date), timestamp(None), "date", "timestamp"),
        (decimal(10, 2), DataType::Decimal128(10, 3), "decimal(10, 2)", "decimal(10, 3)"),
        (decimal(10, 4), DataType::Decimal128(38, 2), "decimal(10, 4)", "decimal(38, 2)"),
        (primitive(PrimitiveType::Uuid), DataType::FixedSizeBinary(16), "uuid", "fixed(16)"),
        (primitive(PrimitiveType::String), DataType::new_list(DataType::Utf8, true), "string", "List"),
    ];
    for (old, new, from, to) in cases {
        let table = table(vec![NestedField::optional(1, "c", old)]);
        let message = data_error(evolve(&table, &one("c", new.clone()), 1));
        let told = format!("column \"c\": the table has {from}, the batch {to}");
        assert!(message.starts_with(&told), "{message}");
        assert_eq!(data_error(Projection::new(&table, &one("c", new))), message);
    }
}

#[test]
fn a_maps_key_never_changes() {
    let entries = iceberg::spec::MapType::new(
        NestedField::map_key_element(2, primitive(PrimitiveType::Int)).into(),
        NestedField::map_value_element(3, primitive(PrimitiveType::Int), false).into(),
    );
    let table = table(vec![NestedField::optional(1, "m", Type::Map(entries))]);
    let wide = |key, value| {
        let fields = Fields::from(vec![Field::new("k", key, false), Field::new("v", value, true)]);
        one("m", DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields), false)), false))
    };
    assert!(data_error(evolve(&table, &wide(DataType::Int64, DataType::Int32), 3)).contains("\"m.key\""));
    let (_, changes) = evolve(&table, &wide(DataType::Int32, DataType::Int64), 3).unwrap().unwrap();
    assert_eq!(changes[0].to_string(), "m.value: int to long");
}

#[test]
fn columns_that_differ_only_in_case_are_not_guessed() {
    let table = table(vec![
        NestedField::optional(1, "id", primitive(PrimitiveType::Int)),
        NestedField::optional(2, "ID", primitive(PrimitiveType::Int)),
    ]);
    assert_eq!(evolve(&table, &one("ID", DataType::Int32), 2).unwrap(), None);
    let message = data_error(evolve(&table, &one("Id", DataType::Int32), 2));
    assert!(message.contains("\"id\"") && message.contains("\"ID\""), "{message}");
}

fn project(table: &Schema, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    Projection::new(table, &batch.schema())?.project(&batch)
}

fn ids(fields: &Fields, into: &mut Vec<String>) {
    for field in fields {
        into.push(field.metadata().get("PARQUET:field_id").cloned().unwrap_or_default());
        match field.data_type() {
            DataType::Struct(fields) => ids(fields, into),
            DataType::List(element) => ids(&Fields::from(vec![element.clone()]), into),
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else { panic!("entries") };
                ids(fields, into);
            }
            _ => {}
        }
    }
}

#[test]
fn a_projected_batch_has_the_tables_columns_ids_and_types() {
    let schema = table_schema(&arrow(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("missing", DataType::Utf8, true),
        Field::new("at", timestamp(Some("UTC")), true),
        Field::new("m", map_type(), true),
        Field::new("l", DataType::new_list(DataType::Int64, true), true),
        Field::new("price", DataType::Decimal128(12, 4), true),
        Field::new("ratio", DataType::Float64, true),
        Field::new("raw", DataType::Binary, true),
    ]))
    .unwrap();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(7), None]), None, Some(vec![])]);
    let keys = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let values = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let DataType::Map(entries, _) = map_type() else { unreachable!() };
    let DataType::Struct(fields) = entries.data_type().clone() else { unreachable!() };
    let pairs = StructArray::new(fields, vec![keys, values], None);
    let map = MapArray::new(entries, OffsetBuffer::from_lengths([2, 0, 1]), pairs, None, false);
    let batch = project(
        &schema,
        vec![
            ("raw", Arc::new(BinaryArray::from_vec(vec![b"x", b"yy", b""]))),
            ("price", Arc::new(Decimal128Array::from(vec![1, -2, 3]).with_precision_and_scale(10, 2).unwrap())),
            ("l", Arc::new(list)),
            ("m", Arc::new(map)),
            ("ID", Arc::new(Int16Array::from(vec![Some(-1), None, Some(9)]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, -1, 5]).with_timezone("UTC"))),
            ("ratio", Arc::new(Float32Array::from(vec![0.5, f32::NAN, -0.0]))),
        ],
    )
    .unwrap();
    let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "missing", "at", "m", "l", "price", "ratio", "raw"]);
    let mut found = Vec::new();
    ids(batch.schema().fields(), &mut found);
    assert_eq!(found, ["1", "2", "3", "4", "9", "10", "5", "11", "6", "7", "8"]);
    assert_eq!(batch.column(0).as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(-1), None, Some(9)]));
    assert_eq!(batch.column(1).null_count(), 3);
    assert_eq!(batch.column(2).data_type(), &timestamp(Some("+00:00")));
    assert_eq!(batch.column(3).as_map().value(0).column(0).as_string::<i32>(), &StringArray::from(vec!["a", "b"]));
    assert_eq!(
        batch.column(4).as_list::<i32>().value(0).as_primitive::<Int64Type>(),
        &Int64Array::from(vec![Some(7), None])
    );
    assert!(batch.column(4).is_null(1));
    assert_eq!(batch.column(5).as_primitive::<Decimal128Type>().values(), &[100, -200, 300]);
    assert_eq!(batch.column(6).as_primitive::<Float64Type>().value(0), 0.5);
    assert_eq!(batch.column(7).as_binary::<i64>().value(1), b"yy");
}

#[test]
fn a_slice_projects_as_itself() {
    let schema = table_schema(&one("l", DataType::new_list(DataType::Int64, true))).unwrap();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), Some(vec![Some(2), Some(3)])]);
    let batch = project(&schema, vec![("l", Arc::new(list.slice(1, 1)))]).unwrap();
    let projected = batch.column(0).as_list::<i32>();
    assert_eq!(projected.value(0).as_primitive::<Int64Type>().values(), &[2, 3]);
}

#[test]
fn null_in_a_required_column_is_refused() {
    let schema = table(vec![NestedField::required(1, "id", primitive(PrimitiveType::Int))]);
    let message = data_error(project(&schema, vec![("id", Arc::new(Int32Array::from(vec![Some(1), None, None])))]));
    assert_eq!(
        message,
        "column \"id\": 2 rows have NULL, and the column is required by the table, as an identifier field or by `evolve: none`"
    );
    let message = data_error(Projection::new(&schema, &arrow(vec![])));
    assert!(message.contains("\"id\" is required"), "{message}");
    project(&schema, vec![("id", Arc::new(Int32Array::from(vec![1])))]).unwrap();
}

#[test]
fn a_required_field_of_a_null_struct_is_no_fault() {
    let inner = StructType::new(vec![NestedField::required(2, "a", primitive(PrimitiveType::Int)).into()]);
    let schema = table(vec![NestedField::optional(1, "s", Type::Struct(inner))]);
    let fields = Fields::from(vec![Field::new("a", DataType::Int32, true)]);
    let structs = |values: Vec<Option<i32>>, valid: Vec<bool>| -> ArrayRef {
        let values = Arc::new(Int32Array::from(values)) as ArrayRef;
        Arc::new(StructArray::new(fields.clone(), vec![values], Some(NullBuffer::from(valid))))
    };
    let batch = project(&schema, vec![("s", structs(vec![Some(1), None], vec![true, false]))]).unwrap();
    assert_eq!(batch.column(0).null_count(), 1);
    let message = data_error(project(&schema, vec![("s", structs(vec![None, Some(2)], vec![true, false]))]));
    assert!(message.starts_with("column \"s.a\": 1 row has NULL, and the column is required"), "{message}");
}

#[test]
fn what_the_type_cannot_hold_is_never_written() {
    let schema = table(vec![NestedField::optional(1, "d", decimal(5, 2))]);
    let numbers = |values: Vec<i128>, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    project(&schema, vec![("d", numbers(vec![99_999, -99_999], 5, 2))]).unwrap();
    let message = data_error(project(&schema, vec![("d", numbers(vec![100_000, 1], 5, 2))]));
    assert_eq!(message, "column \"d\": 1 row has a number with more than the 5 digits of its type");
    let message = data_error(project(&schema, vec![("d", numbers(vec![100_000, 1], 4, 1))]));
    assert!(message.starts_with("column \"d\"") && !message.contains("100000"), "{message}");

    let schema = table(vec![NestedField::optional(1, "t", primitive(PrimitiveType::Time))]);
    project(&schema, vec![("t", Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999])))]).unwrap();
    let midnight = Arc::new(Time64MicrosecondArray::from(vec![86_400_000_000, -1]));
    assert!(data_error(project(&schema, vec![("t", midnight)])).contains("2 rows have a time"));
}

#[test]
fn a_column_unknown_to_the_table_is_refused() {
    let schema = table(vec![NestedField::optional(1, "a", primitive(PrimitiveType::Boolean))]);
    let message = data_error(project(&schema, vec![("b", Arc::new(BooleanArray::from(vec![true])))]));
    assert_eq!(message, "column \"b\" is not in the table");
    let wide = Arc::new(LargeStringArray::from(vec!["x"]));
    assert!(data_error(project(&schema, vec![("a", wide)])).contains("the table has boolean"));
}
