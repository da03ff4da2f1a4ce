# syntax=docker/dockerfile:1
# mtselect with CPU or CUDA torch. Build:  docker build --build-arg TORCH_INDEX=<wheel index> -t mtselect .
# Run:    docker run -v "$PWD/work:/data" mtselect sweeps/quickstart.yaml --tracking.uri http://mlflow:5000
FROM python:3.11-slim AS build
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
RUN pip install -c constraints.txt ".[postgres]"
# COMET's own environment, if wanted: --build-arg COMET=1
ARG COMET=""
RUN mkdir /comet && if [ -n "$COMET" ]; then python -m mtselect.comet install --path /comet; fi

FROM python:3.11-slim
RUN useradd --create-home --uid 1000 mtselect && mkdir /data && chown mtselect /data
COPY --from=build /venv /venv
COPY --from=build /comet /comet
COPY sweeps /app/sweeps
ENV PATH=/venv/bin:$PATH HF_HOME=/data/huggingface MTSELECT_COMET_ENV=/comet
USER mtselect
VOLUME /data
# mlruns/ and the default database appear in the working directory, so on the volume
WORKDIR /data
ENTRYPOINT ["python", "-m", "mtselect.sweep"]
