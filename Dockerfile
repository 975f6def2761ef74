# The server with the storage file-durable: docs/containers.rst says how to build and run it.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

# The wheels of the server and of all its dependencies.
FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /src
RUN python3 -m venv /build
COPY setup.cfg pyproject.toml MANIFEST.in README.rst LICENSE ./
COPY durable_streams durable_streams
COPY twisted twisted
COPY etc etc
RUN /build/bin/pip wheel --no-cache-dir --quiet --wheel-dir /wheels '.[otel,postgres]'

# The environment, installed from these wheels alone. Twisted's cache of plugins is written here, because the server's
# user may not write it.
FROM ${PYTHON_IMAGE} AS environment
COPY --from=wheels /wheels /wheels
RUN python3 -m venv /opt/durable-streams \
    && /opt/durable-streams/bin/pip install --no-cache-dir --quiet --no-index --find-links /wheels \
        'durable-streams-server[otel,postgres]' \
    && /opt/durable-streams/bin/twistd --help > /dev/null

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="durable-streams-server" \
    org.opencontainers.image.description="A Durable Streams protocol server for Twisted" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 4437 durable-streams \
    && useradd --uid 4437 --gid 4437 --no-create-home --home-dir /var/lib/durable-streams \
        --shell /usr/sbin/nologin durable-streams \
    && install --directory --owner 4437 --group 4437 --mode 0700 /var/lib/durable-streams \
    && install --directory /etc/durable-streams
COPY --from=environment /opt/durable-streams /opt/durable-streams

ENV PATH=/opt/durable-streams/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DS_SERVER__BIND_ADDRESS=0.0.0.0:4437 \
    DS_STORAGE__MODE=file-durable \
    DS_STORAGE__DATA_DIR=/var/lib/durable-streams \
    HEALTH_URL=http://127.0.0.1:4437/readyz
USER 4437:4437
WORKDIR /var/lib/durable-streams
VOLUME ["/var/lib/durable-streams"]
EXPOSE 4437

# After a kill, the journal is read before the server is ready: until then it is "starting".
HEALTHCHECK --interval=5s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen(os.environ['HEALTH_URL'], timeout=4)"]
STOPSIGNAL SIGTERM
# Without a shell in between, so that the server gets the signal. Arguments of `docker run` are appended.
ENTRYPOINT ["twistd", "-n", "--pidfile=", "durable-streams"]
