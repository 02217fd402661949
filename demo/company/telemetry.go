package company

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

// Limits of a service's telemetry: queues are small because a demo's memory
// is, and what does not fit while the collector is away is dropped by the SDK.
const (
	exportTimeout  = 5 * time.Second
	exportInterval = 500 * time.Millisecond
	metricInterval = 5 * time.Second
	exportQueue    = 4096
	flushTimeout   = 3 * time.Second
)

// systemNATS is the messaging.system value; the conventions have no constant
// for it yet.
const systemNATS = messagingconv.SystemAttr("nats")

// telemetry is the OpenTelemetry SDK of one service: providers and exporters
// that no other service shares, and nothing global.
type telemetry struct {
	log    *slog.Logger
	events log.Logger // for log records with an event name
	tracer trace.Tracer
	meter  metric.Meter

	sent      messagingconv.ClientSentMessages
	consumed  messagingconv.ClientConsumedMessages
	operation messagingconv.ClientOperationDuration
	process   messagingconv.ProcessDuration

	tracers *sdktrace.TracerProvider
	meters  *sdkmetric.MeterProvider
	loggers *sdklog.LoggerProvider

	client *http.Client
	reach  *reach
}

// newTelemetry builds the SDK of a service. It dials nothing: a collector that
// is down is noticed, and said once, at the first export.
func newTelemetry(ctx context.Context, cfg Config, service, version string, own *slog.Logger) (*telemetry, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	res := resource.NewWithAttributes(semconv.SchemaURL,
		semconv.ServiceName(service),
		semconv.ServiceVersion(version),
		semconv.ServiceInstanceID(newID()),
		semconv.ServiceNamespace("company"),
		semconv.HostName(host),
		attribute.String("deployment.environment.name", cfg.Environment),
	)
	t := &telemetry{client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 3, IdleConnTimeout: 30 * time.Second},
		Timeout:   exportTimeout,
	}}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	t.reach = &reach{log: own, life: life, end: end}

	spans, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL(cfg.Endpoint+"/v1/traces"),
		otlptracehttp.WithHTTPClient(t.client),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	if err != nil {
		return nil, fmt.Errorf("trace exporter: %w", err)
	}
	metrics, err := otlpmetrichttp.New(ctx,
		otlpmetrichttp.WithEndpointURL(cfg.Endpoint+"/v1/metrics"),
		otlpmetrichttp.WithHTTPClient(t.client),
		otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
	if err != nil {
		return nil, fmt.Errorf("metric exporter: %w", err)
	}
	logs, err := otlploghttp.New(ctx,
		otlploghttp.WithEndpointURL(cfg.Endpoint+"/v1/logs"),
		otlploghttp.WithHTTPClient(t.client),
		otlploghttp.WithCompression(otlploghttp.GzipCompression))
	if err != nil {
		return nil, fmt.Errorf("log exporter: %w", err)
	}

	t.tracers = sdktrace.NewTracerProvider(sdktrace.WithResource(res),
		sdktrace.WithBatcher(spanExporter{spans, t.reach},
			sdktrace.WithBatchTimeout(exportInterval),
			sdktrace.WithExportTimeout(exportTimeout),
			sdktrace.WithMaxQueueSize(exportQueue)))
	t.meters = sdkmetric.NewMeterProvider(sdkmetric.WithResource(res),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metricExporter{metrics, t.reach},
			sdkmetric.WithInterval(metricInterval),
			sdkmetric.WithTimeout(exportTimeout))))
	t.loggers = sdklog.NewLoggerProvider(sdklog.WithResource(res),
		sdklog.WithProcessor(sdklog.NewBatchProcessor(logExporter{logs, t.reach},
			sdklog.WithExportInterval(exportInterval),
			sdklog.WithExportTimeout(exportTimeout),
			sdklog.WithMaxQueueSize(exportQueue))))

	scope := "company/" + service
	t.tracer = t.tracers.Tracer(scope, trace.WithInstrumentationVersion(version), trace.WithSchemaURL(semconv.SchemaURL))
	t.meter = t.meters.Meter(scope, metric.WithInstrumentationVersion(version), metric.WithSchemaURL(semconv.SchemaURL))
	t.events = t.loggers.Logger(scope, log.WithInstrumentationVersion(version))
	t.log = otelslog.NewLogger(scope, otelslog.WithLoggerProvider(t.loggers), otelslog.WithVersion(version))

	var errs [4]error
	t.sent, errs[0] = messagingconv.NewClientSentMessages(t.meter)
	t.consumed, errs[1] = messagingconv.NewClientConsumedMessages(t.meter)
	t.operation, errs[2] = messagingconv.NewClientOperationDuration(t.meter,
		metric.WithExplicitBucketBoundaries(durationBuckets...))
	t.process, errs[3] = messagingconv.NewProcessDuration(t.meter,
		metric.WithExplicitBucketBoundaries(durationBuckets...))
	if err := errors.Join(errs[:]...); err != nil {
		t.close(ctx)
		return nil, fmt.Errorf("messaging instruments: %w", err)
	}
	return t, nil
}

// durationBuckets are those the conventions advise, in seconds.
var durationBuckets = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}

// close flushes what waits, for at most flushTimeout, and stops the SDK. What
// could not be flushed is said and forgotten: a company does not fail because
// its collector is down.
func (t *telemetry) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	// Exports in flight end with the flush, whatever their own deadline is.
	stop := context.AfterFunc(ctx, t.reach.end)
	defer stop()
	defer t.client.CloseIdleConnections()
	defer t.reach.end()
	// Side by side: a provider asked to stop after its deadline never does.
	var g errgroup.Group
	g.Go(func() error { return t.tracers.Shutdown(ctx) })
	g.Go(func() error { return t.loggers.Shutdown(ctx) })
	g.Go(func() error { return t.meters.Shutdown(ctx) })
	if err := g.Wait(); err != nil && !t.reach.down.Load() {
		t.reach.log.WarnContext(ctx, "telemetry lost on the way out", slog.Any("error", err))
	}
}

// reach remembers whether the collector answers, says so when that changes, and
// ends exports that outlive their service. The SDK would hand every failed
// export to a global error handler instead.
type reach struct {
	log  *slog.Logger
	down atomic.Bool
	life context.Context
	end  context.CancelFunc
}

// export runs one export and keeps its error: the SDK can do nothing with it.
func (r *reach) export(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.life, cancel)()
	err := do(ctx)
	if was := r.down.Swap(err != nil); was != (err != nil) {
		if err != nil {
			r.log.WarnContext(ctx, "telemetry is not accepted", slog.Any("error", err))
		} else {
			r.log.InfoContext(ctx, "telemetry is accepted again")
		}
	}
	return nil
}

type spanExporter struct {
	sdktrace.SpanExporter
	reach *reach
}

func (e spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	return e.reach.export(ctx, func(ctx context.Context) error { return e.SpanExporter.ExportSpans(ctx, spans) })
}

type metricExporter struct {
	sdkmetric.Exporter
	reach *reach
}

func (e metricExporter) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	return e.reach.export(ctx, func(ctx context.Context) error { return e.Exporter.Export(ctx, rm) })
}

type logExporter struct {
	sdklog.Exporter
	reach *reach
}

func (e logExporter) Export(ctx context.Context, records []sdklog.Record) error {
	return e.reach.export(ctx, func(ctx context.Context) error { return e.Exporter.Export(ctx, records) })
}
