//! New tables: what they are given, and the namespaces that they need.

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{FormatVersion, TableMetadata, UnboundPartitionSpec};
use iceberg::{NamespaceIdent, TableCreation, TableIdent};
use philotes_sdk::{Error, ErrorKind, Result};

use crate::catalog::{Catalog, CatalogErrorKind, LoadedTable};
use crate::partition::{self, PartitionField};
use crate::schema;

/// What new tables are given: metadata files stay bounded, and other writers compress as this one does.
const PROPERTIES: [(&str, &str); 3] = [
    ("write.metadata.delete-after-commit.enabled", "true"),
    ("write.metadata.previous-versions-max", "50"),
    ("write.parquet.compression-codec", "zstd"),
];

/// Creates a table for rows of this schema, and its namespaces. `None` where somebody else may have created it: it is to be
/// loaded.
pub(crate) async fn create_table(
    catalog: &dyn Catalog,
    name: &TableIdent,
    partition_by: &[PartitionField],
    arrow: &ArrowSchema,
) -> Result<Option<LoadedTable>> {
    let (schema, partition_spec) = design(partition_by, arrow)?;
    create_namespaces(catalog, name.namespace()).await?;
    let creation = TableCreation::builder()
        .name(name.name().to_owned())
        .schema(schema)
        .partition_spec(partition_spec)
        .properties(PROPERTIES.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .format_version(FormatVersion::V2)
        .build();
    match catalog.create_table(name.namespace(), creation).await {
        Ok(created) => {
            tracing::info!(table = %name, location = created.metadata.location(), "created the table");
            Ok(Some(created))
        }
        Err(error) if matches!(error.kind(), CatalogErrorKind::AlreadyExists | CatalogErrorKind::Unknown) => {
            tracing::debug!(table = %name, %error, "looking for the table before it is created again");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Schema and partition spec of a new table for rows of this schema.
pub(crate) fn design(
    partition_by: &[PartitionField],
    arrow: &ArrowSchema,
) -> Result<(iceberg::spec::Schema, UnboundPartitionSpec)> {
    let schema = schema::table_schema(arrow)?;
    let spec = partition::bind(partition_by, &schema)?;
    Ok((schema, spec))
}

/// Refuses a table of a format that this sink does not write.
pub(crate) fn check_format(name: &TableIdent, metadata: &TableMetadata) -> Result<()> {
    match metadata.format_version() {
        FormatVersion::V2 => Ok(()),
        other => {
            Err(Error::new(ErrorKind::Config, format!("table {name} has format version {}; allowed is 2", other as u8)))
        }
    }
}

/// Creates a namespace and those above it where they are missing.
async fn create_namespaces(catalog: &dyn Catalog, namespace: &NamespaceIdent) -> Result<()> {
    for depth in 1..=namespace.len() {
        let level = NamespaceIdent::from_vec(namespace[..depth].to_vec())
            .map_err(|e| Error::internal("a namespace without a name").with_source(e))?;
        if catalog.namespace_exists(&level).await? {
            continue;
        }
        match catalog.create_namespace(&level).await {
            Ok(()) => {}
            Err(error) if error.kind() == CatalogErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
