# Pagoda with vLLM on NVIDIA GPUs; the host needs NVIDIA's driver and container toolkit. From the repository's root:
#   docker build -f deploy/docker/cuda.Dockerfile -t pagoda:cuda .
#   docker run --gpus all --shm-size 8g -p 8000:8000 -e PAGODA_ADMIN_KEY=... -v models:/models pagoda:cuda
# The CUDA libraries come with PyTorch's wheels. vLLM chooses PyTorch and what belongs to it, so those are not pinned.
FROM python:3.12-slim-bookworm

# Triton compiles small pieces at run time.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=1 \
    PAGODA_HOME=/var/lib/pagoda \
    PAGODA_MODELS_DIRECTORY=/models \
    HF_HOME=/cache/huggingface \
    PAGODA_SERVER_HOST=0.0.0.0 \
    PAGODA_SERVER_PORT=8000 \
    PAGODA_SERVER_DRAIN_GRACE_SECONDS=3 \
    PAGODA_LOG_FORMAT=json \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/pagoda
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m pip install --no-cache-dir --disable-pip-version-check --quiet -c constraints.txt .
RUN python -m pip install --no-cache-dir --disable-pip-version-check --quiet '.[vllm]'

# The service is user 10001 of group 0, so what its group may write is what it may write, under any user id.
RUN install -d -m 0775 "$PAGODA_HOME" "$PAGODA_MODELS_DIRECTORY" "$HF_HOME"

# Models that the image brings along, by id, with spaces between; others are fetched into the volume when wanted.
ARG MODELS=""
RUN umask 0002 && for model in $MODELS; do pagoda models pull "$model" || exit 1; done

VOLUME ["/var/lib/pagoda", "/models"]
USER 10001:0
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=300s --retries=3 CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PAGODA_SERVER_PORT'] + '/ready', timeout=2)"]
CMD ["pagoda", "serve"]
