# The project with its Celery app, for each service of compose.yaml that runs Python.
# No secret is needed to build it, and none is in it: passwords come with the environment at start.

ARG PYTHON_IMAGE=python:3.13-slim-trixie
FROM $PYTHON_IMAGE AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# This stage's own pip installs into the environment, which then has none.
RUN python -m venv --without-pip /opt/venv
COPY requirements/image.txt /src/requirements/image.txt
RUN python -m pip --python /opt/venv/bin/python install --require-hashes \
    --requirement /src/requirements/image.txt
COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY pytest_manifest /src/pytest_manifest
RUN python -m pip --python /opt/venv/bin/python install --no-deps /src

FROM $PYTHON_IMAGE
LABEL org.opencontainers.image.title="pytest-celery-manifest" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH="/opt/venv/bin:$PATH" \
    HOME=/home/manifest \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN ! python -m pip --version || python -m pip uninstall --yes pip --root-user-action=ignore
# The id of whoever plans in a container, so that the manifests it writes belong to them outside too.
# It may be one that the image has already, 0 as well: root outside, without any of root's
# capabilities in here.
ARG USER_ID=1000
RUN { getent passwd "$USER_ID" || useradd --uid "$USER_ID" --no-create-home --home-dir "$HOME" \
        --shell /usr/sbin/nologin manifest; } \
    && install -d -o "$USER_ID" "$HOME" /project /project/.manifest /project/manifests \
        /project/tests /data
WORKDIR /project
COPY --from=build /opt/venv /opt/venv
COPY conftest.py pyproject.toml ./
COPY tasks tasks
COPY workflows workflows
COPY --chown=$USER_ID manifests manifests
# Python's images have their library without its bytecode; each check would compile what it imports.
RUN PYTHONDONTWRITEBYTECODE= python -c "import celery.bin.celery, pytest, tasks.ping"
USER $USER_ID
# A worker that hangs is not healthy, whatever its process list says: ask it.
HEALTHCHECK --interval=30s --timeout=60s --start-period=180s --start-interval=2s --retries=3 \
    CMD ["python", "-m", "tasks.ping"]
CMD ["celery", "-A", "tasks", "worker", "-I", "pytest_manifest.worker", "--loglevel", "INFO"]
