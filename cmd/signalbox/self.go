package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/measure"
	"github.com/signalbox-dev/signalbox/storage/engine"
)

// serviceName is the console as a sender of telemetry.
const serviceName = "signalbox"

// reportSelf puts the console's own metrics into its queue as if they had come
// from elsewhere, so that they are in the store with everybody's: what happened
// yesterday can be asked, by the same API, and needs no second Prometheus.
func (c *console) reportSelf(ctx context.Context) error {
	log := c.log.With("component", "self")
	started := time.Now()
	host, err := os.Hostname()
	if err != nil {
		log.WarnContext(ctx, "host name", "error", err)
	}
	tick := time.NewTicker(c.cfg.MetricsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		md := pmetric.NewMetrics()
		rm := md.ResourceMetrics().AppendEmpty()
		for _, kv := range [][2]string{
			{controlbus.AttrServiceName, serviceName}, {controlbus.AttrServiceInstance, host}, {controlbus.AttrServiceVersion, version}, {controlbus.AttrHostName, host},
		} {
			rm.Resource().Attributes().PutStr(kv[0], kv[1])
		}
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().SetName("github.com/signalbox-dev/signalbox/cmd/signalbox")
		err := measure.Append(sm, c.set, started, time.Now())
		if err == nil {
			err = c.tell(ctx, md)
		}
		var retry *collector.RetryError
		if errors.As(err, &retry) || ctx.Err() != nil {
			continue // the queue is full, which its own metric tells
		}
		if err != nil { // nothing that the rest of the console should end for
			log.WarnContext(ctx, "report metrics", slog.Any("error", err))
		}
	}
}

func (c *console) tell(ctx context.Context, md pmetric.Metrics) error {
	payload, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		return err
	}
	_, err = c.collector.Consume(ctx, collector.Request{Signal: collector.Metrics, Payload: payload, ReceivedAt: time.Now()})
	return err
}

// measure registers what no part counts of itself.
func (c *console) measure() {
	c.state.Measure(c.set)
	c.set.NewGauge("signalbox_info{version="+`"`+version+`"}`, func() float64 { return 1 })
	if c.engine != nil {
		c.set.NewGauge("signalbox_engine_up", func() float64 {
			if c.engine.Status().State == engine.Running {
				return 1
			}
			return 0
		})
		c.set.NewGauge("signalbox_engine_restarts_total", func() float64 { return float64(c.engine.Status().Restarts) })
	}
	for _, p := range []controlbus.Presence{controlbus.Online, controlbus.Silent} {
		c.set.NewGauge(`signalbox_agents{presence="`+string(p)+`"}`, func() float64 {
			n := 0
			for _, a := range c.roster.Agents() {
				if a.Presence == p {
					n++
				}
			}
			return float64(n)
		})
	}
}
