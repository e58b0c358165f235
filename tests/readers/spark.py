"""Reads and writes Iceberg tables as Spark does, with Java's own JdbcCatalog and RESTCatalog; protocol.py says how one asks.

The argument: the class path of what Spark's own jars lack; `measured` after it where Spark is to be fast rather than up soon.
"""

import json
import os
import sys
import time

from datetime import datetime, timedelta
from decimal import Context, Decimal, Inexact
from tempfile import TemporaryDirectory

# Spark's driver, and Python's own conversion of its times, go by these.
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
os.environ["TZ"] = "UTC"
time.tzset()

from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from pyspark.sql.types import ArrayType, DateType, DecimalType, StructType, TimestampNTZType, TimestampType

from protocol import serve, text

EPOCH = datetime(1970, 1, 1)
EXACT = Context(prec=76, traps=[Inexact])


def start(classpath, folder, measured):
    """A small Spark that is up soon, one thread, or one that is measured; no page to look at, nothing kept."""
    java = f"-Duser.timezone=UTC -Djava.io.tmpdir={folder} -Dderby.system.home={folder}"
    if not measured:
        java += " -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"
    settings = {
        "spark.master": "local[*]" if measured else "local[1]",
        "spark.driver.memory": "4g" if measured else "512m",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraClassPath": classpath,
        "spark.driver.extraJavaOptions": java,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": folder,
        "spark.sql.warehouse.dir": folder,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.default.parallelism": "1",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    }
    builder = SparkSession.builder.appName("philotes")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


SESSIONS = {}


def session_for(catalog):
    """A session for one catalog. The catalog is always called `philotes`, since JdbcCatalog looks in the file for the name
    that it goes by, and a session can have only one of a name."""
    key = json.dumps(catalog, sort_keys=True)
    if key not in SESSIONS:
        session = SPARK.newSession()
        for name, value in properties(catalog).items():
            session.conf.set("spark.sql.catalog.philotes" + name, value)
        SESSIONS[key] = session
    return SESSIONS[key]


def properties(catalog):
    properties = {"": "org.apache.iceberg.spark.SparkCatalog", ".cache-enabled": "false"}
    if catalog["type"] == "sqlite":
        properties |= {
            ".catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
            ".uri": "jdbc:sqlite:" + catalog["file"],
            # It wants one, and asks for it only to create tables.
            ".warehouse": "file:///nowhere",
            # Its look whether the catalog's tables are there never ends, and keeps the file locked against every writer, its
            # own second connection included.
            ".jdbc.init-catalog-tables": "false",
        }
    else:
        properties |= {".type": "rest", ".uri": catalog["uri"], ".warehouse": catalog["warehouse"]}
    storage = catalog["storage"]
    if storage:
        properties |= {
            ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            ".s3.endpoint": storage["endpoint"],
            ".s3.path-style-access": "true",
            ".s3.access-key-id": storage["access_key"],
            ".s3.secret-access-key": storage["secret_key"],
            ".client.region": storage["region"],
        }
    return properties


def has_times(kind):
    if isinstance(kind, ArrayType):
        return has_times(kind.elementType)
    if isinstance(kind, StructType):
        return any(has_times(field.dataType) for field in kind.fields)
    return isinstance(kind, (DateType, TimestampType, TimestampNTZType))


def numbered(column, kind):
    """The column with its times as the numbers that they are, however deep they stand: Python's own end with the year 9999
    and know no infinity."""
    if not has_times(kind):
        return column
    if isinstance(kind, ArrayType):
        return f.transform(column, lambda element: numbered(element, kind.elementType))
    if isinstance(kind, StructType):
        fields = (numbered(column.getField(field.name), field.dataType).alias(field.name) for field in kind.fields)
        return f.when(column.isNotNull(), f.struct(*fields))
    if isinstance(kind, DateType):
        return f.unix_date(column)
    # The session's zone is UTC, in which both kinds of timestamps are the same number.
    return f.unix_micros(column.cast("timestamp"))


def named(column):
    """How a column is called in an expression."""
    return f.col("`" + column.replace("`", "``") + "`")


def cell(value, kind):
    if value is None:
        return None
    if isinstance(kind, StructType):
        # Not by name, of which there may be two.
        return {field.name: cell(child, field.dataType) for field, child in zip(kind.fields, value)}
    if isinstance(kind, ArrayType):
        return [cell(element, kind.elementType) for element in value]
    if isinstance(kind, DecimalType):
        # With as many places as the type has, which Spark does not always show.
        value = value.quantize(Decimal(1).scaleb(-kind.scale), context=EXACT)
    return text(value)


class Spark:
    def __init__(self, request):
        self.session = session_for(request["catalog"])
        self.name = ".".join(["philotes", *(f"`{part}`" for part in request["table"].split("."))])

    def table(self, request):
        """The table, or what it was at a snapshot."""
        reader = self.session.read
        snapshot = request.get("snapshot")
        return (reader.option("snapshot-id", snapshot) if snapshot else reader).table(self.name)

    def rows(self, request):
        frame = self.table(request)
        columns = request.get("columns")
        return self.answer_of(frame.select(*map(named, columns)) if columns else frame)

    def query(self, request):
        self.table(request).createOrReplaceTempView("t")
        return self.answer_of(self.session.sql(request["sql"]))

    def timed(self, request):
        """How many seconds a query takes, from looking the table up to the last row."""
        start = time.perf_counter()
        self.table(request).createOrReplaceTempView("t")
        self.session.sql(request["sql"]).collect()
        return time.perf_counter() - start

    def answer_of(self, frame):
        names = [f"c{i}" for i in range(len(frame.columns))]
        fields = zip(names, frame.schema.fields)
        numbers = frame.toDF(*names).select(*(numbered(f.col(name), field.dataType).alias(name) for name, field in fields))
        kinds = [field.dataType for field in numbers.schema.fields]
        rows = [[cell(value, kind) for value, kind in zip(row, kinds)] for row in numbers.collect()]
        return {"columns": frame.columns, "rows": rows}

    def row_ids(self, request):
        """The column `id` and the row's own id, which a view does not have."""
        return self.answer_of(self.session.sql(f"select id, _row_id from {self.name} order by 1, 2"))

    def schema(self, request):
        return [
            {"id": 0, "name": field.name, "type": field.dataType.simpleString(), "required": not field.nullable,
             "identifier": False}
            for field in self.session.table(self.name).schema.fields
        ]

    def snapshots(self, request):
        found = self.session.sql(
            f"select s.*, unix_millis(committed_at) as ms from {self.name}.snapshots s order by committed_at"
        ).collect()
        return [
            {"id": str(s.snapshot_id), "parent": s.parent_id and str(s.parent_id), "sequence": 0, "timestamp_ms": s.ms,
             "operation": s.operation, "summary": s.summary}
            for s in found
        ]

    def files(self, request):
        """The live data files in the order in which they were committed."""
        found = self.session.sql(
            f"select sequence_number, data_file from {self.name}.entries "
            "where status < 2 and data_file.content = 0 order by sequence_number"
        ).collect()
        return [
            {"path": entry.data_file.file_path, "sequence": entry.sequence_number, "rows": entry.data_file.record_count,
             "bytes": entry.data_file.file_size_in_bytes, "format": entry.data_file.file_format.lower(),
             "partition": [str(v) for v in entry.data_file.asDict().get("partition", [])]}
            for entry in found
        ]

    def delete_files(self, request):
        """The live delete files, in the order in which they were committed."""
        found = self.session.sql(
            f"select sequence_number, snapshot_id, data_file from {self.name}.entries "
            "where status < 2 and data_file.content > 0 order by sequence_number"
        ).collect()
        kinds = {1: "position", 2: "equality"}
        return [
            {"path": entry.data_file.file_path, "kind": kinds[entry.data_file.content], "sequence": entry.sequence_number,
             "snapshot": str(entry.snapshot_id), "rows": entry.data_file.record_count, "spec": entry.data_file.spec_id,
             "columns": entry.data_file.equality_ids or []}
            for entry in found
        ]

    def rewrite(self, request):
        """Writes all rows anew, without those that are deleted, and says how many delete files have gone."""
        options = {"rewrite-all": "true", "remove-dangling-deletes": str(request["remove_dangling"]).lower()}
        told = ", ".join(f"'{name}', '{value}'" for name, value in options.items())
        called = f"call philotes.system.rewrite_data_files(table => '{request['table']}', options => map({told}))"
        return self.session.sql(called).collect()[0].removed_delete_files_count

    def set_property(self, request):
        self.session.sql(f"alter table {self.name} set tblproperties ('{request['name']}' = '{request['value']}')")

    def append(self, request):
        """Rows, each an object by the columns' names; a time is microseconds since 1970."""
        schema = self.session.table(self.name).schema
        kinds = {field.name: field.dataType for field in schema.fields}
        times = {name for name, kind in kinds.items() if isinstance(kind, (TimestampType, TimestampNTZType))}

        def value(row, name):
            if name in times and row.get(name) is not None:
                return EPOCH + timedelta(microseconds=row[name])
            return row.get(name)

        rows = [[value(row, name) for name in schema.names] for row in request["rows"]]
        self.session.createDataFrame(rows, schema).writeTo(self.name).append()


if __name__ == "__main__":
    with TemporaryDirectory(prefix="philotes-spark-", ignore_cleanup_errors=True) as folder:
        SPARK = start(sys.argv[1], folder, measured=sys.argv[2:] == ["measured"])
        serve({"spark": Spark})
        SPARK.stop()
