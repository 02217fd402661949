package agents

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// failure gathers what headers tell of a message that could not be processed.
// No broker but RabbitMQ writes such headers itself; libraries and programs do,
// each in its own way, and one message may carry those of several.
type failure struct {
	class, text, trace string // exception class, its message, its stack trace
	source             string // channel it failed on
	reason             string // a dead-letter reason of its own, such as Service Bus writes
	buried             bool   // somebody put it aside: more than a note that something failed
	attempts           int    // deliveries so far
}

const (
	maxErrorType = 128
	maxReason    = 512
	// otherError is what the conventions call an error without a class.
	otherError = "_OTHER"
)

// header takes one header, its name in lower case.
func (f *failure) header(key, value string) {
	switch key {
	// Programs' own.
	case "x-error-type", "error-type", "error_type", "x-exception-type", "x-exception-class":
		if !says(value, "none", "null", "0") {
			set(&f.class, value)
		}
	case "x-error", "x-error-message", "error-message", "error_message":
		if !says(value, "false", "0", "none", "null", "no", "ok") {
			set(&f.text, value)
		}
	case "x-original-queue", "x-original-subject", "x-original-stream", "x-original-channel":
		set(&f.source, value)
		f.buried = true
	case "x-dead-letter-source", "deadlettersource":
		set(&f.source, value)
		f.buried = true
	case "x-dead-letter-reason", "deadletterreason": // Service Bus
		set(&f.reason, value)
		f.buried = true
	case "deadlettererrordescription":
		set(&f.text, value)
		f.buried = true

	// Spring AMQP, Spring Cloud Stream, Spring Kafka.
	case "x-exception-fqcn", "kafka_dlt-exception-fqcn", "kafka_dlt-exception-cause-fqcn":
		set(&f.class, value)
		f.buried = true
	case "x-exception-message", "kafka_dlt-exception-message":
		set(&f.text, value)
		f.buried = true
	case "x-exception-stacktrace", "kafka_dlt-exception-stacktrace":
		set(&f.trace, value)
		f.buried = true
	case "x-original-routingkey", "x-original-topic", "kafka_dlt-original-topic":
		set(&f.source, value)
		f.buried = true

	case "mt-fault-exceptiontype": // MassTransit
		set(&f.class, value)
		f.buried = true
	case "mt-fault-message":
		set(&f.text, value)
		f.buried = true
	case "mt-fault-stacktrace":
		set(&f.trace, value)
		f.buried = true
	case "mt-fault-inputaddress":
		value, _, _ = strings.Cut(value, "?")
		set(&f.source, value[strings.LastIndexByte(value, '/')+1:]) // rabbitmq://host/vhost/queue
		f.buried = true
	case "mt-reason":
		set(&f.reason, value)
		f.buried = true

	case "nservicebus.exceptioninfo.exceptiontype":
		set(&f.class, value)
		f.buried = true
	case "nservicebus.exceptioninfo.message":
		set(&f.text, value)
		f.buried = true
	case "nservicebus.exceptioninfo.stacktrace":
		set(&f.trace, value)
		f.buried = true
	case "nservicebus.failedq":
		value, _, _ = strings.Cut(value, "@") // queue@machine
		set(&f.source, value)
		f.buried = true

	case "rbs2-error-details": // Rebus
		set(&f.trace, value)
		f.buried = true
	case "rbs2-source-queue":
		set(&f.source, value)
		f.buried = true

	// Counts of deliveries, and of retries, which are one less.
	case "x-attempts", "x-attempt", "attempts", "delivery-attempt", "x-delivery-attempt":
		f.count(value, 0)
	case "x-retries", "x-retry-count", "retry-count", "x-retry", "mt-fault-retrycount", "mt-redelivery-count",
		"nservicebus.retries", "nservicebus.flretries":
		f.count(value, 1)
	}
}

// says: some programs write the header on every message, with a value for no
// error.
func says(value string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, value) })
}

func (f *failure) count(value string, more int) {
	if n, err := strconv.ParseUint(value, 10, 24); err == nil {
		f.attempts = max(f.attempts, int(n)+more)
	}
}

// lift fills in what nothing better has told.
func (f *failure) lift(ev *controlbus.MessageEvent) {
	if ev.Delivery == 0 {
		ev.Delivery = f.attempts
	}
	if f.class == "" {
		f.class = classOf(f.trace)
	}
	failed := f.class != "" || f.text != "" || f.trace != "" || f.reason != ""
	if !failed {
		return // an original address alone is no failure
	}
	set(&ev.ErrorType, firstLine(f.class, maxErrorType))
	set(&ev.ErrorType, firstLine(f.reason, maxErrorType))
	set(&ev.ErrorType, otherError)
	if !f.buried {
		// A note on a message that goes its way, such as an error reply.
		if ev.Outcome == controlbus.OutcomeOK {
			ev.Outcome = controlbus.OutcomeFailed
		}
		return
	}
	set(&ev.DeadLetterReason, firstLine(f.text, maxReason))
	set(&ev.DeadLetterReason, firstLine(f.reason, maxReason))
	set(&ev.DeadLetterReason, ev.ErrorType)
	set(&ev.DeadLetterSource, f.source)
	if ev.Outcome == controlbus.OutcomeOK {
		ev.Outcome = controlbus.OutcomeDeadLettered
		// Back where it failed, it is being tried again: whoever sends it there
		// seldom takes the headers off.
		if f.source != "" && (f.source == ev.Destination || f.source == ev.RoutingKey) {
			ev.Outcome = controlbus.OutcomeRetried
		}
	}
}

// classOf is the exception class that a stack trace is about: that of its
// innermost cause, for frameworks wrap what a handler threw.
func classOf(trace string) string {
	const cause = "Caused by: "
	if i := strings.LastIndex(trace, cause); i >= 0 {
		trace = trace[i+len(cause):]
	}
	end := strings.IndexAny(trace, ":( \t\r\n")
	if end < 0 {
		end = len(trace)
	}
	if class := trace[:end]; strings.Contains(class, ".") || strings.HasSuffix(class, "Exception") || strings.HasSuffix(class, "Error") {
		return class
	}
	return ""
}

// firstLine cuts s at its first line's end and at limit bytes, not within a
// character.
func firstLine(s string, limit int) string {
	if i := strings.IndexAny(s, "\r\n"); i >= 0 {
		s = s[:i]
	}
	s = strings.TrimSpace(s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
