# The program in an image of its own: no shell, no package manager, nobody's root.
# Needs nothing of BuildKit: the dependencies are cached as a layer, which the classic builder can do too.

# ---- build ---------------------------------------------------------------------------------------------------------
# The Debian of this image is the one whose C library goes into the final image.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source

# The dependencies alone, behind empty crates: this layer is built again only when a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY domain/Cargo.toml domain/
COPY application/Cargo.toml application/
COPY infrastructure/Cargo.toml infrastructure/
COPY app/Cargo.toml app/
RUN apt-get update && apt-get install --yes --no-install-recommends g++ make zlib1g-dev && rm -rf /var/lib/apt/lists/*
RUN mkdir domain/src application/src infrastructure/src app/src \
    && touch domain/src/lib.rs application/src/lib.rs infrastructure/src/lib.rs \
    && echo 'fn main() {}' > app/src/main.rs \
    && cargo build --release --locked --package app --features full \
    && rm -rf target/release/.fingerprint/domain-* target/release/.fingerprint/application-* \
        target/release/.fingerprint/infrastructure-* target/release/.fingerprint/app-*

COPY . .
RUN cargo build --release --locked --package app --features full

# What the program needs at run time: itself, the shared libraries that it names (name resolution is part of the C
# library), the certificates, a user, and a folder for the embedded file. It starts here once: a missing library shows.
RUN mkdir -p /image/usr/bin /image/lib /image/lib64 /image/etc/ssl/certs /image/data /image/tmp \
    && cp target/release/app /image/usr/bin/app \
    && ldd /image/usr/bin/app | grep -o '/[^ ]*' | while read -r library; do \
        mkdir -p "/image$(dirname "$library")" && cp --dereference "$library" "/image$library"; done \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && echo 'pulse:x:65532:65532:Pulse Ingestor:/data:/nonexistent' > /image/etc/passwd \
    && echo 'pulse:x:65532:' > /image/etc/group \
    && chroot /image /usr/bin/app --version

# ---- run -----------------------------------------------------------------------------------------------------------
FROM scratch
COPY --from=build /image/usr /usr
COPY --from=build /image/lib /lib
COPY --from=build /image/lib64 /lib64
COPY --from=build /image/etc /etc
COPY --from=build --chown=65532:65532 /image/data /data
COPY --from=build --chown=65532:65532 /image/tmp /tmp

USER 65532:65532
# Where .env is looked for and the embedded file is kept.
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM

# Healthy: the main process runs and holds its connections to RabbitMQ and Redis.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["/usr/bin/app", "health"]

ENTRYPOINT ["/usr/bin/app"]
CMD ["--help"]
