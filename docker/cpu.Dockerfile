# unbraid for processors, with the model that ships inside.
#
#   docker build -f docker/cpu.Dockerfile -t unbraid .
#   docker run --rm -v "$PWD:/data" unbraid separate film.mkv --prompts speech,sfx-mix,music-mix

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Extras of unbraid with commas between them, for example serve,web.
ARG EXTRAS=
WORKDIR /build
RUN python -m venv /opt/unbraid
COPY constraints.txt ./
# By itself, so that a change of unbraid does not fetch it again.
RUN /opt/unbraid/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/unbraid/bin/pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/unbraid /opt/unbraid
# Everybody may write to /models, so that the image also runs as the user who calls it.
RUN useradd --create-home --uid 1000 unbraid \
    && install --directory --mode 1777 /data /models
ENV PATH=/opt/unbraid/bin:$PATH \
    UNBRAID_HOME=/models \
    HF_HOME=/models/hub \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /data
VOLUME ["/models"]
HEALTHCHECK --interval=1m --timeout=30s --start-period=30s CMD ["unbraid", "models", "info", "mini"]
ENTRYPOINT ["unbraid"]
CMD ["--help"]
