// Package company is a small order-processing business that runs on a NATS
// broker: what the demo watches. Its services know nothing of Signalbox. Each
// has goroutines, a broker connection and an OpenTelemetry SDK of its own, and
// knows one OTLP endpoint, exactly as a customer's services would.
//
//	storefront ── orders.placed, orders.abandoned ──▶ order-service
//	order-service ── fraud.check (request and reply) ──▶ fraud-check
//	order-service ── payments.capture ──▶ payment-service ── HTTP ──▶ payment provider
//	payment-service ── orders.paid, orders.declined ──▶ order-service
//	order-service ── shipping.labels ──▶ shipping-service ── shipping.dispatched
//	order-service, shipping-service ── notifications.email ──▶ notifier
//	any of them ── dead.<service's channel> ──▶ (nobody: a person has to look)
//
// Things go wrong as they do in life. The payment provider has outages; the
// breaker in payment-service opens, messages wait on the broker, and those that
// failed three times are dead letters. Some orders carry a field that
// order-service does not know and are dead letters at once. The label printer
// has slow hours, and a backlog grows. Cards are declined, fraud-check answers
// late, customers leave their carts.
//
// What happens is drawn from a seed; when it happens is real time. Every queue
// and every pool of workers is bounded. cmd/signalbox starts the company with
// Run, which returns when all of it has stopped.
package company
