"""Reads Iceberg tables as PyIceberg or DuckDB sees them; protocol.py says how one asks, and in which form cells come.

The argument: the folder of DuckDB's extensions.
"""

import sqlite3
import sys
import time
import uuid

from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from duckdb_extensions import import_extension
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.types import ListType, NestedField, StructType, UUIDType

from protocol import serve, text


@cache
def duckdb_for(storage):
    """A DuckDB for one storage: what it remembers of a place it would take for true of the same place in another."""
    connection = duckdb.connect(config={"extension_directory": EXTENSIONS})
    for extension in ("avro", "httpfs", "iceberg"):
        import_extension(extension, con=connection)
        connection.load_extension(extension)
    return connection


def cells(column):
    """The cells of an Arrow array."""
    if isinstance(column, pa.ChunkedArray):
        return [cell for chunk in column.chunks for cell in cells(chunk)]
    kind = column.type
    if isinstance(kind, pa.ExtensionType):
        if kind.extension_name == "arrow.uuid":
            return [None if v is None else str(uuid.UUID(bytes=v)) for v in column.storage.to_pylist()]
        return cells(column.storage)
    # As the numbers that they are: Python's own times end with the year 9999 and know no infinity.
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", tz=kind.tz)).cast(pa.int64())
    elif pa.types.is_time(kind):
        column = column.cast(pa.time64("us")).cast(pa.int64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_map(kind):
        keys, values, offsets = cells(column.keys), cells(column.items), column.offsets.to_pylist()
        return [
            dict(zip(keys[start:end], values[start:end])) if valid else None
            for start, end, valid in zip(offsets, offsets[1:], column.is_valid().to_pylist())
        ]
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values, offsets = cells(column.values), column.offsets.to_pylist()
        return [
            values[start:end] if valid else None
            for start, end, valid in zip(offsets, offsets[1:], column.is_valid().to_pylist())
        ]
    elif pa.types.is_struct(kind):
        children = {kind.field(i).name: cells(column.field(i)) for i in range(kind.num_fields)}
        return [
            {name: child[i] for name, child in children.items()} if valid else None
            for i, valid in enumerate(column.is_valid().to_pylist())
        ]
    return [None if value is None else text(value) for value in column.to_pylist()]


def printed(kind):
    """A type's name, without the ids and comments of what is in it."""
    if isinstance(kind, ListType):
        return f"list<{printed(kind.element_type)}>"
    if isinstance(kind, StructType):
        fields = (f"{f.name}: {'required' if f.required else 'optional'} {printed(f.field_type)}" for f in kind.fields)
        return f"struct<{', '.join(fields)}>"
    return str(kind)


def parquet_ids(fields, prefix=""):
    """The field ids in a Parquet file by the path of the column; 0 where there is none."""
    ids = {}
    for field in fields:
        path = prefix + field.name
        ids[path] = int((field.metadata or {}).get(b"PARQUET:field_id", 0))
        if pa.types.is_list(field.type):
            element = field.type.value_field
            ids |= parquet_ids([element.with_name("element")], path + ".")
        elif pa.types.is_struct(field.type):
            ids |= parquet_ids(field.type, path + ".")
    return ids


def file_faults(told, file, schema):
    """What is wrong in what a manifest tells of a Parquet file; the elements of lists may go without metrics."""
    logical = {file.schema.column(i).path: file.schema.column(i).logical_type.type for i in range(len(file.schema))}
    if told.record_count != file.metadata.num_rows:
        yield f"{told.record_count} rows are told, {file.metadata.num_rows} are there"
    for field in schema.fields:
        if not field.field_type.is_primitive:
            continue
        if isinstance(field.field_type, UUIDType) and logical[field.name] != "UUID":
            yield f"{field.name} is no UUID but {logical[field.name]}"
        # As numbers where bounds are numbers, as bytes where they are bytes.
        column = file.read([field.name]).column(0).combine_chunks()
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.int32() if pa.types.is_date32(column.type) else pa.int64())
        # NaN, which is not itself, is in no bound.
        values = [value for value in column.to_pylist() if value is not None and value == value]
        for name, counts, there in (
            ("values", told.value_counts, len(column)), ("nulls", told.null_value_counts, column.null_count)
        ):
            if (counts or {}).get(field.field_id) != there:
                yield f"{field.name}: {(counts or {}).get(field.field_id)} {name} are told, {there} are there"
        if not values:
            continue
        bounds = [(bounds or {}).get(field.field_id) for bounds in (told.lower_bounds, told.upper_bounds)]
        if None in bounds:
            # Where no bound of a uuid would hold for every reader there is none.
            if not isinstance(field.field_type, UUIDType):
                yield f"{field.name} has no bounds"
            continue
        lower, upper = (from_bytes(field.field_type, bound) for bound in bounds)
        if isinstance(lower, uuid.UUID):
            lower, upper = lower.bytes, upper.bytes
        if min(values) < lower or max(values) > upper:
            yield f"{field.name}: the bounds {lower!r} and {upper!r} do not hold for {min(values)!r} and {max(values)!r}"


