# syntax=docker/dockerfile:1
# Builds a self-contained binary (librdkafka, OpenSSL, zlib and zstd are compiled in) and puts it alone into an image
# without a shell, run by a user without rights.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src ./src
COPY config ./config
COPY benches ./benches
COPY tests ./tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin ringfence && cp target/release/ringfence /ringfence
# The image is worth nothing if the binary does not start in it.
RUN /ringfence --version

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /ringfence /usr/local/bin/ringfence
COPY config/ringfence.toml /etc/ringfence/ringfence.toml
ENV RINGFENCE_CONFIG=/etc/ringfence/ringfence.toml
# Probes and metrics; inside a container nobody reaches loopback.
ENV RINGFENCE__HTTP__LISTEN=0.0.0.0:9464
EXPOSE 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/ringfence"]
CMD ["run"]
