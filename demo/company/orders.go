package company

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// fraudTimeout is how long order-service waits for a verdict; fraudLimit is
// the amount up to which it accepts an order without one.
const (
	fraudTimeout = 400 * time.Millisecond
	fraudLimit   = 150_00 // cents
)

// runOrders is order-service, the process manager: it decides what happens to
// an order next.
func runOrders(ctx context.Context, cfg Config, b *bus) error {
	return b.consume(ctx, consumer{
		stream: streamOrders, durable: "order-service", dead: "dead.orders",
		subjects: []string{"orders.placed", "orders.abandoned", "orders.paid", "orders.declined"},
		workers:  cfg.workers(100 * time.Millisecond),
		handle: func(ctx context.Context, m *message) error {
			switch m.Subject {
			case "orders.placed":
				return b.placed(ctx, m)
			case "orders.abandoned":
				return b.abandoned(ctx, m)
			case "orders.paid":
				return b.paid(ctx, m)
			default:
				return b.declined(ctx, m)
			}
		},
	})
}

func (b *bus) placed(ctx context.Context, m *message) error {
	var o order
	if err := decode(m, &o); err != nil {
		return err
	}
	number, err := strconv.ParseInt(strings.TrimPrefix(o.OrderID, "ORD-"), 10, 64)
	if err != nil {
		return &failure{Type: "ValidationError", Permanent: true, err: fmt.Errorf("order id %q: %w", o.OrderID, err)}
	}
	verdict, err := b.askFraudCheck(ctx, m, o)
	if err != nil {
		return err
	}
	attrs := append(about(m), slog.String("order_id", o.OrderID), slog.String("verdict", verdict))
	if verdict == "review" {
		out, err := after(m, "orders.review", fraudVerdict{OrderID: o.OrderID, Verdict: verdict})
		if err != nil {
			return err
		}
		b.tel.log.WarnContext(ctx, "order held for review", attrs...)
		return b.publish(ctx, out)
	}
	cents, err := o.Total.cents()
	if err != nil {
		return &failure{Type: "ValidationError", Permanent: true, err: err}
	}
	out, err := after(m, "payments.capture", capture{OrderID: o.OrderID, PaymentID: firstPaymentID + number,
		Amount: o.Total, Card: o.Card, Customer: o.Customer, ShipTo: o.ShipTo, Items: o.Items,
		Capture: captureRules{Mode: "immediate", DeadlineMs: captureTimeout.Milliseconds(), ThreeDS: cents > 100_00}})
	if err != nil {
		return err
	}
	b.tel.log.InfoContext(ctx, "order accepted", attrs...)
	return b.publish(ctx, out)
}

// askFraudCheck asks and waits. Without an answer in time small orders are
// accepted, because a shop that waits for its fraud check sells nothing.
func (b *bus) askFraudCheck(ctx context.Context, m *message, o order) (string, error) {
	out, err := after(m, "fraud.check", fraudQuery{OrderID: o.OrderID, Customer: o.Customer, Total: o.Total})
	if err != nil {
		return "", err
	}
	reply, err := b.request(ctx, out, fraudTimeout)
	if err != nil {
		cents, badAmount := o.Total.cents()
		if badAmount == nil && cents <= fraudLimit {
			b.tel.log.WarnContext(ctx, "accepted without fraud check", append(about(m),
				slog.String("order_id", o.OrderID), slog.Any("error", err))...)
			return "unchecked", nil
		}
		return "", &failure{Type: "FraudCheckTimeout", err: err}
	}
	var v fraudVerdict
	if err := json.Unmarshal(reply.Data, &v); err != nil {
		return "", &failure{Type: "FraudCheckReply", err: err}
	}
	if v.OrderID != o.OrderID {
		return "", &failure{Type: "FraudCheckReply", err: errors.New("verdict is about another order: " + v.OrderID)}
	}
	return v.Verdict, nil
}

func (b *bus) abandoned(ctx context.Context, m *message) error {
	var c abandonedCart
	if err := decode(m, &c); err != nil {
		return err
	}
	return b.mail(ctx, m, mail{To: c.Customer.Email, Template: "cart-reminder",
		Subject: "You left something behind", Values: map[string]string{"name": c.Customer.Name, "total": c.Total.Value}})
}

func (b *bus) paid(ctx context.Context, m *message) error {
	var p paid
	if err := decode(m, &p); err != nil {
		return err
	}
	weight := grams(p.Items)
	out, err := after(m, "shipping.labels", label{OrderID: p.OrderID, ShipTo: p.ShipTo, Customer: p.Customer,
		Carrier: carriers[p.PaymentID%int64(len(carriers))], Grams: weight, Parcels: int(1 + weight/5000)})
	if err != nil {
		return err
	}
	if err := b.publish(ctx, out); err != nil {
		return err
	}
	return b.mail(ctx, m, mail{To: p.Customer.Email, Template: "order-confirmed", Subject: "Thank you for your order " + p.OrderID,
		Values: map[string]string{"name": p.Customer.Name, "order": p.OrderID, "total": p.Amount.Value}})
}

func (b *bus) declined(ctx context.Context, m *message) error {
	var p paid
	if err := decode(m, &p); err != nil {
		return err
	}
	b.tel.log.WarnContext(ctx, "order cancelled, card declined", append(about(m),
		slog.String("order_id", p.OrderID), slog.String("reason", p.Reason))...)
	return b.mail(ctx, m, mail{To: p.Customer.Email, Template: "card-declined", Subject: "Your card was declined",
		Values: map[string]string{"name": p.Customer.Name, "order": p.OrderID, "reason": p.Reason}})
}

func (b *bus) mail(ctx context.Context, cause *message, body mail) error {
	out, err := after(cause, "notifications.email", body)
	if err != nil {
		return err
	}
	return b.notify(ctx, out)
}
