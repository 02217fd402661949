package action

import (
	"fmt"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// fetched is a stored message as an agent gets it, to send it again. One that is
// not whole is given with its mark: whoever sends leaves it out, and says why.
type fetched struct {
	UID             string      `json:"uid"`
	Env             string      `json:"env"`
	Broker          string      `json:"broker"`
	Channel         string      `json:"channel"`
	Time            int64       `json:"time_ns"`
	MessageID       string      `json:"message_id,omitempty"`
	CorrelationID   string      `json:"correlation_id,omitempty"`
	ReplyTo         string      `json:"reply_to,omitempty"`
	Key             string      `json:"key,omitempty"`
	ContentType     string      `json:"content_type,omitempty"`
	ContentEncoding string      `json:"content_encoding,omitempty"`
	Headers         [][2]string `json:"headers,omitempty"`
	Body            []byte      `json:"body,omitempty"` // base64
	BodySize        int64       `json:"body_size"`      // as it was
	BodyStored      bool        `json:"body_stored"`
	BodyPolicy      string      `json:"body_policy,omitempty"`
	Truncated       bool        `json:"truncated,omitempty"`
	Redacted        []string    `json:"redacted,omitempty"` // names of the rules
}

// whole says why a message cannot be sent again as it was; empty: it can.
func (f *fetched) whole() string {
	switch {
	case f.Truncated:
		return fmt.Sprintf("its body was cut when it was stored: %d of %d bytes", len(f.Body), f.BodySize)
	case len(f.Redacted) > 0:
		return "redaction changed it before it was stored: " + strings.Join(f.Redacted, ", ")
	case f.BodyPolicy != "" && f.BodyPolicy != controlbus.BodyFull.String():
		return "it was stored without its body: policy " + f.BodyPolicy
	case !f.BodyStored && f.BodySize > 0:
		return "its body is not stored any more"
	}
	return ""
}

// fetchedPage is one page of the messages that a command sends, oldest first.
type fetchedPage struct {
	Messages []fetched
	Next     string
	End      bool
}
