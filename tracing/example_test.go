package tracing_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/tracing"
)

// A service traces all its parts. Without a TracerProvider in Config it uses OpenTelemetry's global one.
func ExampleNew() {
	t, err := tracing.New(tracing.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	config, err := app.ConfigFromEnv("shop", os.Getenv)
	if err != nil {
		fmt.Println(err)
		return
	}
	config.Tracing = t
}

// An event carries the context of the span in which it was published, as a CloudEvents extension.
func ExampleTracing_Publish() {
	provider := sdktrace.NewTracerProvider()
	t, err := tracing.New(tracing.Config{TracerProvider: provider})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, span := provider.Tracer("example").Start(context.Background(), "place an order")
	defer span.End()

	e := rocketflow.Event{Topic: "orders", Type: "order.placed", Subject: "o-1"}
	t.Publish(ctx, &e)
	carried := e.Extensions["traceparent"]
	fmt.Println(carried[3:35] == span.SpanContext().TraceID().String())
	// Output: true
}

// Lines that are logged with the context of a span have its ids.
func ExampleNewLogHandler() {
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	logger := slog.New(tracing.NewLogHandler(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime})))
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36},
		SpanID:  trace.SpanID{0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7},
	}))
	logger.InfoContext(ctx, "invoice written", "order", "o-1")
	// Output:
	// level=INFO msg="invoice written" order=o-1 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7
}
