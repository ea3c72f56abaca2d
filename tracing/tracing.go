package tracing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/semconv/v1.37.0/messagingconv"
	"go.opentelemetry.io/otel/trace"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/saga"
)

// scope is the name of the instrumentation.
const scope = "github.com/rocketflow/rocketflow"

// Config configures a Tracing. The zero value uses OpenTelemetry's global providers.
type Config struct {
	// TracerProvider makes the spans.
	// Defaults to the global one, which may be set later.
	TracerProvider trace.TracerProvider

	// MeterProvider makes the metrics.
	// Defaults to the global one, which may be set later.
	MeterProvider metric.MeterProvider

	// Parent makes the span of a handler the child of the event's create span, so that a whole flow is one trace.
	// Defaults to a trace for each handling, with a link.
	Parent bool
}

// Tracing records spans and metrics. Its methods are safe for concurrent use.
type Tracing struct {
	tracer trace.Tracer
	parent bool

	sent     messagingconv.ClientSentMessages
	sending  messagingconv.ClientOperationDuration
	consumed messagingconv.ClientConsumedMessages
	process  messagingconv.ProcessDuration
}

// New returns a Tracing. An error is one of the MeterProvider.
func New(c Config) (*Tracing, error) {
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	t := &Tracing{tracer: c.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)), parent: c.Parent}
	meter := c.MeterProvider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	var errs [4]error
	t.sent, errs[0] = messagingconv.NewClientSentMessages(meter)
	t.sending, errs[1] = messagingconv.NewClientOperationDuration(meter)
	t.consumed, errs[2] = messagingconv.NewClientConsumedMessages(meter)
	t.process, errs[3] = messagingconv.NewProcessDuration(meter)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return t, nil
}

// The trace context of an event is W3C's, in the extensions that CloudEvents has for it.
var w3c = propagation.TraceContext{}

const traceparent = "traceparent"

// Publish records the create span of an event and stores its context in the event's extensions. It is a function for
// outbox.Config.OnPublish and timeout.Config.OnArm.
func (t *Tracing) Publish(ctx context.Context, e *rocketflow.Event) {
	if e.Extensions[traceparent] != "" {
		return // the application passes a context on
	}
	ctx, span := t.tracer.Start(ctx, "create "+e.Topic, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(eventAttributes(*e, "create", semconv.MessagingOperationTypeCreate)...))
	span.End()
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	maps.DeleteFunc(carrier, func(_, value string) bool { return value == "" })
	if len(carrier) == 0 {
		return // no tracer is configured, and the caller has no span
	}
	extensions := maps.Clone(e.Extensions) // they may be the application's
	if extensions == nil {
		extensions = make(map[string]string, len(carrier))
	}
	maps.Copy(extensions, carrier)
	e.Extensions = extensions
}

// contextOf returns the context of an event's create span; it is invalid if the event has none.
func contextOf(e rocketflow.Event) trace.SpanContext {
	return trace.SpanContextFromContext(w3c.Extract(context.Background(), propagation.MapCarrier(e.Extensions)))
}

// links returns links to the create spans of events.
func links(events ...rocketflow.Event) []trace.Link {
	all := make([]trace.Link, 0, len(events))
	for _, e := range events {
		if c := contextOf(e); c.IsValid() {
			all = append(all, trace.Link{SpanContext: c, Attributes: []attribute.KeyValue{semconv.MessagingMessageID(e.ID.String())}})
		}
	}
	return all
}

// Outbox returns a listener that records the send spans, check-backs and metrics of an outbox.
func (t *Tracing) Outbox() *outbox.Listener {
	return &outbox.Listener{Sent: t.onSent, Checked: t.onChecked}
}

func (t *Tracing) onSent(i outbox.SentInfo) {
	first, failed := i.Events[0], 0
	var failure error
	for _, err := range i.Errs {
		if err != nil {
			failed, failure = failed+1, err
		}
	}
	parent := context.Background()
	attributes := []attribute.KeyValue{attributeSwept.Bool(i.Swept), attributePath.String(i.Path.String())}
	if len(i.Events) == 1 {
		parent = trace.ContextWithRemoteSpanContext(parent, contextOf(first))
		attributes = append(attributes, eventAttributes(first, "send", semconv.MessagingOperationTypeSend)...)
	} else {
		attributes = append(attributes, operationAttributes(first.Topic, "send", semconv.MessagingOperationTypeSend)...)
		attributes = append(attributes, semconv.MessagingBatchMessageCount(len(i.Events)))
	}
	_, span := t.tracer.Start(parent, "send "+first.Topic, trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(i.Began),
		trace.WithLinks(links(i.Events...)...), trace.WithAttributes(attributes...))
	if !i.Stored.IsZero() {
		span.AddEvent("half message stored", trace.WithTimestamp(i.Stored))
		span.AddEvent("transaction committed", trace.WithTimestamp(i.Committed))
	}
	if failure != nil {
		fail(span, failure)
		span.SetAttributes(attributeFailed.Int(failed))
	}
	span.End(trace.WithTimestamp(i.Ended))

	ctx := context.Background()
	if n := int64(len(i.Events) - failed); n > 0 {
		t.sent.Add(ctx, n, "send", messagingconv.SystemRocketMQ, t.sent.AttrDestinationName(first.Topic))
	}
	t.sending.Record(ctx, i.Ended.Sub(i.Began).Seconds(), "send", messagingconv.SystemRocketMQ,
		t.sending.AttrDestinationName(first.Topic), t.sending.AttrOperationType(messagingconv.OperationTypeSend))
}