def answer_of(table):
    columns = [cells(table.column(i)) for i in range(table.num_columns)]
    return {"columns": table.column_names, "rows": [list(row) for row in zip(*columns)]}


def pyiceberg_catalog(request):
    catalog, properties = request["catalog"], {}
    if catalog["storage"]:
        properties = {
            "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
            "s3.endpoint": catalog["storage"]["endpoint"],
            "s3.access-key-id": catalog["storage"]["access_key"],
            "s3.secret-access-key": catalog["storage"]["secret_key"],
            "s3.region": catalog["storage"]["region"],
            "s3.force-virtual-addressing": "false",
        }
    if catalog["type"] == "sqlite":
        uri, warehouse = "sqlite:///" + catalog["file"], request.get("warehouse") or ""
        return SqlCatalog("philotes", uri=uri, warehouse=warehouse, **properties)
    return RestCatalog("philotes", uri=catalog["uri"], warehouse=catalog["warehouse"], **properties)


class PyIceberg:
    def __init__(self, request):
        self.catalog = pyiceberg_catalog(request)
        if request["op"] != "create":
            self.table = self.catalog.load_table(request["table"])

    def rows(self, request):
        columns = request.get("columns")
        rows = self.table.scan(selected_fields=tuple(columns or ["*"])).to_arrow()
        return answer_of(rows.select(columns) if columns else rows)

    def query(self, request):
        t = self.table.scan().to_arrow()
        duckdb_for(None).register("t", t)
        try:
            return answer_of(duckdb_for(None).sql(request["sql"]).to_arrow_table())
        finally:
            duckdb_for(None).unregister("t")

    def schema(self, request):
        identifiers = set(self.table.schema().identifier_field_ids)
        return [
            {"id": f.field_id, "name": f.name, "type": printed(f.field_type), "required": f.required,
             "identifier": f.field_id in identifiers}
            for f in self.table.schema().fields
        ]

    def partitions(self, request):
        schema = self.table.schema()
        return [f"{f.transform}({schema.find_column_name(f.source_id)}) as {f.name}" for f in self.table.spec().fields]

    def snapshots(self, request):
        return [
            {"id": str(s.snapshot_id), "parent": s.parent_snapshot_id and str(s.parent_snapshot_id),
             "sequence": s.sequence_number, "timestamp_ms": s.timestamp_ms, "operation": s.summary.operation.value,
             "summary": s.summary.additional_properties}
            for s in sorted(self.table.snapshots(), key=lambda s: s.sequence_number)
        ]

    def live(self):
        """What the manifests say of the live files, each with the id of its partition specification."""
        snapshot = self.table.current_snapshot()
        return [
            (entry, manifest.partition_spec_id)
            for manifest in (snapshot.manifests(self.table.io) if snapshot else [])
            for entry in manifest.fetch_manifest_entry(self.table.io)
        ]

    def entries(self):
        """What the manifests say of the live data files, in the order in which they were committed."""
        entries = [entry for entry, _ in self.live() if entry.data_file.content == DataFileContent.DATA]
        return sorted(entries, key=lambda e: e.sequence_number)

    def files(self, request):
        return [
            {"path": e.data_file.file_path, "sequence": e.sequence_number, "rows": e.data_file.record_count,
             "bytes": e.data_file.file_size_in_bytes, "format": e.data_file.file_format.value,
             "partition": [str(v) for v in e.data_file.partition]}
            for e in self.entries()
        ]

    def delete_files(self, request):
        """The live delete files, in the order in which they were committed."""
        kinds = {DataFileContent.EQUALITY_DELETES: "equality", DataFileContent.POSITION_DELETES: "position"}
        found = [(entry, entry.data_file, spec) for entry, spec in self.live() if entry.data_file.content in kinds]
        return [
            {"path": file.file_path, "kind": kinds[file.content], "sequence": entry.sequence_number,
             "snapshot": str(entry.snapshot_id), "rows": file.record_count, "spec": spec,
             "columns": file.equality_ids or []}
            for entry, file, spec in sorted(found, key=lambda f: f[0].sequence_number)
        ]

    def layout(self, request):
        """How the table is laid out, and each live data file, in the order in which they were committed."""
        found = [
            (entry.sequence_number, spec, entry.data_file)
            for entry, spec in self.live()
            if entry.data_file.content == DataFileContent.DATA
        ]
        schema = self.table.schema()
        order = [
            f"{f.transform}({schema.find_column_name(f.source_id)}) {f.direction.value} {f.null_order.value}"
            for f in self.table.sort_order().fields
        ]
        return {
            "version": self.table.metadata.format_version,
            "order": order,
            "files": [
                {"path": file.file_path, "spec": spec, "order": file.sort_order_id}
                for _, spec, file in sorted(found, key=lambda f: (f[0], f[2].file_path))
            ],
        }

    def rows_in_order(self, request):
        return answer_of(self.table_in_order(request))

    def table_in_order(self, request):
        """All rows: the files in the order of their commits, each file's rows in its own order."""
        tables = []
        for file in self.files(request):
            with self.open(file["path"]) as data:
                tables.append(pq.read_table(data))
        # Others write their texts as large ones.
        return pa.concat_tables(tables, promote_options="permissive")

    def properties(self, request):
        return self.table.properties

    def location(self, request):
        return {"table": self.table.location(), "metadata": self.table.metadata_location, "uuid": str(self.table.metadata.table_uuid)}

    def field_ids(self, request):
        """The field id of every column, nested ones by their path."""
        schema = self.table.schema()
        return {schema.find_column_name(id): id for id in sorted(schema._lazy_id_to_name)}

    def parquet_field_ids(self, request):
        """The same, as every live data file says it."""
        ids = {}
        for file in self.files(request):
            with self.open(file["path"]) as data:
                ids[file["path"]] = parquet_ids(pq.read_schema(data))
        return ids

    def file_faults(self, request):
        """What the manifests say of each live data file and its columns, against what the file holds: a line a fault."""
        faults = []
        for entry in self.entries():
            with self.open(entry.data_file.file_path) as data:
                file = pq.ParquetFile(data)
                told = file_faults(entry.data_file, file, self.table.schema())
                faults += [f"{entry.data_file.file_path}: {fault}" for fault in told]
        return faults

    def open(self, path):
        """A data file, wherever it lies."""
        return self.table.io.new_input(path).open()

    def drop(self, request):
        self.catalog.drop_table(request["table"])

    def create(self, request):
        """A table of these [name, type, required] fields."""
        fields = [
            NestedField(number, name, kind, required=required)
            for number, (name, kind, required) in enumerate(request["fields"], start=1)
        ]
        self.catalog.create_namespace_if_not_exists(request["table"].rpartition(".")[0])
        self.catalog.create_table(request["table"], Schema(*fields), properties=request.get("properties", {}))

    def append(self, request):
        """Rows, each an object by the columns' names."""
        self.table.append(pa.Table.from_pylist(request["rows"], schema=self.table.schema().as_arrow()))

    def drop_column(self, request):
        """Takes a column out of the schema, as ALTER TABLE DROP COLUMN does."""
        with self.table.update_schema() as update:
            update.delete_column(request["column"])

    def rollback(self, request):
        """Makes an earlier snapshot the head, as an operator's rollback does."""
        snapshot = int(request["snapshot"])
        self.table.manage_snapshots().rollback_to_snapshot(snapshot).commit()

    def rename(self, request):
        self.catalog.rename_table(request["table"], request["to"])

    def compact(self, request):
        """Writes all rows into one file, in their order, in place of the files that are there."""
        rows = self.table_in_order(request)
        schema = self.table.schema().as_arrow()
        columns = [
            rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
            for field in schema
        ]
        self.table.overwrite(pa.Table.from_arrays(columns, schema=schema))

    def reachable(self):
        """Manifest lists, manifests and live data files of all snapshots."""
        paths = set()
        for snapshot in self.table.metadata.snapshots:
            paths.add(snapshot.manifest_list)
            for manifest in snapshot.manifests(self.table.io):
                if manifest.manifest_path not in paths:
                    paths.add(manifest.manifest_path)
                    paths.update(e.data_file.file_path for e in manifest.fetch_manifest_entry(self.table.io))
        return paths

    def unreached(self, request):
        """The names of the files in the table's folders that nothing in its metadata reaches."""
        metadata = self.table.metadata
        reached = self.reachable() | {self.table.metadata_location} | {log.metadata_file for log in metadata.metadata_log}
        names = {path.rpartition("/")[2] for path in reached}
        scheme, netloc, folder = self.table.io.parse_location(self.table.location())
        fs = self.table.io.fs_by_scheme(scheme, netloc)
        found = [
            entry.base_name
            for part in ["data", "metadata"]
            for entry in fs.get_file_info(pafs.FileSelector(f"{folder}/{part}", allow_not_found=True, recursive=True))
            if entry.is_file
        ]
        return [name for name in found if name not in names]

    def expire(self, request):
        """Expires all snapshots but the current one, and removes what only they had, as Spark's procedure does."""
        before, head = self.reachable(), self.table.current_snapshot().snapshot_id
        expired = [s.snapshot_id for s in self.table.metadata.snapshots if s.snapshot_id != head]
        if not expired:
            return
        self.table.maintenance.expire_snapshots().by_ids(expired).commit()
        self.table.refresh()
        for path in before - self.reachable():
            self.table.io.delete(path)


