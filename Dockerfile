FROM python:3.11-slim
RUN useradd --create-home shortpick
WORKDIR /app
COPY requirements/runtime.lock requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY domain domain
COPY worker worker
RUN pip install --no-cache-dir --no-deps .
USER shortpick
ENTRYPOINT ["shortpick"]
