# The service's image: one binary, no shell, no package manager, user 65532, nothing written to its own file system.
#
#   docker buildx build --sbom=true --provenance=mode=max --tag license-api:dev .
#
# Dependencies are a layer of their own (cargo-chef): a change of our code does not build them again. The binary carries
# the list of its crates (cargo-auditable), so that a scanner sees what is inside although no package manager is.

# checkov:skip=CKV_DOCKER_2: Kubernetes probes /health and /ready; the image has nothing that could ask
ARG RUST=1.95

FROM rust:${RUST}-bookworm AS tools
# The image's own toolchain is the one that rust-toolchain.toml names; its components are not needed here.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
RUN cargo install --locked cargo-chef@0.1.78 cargo-auditable@0.7.7
WORKDIR /build

FROM tools AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM tools AS build
COPY --from=plan /build/recipe.json recipe.json
RUN cargo chef cook --release --locked --package api --bin coditect-license --recipe-path recipe.json
COPY . .
RUN cargo auditable build --release --locked --package api --bin coditect-license \
    && strip --strip-debug target/release/coditect-license

FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="coditect-license" \
      org.opencontainers.image.description="Floating licenses for CODITECT" \
      org.opencontainers.image.vendor="CODITECT" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/coditect-ai/coditect-license" \
      org.opencontainers.image.documentation="https://github.com/coditect-ai/coditect-license/blob/main/docs/RUNBOOK.md" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /build/target/release/coditect-license /usr/local/bin/coditect-license
# Numbers, so that Kubernetes can see that it is not root.
USER 65532:65532
ENV LISTEN_ADDR=0.0.0.0:8000 METRICS_ADDR=0.0.0.0:9000
EXPOSE 8000 9000
ENTRYPOINT ["/usr/local/bin/coditect-license"]
CMD ["serve"]