func (t *Tracing) onChecked(i outbox.CheckedInfo) {
	parent := trace.ContextWithRemoteSpanContext(context.Background(), contextOf(i.Event))
	attributes := append(eventAttributes(i.Event, "check_back", semconv.MessagingOperationTypeSettle),
		attributeDecision.String(i.Decision.String()), attributeReason.String(string(i.Reason)), attributeTimes.Int(i.Times))
	_, span := t.tracer.Start(parent, "check_back "+i.Event.Topic, trace.WithAttributes(attributes...))
	if i.Err != nil {
		fail(span, i.Err)
	}
	span.End()
}

// Middleware records the process span of each call of a handler. Register it with handlers.Router.Use before other
// middleware, so that their time is part of it.
func (t *Tracing) Middleware(next rocketflow.HandlerFunc) rocketflow.HandlerFunc {
	return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		group, attempt, began := handlers.Group(ctx), handlers.Attempt(ctx), time.Now()
		attributes := append(eventAttributes(e, "process", semconv.MessagingOperationTypeProcess),
			semconv.MessagingConsumerGroupName(group), attributeConsumer.String(handlers.Consumer(ctx)), attributeAttempt.Int(attempt))
		options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links(e)...), trace.WithAttributes(attributes...)}
		if t.parent && attempt <= 1 {
			ctx = trace.ContextWithRemoteSpanContext(ctx, contextOf(e))
		} else {
			options = append(options, trace.WithNewRoot())
		}
		ctx, span := t.tracer.Start(ctx, "process "+e.Topic, options...)
		err := errNotReturned // the handler panicked, or ended its goroutine
		defer func() {
			if err != nil {
				fail(span, err)
			}
			span.End()
			t.process.Record(ctx, time.Since(began).Seconds(), "process", messagingconv.SystemRocketMQ,
				t.process.AttrConsumerGroupName(group), t.process.AttrDestinationName(e.Topic))
			t.consumed.Add(ctx, 1, "process", messagingconv.SystemRocketMQ,
				t.consumed.AttrConsumerGroupName(group), t.consumed.AttrDestinationName(e.Topic))
		}()
		err = next(ctx, tx, e)
		return err
	}
}

var errNotReturned = errors.New("the handler panicked or ended its goroutine")

// Transition records the span of a saga's transition. It is a function for saga.Config.Around.
func (t *Tracing) Transition(ctx context.Context, i saga.TransitionInfo, run func(ctx context.Context) error) error {
	ctx, span := t.tracer.Start(ctx, "transition "+i.Saga, trace.WithAttributes(
		attributeSaga.String(i.Saga), attributeSagaKey.String(i.Key), attributeFrom.String(i.From), attributeTo.String(i.To),
		attributeCause.String(i.CauseType), attributeDeadline.Bool(i.Deadline)))
	defer span.End()
	err := run(ctx)
	if err != nil {
		fail(span, err)
	}
	return err
}

// Attributes of rocketflow's own, where the conventions have none.
const (
	attributeSwept    = attribute.Key("rocketflow.outbox.swept")
	attributePath     = attribute.Key("rocketflow.outbox.path")
	attributeFailed   = attribute.Key("rocketflow.outbox.failed")
	attributeDecision = attribute.Key("rocketflow.check.decision")
	attributeReason   = attribute.Key("rocketflow.check.reason")
	attributeTimes    = attribute.Key("rocketflow.check.times")
	attributeConsumer = attribute.Key("rocketflow.handler.consumer")
	attributeAttempt  = attribute.Key("rocketflow.handler.attempt")
	attributeSequence = attribute.Key("rocketflow.stream.sequence")
	attributeTimeout  = attribute.Key("rocketflow.timeout.name")
	attributeSaga     = attribute.Key("rocketflow.saga.name")
	attributeSagaKey  = attribute.Key("rocketflow.saga.key")
	attributeFrom     = attribute.Key("rocketflow.saga.from")
	attributeTo       = attribute.Key("rocketflow.saga.to")
	attributeCause    = attribute.Key("rocketflow.saga.cause")
	attributeDeadline = attribute.Key("rocketflow.saga.deadline")
)

func operationAttributes(topic, name string, kind attribute.KeyValue) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemRocketMQ, semconv.MessagingOperationName(name), kind, semconv.MessagingDestinationName(topic),
	}
}

func eventAttributes(e rocketflow.Event, name string, kind attribute.KeyValue) []attribute.KeyValue {
	keys := []string{e.ID.String()}
	if e.Subject != "" {
		keys = append(keys, e.Subject)
	}
	all := slices.Concat(operationAttributes(e.Topic, name, kind), []attribute.KeyValue{
		semconv.MessagingMessageID(e.ID.String()), semconv.MessagingRocketMQMessageTag(e.Type), semconv.MessagingRocketMQMessageKeys(keys...),
		semconv.CloudEventsEventID(e.ID.String()), semconv.CloudEventsEventType(e.Type), semconv.CloudEventsEventSource(e.Source),
	})
	if e.Subject != "" {
		all = append(all, semconv.CloudEventsEventSubject(e.Subject))
	}
	if e.Sequence > 0 {
		all = append(all, attributeSequence.Int64(e.Sequence))
	}
	if e.TimeoutName != "" {
		all = append(all, attributeTimeout.String(e.TimeoutName))
	}
	return all
}

// fail records an error, cut and escaped as in logs.
func fail(span trace.Span, err error) {
	span.RecordError(printable.Error(err, printable.Reason))
	span.SetStatus(codes.Error, printable.Line(err.Error(), printable.Reason))
}
