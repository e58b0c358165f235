# syntax=docker/dockerfile:1
# The host and its plugins. Connector files belong in /etc/philotes/connectors:
#
#   docker build -t philotes .
#   docker run -v ./connectors/shop.yaml:/etc/philotes/connectors/shop.yaml:ro -e PHILOTES_BUFFER_DSN=… philotes

# The rust-version of Cargo.toml.
FROM rust:1.95-bookworm AS build
# The linker of .cargo/config.toml, as the Makefile installs it.
RUN apt-get update \
 && apt-get install -y --no-install-recommends clang mold \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive a build; what is kept of it has to leave them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --workspace --locked \
 && install -D -t /out/usr/bin target/release/philotes \
 && install -D -m 644 -t /out/usr/lib/philotes/plugins \
        target/release/libphilotes_postgres_buffer.so \
        target/release/libphilotes_kafka.so \
        target/release/libphilotes_iceberg.so

FROM debian:bookworm-slim
# Certificate authorities, for catalogs and storage behind TLS.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --home-dir /var/lib/philotes --shell /usr/sbin/nologin philotes \
 && install -d -o philotes -g philotes /var/lib/philotes \
 && install -d /etc/philotes/connectors
COPY --from=build /out/ /
USER philotes
# Where connectors may keep a SQLite catalog and a warehouse on disk.
WORKDIR /var/lib/philotes
EXPOSE 8080
# The host stops polling, commits and acknowledges; --grace, 30s, is longer than Docker waits by itself: `docker stop -t 40`.
STOPSIGNAL SIGTERM
# Unhealthy once a connector has FAILED. The port is the one of CMD.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["philotes", "health", "127.0.0.1:8080"]
ENTRYPOINT ["philotes"]
CMD ["run", "--listen", "0.0.0.0:8080", "/etc/philotes/connectors"]
