package storage

import (
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// TimeRange is half open: From <= t < To. Every read has one.
type TimeRange struct{ From, To time.Time }

// Last returns the range that ends at now.
func Last(d time.Duration, now time.Time) TimeRange { return TimeRange{From: now.Add(-d), To: now} }

// Duration is the range's length.
func (r TimeRange) Duration() time.Duration { return r.To.Sub(r.From) }

// Order of a message list.
type Order uint8

// Orders.
const (
	NewestFirst Order = iota
	OldestFirst
)

// MessageQuery selects message events. Empty fields select everything; the
// fields given must all match. Lookups by an id ignore no field, but they are
// answered from indexes and may span the whole retention cheaply.
type MessageQuery struct {
	Range TimeRange
	Env   string

	System  string
	Broker  string
	Channel string // name, or a pattern with *
	Service string

	MessageID     string
	CorrelationID string
	TraceID       string // 32 hex digits
	UID           string // 32 hex digits
	HeaderName    string // with HeaderValue: the header has exactly that value
	HeaderValue   string
	BodyWord      string // substring of the body, case-insensitive for ASCII
	FailedOnly    bool

	// Filter must match too; nil matches everything. What it pins by an AND at
	// its top (an id, a time) is answered from indexes like the fields above.
	Filter *filter.Filter

	Snippets bool // fill Message.Snippet with the start of each body found

	Order  Order
	Limit  int    // at most 1000; 0 = 100
	Cursor string // from MessagePage.Next, opaque
}

// Resolve moves what the filter pins by an AND at its top into the fields that
// are free, so that both ways of asking take the same quick way. The filter
// keeps the rest.
func (q MessageQuery) Resolve() MessageQuery {
	q.Filter = q.Filter.Take(func(field, value string) bool {
		to := map[string]*string{
			"env": &q.Env, "system": &q.System, "broker": &q.Broker, "channel": &q.Channel, "service": &q.Service,
			"id": &q.MessageID, "correlation": &q.CorrelationID, "trace": &q.TraceID, "uid": &q.UID,
		}[field]
		switch {
		case field == "failed":
			q.FailedOnly = true
			return true
		case to == nil || *to != "" && *to != value:
			return false
		}
		*to = value
		return true
	})
	return q
}

// Summed says that Histogram answers q from sums that are kept at hand, at
// little cost: it names only what they are kept by.
func (q MessageQuery) Summed() bool {
	q = q.Resolve()
	return q.Filter.Only("channel", "service", "env", "system", "broker", "op") && q.MessageID == "" && q.CorrelationID == "" && q.TraceID == "" && q.UID == "" &&
		q.HeaderName == "" && q.BodyWord == ""
}

// Message is a stored message event without its body.
type Message struct {
	controlbus.MessageEvent
	StoredAt time.Time
	// Key of the conversation: hex of the correlation key, zero when none.
	Correlation controlbus.ID
	Snippet     string // start of the body, or … and what stands around a word looked for; where the query asked for snippets or looked into bodies
}

// MessageDetail is a stored message event with its body.
type MessageDetail struct {
	Message
	BodyStored bool // the body's row was found (it has its own retention)
	// BodyHidden says why a stored body is not shown to this reader; then Body
	// and Snippet are empty and BodyStored is false.
	BodyHidden string
}

// Scan says what a search looked at and why it stopped.
type Scan struct {
	Rows, Bytes uint64
	Elapsed     time.Duration
	Range       TimeRange  // what was asked for
	Reached     time.Time  // how far the search came, going in its order
	Stopped     StopReason // why it stopped
}

// StopReason says why a search ended.
type StopReason string

// Stop reasons.
const (
	StopEnd      StopReason = "end"      // the whole range was looked at
	StopLimit    StopReason = "limit"    // the page is full
	StopDeadline StopReason = "deadline" // the time budget was used up
)

// MessagePage is one page of a search.
type MessagePage struct {
	Messages []Message
	Next     string // cursor of the next page, empty at the end
	Scan     Scan
}

// Histogram is how many message events a search selects, step by step over its
// whole range. Two agents' copies of one event count twice.
type Histogram struct {
	Step             time.Duration // at least the one asked for
	Bars             []Bar         // in order of time, without gaps; the first and the last are cut to the range
	Messages, Failed uint64
	// Counted is what of the range was counted: all of it, unless
	// Scan.Stopped says otherwise.
	Counted TimeRange
	// AtMost says that the counts may be a little high: they take in messages
	// whose JSON body only Filter.Match could judge.
	AtMost bool
	Scan   Scan
}

// Bar is one step of a histogram.
type Bar struct {
	Time             time.Time // its start, a multiple of the step
	Messages, Failed uint64
	Counted          bool // wholly; else the counts are a lower bound, or nothing at all
}

// ValuesQuery asks for values that a field of the filter language had in a
// range: those that contain Part, whatever its case.
type ValuesQuery struct {
	Range TimeRange
	Env   string
	Field string // a field with Lookup; for "header." the values are headers' names
	Part  string
	Limit int // at most 1000; 0 = 100
}

// FieldValue is one value with how many of the messages looked at have it.
type FieldValue struct {
	Value    string
	Messages uint64
}

// Conversation is everything stored about one conversation, in causal order:
// send before receive before process before settle of the same message, else by
// corrected time.
type Conversation struct {
	Events    []ConversationEvent
	Truncated bool // more than the limit exists
	Scan      Scan
}

// ConversationEvent is one of Message, Span or Log.
type ConversationEvent struct {
	Message *Message
	Span    *Span
	Log     *Log
	At      time.Time     // corrected by the sender's clock offset
	Offset  time.Duration // the correction that was applied
	Why     string        // why it belongs: correlation, trace, cause, link
}

// ChannelState is one channel as its broker last described it and as taps saw
// its traffic.
type ChannelState struct {
	controlbus.ChannelName
	Kind       string    // the broker's own word
	SeenAt     time.Time // of the broker's last description; zero if only tapped
	Ready      float64   // messages waiting; NaN unknown
	Unacked    float64
	Bytes      float64
	Consumers  float64
	Lag        float64
	PublishedS float64 // per second by the broker's counters; NaN unknown
	DeliveredS float64
	AckedS     float64

	Tapped      uint64 // messages taps saw in the range
	TappedBytes uint64
	Failed      uint64
	LastMessage time.Time
	Spark       []float64 // tapped messages per step over the range, NaN = no data
}

// ChannelQuery selects channels.
type ChannelQuery struct {
	Range   TimeRange
	Env     string
	Broker  string
	Pattern string // of the name
	Limit   int    // 0 = 500
	// TrafficOnly leaves out what brokers say: for comparing ranges.
	TrafficOnly bool
}

// Point of a chart; Value is NaN where there is no data.
type Point struct {
	Time  time.Time
	Value float64
}

// Line is one line of a chart.
type Line struct {
	Name   string
	Points []Point
}

// SeriesQuery asks for a channel's traffic over time.
type SeriesQuery struct {
	Channel controlbus.ChannelName
	Range   TimeRange
	Step    time.Duration
}

// ChannelSeries are the charts of a channel's page.
type ChannelSeries struct {
	Rate, Failed, Bytes []Point // per second
	P50, P99            []Point // latency, seconds
	Ready, Unacked      []Point // from the broker
}

// Totals are the key figures of a range.
type Totals struct {
	Messages, Failed, Bytes  uint64
	Channels                 uint64
	Spans, Logs, Invalid     uint64
	OldestMessage, NewestLog time.Time
	Rate                     []Point // messages per second
	FailedRate               []Point
}

// Passed is how much passed in a range: the part of Totals that costs least.
type Passed struct {
	Messages uint64
	Rate     []Point // messages per second, in the steps of Totals
}

// TableSize is one table of the store.
type TableSize struct {
	Name       string
	Rows       uint64
	Bytes      uint64
	Parts      uint64
	Oldest     time.Time
	Partitions uint64
	Days       int // kept at most; 0: for ever
}

// ConversationQuery names a conversation by whatever is known of it; each
// non-zero key adds what it finds, and one round of following causes, links and
// the trace and correlation ids of what was found.
type ConversationQuery struct {
	Range       TimeRange
	Correlation controlbus.ID
	TraceID     [16]byte
	MessageID   string
	Limit       int // events; 0 = 500
}

// QueryTime is how long the latest reads of one kind took.
type QueryTime struct {
	Kind          string
	Count         uint64 // since the start
	Latest        int    // reads that the rest is about
	P50, P95, Max time.Duration
}

// Disk is where a store keeps its data.
type Disk struct {
	Free, Total int64
	Reserve     int64 // below this the oldest day goes
}