def quoted(text, quote="'"):
    return quote + text.replace(quote, 2 * quote) + quote


def sqlite_metadata(catalog, table):
    """Where the current metadata file of a table of a SQLite catalog lies."""
    namespace, _, name = table.rpartition(".")
    with sqlite3.connect(catalog, timeout=30) as connection:
        row = connection.execute(
            "select metadata_location from iceberg_tables "
            "where catalog_name = ? and table_namespace = ? and table_name = ?",
            ("philotes", namespace, name),
        ).fetchone()
    if row is None:
        raise LookupError(f"no table {table} in the catalog")
    return row[0]


@contextmanager
def duckdb_source(duckdb, request):
    """What DuckDB is to read: the FROM clause, and the argument of its functions about the table."""
    catalog, table, snapshot = request["catalog"], request["table"], request.get("snapshot")
    storage = catalog["storage"]
    if storage:
        endpoint = urlsplit(storage["endpoint"])
        duckdb.sql(
            f"create or replace secret lake (type s3, endpoint {quoted(endpoint.netloc)}, url_style 'path', "
            f"use_ssl {endpoint.scheme == 'https'}, key_id {quoted(storage['access_key'])}, "
            f"secret {quoted(storage['secret_key'])}, region {quoted(storage['region'])})"
        )
    if catalog["type"] == "sqlite":
        metadata = quoted(sqlite_metadata(catalog["file"], table))
        yield f"iceberg_scan({metadata}{f', snapshot_from_id => {int(snapshot)}' if snapshot else ''})", metadata
        return
    # Attached anew for every request: nothing that it remembers of the table is older.
    duckdb.sql(
        f"attach {quoted(catalog['warehouse'])} as lake (type iceberg, endpoint {quoted(catalog['uri'])}, "
        "authorization_type 'none', access_delegation_mode 'none')"
    )
    try:
        name = ".".join(quoted(part, '"') for part in ("lake", *table.rsplit(".", 1)))
        yield f"{name} at (version => {int(snapshot)})" if snapshot else name, name
    finally:
        duckdb.sql("detach lake")


