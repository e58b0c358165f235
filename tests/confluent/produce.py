"""Produces messages as Confluent's own serializers write them.

Standard input is one JSON object:

    {"bootstrap": "127.0.0.1:9092", "registry": "http://127.0.0.1:8081", "username": null, "password": null,
     "topic": "orders", "partition": 0, "format": "avro" | "json-schema", "schema": {...}, "key_schema": null | {...},
     "messages": [{"key": null | ..., "value": null | {...}}, ...]}

What JSON cannot write is an object of one member: {"$bytes": "00ff"}, {"$decimal": "1.50"}, {"$date": "2024-02-29"},
{"$time": "12:00:00.000001"}, {"$timestamp": "2024-02-29T12:00:00+01:00"}, {"$uuid": "..."}, {"$float": "nan"}. Without a key
schema a key is text.

Standard output is the values that were put in, one JSON array: each as the cells that readers/protocol.py describes.
"""

import json
import sys
import uuid

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "readers"))

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from protocol import text

FROM_TEXT = {
    "$bytes": bytes.fromhex,
    "$decimal": Decimal,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timestamp": datetime.fromisoformat,
    "$uuid": uuid.UUID,
    "$float": float,
}


def unwrapped(members):
    """An object of JSON, or what it stands for."""
    if len(members) == 1:
        (name, value), = members.items()
        if name in FROM_TEXT:
            return FROM_TEXT[name](value)
    return members


def cell(value):
    """A value as a reader prints the cell it should be in."""
    if value is None:
        return None
    if isinstance(value, list):
        return [cell(one) for one in value]
    if isinstance(value, dict):
        return {name: cell(one) for name, one in value.items()}
    microsecond = timedelta(microseconds=1)
    if isinstance(value, datetime):
        return str((value - datetime(1970, 1, 1, tzinfo=value.tzinfo and timezone.utc)) // microsecond)
    if isinstance(value, date):
        return str((value - date(1970, 1, 1)).days)
    if isinstance(value, time):
        return str((datetime.combine(date.min, value) - datetime.min) // microsecond)
    return text(value)


def serializer(registry, kind, schema):
    if schema is None:
        return None
    if kind == "avro":
        return AvroSerializer(registry, json.dumps(schema))
    return JSONSerializer(json.dumps(schema), registry)


def bytes_of(serialize, value, topic, field):
    if value is None:
        return None
    if serialize is None:
        return value if isinstance(value, bytes) else str(value).encode()
    return serialize(value, SerializationContext(topic, field))


def main():
    request = json.load(sys.stdin, object_hook=unwrapped)
    settings = {"url": request["registry"]}
    if request.get("username"):
        settings["basic.auth.user.info"] = f"{request['username']}:{request['password']}"
    registry = SchemaRegistryClient(settings)
    kind, topic = request["format"], request["topic"]
    keys, values = (serializer(registry, kind, request.get(name)) for name in ("key_schema", "schema"))
    failures = []
    producer = Producer({"bootstrap.servers": request["bootstrap"], "enable.idempotence": True})
    for message in request["messages"]:
        producer.produce(
            topic,
            key=bytes_of(keys, message.get("key"), topic, MessageField.KEY),
            value=bytes_of(values, message["value"], topic, MessageField.VALUE),
            partition=request.get("partition", 0),
            on_delivery=lambda error, _: error and failures.append(str(error)),
        )
        producer.poll(0)
    left = producer.flush(30)
    if left or failures:
        sys.exit(f"{left} messages were not delivered, {failures[:1]}")
    json.dump([cell(message["value"]) for message in request["messages"]], sys.stdout)


if __name__ == "__main__":
    main()
