# keysweep in a container: docker build -t keysweep .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p keysweep

FROM docker.io/library/debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 65532 keysweep \
 && useradd --system --uid 65532 --gid keysweep --home-dir /var/lib/keysweep --shell /usr/sbin/nologin keysweep \
 && install -d -o keysweep -g keysweep -m 0700 /var/lib/keysweep
COPY --from=build /src/target/release/keysweep /usr/bin/keysweep
COPY LICENSE /usr/share/doc/keysweep/LICENSE
USER 65532:65532
VOLUME /var/lib/keysweep
ENV KEYSWEEP_DATABASE=sqlite:/var/lib/keysweep/keysweep.db
EXPOSE 7080 7081
# With or without a certificate, whose name need not be this address. A worker serves nothing that could be asked: give it
# --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD curl --fail --silent --output /dev/null http://127.0.0.1:7080/healthz \
     || curl --fail --silent --insecure --output /dev/null https://127.0.0.1:7080/healthz || exit 1
ENTRYPOINT ["/usr/bin/keysweep"]
# Other machines reach a container over its own network only: put a TLS proxy in front, or mount a certificate.
CMD ["serve", "--listen", "0.0.0.0:7080", "--metrics-listen", "0.0.0.0:7081", "--insecure-http"]
