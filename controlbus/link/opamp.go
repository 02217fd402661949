package link

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// OpAMPPath is where agents and collectors connect, by WebSocket (GET) or, in
// the degraded mode, by polling (POST).
const OpAMPPath = "/v1/opamp"

// Capability names the command protocol among OpAMP's custom capabilities. A
// change that an older side cannot ignore gets another number.
const Capability = "io.signalbox.command/v1"

// Limits of a connection.
const (
	MaxIn  = 4 << 20 // what the console reads in one message
	MaxOut = 1 << 20 // what it writes in one
)

// Times of a connection. Both sides ping, so that either notices when the other
// is not heard any more.
const (
	pingEvery   = 20 * time.Second
	pongWithin  = 50 * time.Second
	writeWithin = 10 * time.Second
	// PollEvery is how often an agent asks where it cannot hold a WebSocket.
	PollEvery = 5 * time.Second
	pollLife  = 90 * time.Second // of a session nobody polls
)

// agentService is our agents' service.name.
const agentService = "signalbox-agent"

// marshal writes an OpAMP message as it travels in a WebSocket frame: a zero
// varint, then the protobuf.
func marshal(m proto.Message, most int) ([]byte, error) {
	b, err := proto.MarshalOptions{}.MarshalAppend([]byte{0}, m)
	if err != nil {
		return nil, fmt.Errorf("link: encode: %w", err)
	}
	if len(b) > most {
		return nil, fmt.Errorf("link: encode: %w: message of %d bytes, at most %d", controlbus.ErrTooLarge, len(b), most)
	}
	return b, nil
}

// unmarshal reads a WebSocket frame. Errors are controlbus.ErrInvalid.
func unmarshal(b []byte, m proto.Message) error {
	header, n := binary.Uvarint(b)
	if n <= 0 || header != 0 {
		return fmt.Errorf("link: %w: a message begins with the header 0", controlbus.ErrInvalid)
	}
	if err := proto.Unmarshal(b[n:], m); err != nil {
		return fmt.Errorf("link: %w: not an OpAMP message", controlbus.ErrInvalid)
	}
	return nil
}

func customMessage(f Frame) (*protobufs.CustomMessage, error) {
	data, err := encode(f)
	if err != nil {
		return nil, err
	}
	return &protobufs.CustomMessage{Capability: Capability, Type: f.name(), Data: data}, nil
}

func badRequest(why string) *protobufs.ServerToAgent {
	return &protobufs.ServerToAgent{ErrorResponse: &protobufs.ServerErrorResponse{
		Type: protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, ErrorMessage: why,
	}}
}

func attribute(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: key, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}}}
}

// describe is an agent in OpAMP's words.
func describe(a controlbus.Agent) *protobufs.AgentDescription {
	return &protobufs.AgentDescription{
		IdentifyingAttributes: []*protobufs.KeyValue{
			attribute(controlbus.AttrServiceName, agentService), attribute(controlbus.AttrServiceInstance, a.ID), attribute(controlbus.AttrServiceVersion, a.Version),
		},
		NonIdentifyingAttributes: []*protobufs.KeyValue{attribute(controlbus.AttrHostName, a.Host), attribute(controlbus.AttrEnvironment, a.Env)},
	}
}

// healthOf tells an agent's report as OpAMP's component health.
func healthOf(a controlbus.Agent) *protobufs.ComponentHealth {
	nano := func(t time.Time) uint64 {
		if t.IsZero() {
			return 0
		}
		return uint64(max(t.UnixNano(), 0))
	}
	h := &protobufs.ComponentHealth{Healthy: true, Status: "running", StartTimeUnixNano: nano(a.StartedAt), StatusTimeUnixNano: nano(a.SentAt), ComponentHealthMap: map[string]*protobufs.ComponentHealth{}}
	part := func(name string, healthy bool, status, err string) {
		h.ComponentHealthMap[name] = &protobufs.ComponentHealth{Healthy: healthy, Status: status, LastError: err, StartTimeUnixNano: h.StartTimeUnixNano, StatusTimeUnixNano: h.StatusTimeUnixNano}
		if !healthy && h.Healthy {
			h.Healthy, h.Status, h.LastError = false, "degraded", name+": "+err
		}
	}
	for _, b := range a.Brokers {
		status := "connected"
		if !b.Connected {
			status = "not connected"
		}
		part("broker/"+b.Name, b.Connected && b.Error == "", status, b.Error)
	}
	for _, t := range a.Taps {
		if len(h.ComponentHealthMap) < 200 {
			part("tap/"+t.Spec.Broker+"/"+t.Channel, t.State != controlbus.TapBroken, string(t.State), t.Error)
		}
	}
	part("spool", a.Spool.Error == "", "", a.Spool.Error)
	return h
}

// about reads what a program says of itself into an agent. Strangers wrote it:
// every text is cut.
func about(a *controlbus.Agent, d *protobufs.AgentDescription) {
	for _, kv := range append(slices.Clone(d.GetIdentifyingAttributes()), d.GetNonIdentifyingAttributes()...) {
		v := short(text(kv.GetValue()))
		switch kv.GetKey() {
		case controlbus.AttrServiceName:
			a.Kind = v
		case controlbus.AttrServiceInstance:
			a.ID = v
		case controlbus.AttrServiceVersion:
			a.Version = v
		case controlbus.AttrHostName:
			a.Host = v
		case controlbus.AttrEnvironment, "deployment.environment":
			a.Env = v
		}
	}
}

func text(v *protobufs.AnyValue) string {
	switch x := v.GetValue().(type) {
	case *protobufs.AnyValue_StringValue:
		return x.StringValue
	case *protobufs.AnyValue_IntValue:
		return strconv.FormatInt(x.IntValue, 10)
	case *protobufs.AnyValue_BoolValue:
		return strconv.FormatBool(x.BoolValue)
	}
	return ""
}

func short(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most]
	}
	return string([]rune(s)) // valid, with U+FFFD for what was not
}

const (
	maxComponents = 200
	maxDepth      = 8
)

// readHealth reads a component tree, flattened and bounded.
func readHealth(a *controlbus.Agent, h *protobufs.ComponentHealth) {
	out := &controlbus.Health{Healthy: h.GetHealthy(), Status: short(h.GetStatus()), Error: short(h.GetLastError())}
	var walk func(prefix string, depth int, m map[string]*protobufs.ComponentHealth)
	walk = func(prefix string, depth int, m map[string]*protobufs.ComponentHealth) {
		names := make([]string, 0, len(m))
		for name := range m {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if len(out.Components) >= maxComponents {
				return
			}
			c := m[name]
			path := short(prefix + name)
			out.Components = append(out.Components, controlbus.ComponentHealth{Path: path, Healthy: c.GetHealthy(), Status: short(c.GetStatus()), Error: short(c.GetLastError())})
			if depth < maxDepth {
				walk(path+"/", depth+1, c.GetComponentHealthMap())
			}
		}
	}
	walk("", 1, h.GetComponentHealthMap())
	a.Health = out
	if n := h.GetStartTimeUnixNano(); n > 0 && n < math.MaxInt64 {
		a.StartedAt = time.Unix(0, int64(n)).UTC()
	}
}
