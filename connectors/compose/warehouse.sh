#!/bin/sh
# Opens a new Lakekeeper and makes the warehouse of warehouse.json in it; where that was done before, nothing changes.
set -eu
server=${1:-http://lakekeeper:8181}/management/v1
dir=$(dirname "$0")

post() {
    echo "POST $1"
    curl -sS --fail-with-body -H 'Content-Type: application/json' --data "$2" "$server$1"
    echo
}

# A second bootstrap would be refused, and so would a second warehouse in the same place.
case $(curl -sS --fail "$server/info") in
    *'"bootstrapped":true'*) ;;
    *) post /bootstrap '{"accept-terms-of-use": true}' ;;
esac
case $(curl -sS --fail "$server/warehouse") in
    *'"name":"shop"'*) ;;
    *) post /warehouse "@$dir/warehouse.json" ;;
esac
