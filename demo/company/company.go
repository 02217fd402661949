package company

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// Config is what the company needs to do business.
type Config struct {
	Broker      string  // NATS URL
	Endpoint    string  // OTLP over HTTP, such as http://127.0.0.1:4318
	Environment string  // deployment.environment.name
	Rate        float64 // checkouts per second, on average
	Seed        uint64
	Faults      Faults
}

// DefaultConfig is a small shop on an ordinary day. Broker has no default.
func DefaultConfig() Config {
	return Config{
		Endpoint:    "http://127.0.0.1:4318",
		Environment: "demo",
		Rate:        5,
		Seed:        1,
		Faults:      DefaultFaults(),
	}
}

// MaxRate bounds what one process of the demo is asked to do.
const MaxRate = 2000

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	if c.Broker == "" {
		errs = append(errs, errors.New("broker: want a NATS URL, have none"))
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("endpoint: want an http or https URL, have %q", c.Endpoint))
	}
	if c.Environment == "" {
		errs = append(errs, errors.New("environment: want a name, have none"))
	}
	if !(c.Rate > 0 && c.Rate <= MaxRate) { // also refuses NaN
		errs = append(errs, fmt.Errorf("rate: want more than 0 and at most %d orders per second, have %v", MaxRate, c.Rate))
	}
	for _, s := range []struct {
		name  string
		share float64
	}{
		{"poison", c.Faults.Poison}, {"abandoned", c.Faults.Abandoned}, {"declined", c.Faults.Declined},
		{"gateway", c.Faults.Gateway}, {"fraud_late", c.Faults.FraudLate}, {"bounced", c.Faults.Bounced},
	} {
		if !(s.share >= 0 && s.share <= 1) {
			errs = append(errs, fmt.Errorf("faults.%s: want a share from 0 to 1, have %v", s.name, s.share))
		}
	}
	return errors.Join(errs...)
}

// workers is how many of something a service needs so that perSecond of them,
// each taking the time given, keep up with the company's rate with room to spare.
func (c Config) workers(each time.Duration) int {
	return int(min(max(math.Ceil(2*c.Rate*each.Seconds()), 4), 128))
}

// Streams of the company.
const (
	streamOrders      = "ORDERS"
	streamPayments    = "PAYMENTS"
	streamShipping    = "SHIPPING"
	streamDeadLetters = "DEADLETTERS"
)

// streams is the company's part of the broker. Sizes are bounded so that a demo
// left running over a weekend does not fill a disk.
func streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{Name: streamOrders, Subjects: []string{"orders.>"}, Retention: jetstream.LimitsPolicy,
			Description: "What happens to orders", MaxAge: 24 * time.Hour, MaxBytes: 256 << 20},
		{Name: streamPayments, Subjects: []string{"payments.>"}, Retention: jetstream.WorkQueuePolicy,
			Description: "Payments to capture", MaxBytes: 128 << 20},
		{Name: streamShipping, Subjects: []string{"shipping.>"}, Retention: jetstream.LimitsPolicy,
			Description: "Labels to print and parcels sent", MaxAge: 24 * time.Hour, MaxBytes: 128 << 20},
		{Name: streamDeadLetters, Subjects: []string{"dead.>"}, Retention: jetstream.LimitsPolicy,
			Description: "Messages nobody could process", MaxAge: 7 * 24 * time.Hour, MaxBytes: 128 << 20},
	}
}

// Declare makes the company's streams on the broker, or brings them up to
// date. Run does it too; whoever wants to see the channels before the first
// message calls it earlier.
func Declare(ctx context.Context, broker string) error {
	nc, err := nats.Connect(broker, nats.Name("company-setup"), nats.Timeout(dialTimeout))
	if err != nil {
		return fmt.Errorf("company: connect to broker: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("company: jetstream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	for _, cfg := range streams() {
		if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("company: stream %s: %w", cfg.Name, err)
		}
	}
	return nil
}

// service is one program of the company.
type service struct {
	name, version string
	run           func(ctx context.Context, cfg Config, b *bus) error
}

var services = []service{
	{"storefront", "8.4.0", runStorefront},
	{"order-service", "5.12.3", runOrders},
	{"fraud-check", "1.9.0", runFraudCheck},
	{"payment-service", "2.31.0", runPayments},
	{"shipping-service", "3.7.1", runShipping},
	{"notifier", "1.4.2", runNotifier},
}

// Run does business until ctx ends, and returns when every service has
// finished what it had in hand and flushed its telemetry. A service that
// cannot begin stops the company; trouble later is the services' daily life.
func Run(ctx context.Context, cfg Config, logger *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("company: %w", err)
	}
	if err := Declare(ctx, cfg.Broker); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range services {
		g.Go(func() error {
			if err := s.start(ctx, cfg, logger.With(slog.String("service", s.name))); err != nil {
				return fmt.Errorf("company: %s: %w", s.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// start runs one service with an SDK and a broker connection of its own.
func (s service) start(ctx context.Context, cfg Config, logger *slog.Logger) error {
	tel, err := newTelemetry(ctx, cfg, s.name, s.version, logger)
	if err != nil {
		return err
	}
	defer tel.close(ctx)
	b, err := connect(cfg, s.name, tel)
	if err != nil {
		return err
	}
	defer b.close()
	tel.log.InfoContext(ctx, "service started", slog.String("version", s.version))
	defer tel.log.InfoContext(ctx, "service stops")
	return s.run(ctx, cfg, b)
}
