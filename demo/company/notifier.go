package company

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// runNotifier sends mails. Notifications are core messages: when it is away,
// they are gone, and nobody minds.
func runNotifier(ctx context.Context, cfg Config, b *bus) error {
	luck := newChance(cfg.Seed, b.service)
	return b.subscribe(ctx, "notifications.>", "notifier", cfg.workers(100*time.Millisecond),
		func(ctx context.Context, m *message, _ string) error {
			var out mail
			if err := decode(m, &out); err != nil {
				return err
			}
			if err := sleep(ctx, luck.latency(25*time.Millisecond, .4)); err != nil {
				return err
			}
			if luck.hit(cfg.Faults.Bounced) {
				return &failure{Type: "MailRefused", Permanent: true, err: errors.New("550 5.1.1 mailbox unavailable")}
			}
			b.tel.log.InfoContext(ctx, "mail sent", append(about(m), slog.String("template", out.Template))...)
			return nil
		})
}