class DuckDb:
    def __init__(self, request):
        storage = request["catalog"]["storage"]
        self.duckdb = duckdb_for(storage and storage["endpoint"])

    def rows(self, request):
        columns = request.get("columns")
        chosen = ", ".join(quoted(column, '"') for column in columns) if columns else "*"
        return self.query(request | {"sql": f"select {chosen} from t"})

    def query(self, request):
        return answer_of(self.result(request))

    def result(self, request):
        with duckdb_source(self.duckdb, request) as (source, _):
            self.duckdb.sql(f"create or replace temp view t as select * from {source}")
            try:
                return self.duckdb.sql(request["sql"]).to_arrow_table()
            finally:
                self.duckdb.sql("drop view t")

    def timed(self, request):
        """How many seconds a query takes, from looking the table up to the last row."""
        start = time.perf_counter()
        self.result(request)
        return time.perf_counter() - start

    def row_ids(self, request):
        with duckdb_source(self.duckdb, request) as (source, _):
            return answer_of(self.duckdb.sql(f"select id, _row_id from {source} order by 1, 2").to_arrow_table())

    def schema(self, request):
        with duckdb_source(self.duckdb, request) as (source, _):
            described = self.duckdb.sql(f"describe select * from {source}").fetchall()
        return [{"id": 0, "name": d[0], "type": d[1], "required": d[2] == "NO", "identifier": False} for d in described]

    def snapshots(self, request):
        with duckdb_source(self.duckdb, request) as (_, table):
            found = self.duckdb.sql(
                f"select snapshot_id, sequence_number, operation from iceberg_snapshots({table}) order by 2"
            ).fetchall()
        return [{"id": str(f[0]), "parent": None, "sequence": f[1], "timestamp_ms": 0, "operation": f[2], "summary": {}} for f in found]

    def files(self, request):
        with duckdb_source(self.duckdb, request) as (_, table):
            found = self.duckdb.sql(
                "select file_path, manifest_sequence_number, record_count, file_format "
                f"from iceberg_metadata({table}) where status <> 'DELETED' and manifest_content = 'DATA' order by 2"
            ).fetchall()
        return [
            {"path": f[0], "sequence": f[1], "rows": f[2], "bytes": 0, "format": f[3], "partition": []} for f in found
        ]

    def delete_files(self, request):
        with duckdb_source(self.duckdb, request) as (_, table):
            found = self.duckdb.sql(
                "select file_path, content, manifest_sequence_number, record_count "
                f"from iceberg_metadata({table}) where status <> 'DELETED' and manifest_content <> 'DATA' order by 3"
            ).fetchall()
        return [
            {"path": f[0], "kind": f[1].removesuffix("_DELETES").lower(), "sequence": f[2], "snapshot": "", "rows": f[3],
             "spec": 0, "columns": []}
            for f in found
        ]


if __name__ == "__main__":
    EXTENSIONS = sys.argv[1]
    serve({"pyiceberg": PyIceberg, "duckdb": DuckDb})
