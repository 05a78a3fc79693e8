# The emulator in the place of TGI's image. `harness up --runtime compose --emulate` builds it when it is needed; by hand, from the
# top of the repository:   docker build -f compose/emulator.Dockerfile -t harness-emulator .
# Nothing here needs BuildKit.
FROM python:3.11-slim-bookworm

# Wheels are there when the harness fetched them beforehand, because builds reach no package index.
COPY compose/emulator-requirements.txt compose/wheel[s] /tmp/install/
RUN if ls /tmp/install/*.whl >/dev/null 2>&1; then offline="--no-index --find-links /tmp/install"; fi; \
    python -m pip install --no-cache-dir $offline -r /tmp/install/emulator-requirements.txt && rm -rf /tmp/install

COPY harness /opt/harness/harness
RUN python -m compileall -q /opt/harness/harness

# As TGI's image: options come as environment, the model's files lie under /data, the tokenizer is converted below /usr/src.
ENV PYTHONPATH=/opt/harness PYTHONUNBUFFERED=1 HF_HOME=/data PORT=80 HOSTNAME=0.0.0.0
# And it starts as TGI does, by a script or by the launcher on the path; stacks of some releases name one of them.
RUN mkdir -p /usr/src /data && \
    printf '#!/bin/bash\nexec python -m harness.emulator "$@"\n' >/usr/local/bin/text-generation-launcher && \
    printf '#!/bin/bash\nexec text-generation-launcher "$@"\n' >/tgi-entrypoint.sh && \
    chmod 755 /usr/local/bin/text-generation-launcher /tgi-entrypoint.sh
WORKDIR /usr/src
ENTRYPOINT ["/tgi-entrypoint.sh"]
