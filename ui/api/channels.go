package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
)

const (
	defaultChannels = 500
	maxChannels     = 5000
)

// Channels is the list of channels.
type Channels struct {
	Channels []Channel `json:"channels"`
	// Truncated says that there are more than the limit.
	Truncated bool `json:"truncated"`
}

func (a *API) channels(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	limit := p.number("limit", defaultChannels, 1, maxChannels)
	q := storage.ChannelQuery{Range: p.within("1h"), Env: p.text("env"), Broker: p.text("broker"), Pattern: p.text("name"), Limit: limit}
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	states, err := a.deps.Store.Channels(ctx, q)
	if err != nil {
		return fmt.Errorf("list channels: %w", err)
	}
	// A full list may have left some out; it is not known whether it did.
	out := Channels{Channels: make([]Channel, 0, len(states)), Truncated: len(states) >= limit}
	for i := range states {
		out.Channels = append(out.Channels, channel(&states[i]))
	}
	return write(w, http.StatusOK, out)
}

// ChannelDetail is a channel with its series.
type ChannelDetail struct {
	Channel
	StepSeconds float64 `json:"step_seconds"`
	Series      Series  `json:"series"`
}

// Series are a channel's figures over time.
type Series struct {
	Rate    []Point `json:"rate"`
	Failed  []Point `json:"failed"`
	Bytes   []Point `json:"bytes"`
	P50     []Point `json:"latency_p50"`
	P99     []Point `json:"latency_p99"`
	Ready   []Point `json:"ready"`
	Unacked []Point `json:"unacked"`
}

func (a *API) channel(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	name := controlbus.ChannelName{Env: p.text("env"), System: p.text("system"), Broker: p.required("broker"), Name: p.required("name")}
	within := p.within("1h")
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	states, err := a.deps.Store.Channels(ctx, storage.ChannelQuery{Range: within, Env: name.Env, Broker: name.Broker, Pattern: name.Name, Limit: maxChannels})
	if err != nil {
		return fmt.Errorf("read channel %s: %w", name, err)
	}
	var state *storage.ChannelState
	for i := range states {
		if s := &states[i]; s.Name == name.Name && s.Broker == name.Broker && (name.System == "" || s.System == name.System) {
			state = s
			break
		}
	}
	if state == nil {
		return fmt.Errorf("channel %s was not seen from %s to %s: %w", name, within.From.Format(time.RFC3339), within.To.Format(time.RFC3339), controlbus.ErrNotFound)
	}
	step := channels.Step(within)
	s, err := a.deps.Store.ChannelSeries(ctx, storage.SeriesQuery{Channel: state.ChannelName, Range: within, Step: step})
	if err != nil {
		return fmt.Errorf("read series of %s: %w", name, err)
	}
	return write(w, http.StatusOK, ChannelDetail{
		Channel: channel(state), StepSeconds: step.Seconds(),
		Series: Series{
			Rate: points(s.Rate), Failed: points(s.Failed), Bytes: points(s.Bytes), P50: points(s.P50), P99: points(s.P99),
			Ready: points(s.Ready), Unacked: points(s.Unacked),
		},
	})
}
