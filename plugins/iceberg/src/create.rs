//! New tables: what they are given, and the namespaces that they need.

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{FormatVersion, SortOrder, UnboundPartitionSpec};
use iceberg::{NamespaceIdent, TableCreation, TableIdent};
use philotes_sdk::{Error, Result};

use crate::catalog::{Catalog, CatalogErrorKind, LoadedTable};
use crate::partition::{self, PartitionField};
use crate::schema;
use crate::sort::{self, SortField};
use crate::upsert;

/// What new tables are given: metadata files stay bounded, and other writers compress as this one does.
const PROPERTIES: [(&str, &str); 3] = [
    ("write.metadata.delete-after-commit.enabled", "true"),
    ("write.metadata.previous-versions-max", "50"),
    ("write.parquet.compression-codec", "zstd"),
];

/// How new tables are made.
#[derive(Clone, Debug)]
pub(crate) struct Making {
    pub(crate) format_version: FormatVersion,
    pub(crate) partition_by: Vec<PartitionField>,
    pub(crate) sort_by: Vec<SortField>,
}

/// What a new table is to be.
#[derive(Debug)]
pub(crate) struct Design {
    pub(crate) schema: iceberg::spec::Schema,
    pub(crate) partition_spec: UnboundPartitionSpec,
    pub(crate) sort_order: SortOrder,
    /// What is to be said of partition fields that are not called as the configuration calls them.
    pub(crate) renamed: Vec<String>,
}

impl Making {
    /// A plain table of version 2.
    pub(crate) fn plain() -> Self {
        Self { format_version: FormatVersion::V2, partition_by: Vec::new(), sort_by: Vec::new() }
    }

    /// The table for rows of this schema, in mode upsert with the places of its key's columns.
    ///
    /// # Errors
    /// Data: a column that no table can have. Config: a partition or sort field that does not fit the columns, or a column of the
    /// key that cannot identify rows.
    pub(crate) fn design(&self, arrow: &ArrowSchema, key: Option<&[usize]>) -> Result<Design> {
        let mut schema = schema::table_schema(arrow)?;
        if let Some(key) = key {
            let fields = schema.as_struct().fields();
            let ids: Vec<i32> = key.iter().map(|place| fields[*place].id).collect();
            schema = upsert::identified(&schema, &ids)?;
        }
        let named = partition::with_free_names(&self.partition_by, |name| schema.field_by_name(name).is_some());
        let renamed = self.partition_by.iter().zip(&named).filter(|(wanted, named)| wanted.name != named.name);
        let renamed = renamed
            .map(|(wanted, named)| {
                format!(
                    "partition_by: the partition field of \"{wanted}\" is called {:?}: {:?} is a column",
                    named.name, wanted.name
                )
            })
            .collect();
        let partition_spec = partition::bind(&named, &schema)?;
        let sort_order = sort::bind(&self.sort_by, &schema)?;
        Ok(Design { schema, partition_spec, sort_order, renamed })
    }
}

/// Creates a table for rows of this schema and, in mode upsert, this key, and its namespaces. `None` where somebody else may have created it: it is to be
/// loaded.
pub(crate) async fn create_table(
    catalog: &dyn Catalog,
    name: &TableIdent,
    making: &Making,
    (arrow, key): (&ArrowSchema, Option<&[usize]>),
) -> Result<Option<LoadedTable>> {
    let Design { schema, partition_spec, sort_order, renamed } = making.design(arrow, key)?;
    create_namespaces(catalog, name.namespace()).await?;
    let properties = PROPERTIES.into_iter().chain(key.is_some().then_some(upsert::MODE));
    let creation = TableCreation::builder()
        .name(name.name().to_owned())
        .schema(schema)
        .partition_spec(partition_spec)
        .sort_order_opt((!sort_order.is_unsorted()).then_some(sort_order))
        .properties(properties.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .format_version(making.format_version)
        .build();
    match catalog.create_table(name.namespace(), creation).await {
        Ok(created) => {
            for note in renamed {
                tracing::warn!(table = %name, "{note}");
            }
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
