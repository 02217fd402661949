package controlbus

// LiveQuery selects what a live tap shows. Empty fields select everything.
type LiveQuery struct {
	Env      string
	Broker   string
	Channels []string // names, or patterns with *; one of them must fit
	Word     string   // substring of body, message id, correlation id or a header value
	Failed   bool     // only what did not end well
	Form     LiveForm
}

// LiveForm is how a live tap writes a message.
type LiveForm uint8

// Forms: LiveRow is what a page shows, LiveEvent the values as they are.
const (
	LiveRow LiveForm = iota
	LiveEvent

	LiveForms = 2 // how many there are
)

// LiveReader is who opens a live tap, and from where.
type LiveReader struct {
	// User is whose cap it counts against; empty where people are not told
	// apart, then only the cap of all together holds.
	User string
	// Resume is the token of the last frame the reader has; empty for a reader
	// that begins.
	Resume string
}
