package controlbus

// LiveQuery selects what a live tap shows. Env, Channels and Filter select
// everything when empty; Scope and Bodies allow nothing when nobody has set them.
type LiveQuery struct {
	Env      string
	Channels []string // names, or patterns with *; one of them must fit
	Filter   string   // text of package filter
	Form     LiveForm

	Scope  Scope // what the reader may see
	Bodies Scope // where the reader may see payloads, and ask for what is in them
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
