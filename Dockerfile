# Two images from the same packages:
#   docker build --target fleet .        batcher, producer, and workers without a GPU; about 210 MB
#   docker build --target gpu-worker .   workers with vLLM, on vLLM's own image
# By tag and digest: what a tag names may change, what a digest names cannot. docs/docker.md says how to take others.
# Both Pythons must be of the same minor version: the packages are made with the first and used by both.
ARG PYTHON_IMAGE=python:3.12.14-slim-bookworm@sha256:392307d22300de8b5986851a12d9176dfc0fc073e65bf6523ebd7dcbeb23564e
ARG VLLM_IMAGE=vllm/vllm-openai:v0.31.0@sha256:c1c9f6fd5c109ba7f0546a59f5b2f15fb87f64c77782e90a27b648b42a8e67c3

FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
COPY requirements/runtime.txt requirements/gpu.txt requirements/
# --no-deps: the locks name everything. In a folder of their own, so that no environment is touched.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip install --no-deps --require-hashes --target /opt/batchfleet -r requirements/runtime.txt -r requirements/gpu.txt
COPY pyproject.toml LICENSE ./
COPY wire wire
COPY producer producer
COPY batcher batcher
COPY gpu_worker gpu_worker
COPY fleet fleet
COPY batchfleet batchfleet
# With the build backend of the lock: the network has no say. The command itself is deploy/serve's, whatever Python is there.
RUN PYTHONPATH=/opt/batchfleet python3 -m pip install --no-cache-dir --no-deps --no-build-isolation --target /opt/batchfleet . && rm -rf /opt/batchfleet/bin

FROM ${PYTHON_IMAGE} AS fleet
# The folder exists, and is the user's, so that a new volume mounted there is the user's too.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp batchfleet \
    && install -d -o 10001 -g 10001 -m 700 /var/lib/batchfleet \
    && python3 -c 'import site; open(site.getsitepackages()[0] + "/batchfleet.pth", "w").write("/opt/batchfleet\n")'
COPY deploy/serve /usr/local/bin/
COPY --from=packages /opt/batchfleet /opt/batchfleet
RUN --mount=type=bind,source=deploy/fits.py,target=/tmp/fits.py \
    ln -s serve /usr/local/bin/batchfleet && python3 -BP /tmp/fits.py /opt/batchfleet
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["batchfleet"]

FROM ${VLLM_IMAGE} AS gpu-worker
# Whoever the image's own user is.
USER 0
# A .pth file puts our packages behind those of the image: what vLLM brings stays as vLLM's makers tested it, and we fill in what is missing.
# The folder of caches exists, and is the user's, so that a new volume mounted there is the user's too.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /cache batchfleet && install -d -o 10001 -g 10001 /cache \
    && python3 -c 'import site; open(site.getsitepackages()[0] + "/batchfleet.pth", "w").write("/opt/batchfleet\n")'
COPY deploy/serve /usr/local/bin/
COPY --from=packages /opt/batchfleet /opt/batchfleet
# Whether all of it fits together is asked here, where nothing runs yet.
RUN --mount=type=bind,source=deploy/fits.py,target=/tmp/fits.py \
    ln -s serve /usr/local/bin/batchfleet && python3 -BP /tmp/fits.py /opt/batchfleet vllm torch
ENV HOME=/cache HF_HOME=/cache/huggingface VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["batchfleet"]
