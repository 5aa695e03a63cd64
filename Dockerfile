# syntax=docker/dockerfile:1
# Serves FHIR on port 8080. Configured by FHIR_SCHED_* alone; by itself it keeps an embedded PostgreSQL in /data.
ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS build
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /opt/fhir-sched
COPY pyproject.toml README.md ./
COPY src ./src
COPY sql ./sql
COPY capability ./capability
RUN /opt/fhir-sched/bin/pip install --no-cache-dir --no-compile -c constraints.txt '.[otel]' \
    && /opt/fhir-sched/bin/pip uninstall --yes pip setuptools \
    && /opt/fhir-sched/bin/python -m compileall -q /opt/fhir-sched/lib

FROM python:${PYTHON}
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin fhir-sched \
    && install -d -o fhir-sched -g fhir-sched -m 0700 /data
COPY --from=build /opt/fhir-sched /opt/fhir-sched
ENV PATH=/opt/fhir-sched/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FHIR_SCHED_DATA_DIR=/data \
    FHIR_SCHED_HOST=0.0.0.0 \
    FHIR_SCHED_PORT=8080
USER 10001
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['FHIR_SCHED_PORT'] + '/healthz', timeout=2)"]
ENTRYPOINT ["fhir-sched"]
CMD ["serve"]
