package storage

import (
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Metric is a metric as it was sent. Histograms and summaries are several, as
// Sample says: name_bucket, name_sum, name_count.
type Metric struct {
	Name string
	Kind string // gauge, counter, histogram, summary
	Unit string
}

// MetricQuery selects metric series by what a store can decide cheaply: it may
// find too many, never too few. Series have no times of their own, so a range
// counts by its days.
type MetricQuery struct {
	Range   TimeRange
	Metrics []string // names as sent; empty: all
	// Values narrows: of each list, a series has one value, under whatever name.
	Values [][]string
	Limit  int // more than that is controlbus.ErrTooLarge
}

// MetricSeries is one series of a metric.
type MetricSeries struct {
	Metric
	ID     uint64
	Labels []Attr
}

// SampleQuery selects samples. Those that no point of the grid looks at are
// left out.
type SampleQuery struct {
	Range   TimeRange
	Metrics []string // of which Series are
	Series  []uint64 // empty: all of the metrics
	Grid    SampleGrid
	Limit   int // more than that is controlbus.ErrTooLarge
}

// SampleGrid is at which instants a query looks at samples: at End and every
// Step before it, each time at what happened within Window up to and including
// that instant. The zero value is everywhere.
type SampleGrid struct {
	End          time.Time
	Step, Window time.Duration
	// Newest says that of each window only the newest sample counts.
	Newest bool
}

// SampleFunc takes one sample; an error ends the reading and is returned.
// Samples of one series need not come in order of time, and an instant may come
// twice.
type SampleFunc func(series uint64, ms int64, value float64) error

// TrafficQuery asks how many messages passed, for each channel, service and
// operation, in steps about as wide as Width.
type TrafficQuery struct {
	Range   TimeRange
	Width   time.Duration
	Measure TrafficMeasure
	Limit   int // keys, and panes of all together; more is controlbus.ErrTooLarge
}

// TrafficMeasure is what of passing messages is asked for.
type TrafficMeasure uint8

// Measures. TrafficKeys is who there is, without any figures.
const (
	TrafficKeys TrafficMeasure = iota
	TrafficMessages
	TrafficFailed
	TrafficBytes
	TrafficLatency
)

// Traffic is the answer: series of panes, each Step long.
type Traffic struct {
	Step   time.Duration
	Series []TrafficSeries
}

// TrafficSeries are the panes of one key that have something in them. One time
// may come twice; what is there then adds up.
type TrafficSeries struct {
	Env, System, Broker, Destination, Service string
	Op                                        controlbus.Op

	At []uint32 // start of each pane, seconds since 1970
	N  []uint64 // messages, failures, bytes, or latencies measured

	// Of TrafficLatency, see Pane: sums in nanoseconds, and for each pane
	// buckets with their counts.
	SumNs   []uint64
	Buckets [][]uint8
	Counts  [][]uint64
}
