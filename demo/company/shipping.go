package company

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// A label takes labelTime to print, and slowFactor times as long when the
// printers have a bad hour: then more comes in than goes out.
const (
	labelTime  = 80 * time.Millisecond
	slowFactor = 20
)

// runShipping prints labels. Each worker is a printer, so a backlog grows on
// the broker when they are slow.
func runShipping(ctx context.Context, cfg Config, b *bus) error {
	luck := newChance(cfg.Seed, b.service)
	begin := time.Now()
	return b.consume(ctx, consumer{
		stream: streamShipping, durable: "shipping-service", subjects: []string{"shipping.labels"},
		dead: "dead.shipping", workers: cfg.workers(2 * labelTime),
		handle: func(ctx context.Context, m *message) error {
			var l label
			if err := decode(m, &l); err != nil {
				return err
			}
			took := luck.latency(labelTime, .25)
			if cfg.Faults.SlowLabels.active(time.Since(begin)) {
				took *= slowFactor
				b.tel.log.WarnContext(ctx, "printer is warming its head", append(about(m),
					slog.String("order_id", l.OrderID), slog.Duration("wait", took))...)
			}
			if err := b.print(ctx, took, l); err != nil {
				return err
			}
			done := dispatched{OrderID: l.OrderID, Carrier: l.Carrier, PrintedAt: time.Now().UTC(),
				Tracking: fmt.Sprintf("%s%012d", l.Carrier[:2], luck.intN(1_000_000_000)),
				LabelID:  firstPaymentID + int64(luck.intN(1_000_000)), PrinterRef: fmt.Sprintf("zebra-%d", 1+luck.intN(3))}
			out, err := after(m, "shipping.dispatched", done)
			if err != nil {
				return err
			}
			if err := b.publish(ctx, out); err != nil {
				return err
			}
			return b.mail(ctx, m, mail{To: l.Customer.Email, Template: "parcel-sent", Subject: "Your parcel is on its way",
				Values: map[string]string{"name": l.Customer.Name, "order": l.OrderID, "tracking": done.Tracking}})
		},
	})
}

// print is the time a label spends in the printer.
func (b *bus) print(ctx context.Context, took time.Duration, l label) error {
	ctx, sp := b.tel.tracer.Start(ctx, "print label")
	defer sp.End()
	if err := sleep(ctx, time.Duration(l.Parcels)*took); err != nil {
		err = &failure{Type: "PrinterStopped", err: err}
		fail(sp, err)
		return err
	}
	return nil
}
