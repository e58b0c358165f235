"""Reads Iceberg tables of a SQLite or a REST catalog as PyIceberg or DuckDB sees them.

A line of JSON in is a request, a line of JSON out its answer: {"ok": ...} or {"error": "..."}.

    {"op": "rows", "reader": "pyiceberg", "catalog": "/path/catalog.db", "table": "cdc.public_orders"}

The catalog is a SQLite file's path, or of a REST catalog whose tables lie in S3 an object with `uri`, `warehouse`,
`endpoint`, `access_key`, `secret_key` and `region`.

Cells are text or null, exact: whole numbers and decimals in decimal digits, float and double as the big-endian bytes of
the double in hex, date as days, time and timestamps as microseconds since 1970 (UTC where there is a zone), uuid in its
usual form, binary in hex; lists are JSON arrays and structs JSON objects of such cells.
"""

import json
import sqlite3
import struct
import sys
import uuid

from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from duckdb_extensions import import_extension
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField


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
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", tz=kind.tz)).cast(pa.int64())
    elif pa.types.is_time(kind):
        column = column.cast(pa.time64("us")).cast(pa.int64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.date32()).cast(pa.int32())
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


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return struct.pack(">d", value).hex()
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (int, str, uuid.UUID)):
        return str(value)
    return f"{value:f}"  # a decimal, never in scientific notation


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


def answer_of(table):
    columns = [cells(table.column(i)) for i in range(table.num_columns)]
    return {"columns": table.column_names, "rows": [list(row) for row in zip(*columns)]}


def pyiceberg_catalog(request):
    catalog = request["catalog"]
    if isinstance(catalog, str):
        return SqlCatalog("philotes", uri="sqlite:///" + catalog, warehouse=request.get("warehouse") or "")
    properties = {
        "uri": catalog["uri"],
        "warehouse": catalog["warehouse"],
        "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
        "s3.endpoint": catalog["endpoint"],
        "s3.access-key-id": catalog["access_key"],
        "s3.secret-access-key": catalog["secret_key"],
        "s3.region": catalog["region"],
        "s3.force-virtual-addressing": "false",
    }
    return RestCatalog("philotes", **properties)


class PyIceberg:
    def __init__(self, request):
        self.catalog = pyiceberg_catalog(request)
        if request["op"] != "create":
            self.table = self.catalog.load_table(request["table"])

    def rows(self, request):
        return answer_of(self.table.scan().to_arrow())

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
            {"id": f.field_id, "name": f.name, "type": str(f.field_type), "required": f.required,
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

    def files(self, request):
        """The live data files in the order in which they were committed."""
        snapshot = self.table.current_snapshot()
        entries = [
            entry
            for manifest in (snapshot.manifests(self.table.io) if snapshot else [])
            for entry in manifest.fetch_manifest_entry(self.table.io)
        ]
        entries.sort(key=lambda e: e.sequence_number)
        return [
            {"path": e.data_file.file_path, "sequence": e.sequence_number, "rows": e.data_file.record_count,
             "bytes": e.data_file.file_size_in_bytes, "format": e.data_file.file_format.value,
             "partition": [str(v) for v in e.data_file.partition]}
            for e in entries
        ]

    def rows_in_order(self, request):
        """All rows: the files in the order of their commits, each file's rows in its own order."""
        tables = []
        for file in self.files(request):
            with self.open(file["path"]) as data:
                tables.append(pq.read_table(data))
        return answer_of(pa.concat_tables(tables, promote_options="default"))

    def properties(self, request):
        return self.table.properties

    def location(self, request):
        return {"metadata": self.table.metadata_location, "uuid": str(self.table.metadata.table_uuid)}

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
        self.catalog.create_table(request["table"], Schema(*fields))

    def append(self, request):
        """Rows, each an object by the columns' names."""
        self.table.append(pa.Table.from_pylist(request["rows"], schema=self.table.schema().as_arrow()))

    def rollback(self, request):
        """Makes an earlier snapshot the head, as an operator's rollback does."""
        snapshot = int(request["snapshot"])
        self.table.manage_snapshots().rollback_to_snapshot(snapshot).commit()


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
    catalog, table = request["catalog"], request["table"]
    if isinstance(catalog, str):
        metadata = quoted(sqlite_metadata(catalog, table))
        yield f"iceberg_scan({metadata})", metadata
        return
    endpoint = urlsplit(catalog["endpoint"])
    duckdb.sql(
        f"create or replace secret lake (type s3, endpoint {quoted(endpoint.netloc)}, url_style 'path', "
        f"use_ssl {endpoint.scheme == 'https'}, key_id {quoted(catalog['access_key'])}, "
        f"secret {quoted(catalog['secret_key'])}, region {quoted(catalog['region'])})"
    )
    # Attached anew for every request: nothing that it remembers of the table is older.
    duckdb.sql(
        f"attach {quoted(catalog['warehouse'])} as lake (type iceberg, endpoint {quoted(catalog['uri'])}, "
        "authorization_type 'none', access_delegation_mode 'none')"
    )
    try:
        name = ".".join(quoted(part, '"') for part in ("lake", *table.rsplit(".", 1)))
        yield name, name
    finally:
        duckdb.sql("detach lake")


class DuckDb:
    def __init__(self, request):
        catalog = request["catalog"]
        self.duckdb = duckdb_for(None if isinstance(catalog, str) else catalog["endpoint"])

    def rows(self, request):
        return self.query(request | {"sql": "select * from t"})

    def query(self, request):
        with duckdb_source(self.duckdb, request) as (source, _):
            self.duckdb.sql(f"create or replace temp view t as select * from {source}")
            try:
                return answer_of(self.duckdb.sql(request["sql"]).to_arrow_table())
            finally:
                self.duckdb.sql("drop view t")

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
                f"from iceberg_metadata({table}) where status <> 'DELETED' order by 2"
            ).fetchall()
        return [
            {"path": f[0], "sequence": f[1], "rows": f[2], "bytes": 0, "format": f[3], "partition": []} for f in found
        ]


READERS = {"pyiceberg": PyIceberg, "duckdb": DuckDb}


def serve():
    for line in sys.stdin:
        try:
            request = json.loads(line)
            reader = READERS[request["reader"]](request)
            answer = {"ok": getattr(reader, request["op"])(request)}
        except Exception as error:  # whatever a reader says is the test's to judge
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    EXTENSIONS = sys.argv[1]
    serve()
