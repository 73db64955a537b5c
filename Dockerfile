# Penstock as a sidecar: mount a configuration at /etc/penstock/penstock.toml, that is all there is to set.
#
#   docker build -t penstock .
#   docker run -p 8080:8080 -v ./penstock.toml:/etc/penstock/penstock.toml:ro penstock
#
# A listener that is to be reached from outside the container needs address = "0.0.0.0:8080" in that file.

FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
COPY policies policies
# The environment has no pip of its own. Byte code is checked by hash, not by time stamp: the same sources, the same bytes.
RUN python -m venv --without-pip /opt/penstock \
    && python -m pip --python /opt/penstock install --no-cache-dir --no-compile --disable-pip-version-check ".[fast,redis]" \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/penstock

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="Penstock" \
    org.opencontainers.image.description="Streaming policy proxy for model servers" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/penstock /opt/penstock
ENV PATH="/opt/penstock/bin:$PATH" \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-m", "proxy.healthcheck"]
# Drains: give it more than [server] drain_s before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["penstock"]
CMD ["run", "--config", "/etc/penstock/penstock.toml"]
