# The service as an image: the package and exactly the libraries of requirements.lock, for a user without rights.
# Everything it writes is under /data, so that its root file system may be read-only.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/orgstead \
 && python -m venv /opt/build \
 && /opt/orgstead/bin/pip install --require-hashes --only-binary :all: --requirement requirements.lock \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: --requirement requirements-build.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/orgstead/bin/pip install --no-deps --no-index dist/*.whl \
 && /opt/orgstead/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin orgstead \
 && install --directory --mode 0700 --owner 10001 --group 10001 /data
COPY --from=build /opt/orgstead /opt/orgstead
ENV PATH=/opt/orgstead/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORGSTEAD_DATA_FOLDER=/data \
    ORGSTEAD_DATABASE_URL=sqlite:////data/main.db \
    ORGSTEAD_HTTP__HOST=0.0.0.0
WORKDIR /data
USER 10001:10001
VOLUME /data
# The management port stays on the container's own loopback, where the health check asks it.
EXPOSE 8410
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('ORGSTEAD_MANAGEMENT__PORT', '8411') + '/readyz', timeout=4)"]
ENTRYPOINT ["orgstead"]
CMD ["serve"]
