//! Record batches over the Arrow C Data Interface, checked before anything is believed.
//!
//! Arrow's own import trusts its input and asserts where it does not, so that every count, pointer and offset that it would
//! trust is checked here first. What the interface cannot tell (how long a buffer really is, whether memory was freed) is
//! the exporter's duty.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};

use crate::{Error, Result};

const MAX_DEPTH: usize = 32;
const MAX_CHILDREN: i64 = 16_384;
const MAX_METADATA_ENTRIES: i32 = 4_096;
const MAX_METADATA_BYTES: i32 = 1 << 20;
const MAX_LENGTH: i64 = 1 << 40;

/// How far imported rows are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// Counts, lengths and the ends of offsets: independent of the number of rows. For exporters that build valid arrays.
    Shape,
    /// Every offset and every character as well.
    Full,
}

/// Exports rows as a struct array; the rows stay alive until it is released.
#[must_use]
pub fn export_rows(rows: &RecordBatch) -> FFI_ArrowArray {
    FFI_ArrowArray::new(&StructArray::from(rows.clone()).into_data())
}

/// Imports a schema, without taking it.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) where it is none, or has a type that a change batch does not take.
///
/// # Safety
/// The struct's pointers are null or valid, and its texts end in a zero byte, as the C Data Interface says.
pub unsafe fn import_schema(schema: &FFI_ArrowSchema) -> Result<SchemaRef> {
    // SAFETY: both structs have the layout that the interface prescribes; the caller warrants the pointers.
    unsafe { check_schema(&*std::ptr::from_ref(schema).cast::<RawSchema>(), 0) }?;
    let schema = contained(|| Schema::try_from(schema)).map_err(|e| e.context("a schema cannot be imported"))?;
    for field in schema.fields() {
        check_type(field.name(), field.data_type())?;
    }
    Ok(Arc::new(schema))
}

/// Whether there is a schema in the struct: one that is not released.
#[must_use]
pub fn has_schema(schema: &FFI_ArrowSchema) -> bool {
    // SAFETY: both structs have the layout that the interface prescribes, and the reference is valid.
    unsafe { &*std::ptr::from_ref(schema).cast::<RawSchema>() }.release.is_some()
}

/// Imports rows of a schema. The array is taken, and released in case of an error.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) where the array does not match the schema or contradicts itself.
///
/// # Safety
/// The array's pointers are null or valid for the lengths that it states, as the C Data Interface says.
pub unsafe fn import_rows(array: FFI_ArrowArray, schema: &SchemaRef, validation: Validation) -> Result<RecordBatch> {
    let data_type = DataType::Struct(schema.fields().clone());
    if array.release.is_none() {
        return Err(Error::internal("a batch has no array, or a released one"));
    }
    // SAFETY: the caller warrants the pointers.
    unsafe { check_array(&array, &data_type, "the batch") }?;
    let wrong = |e: Error| e.context("a batch does not match its schema");
    contained(|| {
        // SAFETY: every count and pointer that the import follows was checked above.
        let mut data = unsafe { from_ffi_and_data_type(array, data_type) }?;
        match validation {
            Validation::Shape => data.validate()?,
            Validation::Full => {
                data.align_buffers();
                data.validate_full()?;
            }
        }
        if data.null_count() > 0 {
            return Err(ArrowError::CDataInterface("rows of a batch cannot be null".into()));
        }
        RecordBatch::try_new(Arc::clone(schema), StructArray::from(data).columns().to_vec())
    })
    .map_err(wrong)
}

/// Turns `*array` into one of two shares of what it held, and returns the other. The rows are released with the last share.
///
/// With this an array can be imported and yet stay the caller's, where the call then fails.
///
/// # Safety
/// `array` points to an array that is not released.
pub unsafe fn share(array: *mut FFI_ArrowArray) -> FFI_ArrowArray {
    // SAFETY: the caller warrants the array; it is moved out and replaced before anybody can see it twice.
    unsafe {
        let original = Arc::new(array.read());
        array.write(proxy(Arc::clone(&original)));
        proxy(original)
    }
}

