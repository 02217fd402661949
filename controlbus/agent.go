package controlbus

import "time"

// Agent is what an agent says of itself when it reports to the console.
type Agent struct {
	ID          string    `json:"id"`          // configured, stable across restarts
	Incarnation string    `json:"incarnation"` // new at every start
	Version     string    `json:"version"`
	Host        string    `json:"host"`
	Env         string    `json:"env"`
	StartedAt   time.Time `json:"started_at"`
	SentAt      time.Time `json:"sent_at"` // agent's clock, for the offset estimate

	Brokers []BrokerStatus `json:"brokers"`
	Taps    []TapStatus    `json:"taps"`
	Detours []DetourStatus `json:"detours,omitempty"` // pauses among them
	Spool   SpoolStatus    `json:"spool"`
	// Revision is that of the desired state the agent last applied.
	Revision int64 `json:"revision"`

	// Kind is the service.name of what is no signalbox-agent, such as
	// "otelcol-contrib": it shows its health here and takes no orders.
	Kind   string  `json:"kind,omitempty"`
	Health *Health `json:"health,omitempty"` // as OpAMP tells it
}

// Health is what a program says of itself over OpAMP.
type Health struct {
	Healthy bool   `json:"healthy"`
	Status  string `json:"status,omitempty"`
	Error   string `json:"error,omitempty"`
	// Components are its parts, by path, such as "pipeline:logs/receiver:otlp".
	Components []ComponentHealth `json:"components,omitempty"`
}

// ComponentHealth is one part's.
type ComponentHealth struct {
	Path    string `json:"path"`
	Healthy bool   `json:"healthy"`
	Status  string `json:"status,omitempty"`
	Error   string `json:"error,omitempty"`
}

// BrokerStatus is one broker connection of an agent.
type BrokerStatus struct {
	Name         string    `json:"name"`
	System       string    `json:"system"`
	Product      string    `json:"product"` // such as "RabbitMQ 3.10.8"
	Connected    bool      `json:"connected"`
	Since        time.Time `json:"since"` // of the present state
	Error        string    `json:"error,omitempty"`
	Capabilities []string  `json:"capabilities"` // such as "observe", "tap"
	Leftovers    []string  `json:"leftovers,omitempty"`
	// Abilities are the kinds of commands, each with the reason where it cannot be
	// carried out here.
	Abilities []Ability `json:"abilities,omitempty"`
}

// SpoolStatus is the agent's disk buffer towards the collector.
type SpoolStatus struct {
	Bytes    int64     `json:"bytes"`
	MaxBytes int64     `json:"max_bytes"`
	Records  int64     `json:"records"`           // waiting to be sent
	SentLast time.Time `json:"sent_last"`         // last acknowledged export
	Error    string    `json:"error,omitempty"`   // why export fails now
	Dropped  int64     `json:"dropped,omitempty"` // refused because the spool was full
}

// TapSpec asks for a wire tap. It comes from the agent's own configuration or
// from the console's desired state.
type TapSpec struct {
	ID       string     `json:"id" yaml:"id"`
	Broker   string     `json:"broker" yaml:"broker"`   // configured broker name
	Channel  string     `json:"channel" yaml:"channel"` // name, or a pattern with *
	Body     BodyPolicy `json:"body,omitzero" yaml:"body"`
	MaxBytes int64      `json:"max_bytes,omitempty" yaml:"max_bytes"` // body cap, 0 = the agent's default
	// Origin is "config" or "console".
	Origin string `json:"origin" yaml:"-"`
	Owner  string `json:"owner,omitempty" yaml:"-"`
	Reason string `json:"reason,omitempty" yaml:"-"`
	// Until ends the tap by itself; zero for taps of the configuration, which
	// last as long as it does.
	Until time.Time `json:"until,omitzero" yaml:"-"`
}

// TapState is where a tap stands.
type TapState string

// Tap states.
const (
	TapStarting TapState = "starting"
	TapRunning  TapState = "running"
	TapRefused  TapState = "refused" // the broker or the plan says no; Error tells why
	TapBroken   TapState = "broken"  // will be tried again
	TapEnded    TapState = "ended"
)

// TapStatus is one tap on one channel as the agent holds it.
type TapStatus struct {
	Spec      TapSpec   `json:"spec"`
	Channel   string    `json:"channel"` // the channel tapped, where Spec has a pattern
	State     TapState  `json:"state"`
	Technique string    `json:"technique"` // such as "mirrored-binding"
	Notes     []string  `json:"notes,omitempty"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"`
	Loss      Loss      `json:"loss"`
}

// Loss counts what a tap saw and what it missed, in three kinds that are
// never added up: they mean different things.
type Loss struct {
	Received        int64 `json:"received"`
	DroppedByAgent  int64 `json:"dropped_by_agent"`  // ring full
	DroppedByBroker int64 `json:"dropped_by_broker"` // limit, trimming, slow-consumer cut; -1 unknown
	// Blind is the time the tap was not attached: what passed then is unknown.
	Blind time.Duration `json:"blind_ns"`
	Gaps  int64         `json:"gaps"`
}

// Desired is the state the console wants an agent to be in. The agent applies
// it whole: what is not listed is not wanted.
type Desired struct {
	Revision int64     `json:"revision"`
	Taps     []TapSpec `json:"taps"`
}

// Presence says whether an agent is heard from.
type Presence string

// Presences. Silent means three reports were missed.
const (
	Online Presence = "online"
	Silent Presence = "silent"
)

// AgentView is an agent as the console knows it.
type AgentView struct {
	Agent
	Presence    Presence
	LastSeen    time.Time     // console's clock
	ClockOffset time.Duration // agent's clock minus console's, estimated
	Desired     Desired       // what the console wants of it
	// Rival is the incarnation of another live process that reports under the
	// same id: two agents with one configuration. Empty when all is well.
	Rival string
}
