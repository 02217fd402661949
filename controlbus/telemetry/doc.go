// Package telemetry is the wire form of messages: a message event is an OTLP
// log record whose EventName is "messaging.message". Encoder writes them, on
// the agent's side; Decoder reads any OTLP request back into message events,
// logs, spans and samples, on the collector's.
//
// Logs are the hot path, so Decoder reads their protobuf itself, without a
// copy: strings are views into the request. Spans and metrics go through
// pdata. Which requests are well formed is pdata's judgement in both cases,
// and a differential test holds the two together.
//
// Attribute names follow the conventions that controlbus/semconv.go names;
// older names are accepted on the way in (attributes.go has the table). A new
// name beats an old one when a record carries both.
package telemetry
