# Two stages: what builds stays behind. The image runs as a user with no name and no
# shell history, on a read-only root file system, and writes nothing but its ledger in /data:
# mount a disk there that is kept (docs/ledger.md), and one that this user may write.
FROM python:3.13.7-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/oscar-metrics
ENV PATH=/opt/oscar-metrics/bin:$PATH
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY oscar_metrics ./oscar_metrics
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && mkdir /data

FROM python:3.13.7-slim-bookworm
LABEL org.opencontainers.image.title="OSCAR Metrics" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/oscar-metrics /opt/oscar-metrics
COPY --from=build --chown=65532:65532 /data /data
ENV PATH=/opt/oscar-metrics/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OSCAR_METRICS_HOST=0.0.0.0 \
    OSCAR_METRICS_LEDGER=/data/ledger.duckdb
VOLUME /data
USER 65532:65532
WORKDIR /
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
    CMD ["oscar-metrics", "health"]
ENTRYPOINT ["oscar-metrics"]
CMD ["serve"]