fn proxy(original: Arc<FFI_ArrowArray>) -> FFI_ArrowArray {
    unsafe extern "C" fn release(array: *mut FFI_ArrowArray) {
        // SAFETY: called once per proxy by the interface's rules, with the pointer that `proxy` put there.
        unsafe {
            drop(Arc::from_raw((*array).private_data.cast::<FFI_ArrowArray>()));
            (*array).release = None;
        }
    }
    FFI_ArrowArray {
        length: original.length,
        null_count: original.null_count,
        offset: original.offset,
        n_buffers: original.n_buffers,
        n_children: original.n_children,
        buffers: original.buffers,
        children: original.children,
        dictionary: original.dictionary,
        release: Some(release),
        private_data: Arc::into_raw(original).cast_mut().cast::<c_void>(),
    }
}

/// Arrow asserts what it does not expect; at the boundary an assertion is an error.
fn contained<T>(import: impl FnOnce() -> Result<T, ArrowError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(import)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::internal(error.to_string())),
        Err(_) => Err(Error::internal("Arrow's import panicked")),
    }
}

/// Arrow's `FFI_ArrowSchema` keeps its fields private; this is the layout that the interface prescribes.
#[repr(C)]
struct RawSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut RawSchema,
    dictionary: *mut RawSchema,
    release: Option<unsafe extern "C" fn(*mut RawSchema)>,
    private_data: *mut c_void,
}

/// # Safety
/// As [`import_schema`].
unsafe fn check_schema(schema: &RawSchema, depth: usize) -> Result<()> {
    let wrong = |what: String| Err(Error::internal(format!("a schema {what}")));
    if depth > MAX_DEPTH {
        return wrong(format!("is nested more than {MAX_DEPTH} deep"));
    }
    if schema.release.is_none() && depth == 0 {
        return wrong("is released".into());
    }
    if schema.format.is_null() {
        return wrong("has no format".into());
    }
    // SAFETY: not null; the caller warrants texts that end in a zero byte.
    let Ok(format) = unsafe { CStr::from_ptr(schema.format) }.to_str() else {
        return wrong("has a format that is no valid UTF-8".into());
    };
    // SAFETY: as above.
    if !schema.name.is_null() && unsafe { CStr::from_ptr(schema.name) }.to_str().is_err() {
        return wrong("has a column name that is no valid UTF-8".into());
    }
    if !schema.metadata.is_null() {
        // SAFETY: the caller warrants metadata in the interface's encoding.
        unsafe { check_metadata(schema.metadata.cast()) }?;
    }
    let children = schema.n_children;
    if !(0..=MAX_CHILDREN).contains(&children) || (children > 0 && schema.children.is_null()) {
        return wrong(format!("has {children} children; 0 to {MAX_CHILDREN} are allowed"));
    }
    if format.starts_with('+') && !format.starts_with("+s") && children != 1 {
        return wrong(format!("has {children} children for the format {format}; it takes one"));
    }
    for index in 0..usize::try_from(children).unwrap_or(0) {
        // SAFETY: the caller warrants `n_children` pointers.
        let child = unsafe { *schema.children.add(index) };
        // SAFETY: null or valid.
        let Some(child) = (unsafe { child.as_ref() }) else { return wrong(format!("has no child {index}")) };
        // SAFETY: as above.
        unsafe { check_schema(child, depth + 1) }?;
    }
    // SAFETY: null or valid.
    match unsafe { schema.dictionary.as_ref() } {
        // SAFETY: as above.
        Some(dictionary) => unsafe { check_schema(dictionary, depth + 1) },
        None => Ok(()),
    }
}

