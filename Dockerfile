# The hall as an image: one static binary, no shell, not root.
#
#   docker build --tag townhall:dev .
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/townhall:0.1.0 --push .

# Compilers run as fast as this machine does, whichever machine they compile for.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
ARG TARGETARCH
RUN deb=$(dpkg --print-architecture) && [ "$deb" = "${TARGETARCH:-$deb}" ] || \
    { apt-get update && apt-get install --yes --no-install-recommends "crossbuild-essential-$TARGETARCH"; }
WORKDIR /townhall
COPY . .
RUN deploy/dist ${TARGETARCH:-} && cp dist/townhall-*-linux-gnu /usr/local/bin/townhall

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="Townhall" org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /usr/local/bin/townhall /usr/local/bin/townhall
# In a container loopback is nobody's. Publish 8080; 8081 is for probes and metrics.
ENV TOWNHALL_LISTEN=0.0.0.0:8080 TOWNHALL_OPS=0.0.0.0:8081
EXPOSE 8080 8081
USER 65532:65532
# Leaving takes --drain, 20 s: `docker run --stop-timeout 30`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/local/bin/townhall", "health"]
ENTRYPOINT ["/usr/local/bin/townhall"]
