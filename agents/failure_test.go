package agents

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// told is what LiftHeaders makes of a failure's headers.
type told struct {
	Outcome                   controlbus.Outcome
	ErrorType, Reason, Source string
	Delivery                  int
}

func lifted(destination, key string, headers ...string) told {
	ev := &controlbus.MessageEvent{Destination: destination, RoutingKey: key}
	for i := 0; i+1 < len(headers); i += 2 {
		ev.Headers = append(ev.Headers, controlbus.Header{Key: headers[i], Value: headers[i+1]})
	}
	LiftHeaders(ev)
	return told{ev.Outcome, ev.ErrorType, ev.DeadLetterReason, ev.DeadLetterSource, ev.Delivery}
}

func TestFailureHeaders(t *testing.T) {
	t.Parallel()
	const dead, retried, failed = controlbus.OutcomeDeadLettered, controlbus.OutcomeRetried, controlbus.OutcomeFailed
	springTrace := "org.springframework.amqp.rabbit.support.ListenerExecutionFailedException: Listener threw exception\n\tat x.y(Z.java:1)\nCaused by: java.net.SocketTimeoutException: Read timed out\n\tat a.b(C.java:2)\n"
	for _, c := range []struct {
		name             string
		destination, key string
		headers          []string
		want             told
	}{
		{"nothing", "orders", "orders.new", []string{"x-tenant", "acme"}, told{}},
		{"the demo company's dead letter", "DEADLETTERS", "dead.payments", []string{
			"x-original-subject", "payments.capture", "x-original-stream", "PAYMENTS", "x-original-sequence", "17", "x-attempts", "3",
			"x-error-type", "GatewayTimeout", "x-error", "capture: gateway did not answer within 2s", "x-failed-at", "2026-01-02T03:04:05Z",
		}, told{dead, "GatewayTimeout", "capture: gateway did not answer within 2s", "payments.capture", 3}},
		{"the same sent back to its stream", "PAYMENTS", "payments.capture", []string{
			"x-original-subject", "payments.capture", "x-attempts", "3", "x-error-type", "GatewayTimeout",
		}, told{retried, "GatewayTimeout", "GatewayTimeout", "payments.capture", 3}},
		{"an error reply", "replies", "replies.1", []string{"X-Error", "no such order", "X-Error-Type", "NotFound"}, told{failed, "NotFound", "", "", 0}},
		{"a text without a class", "replies", "", []string{"X-Error", "no such order"}, told{failed, "_OTHER", "", "", 0}},
		{"no error, told so", "replies", "", []string{"x-error", "false", "error-type", "None"}, told{}},
		{"Spring AMQP", "errors", "", []string{
			"x-exception-message", "Read timed out", "x-exception-stacktrace", springTrace, "x-original-exchange", "orders", "x-original-routingKey", "orders.new",
		}, told{dead, "java.net.SocketTimeoutException", "Read timed out", "orders.new", 0}},
		{"Spring Cloud Stream", "errors", "", []string{
			"x-exception-fqcn", "com.acme.Broken", "x-exception-message", "first\nsecond", "x-original-topic", "orders",
		}, told{dead, "com.acme.Broken", "first", "orders", 0}},
		{"MassTransit", "orders_error", "", []string{
			"MT-Reason", "fault", "MT-Fault-ExceptionType", "System.TimeoutException", "MT-Fault-Message", "too slow",
			"MT-Fault-InputAddress", "rabbitmq://host/vhost/orders?temporary=true", "MT-Fault-RetryCount", "4",
		}, told{dead, "System.TimeoutException", "too slow", "orders", 5}},
		{"MassTransit, skipped", "orders_skipped", "", []string{"MT-Reason", "dead-letter"}, told{dead, "dead-letter", "dead-letter", "", 0}},
		{"NServiceBus", "error", "", []string{
			"NServiceBus.ExceptionInfo.ExceptionType", "System.InvalidOperationException", "NServiceBus.ExceptionInfo.Message", "stock is negative",
			"NServiceBus.FailedQ", "sales@host1", "NServiceBus.Retries", "2",
		}, told{dead, "System.InvalidOperationException", "stock is negative", "sales", 3}},
		{"Rebus", "error", "", []string{
			"rbs2-error-details", "System.ArgumentException: bad\n at x", "rbs2-source-queue", "sales",
		}, told{dead, "System.ArgumentException", "System.ArgumentException", "sales", 0}},
		{"Service Bus", "dlq", "", []string{"DeadLetterReason", "MaxDeliveryCountExceeded", "DeadLetterErrorDescription", "10 deliveries"},
			told{dead, "MaxDeliveryCountExceeded", "10 deliveries", "", 0}},
		{"attempts alone", "orders", "", []string{"X-Attempts", "2"}, told{Delivery: 2}},
		{"retries count from the second delivery", "orders", "", []string{"x-retry-count", "2"}, told{Delivery: 3}},
		{"not a number", "orders", "", []string{"x-attempts", "-1", "x-retries", "99999999999999999999"}, told{}},
		{"an address alone is no failure", "orders", "", []string{"x-original-queue", "other"}, told{}},
	} {
		if diff := cmp.Diff(c.want, lifted(c.destination, c.key, c.headers...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestFailureTextsAreBounded(t *testing.T) {
	t.Parallel()
	got := lifted("d", "", "x-exception-message", strings.Repeat("é", 5000), "x-exception-fqcn", strings.Repeat("a.b", 500))
	if len(got.Reason) > maxReason || len(got.ErrorType) > maxErrorType || !utf8.ValidString(got.Reason) || len(got.Reason) < maxReason-4 {
		t.Errorf("reason of %d bytes, valid %v; class of %d bytes", len(got.Reason), utf8.ValidString(got.Reason), len(got.ErrorType))
	}
}
