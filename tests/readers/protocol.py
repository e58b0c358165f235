"""What a reader's process speaks.

A line of JSON in is a request, a line of JSON out its answer: {"ok": ...} or {"error": "..."}.

    {"op": "rows", "reader": "pyiceberg", "catalog": {...}, "table": "cdc.public_orders", "columns": ["id", "note"]}

`columns` is there where not all are wanted, `snapshot` (an id) where the table as it was is. The catalog is an object with a `type`:

    {"type": "sqlite", "file": "/path/catalog.db", "storage": null}
    {"type": "rest", "uri": "http://...", "warehouse": "...", "storage": {...}}

A storage is the S3 that the tables lie in: `endpoint`, `access_key`, `secret_key` and `region`; null stands for this
machine's folders.

Cells are text or null, exact: whole numbers and decimals in decimal digits, float and double as the big-endian bytes of
the double in hex, date as days, time and timestamps as microseconds since 1970 (UTC where there is a zone), also where the
reader takes the number for an infinity, uuid in its usual form, binary in hex; lists are JSON arrays, structs and
maps of texts JSON objects of such cells.
"""

import json
import struct
import sys
import uuid


def text(value):
    """A cell that is neither null nor a time nor nested."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return struct.pack(">d", value).hex()
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (int, str, uuid.UUID)):
        return str(value)
    return f"{value:f}"  # a decimal, never in scientific notation


def serve(readers):
    """Answers requests to the end of the input. A reader is a class: made of a request, it has a method for each op."""
    for line in sys.stdin:
        try:
            request = json.loads(line)
            reader = readers[request["reader"]](request)
            answer = {"ok": getattr(reader, request["op"])(request)}
        except Exception as error:  # whatever a reader says is the test's to judge
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