/// Metadata: a count, then per entry a length and a key, a length and a value, all lengths 32 bits.
///
/// # Safety
/// `at` points to metadata in that encoding.
unsafe fn check_metadata(mut at: *const u8) -> Result<()> {
    // SAFETY: the caller warrants the encoding; lengths are checked before they are followed.
    let next = |at: &mut *const u8| unsafe {
        let value = at.cast::<i32>().read_unaligned();
        *at = at.add(4);
        value
    };
    let entries = next(&mut at);
    if !(0..=MAX_METADATA_ENTRIES).contains(&entries) {
        return Err(Error::internal(format!("a schema has {entries} entries of metadata")));
    }
    for _ in 0..2 * entries {
        let length = next(&mut at);
        if !(0..=MAX_METADATA_BYTES).contains(&length) {
            return Err(Error::internal(format!("a schema has a metadata text of {length} bytes")));
        }
        // SAFETY: as above.
        at = unsafe { at.add(usize::try_from(length).unwrap_or(0)) };
    }
    Ok(())
}

/// Which types a change batch takes.
fn check_type(column: &str, data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::Utf8View
        | DataType::BinaryView
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..) => Err(Error::internal(format!(
            "column {column:?} has the type {data_type}; a change batch takes no views, unions or run-end encoding"
        ))),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            check_type(column, field.data_type())
        }
        DataType::Map(field, _) => check_type(column, field.data_type()),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check_type(column, field.data_type())),
        DataType::Dictionary(_, values) => check_type(column, values),
        _ => Ok(()),
    }
}

/// How many buffers and children an array of a type has, and how wide the offsets in buffer 1 are.
fn layout(data_type: &DataType) -> (i64, i64, Option<usize>) {
    match data_type {
        DataType::Null => (0, 0, None),
        DataType::Utf8 | DataType::Binary => (3, 0, Some(4)),
        DataType::LargeUtf8 | DataType::LargeBinary => (3, 0, Some(8)),
        DataType::List(_) | DataType::Map(..) => (2, 1, Some(4)),
        DataType::LargeList(_) => (2, 1, Some(8)),
        DataType::FixedSizeList(..) => (1, 1, None),
        DataType::Struct(fields) => (1, i64::try_from(fields.len()).unwrap_or(i64::MAX), None),
        _ => (2, 0, None),
    }
}

/// # Safety
/// As [`import_rows`].
unsafe fn check_array(array: &FFI_ArrowArray, data_type: &DataType, column: &str) -> Result<()> {
    let wrong = |what: String| Err(Error::internal(format!("{column} ({data_type}): {what}")));
    let (buffers, children, offset_width) = layout(data_type);
    if array.length < 0 || array.offset < 0 || array.length > MAX_LENGTH || array.offset > MAX_LENGTH {
        return wrong(format!("impossible length {} or offset {}", array.length, array.offset));
    }
    if array.null_count < -1 || array.null_count > array.length {
        return wrong(format!("impossible null count {} of {} rows", array.null_count, array.length));
    }
    if array.n_buffers != buffers || (buffers > 0 && array.buffers.is_null()) {
        return wrong(format!("{} buffers instead of {buffers}", array.n_buffers));
    }
    if array.n_children != children || (children > 0 && array.children.is_null()) {
        return wrong(format!("{} children instead of {children}", array.n_children));
    }
    if array.dictionary.is_null() == matches!(data_type, DataType::Dictionary(..)) {
        return wrong("a dictionary is missing, or there is one too many".into());
    }
    // SAFETY: `n_buffers` is as the type wants it, and the caller warrants as many pointers.
    let buffer = |index: usize| unsafe { *array.buffers.add(index) };
    if array.null_count > 0 && buffers > 0 && buffer(0).is_null() {
        return wrong("nulls without a validity buffer".into());
    }
    let slots = usize::try_from(array.length + array.offset).unwrap_or(usize::MAX);
    if buffers > 1 && slots > 0 && buffer(1).is_null() {
        return wrong("buffer 1 is missing".into());
    }
    if let Some(width) = offset_width
        && !buffer(1).is_null()
    {
        if buffer(1).addr() % width != 0 {
            return wrong("the offsets are not aligned".into());
        }
        // An array without rows need not have offsets at all.
        if array.length > 0 {
            // SAFETY: aligned, and the caller warrants one offset more than there are slots.
            let last = unsafe {
                if width == 4 {
                    i64::from(*buffer(1).cast::<i32>().add(slots))
                } else {
                    *buffer(1).cast::<i64>().add(slots)
                }
            };
            if last < 0 {
                return wrong(format!("the last offset is {last}"));
            }
            if buffers > 2 && last > 0 && buffer(2).is_null() {
                return wrong("buffer 2 is missing".into());
            }
        }
    }
    if let DataType::Dictionary(_, values) = data_type {
        // SAFETY: not null, as checked above.
        return unsafe { check_array(&*array.dictionary, values, column) };
    }
    for (index, (name, child_type)) in children_of(data_type).enumerate() {
        // SAFETY: `n_children` is as the type wants it; each pointer is null or valid.
        let Some(child) = (unsafe { (*array.children.add(index)).as_ref() }) else {
            return wrong(format!("child {index} is NULL"));
        };
        let least = match data_type {
            DataType::Struct(_) => array.length + array.offset,
            DataType::FixedSizeList(_, size) => (array.length + array.offset).saturating_mul(i64::from(*size)),
            _ => 0,
        };
        if child.length < least {
            return wrong(format!("{} rows in child {name:?}, at least {least} are needed", child.length));
        }
        // SAFETY: as above.
        unsafe { check_array(child, child_type, &format!("column {name:?}")) }?;
    }
    Ok(())
}

