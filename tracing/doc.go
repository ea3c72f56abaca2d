// Package tracing connects rocketflow with OpenTelemetry: it carries the trace context of each event, and records spans and
// metrics of publishing, sending and handling.
//
//	t, err := tracing.New(tracing.Config{}) // the global providers of OpenTelemetry
//	…
//	config.Tracing = t                      // app.Config, or rocketflowfx.Config
//
// Without these packages, pass its parts on: Publish to outbox.Config.OnPublish and timeout.Config.OnArm, Outbox to
// outbox.Config.Listener, Middleware to handlers.Router.Use, and Transition to saga.Config.Around.
//
// The package depends on OpenTelemetry's API alone. The program configures the SDK and an exporter.
//
// # Context
//
// Publish stores the W3C trace context in the row of the event, in the transaction that publishes it, as the CloudEvents
// extensions traceparent and tracestate. So it survives a crash, a relay and a retry, and other readers of CloudEvents
// find it. An event that has a traceparent extension already keeps it. The event of a timeout has the context of the call that
// armed it.
//
// # Spans
//
// Names and attributes follow OpenTelemetry's semantic conventions of messaging, with messaging.system = rocketmq. The consumer group is the
// group at the broker, without a namespace; rocketflow.handler.consumer is the consumer's own name.
//
//	create TOPIC        producer   Publish, or Arm; a child of the caller's span. Its context travels with the event
//	send TOPIC          producer   a request to the broker, linked to the events that it carries. The request of one event is a
//	                               child of its create span. Events: half message stored, transaction committed
//	check_back TOPIC    internal   the decision about a half message, a child of its create span
//	process TOPIC       consumer   the call of a handler: a trace of its own that is linked to the create span, or its child if
//	                               Config.Parent is set. The retry of a parked event is always a trace of its own
//	transition SAGA     internal   a transition of a saga, a child of the process span
//
// What a handler publishes with its context are children of its process span, so a flow can be followed across services.
//
// # Metrics
//
// messaging.client.sent.messages, messaging.client.operation.duration, messaging.client.consumed.messages and
// messaging.process.duration, by the conventions, beside those of package metrics.
//
// # Logs
//
// NewLogHandler adds the trace, the event and the attempt to what is logged with the context of a handler.
package tracing
