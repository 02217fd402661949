package storage

import "time"

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