fn children_of(data_type: &DataType) -> impl Iterator<Item = (&str, &DataType)> {
    let (one, many) = match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => (Some(field), None),
        DataType::Struct(fields) => (None, Some(fields)),
        _ => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten()).map(|field| (field.name().as_str(), field.data_type()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Field, Int32Type};

    fn rows() -> RecordBatch {
        let list =
            ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
        let decimal = Decimal128Array::from(vec![Some(1), None, Some(-7)]).with_precision_and_scale(12, 2).unwrap();
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef, false),
            ("name", Arc::new(StringArray::from(vec![Some("a"), None, Some("größer")])), true),
            ("list", Arc::new(list), true),
            ("amount", Arc::new(decimal), true),
        ])
        .unwrap()
    }

    /// Exports, damages and imports.
    fn import(rows: &RecordBatch, damage: impl FnOnce(&mut FFI_ArrowArray)) -> Result<RecordBatch> {
        let mut array = export_rows(rows);
        damage(&mut array);
        // SAFETY: exported by Arrow; the damage is to counts only, which are checked first.
        unsafe { import_rows(array, &rows.schema(), Validation::Full) }
    }

    fn child(array: &mut FFI_ArrowArray, index: usize) -> &mut FFI_ArrowArray {
        // SAFETY: exported by Arrow, with as many children as the tests ask for.
        unsafe { &mut **array.children.add(index) }
    }

    #[test]
    fn rows_and_schemas_come_back_as_they_were() {
        let rows = rows();
        assert_eq!(import(&rows, |_| {}).unwrap(), rows);
        let slice = rows.slice(1, 2);
        assert_eq!(import(&slice, |_| {}).unwrap(), slice);
        assert_eq!(import(&rows.slice(0, 0), |_| {}).unwrap().num_rows(), 0);

        let mut metadata = std::collections::HashMap::new();
        metadata.insert("philotes.key".to_owned(), "[\"id\"]".to_owned());
        let schema = Schema::new(rows.schema().fields().clone()).with_metadata(metadata);
        // SAFETY: exported by Arrow.
        let back = unsafe { import_schema(&FFI_ArrowSchema::try_from(&schema).unwrap()) }.unwrap();
        assert_eq!(*back, schema);
    }

    #[test]
    fn damaged_arrays_are_refused() {
        let rows = rows();
        type Damage = fn(&mut FFI_ArrowArray);
        let damages: [(Damage, &str); 11] = [
            (|a| a.length = -1, "impossible length"),
            (|a| a.length = i64::MAX, "impossible length"),
            (|a| a.length = 4, "at least 4 are needed"),
            (|a| a.n_children = 3, "3 children instead of 4"),
            (|a| a.n_buffers = 7, "7 buffers instead of 1"),
            (|a| child(a, 0).n_buffers = 1, "1 buffers instead of 2"),
            (|a| child(a, 1).null_count = 9, "impossible null count"),
            (|a| child(a, 0).null_count = 1, "nulls without a validity buffer"),
            (|a| child(a, 0).length = 2, "at least 3 are needed"),
            (|a| child(a, 1).buffers = std::ptr::null_mut(), "3 buffers instead of 3"),
            (|a| child(a, 2).children = std::ptr::null_mut(), "1 children instead of 1"),
        ];
        for (damage, expected) in damages {
            let mut array = export_rows(&rows);
            damage(&mut array);
            // SAFETY: exported by Arrow; the damage is to counts only, which are checked first.
            let message = unsafe { import_rows(array, &rows.schema(), Validation::Full) }.unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} should say {expected:?}");
        }
    }

    #[test]
    fn an_array_of_another_schema_is_refused() {
        let other = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, false)]));
        let one = rows().project(&[0]).unwrap();
        // SAFETY: exported by Arrow.
        let message = unsafe { import_rows(export_rows(&one), &other, Validation::Shape) }.unwrap_err().to_string();
        assert!(message.contains("2 buffers instead of 3"), "{message}");

        let nulls = rows().project(&[1]).unwrap();
        let required = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, false)]));
        // SAFETY: exported by Arrow.
        let message =
            unsafe { import_rows(export_rows(&nulls), &required, Validation::Shape) }.unwrap_err().to_string();
        assert!(message.contains("null"), "{message}");
    }

    #[test]
    fn full_validation_sees_what_the_shape_does_not_show() {
        let bytes = arrow::array::BinaryArray::from(vec![b"\xff\xfe".as_slice()]);
        let bytes = RecordBatch::try_from_iter([("c", Arc::new(bytes) as ArrayRef)]).unwrap();
        let text = Arc::new(Schema::new(vec![Field::new("c", DataType::Utf8, true)]));
        // SAFETY: exported by Arrow; binary and text have the same layout.
        let message = unsafe { import_rows(export_rows(&bytes), &text, Validation::Full) }.unwrap_err().to_string();
        assert!(message.to_lowercase().contains("utf"), "{message}");
    }

    #[test]
    fn types_that_no_batch_takes_are_refused_by_column() {
        let schema = Schema::new(vec![Field::new("v", DataType::Utf8View, true)]);
        // SAFETY: exported by Arrow.
        let message = unsafe { import_schema(&FFI_ArrowSchema::try_from(&schema).unwrap()) }.unwrap_err().to_string();
        assert!(message.contains("\"v\"") && message.contains("no views"), "{message}");
        // SAFETY: a released schema has null pointers only.
        assert!(unsafe { import_schema(&FFI_ArrowSchema::empty()) }.is_err());
    }

    #[test]
    fn shares_release_the_rows_with_the_last_of_them() {
        let rows = rows();
        let column = Arc::downgrade(&(rows.column(0).clone()));
        let mut array = export_rows(&rows);
        // SAFETY: just exported.
        let taken = unsafe { share(&raw mut array) };
        // SAFETY: a share of it.
        let imported = unsafe { import_rows(taken, &rows.schema(), Validation::Full) }.unwrap();
        assert_eq!(imported, rows);
        drop(imported);
        assert!(array.release.is_some());
        // SAFETY: the other share.
        let again = unsafe { import_rows(array, &rows.schema(), Validation::Full) }.unwrap();
        assert_eq!(again, rows);
        drop((again, rows));
        assert!(column.upgrade().is_none());
    }
}
