package api

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"time"
)

// Histogram counts what a search would find over time.
type Histogram struct {
	StepSeconds float64   `json:"step_seconds"`
	Messages    uint64    `json:"messages"`
	Failed      uint64    `json:"failed"`
	AtMost      bool      `json:"at_most"`
	CountedFrom Timestamp `json:"counted_from"`
	CountedTo   Timestamp `json:"counted_to"`
	Bars        []Bar     `json:"bars"`
	Reads       string    `json:"reads,omitempty"`
	Scan        Scan      `json:"scan"`
}

// Bar is one step.
type Bar struct {
	Time     Timestamp `json:"time"`
	Messages uint64    `json:"messages"`
	Failed   uint64    `json:"failed"`
	Counted  bool      `json:"counted"`
}

// A histogram has maxBars at most, and defaultBars where nothing is asked for.
const (
	defaultBars = 60
	maxBars     = 1000
)

func (a *API) histogram(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	q, reads := p.search()
	bars := p.number("bars", defaultBars, 1, maxBars)
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	h, err := a.deps.Store.Histogram(ctx, q, roundUp(q.Range.Duration()/time.Duration(bars)))
	if err != nil {
		return fmt.Errorf("count: %w", err)
	}
	out := Histogram{
		StepSeconds: h.Step.Seconds(), Messages: h.Messages, Failed: h.Failed, AtMost: h.AtMost,
		CountedFrom: at(h.Counted.From), CountedTo: at(h.Counted.To), Bars: make([]Bar, 0, len(h.Bars)), Reads: reads, Scan: scan(h.Scan),
	}
	for _, b := range h.Bars {
		out.Bars = append(out.Bars, Bar{at(b.Time), b.Messages, b.Failed, b.Counted})
	}
	return write(w, http.StatusOK, out)
}

// roundUp is the next length that people count in.
func roundUp(d time.Duration) time.Duration {
	const day = 24 * time.Hour
	for _, s := range []time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
		time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, day,
	} {
		if d <= s {
			return s
		}
	}
	whole := d.Truncate(day)
	if whole < d {
		whole += day
	}
	return whole
}

// Invalids are records that nobody could understand.
type Invalids struct {
	Records   []Invalid `json:"records"`
	Truncated bool      `json:"truncated"`
}

// Invalid is one of them.
type Invalid struct {
	Time   Timestamp `json:"time"`
	Sender string    `json:"sender"`
	Signal string    `json:"signal"`
	Reason string    `json:"reason"`
	Size   int64     `json:"size"`
	Data   string    `json:"data,omitempty"`
}

const maxInvalid = 1000

func (a *API) invalid(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	within, limit, data := p.within("24h"), p.number("limit", 100, 1, maxInvalid), p.flag("data")
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	list, err := a.deps.Store.Invalid(ctx, within, limit)
	if err != nil {
		return fmt.Errorf("list invalid records: %w", err)
	}
	out := Invalids{Records: make([]Invalid, 0, len(list)), Truncated: len(list) >= limit}
	for _, v := range list {
		rec := Invalid{Time: nanos(v.Time), Sender: v.Sender, Signal: v.Signal, Reason: v.Reason, Size: v.Size}
		if data {
			rec.Data = base64.StdEncoding.EncodeToString(v.Data)
		}
		out.Records = append(out.Records, rec)
	}
	return write(w, http.StatusOK, out)
}
