package probe

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// Probe is a test message on a schedule.
type Probe struct {
	ID    string           `json:"id"`
	Name  string           `json:"name"`
	Owner controlbus.Actor `json:"owner"`

	In controlbus.ChannelName `json:"in"`
	// Out is where the message, or what became of it, is to arrive; without a name
	// the broker's confirmation is all that is wanted.
	Out controlbus.ChannelName `json:"out,omitzero"`
	// Every is the time between two runs; 0 runs by hand alone.
	Every time.Duration `json:"every_ns"`
	// Deadline is how long the message may take to arrive.
	Deadline time.Duration `json:"deadline_ns"`

	ContentType string            `json:"content_type,omitempty"`
	Body        string            `json:"body"`
	Headers     map[string]string `json:"headers,omitempty"`
	Key         string            `json:"key,omitempty"`
	Separate    bool              `json:"separate,omitempty"` // kept from business consumers
	// Expect is a filter that what arrives must match; empty: anything does.
	Expect string `json:"expect,omitempty"`

	Paused    bool      `json:"paused,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// Bounds of a probe.
const (
	MinEvery        = 10 * time.Second
	MaxEvery        = 24 * time.Hour
	MinDeadline     = 100 * time.Millisecond
	MaxDeadline     = 10 * time.Minute
	DefaultDeadline = 10 * time.Second
	MaxBody         = 32 << 10 // with everything else, within a command's arguments
	MaxProbes       = 200
	KeptRuns        = 5000 // of each probe
)

var headerName = regexp.MustCompile(`^[!-9;-~]{1,120}$`) // printable, no colon, no blank

// Check says what is wrong with a probe. Errors are controlbus.ErrInvalid and
// name the field.
func (p *Probe) Check() error {
	wrong := func(format string, a ...any) error {
		return fmt.Errorf("%w: probe: %s", controlbus.ErrInvalid, fmt.Sprintf(format, a...))
	}
	if p.Deadline == 0 {
		p.Deadline = DefaultDeadline
	}
	p.Name = strings.TrimSpace(p.Name)
	switch {
	case p.Name == "" || len(p.Name) > 80:
		return wrong("name: want 1 to 80 bytes")
	case p.In.Broker == "" || p.In.Name == "":
		return wrong("input: want a broker and a channel")
	case (p.Out.Broker == "") != (p.Out.Name == ""):
		return wrong("output: want both a broker and a channel, or neither")
	case p.Every != 0 && (p.Every < MinEvery || p.Every > MaxEvery):
		return wrong("every: %v: want %v to %v, or 0 for by hand", p.Every, MinEvery, MaxEvery)
	case p.Deadline < MinDeadline || p.Deadline > MaxDeadline:
		return wrong("deadline: %v: want %v to %v", p.Deadline, MinDeadline, MaxDeadline)
	case p.Every != 0 && p.Deadline > p.Every:
		return wrong("deadline: %v: want no more than the %v between two runs", p.Deadline, p.Every)
	case len(p.Body) > MaxBody:
		return wrong("body of %d bytes: at most %d", len(p.Body), MaxBody)
	case len(p.Headers) > 50:
		return wrong("%d headers: at most 50", len(p.Headers))
	case len(p.Key) > 255 || len(p.ContentType) > 255:
		return wrong("key and content type: at most 255 bytes")
	case p.Expect != "" && p.Out.Name == "":
		return wrong("expect: without an output nothing arrives")
	}
	for k, v := range p.Headers {
		if !headerName.MatchString(k) || len(v) > 1024 || strings.ContainsAny(v, "\r\n\x00") {
			return wrong("header %.40q: want a name of printable characters and one line of at most 1024 bytes", k)
		}
		if strings.HasPrefix(strings.ToLower(k), "sb-") {
			return wrong("header %.40q: names that begin with sb- are Signalbox's own", k)
		}
	}
	if _, err := filter.Parse(p.Expect, time.Now()); err != nil {
		return fmt.Errorf("probe: expect: %w", err)
	}
	return nil
}

// Outcome of a run. The texts are stored.
type Outcome string

// Outcomes.
const (
	Passed Outcome = "passed"
	Late   Outcome = "late"  // arrived after the deadline
	Lost   Outcome = "lost"  // not seen at all
	Wrong  Outcome = "wrong" // what arrived is not what was expected
	Unsent Outcome = "unsent"
	// Unknown: the console was stopped, or did not hear of the sending, in between.
	Unknown Outcome = "unknown"
)

// Run is one test message and what became of it.
type Run struct {
	ID      string               `json:"id"` // the mark of the message
	Probe   string               `json:"probe,omitempty"`
	Command controlbus.CommandID `json:"command,omitempty"`
	At      time.Time            `json:"at"` // console's clock
	Outcome Outcome              `json:"outcome"`
	// Latency is from the sending to the arrival at the output, by the agents'
	// clocks with their offsets taken out; without an output to the broker's
	// confirmation. 0 where it did not arrive.
	Latency time.Duration `json:"latency_ns"`
	Detail  string        `json:"detail,omitempty"`
	Sent    string        `json:"sent_uid,omitempty"`    // of the message as seen at the input
	Arrived string        `json:"arrived_uid,omitempty"` // as seen at the output
}

// Summary is a probe's recent history.
type Summary struct {
	Runs, Passed int
	P50, P95     time.Duration // of those that arrived
	Last         *Run
}
