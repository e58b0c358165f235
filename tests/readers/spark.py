"""Reads and writes Iceberg tables as Spark does, with Java's own JdbcCatalog and RESTCatalog; protocol.py says how one asks.

The argument: the class path of what Spark's own jars lack.
"""

import json
import os
import sys
import time

from datetime import date, datetime, timedelta
from tempfile import TemporaryDirectory

# Spark's driver, and Python's own conversion of its times, go by these.
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
os.environ["TZ"] = "UTC"
time.tzset()

from pyspark.sql import Row, SparkSession
from pyspark.sql.types import TimestampNTZType, TimestampType

from protocol import serve, text

EPOCH = datetime(1970, 1, 1)


def start(classpath, folder):
    """A small Spark that is up soon: one thread, no page to look at, nothing kept."""
    java = (
        "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Duser.timezone=UTC "
        f"-Djava.io.tmpdir={folder} -Dderby.system.home={folder}"
    )
    settings = {
        "spark.master": "local[1]",
        "spark.driver.memory": "512m",
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


def cell(value):
    if value is None:
        return None
    if isinstance(value, Row):
        return {name: cell(child) for name, child in value.asDict().items()}
    if isinstance(value, list):
        return [cell(element) for element in value]
    if isinstance(value, datetime):
        return str((value - EPOCH) // timedelta(microseconds=1))
    if isinstance(value, date):
        return str((value - EPOCH.date()).days)
    return text(value)


class Spark:
    def __init__(self, request):
        self.session = session_for(request["catalog"])
        self.name = ".".join(["philotes", *(f"`{part}`" for part in request["table"].split("."))])

    def rows(self, request):
        return self.answer_of(self.session.table(self.name))

    def query(self, request):
        self.session.table(self.name).createOrReplaceTempView("t")
        return self.answer_of(self.session.sql(request["sql"]))

    def answer_of(self, frame):
        return {"columns": frame.columns, "rows": [[cell(value) for value in row] for row in frame.collect()]}

    def row_ids(self, request):
        """The column `id` and the row's own id, which a view does not have."""
        return self.answer_of(self.session.sql(f"select id, _row_id from {self.name} order by 1, 2"))

    def schema(self, request):
        return [
            {"id": 0, "name": f.name, "type": f.dataType.simpleString(), "required": not f.nullable, "identifier": False}
            for f in self.session.table(self.name).schema.fields
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
            {"path": f.data_file.file_path, "sequence": f.sequence_number, "rows": f.data_file.record_count,
             "bytes": f.data_file.file_size_in_bytes, "format": f.data_file.file_format.lower(),
             "partition": [str(v) for v in f.data_file.asDict().get("partition", [])]}
            for f in found
        ]

    def set_property(self, request):
        self.session.sql(f"alter table {self.name} set tblproperties ('{request['name']}' = '{request['value']}')")

    def append(self, request):
        """Rows, each an object by the columns' names; a time is microseconds since 1970."""
        schema = self.session.table(self.name).schema
        times = {f.name for f in schema.fields if isinstance(f.dataType, (TimestampType, TimestampNTZType))}

        def value(row, name):
            if name in times and row.get(name) is not None:
                return EPOCH + timedelta(microseconds=row[name])
            return row.get(name)

        rows = [[value(row, name) for name in schema.names] for row in request["rows"]]
        self.session.createDataFrame(rows, schema).writeTo(self.name).append()


if __name__ == "__main__":
    with TemporaryDirectory(prefix="philotes-spark-", ignore_cleanup_errors=True) as folder:
        SPARK = start(sys.argv[1], folder)
        serve({"spark": Spark})
        SPARK.stop()
