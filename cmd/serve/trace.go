package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// lastExport is how long the end of the process waits for a collector to take the last spans.
const lastExport = 3 * time.Second

// tracing makes the provider of spans, which are sent to the collector in the background: a collector that is slow or
// away costs spans, never requests. It returns nil without --otlp-traces-endpoint. The function sends what is left.
//
// The environment's OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_* and
// OTEL_EXPORTER_OTLP_HEADERS are honoured.
func (c *command) tracing(ctx context.Context, log *slog.Logger) (trace.TracerProvider, func(), error) {
	if c.Traces == "" {
		return nil, func() {}, nil
	}
	to, err := collector(c.Traces)
	if err != nil {
		return nil, nil, err
	}
	// The library has one place for errors of exports; it would write them to standard error in its own form.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces", "error", err) }))
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(to))
	if err != nil {
		return nil, nil, fmt.Errorf("--otlp-traces-endpoint %s: %w", c.Traces, err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithFromEnv(),
		resource.WithAttributes(attribute.String("service.version", version())))
	if err != nil {
		return nil, nil, fmt.Errorf("traces: what the environment says of this service: %w", err)
	}
	if name, ok := about.Set().Value("service.name"); !ok || name.AsString() == "" {
		about, err = resource.Merge(about, resource.NewSchemaless(attribute.String("service.name", "mix")))
		if err != nil {
			return nil, nil, fmt.Errorf("traces: %w", err)
		}
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	log.Info("traces", "to", to)
	return p, func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastExport)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			log.Warn("traces", "error", err)
		}
	}, nil
}

// collector checks the address of a collector. One without a path has OTLP's.
func collector(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("--otlp-traces-endpoint is %q, want http://HOST:PORT or https://HOST:PORT, as of a collector's OTLP over HTTP (port 4318)", address)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}
