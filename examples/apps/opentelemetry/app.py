"""Each order is a span; a thread of the SDK sends them to the collector in batches.

Where and how often is told by OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_BSP_SCHEDULE_DELAY.
"""

import os

from flask import Flask
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

app = Flask(__name__)
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")


@app.route("/")
def index():
    return f"{os.getpid()}\n"


@app.route("/orders/<order>")
def orders(order):
    with tracer.start_as_current_span("order") as span:
        span.set_attribute("order", order)
    return f"{os.getpid()}\n"
