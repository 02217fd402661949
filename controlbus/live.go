package controlbus

// LiveQuery selects what a live tap shows. Empty fields select everything.
type LiveQuery struct {
	Env     string
	Broker  string
	Channel string // name, or a pattern with *
	Word    string // substring of body, message id, correlation id or a header value
	Failed  bool   // only what did not end well
}

// LiveFrame is what a live tap sends at once, every 100 to 250 ms. Counts are
// those since the frame before.
type LiveFrame struct {
	// Events, oldest first. They belong to the receiver; bodies are cut to the
	// hub's preview size with BodySize kept.
	Events  []*MessageEvent
	Matched int64 // events that matched the query
	Sampled int64 // of those, left out by the rate limit ("1 of n")
	Dropped int64 // of those, dropped because this reader was too slow
}
