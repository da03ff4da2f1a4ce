# syntax=docker/dockerfile:1
# mtselect with Ray and CPU or CUDA torch. Build:  docker build --build-arg TORCH_INDEX=<wheel index> -t mtselect:0.1.0 .
# Run:    docker run -v mtselect:/data mtselect:0.1.0 /app/sweeps/quickstart.yaml --tracking.uri http://mlflow:5000
# deploy/ has it beside a database, an MLflow server and a Ray cluster.
ARG BASE=python:3.11-slim
FROM ${BASE} AS build
ARG TORCH_INDEX=""
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY constraints.txt ./
# torch in a layer of its own: it is the largest part and changes least
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY mtselect ./mtselect
COPY sweeps ./sweeps
# ray[default] answers `ray job submit`, which KubeRay uses
RUN pip install -c constraints.txt ".[postgres,ray]" "ray[default]"
# COMET's own environment, if wanted: --build-arg COMET=1
ARG COMET=""
RUN mkdir /comet && if [ -n "$COMET" ]; then python -m mtselect.comet install --path /comet; fi

FROM ${BASE}
RUN useradd --create-home --uid 1000 mtselect && mkdir /data && chown mtselect /data
COPY --from=build /venv /venv
COPY --from=build /comet /comet
COPY sweeps /app/sweeps
ENV PATH=/venv/bin:$PATH HF_HOME=/data/huggingface MTSELECT_COMET_ENV=/comet RAY_USAGE_STATS_ENABLED=0
USER mtselect
VOLUME /data
# mlruns/ and the default database appear in the working directory, so on the volume
WORKDIR /data
ENTRYPOINT ["python", "-m", "mtselect.sweep"]
