# Prometheus from Debian's package, for machines that reach a package mirror and no image registry: an older release than the one in
# monitoring.yaml, with the same options. By hand:   docker build -f compose/prometheus.Dockerfile -t harness-prometheus .
FROM python:3.11-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus wget >/dev/null && rm -rf /var/lib/apt/lists/* && \
    mkdir -p /prometheus && chown 65534:65534 /prometheus
USER 65534
ENTRYPOINT ["/usr/bin/prometheus"]
