# The gateway from its PyPI package, for machines that reach a package index and no image registry. Same number as in gateway.yaml.
# By hand:   docker build -f compose/gateway.Dockerfile -t harness-gateway .          Nothing here needs BuildKit.
FROM python:3.11-slim-bookworm
RUN python -m pip install --no-cache-dir --only-binary :all: "litellm[proxy]==1.93.0"
ENTRYPOINT ["litellm"]
