# The sidecar's image: docker build -t faktory-sidecar:0.1.0 .
#
# Dependencies come with the hashes that deploy/image/lock wrote; nothing is compiled, nothing runs as root.
# deploy/image/build makes the same image without an engine and without a registry.
ARG BASE=docker.io/library/python:3.13-slim-trixie

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY deploy/image/build.lock deploy/image/runtime.lock ./
RUN python3 -m venv /opt/build \
    && python3 -m venv --without-pip /opt/faktory-sidecar \
    && /opt/build/bin/pip install --require-hashes -r build.lock \
    && /opt/build/bin/pip --python /opt/faktory-sidecar/bin/python install --require-hashes --no-deps -r runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/build/bin/pip --python /opt/faktory-sidecar/bin/python install --no-deps --no-index /wheel/*.whl \
    && echo 'sidecar:x:65532:65532::/nonexistent:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'sidecar:x:65532:' >>/etc/group \
    && mkdir /var/lib/faktory-sidecar

FROM ${BASE}
LABEL org.opencontainers.image.title="faktory-sidecar" \
      org.opencontainers.image.description="A local stand-in for a Faktory server that is far away" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/faktory-sidecar /opt/faktory-sidecar
# Empty, and of the user that runs: a new volume takes its owner from here.
COPY --from=build --chown=65532:65532 /var/lib/faktory-sidecar /var/lib/faktory-sidecar
# One place for the journal, whatever upstream is called: a changed upstream is noticed at the start, no job is left
# behind in a directory of another name.
ENV PATH=/opt/faktory-sidecar/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    SIDECAR_JOURNAL_DIR=/var/lib/faktory-sidecar/journal
USER 65532:65532
VOLUME /var/lib/faktory-sidecar
EXPOSE 7419
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["faktory-sidecar", "healthcheck"]
ENTRYPOINT ["faktory-sidecar"]
CMD ["serve"]
